"""Generated loop functions: native code agrees with the interpreter at every vector width."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loop_harness import check, random_array

from mapsto.ir.dims import symbol
from mapsto.ir.types import DType
from mapsto.lowering.indices import Index, maximum, minimum, size, variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoopFunction,
    LoopKind,
    Reduce,
    Ref,
    Space,
    Statement,
    all_of,
    apply,
    cast,
    compare,
    constant,
    select,
    within,
)

TYPES = (DType.F32, DType.F64, DType.I32, DType.I64, DType.U8, DType.BOOL)
N, ROWS = size("n"), 3
I, J = variable("i"), variable("j")  # noqa: E741
EXTENT = symbol("n")


def buffer(name: str, dtype: DType) -> Buffer:
    return Buffer(f"{name}_{dtype}", dtype, (ROWS, EXTENT))


INPUTS = {dtype: buffer("x", dtype) for dtype in TYPES}
OUTPUTS = {dtype: buffer("y", dtype) for dtype in TYPES}


@st.composite
def columns(draw: st.DrawFn) -> Index:
    """An index along the rows: mostly affine in the loop's variable."""
    shift = draw(st.integers(-3, 3))
    affine = [J, J, J, J + shift, J * 2 + shift, N - 1 - J, I, J * 3 - N]
    others = [N // 2, (J + shift) // 2, J % 3, minimum(J + 1, N - 1), maximum(J - 2, 0)]
    return draw(st.sampled_from(affine + others))


@st.composite
def conditions(draw: st.DrawFn) -> Expression:
    """A comparison of indices, or of elements."""
    op = draw(st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]))
    if draw(st.booleans()):
        return compare(op, draw(columns()), draw(columns()))
    dtype = draw(st.sampled_from(TYPES))
    return apply(op, draw(expressions(dtype, 1)), draw(expressions(dtype, 1)))


@st.composite
def loads(draw: st.DrawFn, dtype: DType) -> Expression:
    """A load whose guard keeps it inside."""
    index = draw(columns())
    guard = within(index, N)
    if draw(st.booleans()):
        guard = apply("and", guard, draw(conditions()))
    otherwise = draw(st.sampled_from([0, 1]))
    return Load(INPUTS[dtype], (I, index), guard, otherwise)


@st.composite
def expressions(draw: st.DrawFn, dtype: DType, depth: int = 3) -> Expression:
    """An expression of a type, of exactly rounded operations only."""
    kind = draw(
        st.sampled_from(["load", "load", "constant", "index", "op", "op", "cast", "select"])
    )
    if kind == "constant" or (depth == 0 and kind in ("op", "cast", "select")):
        return constant(draw(st.integers(0, 3)), dtype)
    if kind == "load":
        return draw(loads(dtype))
    if kind == "index":
        return cast(IndexValue(draw(columns()), DType.I32), dtype)
    if kind == "cast":
        source = draw(st.sampled_from(TYPES))
        return cast(draw(expressions(source, depth - 1)), dtype)
    a, b = draw(expressions(dtype, depth - 1)), draw(expressions(dtype, depth - 1))
    if kind == "select":
        return select(draw(conditions()), a, b)
    names = ["and", "or"] if dtype is DType.BOOL else ["add", "sub", "min", "max"]
    names += ["div", "mod", "xor"] if dtype.is_integer else []
    return apply(draw(st.sampled_from(names)), a, b)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[Statement, ...]:
    """What a vector loop does for one element of each output."""
    statements: list[Statement] = []
    dtypes = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True))
    for dtype in dtypes:
        value = draw(expressions(dtype))
        statements.append(Let(f"v_{dtype}", value))
        guard = draw(st.one_of(st.none(), conditions()))
        store = OUTPUTS[dtype].store(("i", "j"), Ref(f"v_{dtype}", dtype), guard)
        branch = draw(st.booleans())
        statements.append(If(draw(conditions()), (store,)) if branch else store)
    return tuple(statements)


@st.composite
def functions(draw: st.DrawFn) -> LoopFunction:
    """Rows of vector loops, serial or as tasks; a sum or an extremum of each row."""
    total_type = draw(st.sampled_from([DType.F64, DType.I32, DType.I64]))
    op = draw(st.sampled_from(["add", "min", "max"]))
    total = Buffer("total", total_type, (), Space.REGISTER)
    sums = Buffer("sums", total_type, (ROWS,))
    reduction = Reduce(
        op, total, (), draw(expressions(total_type)), draw(st.one_of(st.none(), conditions()))
    )
    unroll = draw(st.integers(0, 3))
    row = (
        Allocate(total),
        total.store((), constant(1, total_type)),
        For("j", 0, N, (*draw(bodies()), reduction), LoopKind.VECTOR, unroll=unroll),
        sums.store(("i",), total[()]),
    )
    kind = draw(st.sampled_from([LoopKind.SERIAL, LoopKind.PARALLEL, LoopKind.UNROLL]))
    buffers = (*INPUTS.values(), *OUTPUTS.values(), sums)
    return LoopFunction("generated", buffers, ("n",), (For("i", 0, ROWS, row, kind),))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(functions(), st.integers(0, 40), st.integers(0, 10))
def test_native_code_agrees_with_the_interpreter(
    function: LoopFunction, length: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    arrays = {
        buffer.name: random_array(
            generator, buffer.dtype, (ROWS, length) if len(buffer.shape) == 2 else (ROWS,)
        )
        for buffer in function.buffers
    }
    check(function, arrays, {"n": length}, rtol=1e-6, atol=1e-6)


def test_guards_of_generated_programs_combine() -> None:
    assert all_of(None, None) is None
    condition = compare("lt", "i", N)
    assert all_of(None, condition) == condition
