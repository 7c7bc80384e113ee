"""Native code of loop functions against the interpreter, at every vector width of this machine.

The arrays end where memory becomes inaccessible, so a read past the end of one faults.
"""

import numpy as np
import pytest
from loop_harness import check, machines, module_text, random_array

from mapsto.ir.dims import Dim, symbol
from mapsto.ir.types import DType
from mapsto.lowering.indices import size, value_of, variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Comment,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoopFunction,
    LoopKind,
    Prefetch,
    Reduce,
    Ref,
    Space,
    Store,
    all_of,
    apply,
    cast,
    compare,
    constant,
    fma,
    within,
)
from mapsto.lowering.scalar_operations import identity

F32 = DType.F32
SERIAL, UNROLL, VECTOR, PARALLEL = (
    LoopKind.SERIAL,
    LoopKind.UNROLL,
    LoopKind.VECTOR,
    LoopKind.PARALLEL,
)
M, N = size("m"), size("n")
DIM_M, DIM_N = symbol("m"), symbol("n")
I, J = variable("i"), variable("j")  # noqa: E741
TAILS = [0, 1, 2, 3, 5, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 129]
MATRICES = [(3, 0), (1, 1), (3, 5), (2, 16), (3, 17), (5, 33), (2, 100)]


def array(*shape: int, dtype: DType = F32, seed: int = 0) -> np.ndarray:
    return random_array(np.random.default_rng(seed), dtype, shape)


def vector(name: str, dtype: DType = F32, extent: Dim = DIM_N) -> Buffer:
    return Buffer(name, dtype, (extent,))


def register(name: str, *shape: int, dtype: DType = F32) -> Buffer:
    return Buffer(name, dtype, shape, Space.REGISTER)


def f32(value: float) -> Expression:
    return constant(value, F32)


X, Y = vector("x"), vector("y")
A, B = Buffer("a", F32, (DIM_M, DIM_N)), Buffer("b", F32, (DIM_M, DIM_N))
ACC = register("acc")


@pytest.mark.parametrize("length", range(70))
def test_every_tail(length: int) -> None:
    loop = For("i", 0, N, (Y.store(("i",), fma(X["i"], f32(2), Y["i"])),), VECTOR)
    function = LoopFunction("axpy", (X, Y), ("n",), (loop,))
    check(function, {"x": array(length), "y": array(length, seed=1)}, {"n": length})


@pytest.mark.parametrize("length", range(40))
def test_every_static_tail(length: int) -> None:
    x, y = vector("x", extent=length + 3), vector("y", extent=length + 3)
    loop = For("i", 3, length + 3, (y.store(("i",), x[I] - x[I - 3]),), VECTOR)
    function = LoopFunction("difference", (x, y), (), (loop,))
    check(function, {"x": array(length + 3), "y": array(length + 3)})


@pytest.mark.parametrize("stride", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [F32, DType.F64, DType.U8], ids=str)
def test_strides_read_nothing_that_is_masked(stride: int, dtype: DType) -> None:
    """Where a tail or a guard leaves lanes out, what lies between the others is not read."""
    first = compare("ge", I, 2)
    for length in (0, 1, 5, 8, 13, 31):
        x = vector("x", dtype, extent=max(0, length - 1) * stride + 1)
        y = vector("y", dtype, extent=length)
        value = Load(x, (I * stride,), first, 7)
        loop = For("i", 0, length, (y.store(("i",), value),), VECTOR)
        function = LoopFunction("strided", (x, y), (), (loop,))
        arrays = {"x": array(*x.shape, dtype=dtype), "y": array(length, dtype=dtype)}
        check(function, arrays)


REDUCTIONS = [
    (op, dtype)
    for op in ("add", "mul", "min", "max")
    for dtype in (DType.F32, DType.F64, DType.I32, DType.I64, DType.U8)
] + [("and", DType.BOOL), ("or", DType.BOOL), ("and", DType.U32), ("or", DType.I64)]


@pytest.mark.parametrize(("op", "dtype"), REDUCTIONS, ids=str)
def test_reductions(op: str, dtype: DType) -> None:
    x, y, acc = vector("x", dtype), Buffer("y", dtype), register("acc", dtype=dtype)
    function = LoopFunction(
        "reduce",
        (x, y),
        ("n",),
        (
            Allocate(acc),
            acc.store((), constant(identity(op, dtype), dtype)),
            For("i", 0, N, (Reduce(op, acc, (), x["i"]),), VECTOR),
            y.store((), acc[()]),
        ),
    )
    for length in TAILS:
        arrays = {"x": array(length, dtype=dtype), "y": np.zeros((), dtype.numpy)}
        check(function, arrays, {"n": length}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("unroll", [1, 2, 3, 4])
def test_reduction_into_several_registers(unroll: int) -> None:
    rows = 3
    acc = register("acc", rows)
    y = Buffer("y", F32, (rows,))
    body = For("r", 0, rows, (Reduce("add", acc, (variable("r"),), A["r", "i"]),), UNROLL)
    function = LoopFunction(
        "rows",
        (A, y),
        ("m", "n"),
        (
            Allocate(acc),
            For("r", 0, rows, (acc.store(("r",), f32(1)),), UNROLL),
            For("i", 0, N, (body,), VECTOR, unroll=unroll),
            For("r", 0, rows, (y.store(("r",), acc["r"]),), UNROLL),
        ),
    )
    for length in TAILS:
        arrays = {"a": array(rows, length), "y": np.zeros(rows, np.float32)}
        check(function, arrays, {"m": rows, "n": length}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [SERIAL, PARALLEL])
def test_softmax(kind: LoopKind) -> None:
    top = register("top")
    e = apply("exp", A["i", "j"] - Ref("t", F32))
    body = (
        Allocate(top),
        top.store((), f32(-np.inf)),
        For("j", 0, N, (Reduce("max", top, (), A["i", "j"]),), VECTOR),
        Let("t", top[()]),
        Allocate(ACC),
        ACC.store((), f32(0)),
        For(
            "j",
            0,
            N,
            (
                Let("e", e),
                B.store(("i", "j"), Ref("e", F32)),
                Reduce("add", ACC, (), Ref("e", F32)),
            ),
            VECTOR,
        ),
        Let("r", f32(1) / ACC[()]),
        For("j", 0, N, (B.store(("i", "j"), B["i", "j"] * Ref("r", F32)),), VECTOR),
    )
    function = LoopFunction("softmax", (A, B), ("m", "n"), (For("i", 0, M, body, kind),))
    for m, n in MATRICES:
        check(function, {"a": array(m, n), "b": array(m, n)}, {"m": m, "n": n}, rtol=1e-5)


def test_outer_loop_vectorization() -> None:
    body = (
        Allocate(ACC),
        ACC.store((), f32(0)),
        For("i", 0, M, (Reduce("add", ACC, (), A["i", "j"]),)),
        Y.store(("j",), ACC[()]),
    )
    function = LoopFunction("columns", (A, Y), ("m", "n"), (For("j", 0, N, body, VECTOR),))
    for m, n in MATRICES:
        check(function, {"a": array(m, n), "y": array(n)}, {"m": m, "n": n}, rtol=1e-5)


def test_gather_of_rows_and_of_elements() -> None:
    ids, table = vector("ids", DType.I64), Buffer("table", F32, (10, DIM_M))
    out = Buffer("out", F32, (DIM_N, DIM_M))
    rows = For(
        "i",
        0,
        N,
        (
            Let("r", ids["i"]),
            For(
                "j",
                0,
                M,
                (out.store(("i", "j"), table[value_of(Ref("r", DType.I64)), "j"]),),
                VECTOR,
            ),
        ),
        PARALLEL,
    )
    elements = For("i", 0, N, (out.store(("i", 0), table[value_of(ids["i"]), 0]),), VECTOR)
    generator = np.random.default_rng(0)
    for m, n in [(21, 7), (1, 37), (3, 40)]:
        for loop in (rows, elements):
            function = LoopFunction("gather", (ids, table, out), ("m", "n"), (loop,))
            arrays = {
                "ids": generator.integers(0, 10, n),
                "table": array(10, m),
                "out": np.zeros((n, m), np.float32),
            }
            check(function, arrays, {"m": m, "n": n})


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 7, -1, -2])
@pytest.mark.parametrize("dtype", [DType.F32, DType.U8, DType.F64])
def test_strides(stride: int, dtype: DType) -> None:
    for length in (0, 1, 7, 16, 28, 64):
        extent = max(1, (length - 1) * abs(stride) + 1)
        w = vector("w", dtype, extent)
        x = vector("x", dtype)
        index = J * stride + (0 if stride > 0 else extent - 1)
        load = For("j", 0, N, (x.store(("j",), w[index]),), VECTOR)
        store = For("j", 0, N, (w.store((index,), x["j"]),), VECTOR)
        arrays = {"w": array(extent, dtype=dtype), "x": array(length, dtype=dtype, seed=2)}
        for loop in (load, store):
            check(LoopFunction("strided", (w, x), ("n",), (loop,)), arrays, {"n": length})


def test_transposed_access() -> None:
    t = Buffer("t", F32, (DIM_N, DIM_M))
    loop = For("i", 0, M, (For("j", 0, N, (t.store(("j", "i"), A["i", "j"]),), VECTOR),))
    function = LoopFunction("transpose", (A, t), ("m", "n"), (loop,))
    for m, n in MATRICES:
        check(function, {"a": array(m, n), "t": np.zeros((n, m), np.float32)}, {"m": m, "n": n})


@pytest.mark.parametrize("pad", [0, 1, 2])
@pytest.mark.parametrize("otherwise", [0.0, -7.5])
def test_guarded_loads(pad: int, otherwise: float) -> None:
    index = J + variable("r") - pad
    term = Load(X, (index,), within(index, N), otherwise)
    body = (
        Allocate(ACC),
        ACC.store((), f32(0)),
        For("r", 0, 3, (Reduce("add", ACC, (), term),), UNROLL),
        Y.store(("j",), ACC[()]),
    )
    function = LoopFunction("window", (X, Y), ("n",), (For("j", 0, N, body, VECTOR),))
    for length in TAILS:
        check(function, {"x": array(length), "y": array(length)}, {"n": length}, rtol=1e-4)


def test_guards_that_differ_by_row_and_column() -> None:
    padded = Buffer("padded", F32, (DIM_M + 2, DIM_N + 3))
    i, j = I - 1, J - 2
    value = Load(A, (i, j), all_of(within(i, M), within(j, N)), 4.0)
    row = For("j", 0, N + 3, (padded.store(("i", "j"), value),), VECTOR)
    function = LoopFunction("pad", (A, padded), ("m", "n"), (For("i", 0, M + 2, (row,)),))
    for m, n in MATRICES:
        arrays = {"a": array(m, n), "padded": array(m + 2, n + 3)}
        check(function, arrays, {"m": m, "n": n})


def test_conditions_become_masks() -> None:
    errors = Buffer("errors", DType.I32, (1,))
    positive = apply("gt", X["j"], f32(0))
    flag = Store(errors, (0,), constant(7, DType.I32), apply("gt", X["j"], f32(1.5)))
    branch = If(
        positive,
        (Y.store(("j",), X["j"]), If(apply("gt", X["j"], f32(1)), (Y.store(("j",), f32(9)),))),
        (Y.store(("j",), -X["j"] * f32(2)),),
    )
    function = LoopFunction(
        "branches", (X, Y, errors), ("n",), (For("j", 0, N, (flag, branch), VECTOR),)
    )
    for length in TAILS:
        arrays = {"x": array(length), "y": array(length), "errors": np.zeros(1, np.int32)}
        check(function, arrays, {"n": length})


def test_masked_reduction_and_uniform_condition() -> None:
    y = Buffer("y", F32)
    loop = For(
        "i",
        0,
        N,
        (
            If(apply("gt", X["i"], f32(0)), (Reduce("add", ACC, (), X["i"]),)),
            Reduce("add", ACC, (), f32(0.5), apply("lt", X["i"], f32(-1))),
        ),
        VECTOR,
    )
    body = (
        Allocate(ACC),
        ACC.store((), f32(0)),
        If(compare("gt", N, 20), (loop,), (ACC.store((), f32(-1)),)),
        y.store((), ACC[()]),
    )
    function = LoopFunction("masked", (X, y), ("n",), body)
    for length in TAILS:
        arrays = {"x": array(length), "y": np.zeros((), np.float32)}
        check(function, arrays, {"n": length}, rtol=1e-4)


def test_last_lane_wins() -> None:
    last = Buffer("last", F32, (1,))
    every = For("i", 0, N, (last.store((0,), X["i"]),), VECTOR)
    some = For("i", 0, N, (last.store((0,), X["i"], apply("lt", X["i"], f32(0))),), VECTOR)
    for loop in (every, some):
        function = LoopFunction("last", (X, last), ("n",), (loop,))
        for length in TAILS:
            check(function, {"x": array(length), "last": array(1)}, {"n": length})


def test_local_memory_of_tasks_and_of_the_kernel() -> None:
    panel = Buffer("panel", F32, (64, DIM_N), Space.LOCAL)
    shared = Buffer("shared", F32, (DIM_M, DIM_N), Space.LOCAL)
    small = Buffer("small", F32, (2, 4), Space.LOCAL)
    function = LoopFunction(
        "packed",
        (A, B),
        ("m", "n"),
        (
            Allocate(shared),
            For(
                "i",
                0,
                M,
                (For("j", 0, N, (shared.store(("i", "j"), A["i", "j"] * f32(2)),), VECTOR),),
                PARALLEL,
            ),
            For(
                "t",
                0,
                M,
                (
                    Allocate(panel),
                    Allocate(small),
                    For("q", 0, 4, (small.store((1, "q"), f32(3)),), VECTOR),
                    For("j", 0, N, (panel.store((5, "j"), shared["t", "j"]),), VECTOR),
                    For("j", 0, N, (B.store(("t", "j"), panel[5, "j"] + small[1, 2]),), VECTOR),
                ),
                PARALLEL,
            ),
        ),
    )
    for m, n in MATRICES:
        check(function, {"a": array(m, n), "b": array(m, n)}, {"m": m, "n": n})


def test_tasks_capture_what_they_use() -> None:
    body = (
        Let("scale", X[0]),
        Let("negative", apply("lt", X[0], f32(0))),
        For(
            "k",
            0,
            2,
            (
                For(
                    "i",
                    variable("k") + 1,
                    M,
                    (
                        For(
                            "j",
                            0,
                            N,
                            (
                                B.store(
                                    ("i", "j"),
                                    A["i", "j"] * Ref("scale", F32),
                                    Ref("negative", DType.BOOL),
                                ),
                                A.store(("k", "j"), f32(1)),
                            ),
                            VECTOR,
                        ),
                    ),
                    PARALLEL,
                ),
            ),
        ),
    )
    function = LoopFunction("captures", (X, A, B), ("m", "n"), body)
    for start in (-2.0, 2.0):
        x = np.full(9, start, np.float32)
        check(function, {"x": x, "a": array(4, 9), "b": array(4, 9)}, {"m": 4, "n": 9})


def tile(rows: int, columns: int, depth: int) -> LoopFunction:
    """The inner part of a packed matrix product: a tile of registers, stored with guards."""
    a = Buffer("a", F32, (depth, rows), alignment=64)
    b = Buffer("b", F32, (depth, columns), alignment=64)
    c = Buffer("c", F32, (DIM_M, DIM_N))
    acc = register("acc", rows, columns)
    product = fma(Ref("x", F32), b["k", "j"], acc["i", "j"])
    update = (
        Let("x", a["k", "i"]),
        For("j", 0, columns, (acc.store(("i", "j"), product),), VECTOR),
    )
    store = c.store(("i", "j"), acc["i", "j"], compare("lt", "j", N))
    return LoopFunction(
        "tile",
        (a, b, c),
        ("m", "n"),
        (
            Allocate(acc),
            For(
                "i",
                0,
                rows,
                (For("j", 0, columns, (acc.store(("i", "j"), f32(0)),), VECTOR),),
                UNROLL,
            ),
            Comment("rank-one updates"),
            For(
                "k",
                0,
                depth,
                (Prefetch(b, (variable("k") + 8, 0)), For("i", 0, rows, update, UNROLL)),
            ),
            For(
                "i",
                0,
                rows,
                (If(compare("lt", "i", M), (For("j", 0, columns, (store,), VECTOR),)),),
                UNROLL,
            ),
        ),
    )


@pytest.mark.parametrize("columns", [1, 3, 8, 13, 16, 20, 33, 48])
def test_register_tile(columns: int) -> None:
    function = tile(4, columns, 7)
    for m, n in [(4, columns), (3, columns - 1), (1, 1), (4, 0)]:
        arrays = {"a": array(7, 4), "b": array(7, columns), "c": array(m, n)}
        check(function, arrays, {"m": m, "n": n}, rtol=1e-4, atol=1e-4)


def test_register_tile_stays_in_registers() -> None:
    from mapsto.runtime.code_generation import emit_assembly

    machine = next((m for m in machines() if m.vector_bits == 256 and "x86" in m.triple), None)
    if machine is None:
        pytest.skip("no machine with 16 registers of 256 bits")
    assembly = emit_assembly(module_text(tile(6, 16, 100), machine), machine)
    blocks = assembly.split("\n.LBB")
    hot = max(blocks, key=lambda block: block.count("vfmadd"))
    loop = hot.split("\tj")[0]
    assert loop.count("vfmadd") == 12
    assert "rsp" not in loop, loop
    assert loop.count("vbroadcastss") == 6


def test_serial_loop_in_groups() -> None:
    loop = For("i", 0, N, (Y.store(("i",), X["i"] + f32(1)),), unroll=3)
    function = LoopFunction("groups", (X, Y), ("n",), (loop,))
    for length in range(11):
        check(function, {"x": array(length), "y": array(length)}, {"n": length})


def test_steps_and_empty_loops() -> None:
    loop = For("i", 1, N - 1, (Y.store(("i",), X["i"] + f32(1)),), step=3)
    empty = For("j", 5, 2, (Y.store((100,), f32(0)),), VECTOR)
    tasks = For("k", N, 0, (Y.store((100,), f32(0)),), PARALLEL)
    function = LoopFunction("steps", (X, Y), ("n",), (loop, empty, tasks))
    for length in range(1, 11):
        check(function, {"x": array(length), "y": array(length)}, {"n": length})


def test_flattened_indices_are_recognized() -> None:
    x, y = Buffer("x", F32, (12, 48)), Buffer("y", F32, (576,))
    flat = I * 48 + J
    body = For("j", 0, 48, (y.store((flat,), x[flat // 48, flat % 48]),), VECTOR)
    function = LoopFunction("reshape", (x, y), (), (For("i", 0, 12, (body,)),))
    check(function, {"x": array(12, 48), "y": array(576)})
    assert "gather" not in module_text(function, machines()[0])


def test_composite_indices() -> None:
    index = (J * 7 + I) % N
    half = (J + 1) // 2
    body = (
        B.store(("i", "j"), A["i", index]),
        B.store(("i", "j"), B["i", "j"] + X[half]),
        B.store(("i", "j"), B["i", "j"] * X[(J - 3) // 4 + 1]),
    )
    row = For("j", 0, N, body, VECTOR)
    function = LoopFunction("composite", (A, B, X), ("m", "n"), (For("i", 0, M, (row,)),))
    for m, n in MATRICES[1:]:
        arrays = {"a": array(m, n), "b": array(m, n), "x": array(n)}
        if n > 2:
            check(function, arrays, {"m": m, "n": n})


def test_in_place_and_aliasing_arguments() -> None:
    text = module_text(
        LoopFunction(
            "alias",
            (Buffer("x", F32, (DIM_N,), may_alias=True), Buffer("y", F32, (DIM_N,), alignment=64)),
            ("n",),
            (For("i", 0, N, (Y.store(("i",), f32(1)),), VECTOR),),
        ),
        machines()[0],
    )
    assert "ptr readonly %b0, ptr noalias align 64 %b1" in text


def test_what_cannot_be_lowered_is_named() -> None:
    store = Y.store(("i",), ACC[()])
    function = LoopFunction(
        "bad",
        (Y,),
        ("n",),
        (Allocate(ACC), ACC.store((), f32(0)), For("i", 0, N, (store,), PARALLEL)),
    )
    with pytest.raises(ValueError, match="register `acc` is used in the parallel loop over `i`"):
        module_text(function, machines()[0])
    total = Buffer("total", F32)
    loop = For("i", 0, N, (Reduce("add", total, (), X["i"]),), VECTOR)
    with pytest.raises(ValueError, match="reduces into `total`"):
        module_text(LoopFunction("bad", (X, total), ("n",), (loop,)), machines()[0])


@pytest.mark.parametrize(("rows", "columns"), MATRICES)
def test_sums_over_several_loops(rows: int, columns: int) -> None:
    """Vectors of several widths, some of them in some rows only, added up over all rows."""
    total, narrow = register("total", 3), Buffer("c", F32, (DIM_M, 3))
    result = Buffer("y", F32, (3,))

    def add(number: int, buffer: Buffer) -> tuple[Reduce, ...]:
        return (Reduce("add", total, (number,), buffer["i", "j"]),)

    body = (
        Allocate(total),
        For("k", 0, 3, (total.store(("k",), f32(0.5)),), UNROLL),
        For(
            "i",
            0,
            M,
            (
                For("j", 0, N, add(0, A), VECTOR),
                For("j", 0, 3, add(1, narrow), VECTOR),
                For("j", 0, 1, add(2, narrow), VECTOR),
                If(compare("lt", "i", 2), (For("j", 0, N, add(1, A), VECTOR),)),
            ),
        ),
        *(result.store((number,), total[number]) for number in range(3)),
    )
    function = LoopFunction("sums", (A, narrow, result), ("m", "n"), body)
    arrays = {"a": array(rows, columns), "c": array(rows, 3), "y": array(3)}
    check(function, arrays, {"m": rows, "n": columns})


def test_sums_that_are_read_between_rows() -> None:
    body = (
        Allocate(ACC),
        ACC.store((), f32(0)),
        For(
            "i",
            0,
            M,
            (
                For("j", 0, N, (Reduce("add", ACC, (), A["i", "j"]),), VECTOR),
                Buffer("y", F32, (DIM_M,)).store(("i",), ACC[()]),
            ),
        ),
    )
    sums = Buffer("y", F32, (DIM_M,))
    function = LoopFunction("running", (A, sums), ("m", "n"), body)
    check(function, {"a": array(4, 21), "y": array(4)}, {"m": 4, "n": 21})


@pytest.mark.parametrize("columns", [1, 5, 8, 14, 28, 33, 56, 77])
@pytest.mark.parametrize("sums", [1, 3])
def test_sums_down_columns(columns: int, sums: int) -> None:
    """Vectors of several registers, and what is left of columns in one of no more than it needs."""
    a, y = Buffer("a", F32, (5, columns)), Buffer("y", F32, (sums, columns))
    totals = [register(f"total{number}") for number in range(sums)]
    add = tuple(Reduce("add", total, (), a["i", "j"]) for total in totals)
    body = (
        *(s for total in totals for s in (Allocate(total), total.store((), f32(1)))),
        For("i", 0, 5, add),
        *(y.store((number, "j"), total[()]) for number, total in enumerate(totals)),
    )
    function = LoopFunction("columns", (a, y), (), (For("j", 0, columns, body, VECTOR),))
    check(function, {"a": array(5, columns), "y": array(sums, columns, seed=1)}, {})


def test_sums_of_one_element_over_several_rows() -> None:
    one = Buffer("a", F32, (DIM_M, 1))
    add = For("j", 0, 1, (Reduce("add", ACC, (), one["i", "j"]),), VECTOR)
    body = (Allocate(ACC), ACC.store((), f32(0)), For("i", 0, M, (add,)), Y.store((0,), ACC[()]))
    function = LoopFunction("column", (one, Y), ("m", "n"), body)
    check(function, {"a": array(6, 1), "y": array(1)}, {"m": 6, "n": 1})


def strands(count: int, extent: Dim, dtype: DType, cut: bool) -> LoopFunction:
    """`y[i, k] = x[i] * k + x[i]`, in one laid out loop or one for each k."""
    x, y = Buffer("x", dtype, (extent,)), Buffer("y", dtype, (extent, count))
    k = cast(IndexValue(variable("k"), DType.I64), dtype)
    body = (Let("z", x["i"] * k), y.store(("i", "k"), Ref("z", dtype) + x["i"]))
    starts = range(count) if cut else [0]
    loops = tuple(For("k", at, at + 1 if cut else count, body, UNROLL) for at in starts)
    loop = For("i", 0, extent if isinstance(extent, int) else N, loops, VECTOR)
    return LoopFunction("strands", (x, y), ("n",), (loop,))


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("cut", [False, True])
def test_strands_that_fill_memory(count: int, cut: bool) -> None:
    for extent in (1, 7, 14, 56):
        for dtype in (F32, DType.F64, DType.I16):
            function = strands(count, extent, dtype, cut)
            arrays = {"x": array(extent, dtype=dtype), "y": array(extent, count, dtype=dtype)}
            check(function, arrays, {"n": extent})
    function = strands(count, DIM_N, F32, cut)
    for extent in (0, 3, 21):
        check(function, {"x": array(extent), "y": array(extent, count)}, {"n": extent})


def test_strands_are_stored_as_whole_vectors() -> None:
    function = strands(2, 56, F32, True)
    text = module_text(function, machines()[0])
    assert "scatter" not in text
    assert "store <" in text


def test_strands_that_read_what_they_store() -> None:
    y = Buffer("y", F32, (20, 2))
    loops = tuple(
        For("k", at, at + 1, (y.store(("i", "k"), y["i", 0] + f32(1)),), UNROLL) for at in (0, 1)
    )
    function = LoopFunction("again", (y,), (), (For("i", 0, 20, loops, VECTOR),))
    check(function, {"y": array(20, 2)}, {})


@pytest.mark.parametrize("stride", [5, -3, 64])
@pytest.mark.parametrize("extent", [8, 13])
def test_elements_evenly_apart_are_stored_one_by_one(stride: int, extent: int) -> None:
    """Their addresses are no vector: it would be taken apart again."""
    x, y = Buffer("x", F32, (extent,)), Buffer("y", F32, (abs(stride) * extent,))
    first = 0 if stride > 0 else -stride * (extent - 1)
    store = y.store((stride * variable("i") + first,), x["i"] * f32(2))
    loop = For("i", 0, extent, (store,), VECTOR)
    function = LoopFunction("apart", (x, y), (), (loop,))
    check(function, {"x": array(extent), "y": array(abs(stride) * extent)}, {})
    assert "scatter" not in module_text(function, machines()[0])
