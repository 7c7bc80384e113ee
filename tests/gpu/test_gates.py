"""Contractions used by blocks of columns: the blocks are taken in a launch of their own."""

from __future__ import annotations

import pytest
from mapped_harness import check

from mapsto import ir
from mapsto.ir.dims import symbol
from mapsto.ir.ops.contraction import contract
from mapsto.ir.types import DType, TensorType


@pytest.mark.parametrize("rows", [5, symbol("n")])
def test_a_gated_unit(rows) -> None:
    types = [TensorType(DType.F32, shape) for shape in ((rows, 9), (9, 128))]
    b = ir.Builder(ir.Block(types, ["x", "w"]))
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    y = contract(b, b.block.arguments, maps, (rows, 128, 9), 2)
    left, right = (
        b.emit(ir.Slice, y, starts=(0, start), sizes=(rows, 64), steps=(1, 1)) for start in (0, 64)
    )
    function = ir.finish_function("gated", b, [b.emit(ir.Mul, left, b.emit(ir.Sigmoid, right))])
    check(function, sizes={"n": 3})
