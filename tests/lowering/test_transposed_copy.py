"""Copies of square blocks across a vector loop are transposed in registers."""

from __future__ import annotations

import numpy as np
import pytest
from loop_harness import check, machines, module_text

from mapsto.ir.types import DType
from mapsto.lowering.indices import variable
from mapsto.lowering.loops import Buffer, For, LoopFunction, LoopKind


def copy(rows: int, columns: int, lanes: int, dtype: DType) -> LoopFunction:
    x = Buffer("x", dtype, (rows, columns), readonly=True)
    y = Buffer("y", dtype, (columns, rows))
    loops = []
    for start in range(0, rows, lanes):
        inner = For("r", start, start + lanes, (y.store(("c", "r"), x["r", "c"]),), LoopKind.UNROLL)
        loops.append(For("c", 0, columns, (inner,), LoopKind.VECTOR, lanes=lanes))
    return LoopFunction("kernel", (x, y), (), tuple(loops))


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64])
@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("columns", [3, 16, 37])
def test_transposes(columns: int, lanes: int, dtype: DType) -> None:
    x = np.arange(2 * lanes * columns, dtype=dtype.numpy).reshape(2 * lanes, columns)
    function = copy(2 * lanes, columns, lanes, dtype)
    result = check(function, {"x": x, "y": np.zeros_like(x.T, order="C")})
    np.testing.assert_array_equal(result["y"], x.T)


def test_uses_shuffles() -> None:
    text = module_text(copy(16, 64, 16, DType.F32), machines()[0])
    assert text.count("shufflevector") >= 64
    assert "scatter" not in text


def test_reads_across() -> None:
    """Also in the last lanes of a loop, which may be fewer: no row that is not there is read."""
    x, y = Buffer("x", DType.F32, (37, 24), readonly=True), Buffer("y", DType.F32, (24, 37))
    store = y.store(("r", "c"), x["c", "r"] * x["c", "r"])
    inner = For("r", 3, 24, (store,), LoopKind.UNROLL)
    function = LoopFunction("kernel", (x, y), (), (For("c", 0, 37, (inner,), LoopKind.VECTOR),))
    values = np.arange(37 * 24, dtype=np.float32).reshape(37, 24)
    result = check(function, {"x": values, "y": np.zeros((24, 37), np.float32)})
    np.testing.assert_array_equal(result["y"][3:], (values * values).T[3:])
    assert "gather" not in module_text(function, machines()[0])


def test_turns_that_depend_on_each_other_are_left_alone() -> None:
    """What a turn reads may be what the one before has written."""
    x = Buffer("x", DType.F32, (16, 24))
    store = x.store(("c", variable("r") + 1), x["c", "r"] * x["c", "r"])
    inner = For("r", 0, 16, (store,), LoopKind.UNROLL)
    function = LoopFunction("kernel", (x,), (), (For("c", 0, 16, (inner,), LoopKind.VECTOR),))
    check(function, {"x": np.linspace(0.9, 1.1, 16 * 24, dtype=np.float32).reshape(16, 24)})


def test_other_loops_are_left_alone() -> None:
    x, y = Buffer("x", DType.F32, (8, 8), readonly=True), Buffer("y", DType.F32, (8, 32))
    spread = y.store(("c", variable("r") * 2), x["r", "c"])
    inner = For("r", 0, 8, (spread,), LoopKind.UNROLL)
    loop = For("c", 0, 8, (inner,), LoopKind.VECTOR, lanes=8)
    values = np.arange(64, dtype=np.float32).reshape(8, 8)
    arrays = {"x": values, "y": np.zeros((8, 32), np.float32)}
    result = check(LoopFunction("kernel", (x, y), (), (loop,)), arrays)
    np.testing.assert_array_equal(result["y"][:, :16:2], values.T)
