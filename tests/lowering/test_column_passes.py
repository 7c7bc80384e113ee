"""Several passes over columns go over the rows, with the bits of passes down each column."""

from __future__ import annotations

import pytest
from harness import check

from mapsto.ir.core import Function, Module
from mapsto.ir.parser import parse_module
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import For, LoopKind

HOST = Machine.host()

NORM = """
func @f(%x: {dtype}[{n}, {m}], %g: {dtype}[{m}]) -> ({dtype}[{n}, {m}], {dtype}[{m}]) {{
  %0 = contract %x {{extents = [{m}, {n}], maps = [(d0, d1) -> (d1, d0)], rank = 1}} : {dtype}[{m}]
  %1 = constant {{value = 0.01}} : {dtype}[{m}]
  %2 = mul %0, %1 : {dtype}[{m}]
  %3 = broadcast %2 {{dims = [1]}} : {dtype}[{n}, {m}]
  %4 = sub %x, %3 : {dtype}[{n}, {m}]
  %5 = contract %4, %4 {{extents = [{m}, {n}], maps = [(d0, d1) -> (d1, d0), \
(d0, d1) -> (d1, d0)], rank = 1}} : {dtype}[{m}]
  %6 = sqrt %5 : {dtype}[{m}]
  %7 = div %g, %6 : {dtype}[{m}]
  %8 = broadcast %7 {{dims = [1]}} : {dtype}[{n}, {m}]
  %9 = mul %4, %8 : {dtype}[{n}, {m}]
  return %9, %6
}}
"""
"""A normalization over the rows, and the deviations of the columns."""

SOFTMAX = """
func @f(%x: f32[{b}, {n}, {m}]) -> (f32[{b}, {n}, {m}]) {{
  %0 = contract %x {{extents = [{b}, {m}, {n}], kind = "max", \
maps = [(d0, d1, d2) -> (d0, d2, d1)], rank = 2}} : f32[{b}, {m}]
  %1 = broadcast %0 {{dims = [0, 2]}} : f32[{b}, {n}, {m}]
  %2 = sub %x, %1 : f32[{b}, {n}, {m}]
  %3 = exp %2 : f32[{b}, {n}, {m}]
  %4 = contract %3 {{extents = [{b}, {m}, {n}], maps = [(d0, d1, d2) -> (d0, d2, d1)], rank = 2}} \
: f32[{b}, {m}]
  %5 = broadcast %4 {{dims = [0, 2]}} : f32[{b}, {n}, {m}]
  %6 = div %3, %5 : f32[{b}, {n}, {m}]
  return %6
}}
"""
"""Along the axis before the last one; the exponentials are kept."""


LONG = """
func @f(%x: f32[5001, 66]) -> (f32[5001, 66]) {
  %0 = contract %x {extents = [66, 5001], kind = "max", maps = [(d0, d1) -> (d1, d0)], rank = 1} \
: f32[66]
  %1 = broadcast %0 {dims = [1]} : f32[5001, 66]
  %2 = sub %x, %1 : f32[5001, 66]
  %3 = exp %2 : f32[5001, 66]
  %4 = contract %3 {extents = [66, 5001], maps = [(d0, d1) -> (d1, d0)], rank = 1} : f32[66]
  %5 = broadcast %4 {dims = [1]} : f32[5001, 66]
  %6 = div %3, %5 : f32[5001, 66]
  return %6
}
"""
"""A softmax along an axis so long that parts of it are tasks."""


def function(text: str) -> Function:
    return parse_module(text).functions["f"]


def goes_by_rows(function: Function) -> bool:
    compiled = lower(Module.of(function), "f", HOST)
    loops = [s for k in compiled.kernels for s in statements(k.body) if isinstance(s, For)]
    return any(loop.variable == "stretch" for loop in loops)


def parallel_loops(function: Function) -> int:
    compiled = lower(Module.of(function), "f", HOST)
    loops = [s for k in compiled.kernels for s in statements(k.body) if isinstance(s, For)]
    return sum(loop.kind is LoopKind.PARALLEL for loop in loops)


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
@pytest.mark.parametrize("shape", [(64, 64), (77, 130)])
def test_norms(dtype: str, shape: tuple[int, int]) -> None:
    found = function(NORM.format(dtype=dtype, n=shape[0], m=shape[1]))
    assert goes_by_rows(found)
    check(found, on=[HOST], tolerance=1e-2 if dtype == "f16" else 1e-4)


def test_parts_of_rows_are_tasks_where_columns_are_few() -> None:
    found = function(NORM.format(dtype="f32", n=12001, m=65))
    assert goes_by_rows(found)
    assert parallel_loops(found) == 3
    check(found, on=[HOST], tolerance=1e-3)
    found = function(LONG)
    assert parallel_loops(found) == 3
    check(found, on=[HOST])


@pytest.mark.parametrize("shape", [(3, 70, 66), (1, 65, 600)])
def test_what_is_kept(shape: tuple[int, int, int]) -> None:
    b, n, m = shape
    found = function(SOFTMAX.format(b=b, n=n, m=m))
    assert goes_by_rows(found)
    check(found, on=[HOST])


@pytest.mark.parametrize("sizes", [(2, 3, 5), (1, 70, 65), (0, 4, 4), (2, 0, 3), (1, 9, 530)])
def test_named_sizes(sizes: tuple[int, int, int]) -> None:
    found = function(SOFTMAX.format(b="b", n="n", m="m"))
    assert goes_by_rows(found)
    check(found, on=[HOST], sizes=dict(zip("bnm", sizes, strict=True)))


def test_few_rows_or_columns_are_left_as_they_are() -> None:
    for shape in ((15, 100), (100, 15)):
        assert not goes_by_rows(function(NORM.format(dtype="f32", n=shape[0], m=shape[1])))
