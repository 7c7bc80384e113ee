"""Sums of columns read rows in stretches; their bits are those of sums down each column."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Native, build, check

from mapsto.ir.core import Function, Module
from mapsto.ir.dims import Dim, symbol
from mapsto.ir.ops.contraction import reduce_axes
from mapsto.ir.parser import parse_module
from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import For

HOST = Machine.host()


def reduction(
    shape: tuple[Dim, ...], axes: tuple[int, ...], kind: str = "sum", dtype: DType = DType.F32
) -> Function:
    return build("f", [(dtype, shape)], lambda b, x: reduce_axes(b, kind, x, axes))


def has_stretches(function: Function) -> bool:
    compiled = lower(Module.of(function), "f", HOST)
    loops = [s for k in compiled.kernels for s in statements(k.body) if isinstance(s, For)]
    return any(loop.variable == "stretch" for loop in loops)


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "i32"])
def test_types(dtype: str) -> None:
    function = reduction((77, 600), (0,), dtype=DType(dtype))
    assert has_stretches(function)
    check(function)


@pytest.mark.parametrize("kind", ["sum", "prod", "max"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((64, 64), (0,)), ((3, 70, 130), (1,)), ((9, 11, 200), (0, 1))]
)
def test_shapes(shape: tuple[int, ...], axes: tuple[int, ...], kind: str) -> None:
    function = reduction(shape, axes, kind)
    assert has_stretches(function)
    check(function, on=[HOST])


def test_parts() -> None:
    """So long that parts of it are tasks, each in stretches."""
    function = reduction((3001, 520), (0,))
    assert has_stretches(function)
    check(function, on=[HOST])


@pytest.mark.parametrize("sizes", [(5, 7), (100, 70), (0, 12), (64, 1030)])
def test_named_sizes(sizes: tuple[int, int]) -> None:
    function = reduction((symbol("b"), symbol("n"), symbol("m")), (1,))
    assert has_stretches(function)
    check(function, sizes={"b": 2, "n": sizes[0], "m": sizes[1]}, on=[HOST])


def test_each_column_is_summed_from_the_first_row_on() -> None:
    """The bits of a sum depend on its column alone, not on how many there are beside it."""
    x = np.random.default_rng(0).normal(size=(150, 700)).astype(np.float32)
    (result,) = Native(reduction(x.shape, (0,)), HOST)([x])
    np.testing.assert_array_equal(result, np.cumsum(x, axis=0)[-1])


BOTH = """
func @f(%x: f32[90, 600], %y: f32[90, 600], %z: f32[600]) -> (f32[600], f32[600]) {
  %0 = contract %x, %y {extents = [600, 90], maps = [(d0, d1) -> (d1, d0), (d0, d1) -> (d1, d0)], \
rank = 1} : f32[600]
  %1 = exp %x : f32[90, 600]
  %2 = contract %1 {extents = [600, 90], maps = [(d0, d1) -> (d1, d0)], rank = 1} : f32[600]
  %3 = sub %z, %0 : f32[600]
  %4 = mul %2, %3 : f32[600]
  return %3, %4
}
"""


def test_sums_with_others_before_and_behind() -> None:
    function = parse_module(BOTH).functions["f"]
    assert has_stretches(function)
    check(function, on=[HOST])


def test_few_rows_are_summed_as_they_are() -> None:
    assert not has_stretches(reduction((40, 600), (0,)))
