"""Every scalar operation, on every type it takes, at every vector width, against NumPy."""

import numpy as np
import pytest
from loop_harness import check, machines, run_native

from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.indices import variable
from mapsto.lowering.llvm.scalar_lowering import LOWERINGS
from mapsto.lowering.loop_interpreter import EVALUATIONS
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    For,
    IndexValue,
    LoopFunction,
    LoopKind,
    apply,
    bitcast,
    cast,
)
from mapsto.lowering.scalar_operations import OPERATIONS, REDUCTIONS, check_operands, identity

F32 = DType.F32
TYPES = (
    DType.BOOL,
    DType.I8,
    DType.U8,
    DType.I16,
    DType.I32,
    DType.U32,
    DType.I64,
    DType.F16,
    DType.F32,
    DType.F64,
)
LENGTH = 149
SPECIAL = {"f": [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, -0.5, 2.5, 1e-30, 3e9]}


def values(generator: np.random.Generator, dtype: DType, length: int = LENGTH) -> np.ndarray:
    if dtype is DType.BOOL:
        return generator.integers(0, 2, length).astype(bool)
    if dtype.is_float:
        array = (generator.normal(size=length) * 3).astype(dtype.numpy)
        with np.errstate(over="ignore"):
            special = np.asarray(SPECIAL["f"], dtype.numpy)
        positions = generator.permutation(length)[: len(special)]
        array[positions] = special
        return array
    info = np.iinfo(dtype.numpy)
    array = generator.integers(-20 if dtype.is_signed else 0, 20, length).astype(dtype.numpy)
    extremes = [info.min, info.max, 0, 1, info.max - 1] + ([-1] if dtype.is_signed else [])
    positions = generator.permutation(length)[: 3 * len(extremes)]
    array[positions] = np.asarray(extremes * 3, dtype.numpy)
    return array


def kernel(value: Expression, inputs: tuple[Buffer, ...]) -> LoopFunction:
    result = Buffer("result", value.type, (LENGTH,))
    loop = For("i", 0, LENGTH, (result.store(("i",), value),), LoopKind.VECTOR)
    return LoopFunction("kernel", (*inputs, result), (), (loop,))


def accepted(op: str) -> list[DType]:
    row = OPERATIONS[op]
    found = []
    for dtype in TYPES:
        operands = [dtype] * row.arity
        if op == "select":
            operands[0] = DType.BOOL
        try:
            check_operands(op, tuple(operands))
        except TypeError:
            continue
        found.append(dtype)
    return found


CASES = [
    (op, dtype) for op in OPERATIONS if op not in ("cast", "bitcast") for dtype in accepted(op)
]


def test_every_operation_has_a_meaning_and_a_lowering() -> None:
    apart = {"cast", "bitcast"}
    assert EVALUATIONS.keys() == OPERATIONS.keys() - apart
    assert LOWERINGS.keys() == OPERATIONS.keys() - apart


@pytest.mark.parametrize(("op", "dtype"), CASES, ids=lambda value: str(value))
def test_operation(op: str, dtype: DType) -> None:
    generator = np.random.default_rng(1)
    types = [dtype] * OPERATIONS[op].arity
    if op == "select":
        types[0] = DType.BOOL
    inputs = tuple(
        Buffer(f"x{number}", type, (LENGTH,), readonly=True) for number, type in enumerate(types)
    )
    arrays = {buffer.name: values(generator, buffer.dtype) for buffer in inputs}
    function = kernel(apply(op, *(buffer["i"] for buffer in inputs)), inputs)
    result = function.buffers[-1]
    arrays[result.name] = np.zeros(LENGTH, result.dtype.numpy)
    tolerance = {DType.F16: 2e-3, DType.F32: 1e-5}.get(dtype, 1e-12)
    check(function, arrays, rtol=tolerance, atol=tolerance * 1e-3)


@pytest.mark.parametrize("source", TYPES, ids=str)
def test_casts(source: DType) -> None:
    generator = np.random.default_rng(2)
    x = Buffer("x", source, (LENGTH,), readonly=True)
    results = [Buffer(f"to_{target}", target, (LENGTH,)) for target in TYPES]
    loops = tuple(
        For("i", 0, LENGTH, (result.store(("i",), cast(x["i"], result.dtype)),), LoopKind.VECTOR)
        for result in results
    )
    function = LoopFunction("casts", (x, *results), (), loops)
    arrays = {"x": values(generator, source)}
    arrays |= {result.name: np.zeros(LENGTH, result.dtype.numpy) for result in results}
    check(function, arrays)


def test_bitcast() -> None:
    generator = np.random.default_rng(3)
    x = Buffer("x", DType.F32, (LENGTH,), readonly=True)
    function = kernel(bitcast(x["i"], DType.U32), (x,))
    check(function, {"x": values(generator, DType.F32), "result": np.zeros(LENGTH, np.uint32)})
    with pytest.raises(TypeError, match="widths differ"):
        bitcast(x["i"], DType.F64)


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16], ids=str)
def test_every_16_bit_float_is_converted_exactly(dtype: DType) -> None:
    """All 65,536 bit patterns to f32 and back, and f32 values between neighbours."""
    bits = np.arange(1 << 16, dtype=np.int16)
    single = np.zeros(1 << 16, np.float32)
    if dtype is DType.F16:
        wide = bits.view(np.float16).astype(np.float32)
    else:
        wide = (bits.astype(np.uint16).astype(np.uint32) << 16).view(np.float32)
    finite = np.isfinite(wide)
    x, y = Buffer("x", DType.I16, (1 << 16,)), Buffer("y", F32, (1 << 16,))
    z = Buffer("z", DType.I16, (1 << 16,))
    widen = y.store(("i",), cast(bitcast(x["i"], dtype), F32))
    narrow = z.store(("i",), bitcast(cast(y["i"], dtype), DType.I16))
    loop = For("i", 0, 1 << 16, (widen, narrow), LoopKind.VECTOR)
    function = LoopFunction("convert", (x, y, z), (), (loop,))
    for machine in machines():
        arrays = {"x": bits, "y": single.copy(), "z": np.zeros_like(bits)}
        run_native(function, arrays, {}, machine)
        np.testing.assert_array_equal(arrays["y"], wide)
        np.testing.assert_array_equal(arrays["z"][finite], bits[finite])
        assert np.isnan(wide).sum() == (~finite).sum() - 2


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F16], ids=str)
def test_rounding_to_16_bit_floats(dtype: DType) -> None:
    """To nearest, ties to even: against NumPy for f16, against twice as wide integers for bf16."""
    generator = np.random.default_rng(5)
    values = generator.integers(0, 1 << 32, 1 << 15, np.uint32).view(np.float32)
    ties = (generator.integers(0, 1 << 16, 1 << 12, np.uint32) << 16 | 0x8000).view(np.float32)
    near = np.ldexp(
        1 + generator.integers(0, 4096, 1 << 13) / 4096, generator.integers(-26, 17, 1 << 13)
    )
    x_values = np.concatenate([values, ties, near.astype(np.float32)])
    length = len(x_values)
    x, z = Buffer("x", F32, (length,)), Buffer("z", DType.I16, (length,))
    store = z.store(("i",), bitcast(cast(x["i"], dtype), DType.I16))
    function = LoopFunction("round", (x, z), (), (For("i", 0, length, (store,), LoopKind.VECTOR),))
    bits = x_values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    with np.errstate(over="ignore"):
        half = x_values.astype(np.float16).view(np.int16)
    expected = half if dtype is DType.F16 else rounded.astype(np.uint16).view(np.int16)
    numbers = ~np.isnan(x_values)
    for machine in machines():
        arrays = {"x": x_values, "z": np.zeros(length, np.int16)}
        run_native(function, arrays, {}, machine)
        np.testing.assert_array_equal(arrays["z"][numbers], expected[numbers])


@pytest.mark.parametrize("dtype", [DType.I8, DType.I32, DType.U32, DType.I64, DType.F32, DType.F64])
def test_index_as_value(dtype: DType) -> None:
    function = kernel(IndexValue(variable("i") * 3 - 7, dtype), ())
    check(function, {"result": np.zeros(LENGTH, dtype.numpy)})
    function = kernel(IndexValue(variable("i") // 3 % 5, dtype), ())
    check(function, {"result": np.zeros(LENGTH, dtype.numpy)})


def test_identities_change_nothing() -> None:
    for op in REDUCTIONS:
        for dtype in accepted(op):
            array = values(np.random.default_rng(4), dtype)
            start = np.asarray(identity(op, dtype)).astype(dtype.numpy)
            with np.errstate(all="ignore"):
                combined = [EVALUATIONS[op](start[()], element) for element in array]
            np.testing.assert_array_equal(np.asarray(combined, dtype.numpy), array)


def test_wrong_operands_are_named() -> None:
    with pytest.raises(TypeError, match="unknown scalar operation `frobnicate`"):
        check_operands("frobnicate", (DType.F32,))
    with pytest.raises(TypeError, match="takes 2 operands, not 1"):
        check_operands("add", (DType.F32,))
    with pytest.raises(TypeError, match="one type, not f32, f64"):
        check_operands("add", (DType.F32, DType.F64))
    with pytest.raises(TypeError, match="`exp` takes a float, not i32"):
        check_operands("exp", (DType.I32,))
    with pytest.raises(TypeError, match="condition of `select` is a bool"):
        check_operands("select", (DType.I32, DType.F32, DType.F32))


def test_widths_are_tested() -> None:
    widths = {machine.vector_bits for machine in machines()}
    assert widths == {bits for bits in (128, 256, 512) if bits <= Machine.host().vector_bits}
