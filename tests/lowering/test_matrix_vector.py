"""A matrix times a vector: long rows are summed where they lie, all else as other contractions."""

from __future__ import annotations

import pytest
from harness import build, check

from mapsto import ir
from mapsto.ir.core import Function
from mapsto.ir.ops.contraction import contract
from mapsto.ir.ops.flow import scan
from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine

F32 = DType.F32
AXES = {"rows": (0, 1), "columns": (1, 0)}


def times(b: ir.Builder, matrix: ir.Value, x: ir.Value, axes: tuple[int, int]) -> ir.Value:
    extents = tuple(matrix.shape[axes.index(d)] for d in (0, 1))
    maps = [ir.projection(axes, 2), ir.projection((1,), 2)]
    return b.emit(ir.Tanh, contract(b, [matrix, x], maps, extents, 1))


def product(rows: int, length: int, layout: str) -> Function:
    shape = (rows, length) if layout == "rows" else (length, rows)
    arguments = [(F32, shape), (F32, (length,))]
    return build("f", arguments, lambda b, m, x: times(b, m, x, AXES[layout]))


def has_tiles(function: Function) -> bool:
    (native,) = check(function, on=[Machine.host()], tolerance=1e-4)
    return "acc" in str(native.compiled.kernels)


@pytest.mark.parametrize(
    ("rows", "length", "layout", "tiles"),
    [
        (9, 300, "rows", False),
        (9, 100, "rows", True),
        (9, 300, "columns", True),
    ],
)
def test_long_rows_are_summed_where_they_lie(
    rows: int, length: int, layout: str, tiles: bool
) -> None:
    assert has_tiles(product(rows, length, layout)) is tiles


def test_a_matrix_that_a_loop_keeps_is_packed_ahead() -> None:
    def steps(b: ir.Builder, matrix: ir.Value, state: ir.Value, xs: ir.Value) -> ir.Value:
        def step(inner, carried, slices):
            product = times(inner, matrix, carried[0], (0, 1))
            return [inner.emit(ir.Add, product, slices[0])], []

        finals, _ = scan(b, step, [state], [xs])
        return finals[0]

    arguments = [(F32, (256, 256)), (F32, (256,)), (F32, (3, 256))]
    assert has_tiles(build("f", arguments, steps))
