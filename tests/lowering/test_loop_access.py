"""Loads and stores of native loops against the interpreter: strides, gathers, guards, strands."""

import numpy as np
import pytest
from loop_buffers import (
    ACC,
    DIM_M,
    DIM_N,
    F32,
    MATRICES,
    PARALLEL,
    TAILS,
    UNROLL,
    VECTOR,
    A,
    B,
    I,
    J,
    M,
    N,
    X,
    Y,
    array,
    f32,
    vector,
)
from loop_harness import check, machines, module_text

from mapsto.ir.dims import Dim
from mapsto.ir.types import DType
from mapsto.lowering.indices import value_of, variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    IndexValue,
    Let,
    Load,
    LoopFunction,
    Reduce,
    Ref,
    all_of,
    apply,
    cast,
    compare,
    within,
)


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


def test_last_lane_wins() -> None:
    last = Buffer("last", F32, (1,))
    every = For("i", 0, N, (last.store((0,), X["i"]),), VECTOR)
    some = For("i", 0, N, (last.store((0,), X["i"], apply("lt", X["i"], f32(0))),), VECTOR)
    for loop in (every, some):
        function = LoopFunction("last", (X, last), ("n",), (loop,))
        for length in TAILS:
            check(function, {"x": array(length), "last": array(1)}, {"n": length})


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
