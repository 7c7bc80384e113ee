"""Rows that do not fill a vector, such as the windows of a pooling: vectors run across them."""

from __future__ import annotations

import numpy as np
import pytest
from harness import check, random_arguments

from mapsto.ir.core import Function, Module
from mapsto.ir.parser import parse_module
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import For, LoopKind, Reduce

POOL = """
func @f(%x: f32[2, 3, {high}, {wide}]) -> (f32[2, 3, {p}, {q}]) {{
  %0 = contract %x {{extents = [2, 3, {p}, {q}, 2, 3], kind = "max", maps = [{maps}], rank = 4}} \
: f32[2, 3, {p}, {q}]
  return %0
}}
"""

SPREAD = """
func @f(%x: f32[2, {q}], %y: f32[2, {twice}]) -> (f32[2, {q}, 2]) {{
  %0 = broadcast %x {{dims = [0, 1]}} : f32[2, {q}, 2]
  %1 = reshape %y : f32[2, {q}, 2]
  %2 = mul %0, %1 : f32[2, {q}, 2]
  return %2
}}
"""


def pool(p: int, q: int, stride: int, padding: int) -> Function:
    place = f"d0, d1, {stride}*d2 + d4 - {padding}, {stride}*d3 + d5 - {padding}"
    high, wide = stride * (p - 1) + 2 - padding, stride * (q - 1) + 3 - padding
    maps = f"(d0, d1, d2, d3, d4, d5) -> ({place})"
    text = POOL.format(high=high, wide=wide, p=p, q=q, maps=maps)
    return parse_module(text).functions["f"]


def spread(q: int) -> Function:
    return parse_module(SPREAD.format(q=q, twice=2 * q)).functions["f"]


def vector_extents(function: Function) -> set[object]:
    compiled = lower(Module.of(function), "f", Machine.host())
    bodies = [kernel.body for kernel in compiled.kernels]
    loops = (s for body in bodies for s in statements(body) if isinstance(s, For))
    return {loop.stop for loop in loops if loop.kind is LoopKind.VECTOR}


LINES = """
func @f(%x: f32[2, 3, 9, 29], %y: f32[2, 3, 9, 27]) -> (f32[3, 3]) {
  %0 = contract %x, %y {extents = [3, 3, 2, 9, 27], maps = [(d0, d1, d2, d3, d4) -> \
(d2, d0, d3, d1 + d4), (d0, d1, d2, d3, d4) -> (d2, d0, d3, d4)], rank = 2} : f32[3, 3]
  return %0
}
"""
"""The gradient of a depthwise convolution along lines."""


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (2, 0), (2, 1), (3, 1), (5, 0)])
def test_pooling(stride: int, padding: int) -> None:
    for size in (3, 14):
        check(pool(4, size, stride, padding))


@pytest.mark.parametrize("q", [1, 3, 8, 14, 37])
def test_short_last_axes(q: int) -> None:
    check(spread(q))


def test_vectors_run_along_the_longer_axis() -> None:
    assert vector_extents(pool(4, 14, 2, 0)) == {14}
    assert vector_extents(spread(14)) == {14}


def test_vectors_run_along_rows_where_columns_are_few() -> None:
    function = parse_module(LINES).functions["f"]
    assert vector_extents(function) == {27}
    check(function)


WEIGHTS = """
func @f(%x: f32[3, {c}, {high}, {wide}], %y: f32[3, {c}, {p}, {q}]) -> (f32[{c}, {r}, {s}]) {{
  %0 = contract %x, %y {{extents = [{c}, {r}, {s}, 3, {p}, {q}], maps = [\
(d0, d1, d2, d3, d4, d5) -> (d3, d0, d1 + {stride}*d4 - 1, d2 + {stride}*d5 - 1), \
(d0, d1, d2, d3, d4, d5) -> (d3, d0, d4, d5)], rank = 3}} : f32[{c}, {r}, {s}]
  return %0
}}
"""
"""The gradient of a depthwise convolution by its weights."""


def weights(channels: int, window: int, stride: int, q: int) -> Function:
    sizes = {"p": 5, "q": q, "r": 3, "s": window, "c": channels, "stride": stride}
    high, wide = stride * 4 + 2, stride * (q - 1) + window - 1
    text = WEIGHTS.format(**sizes, high=high, wide=wide)
    return parse_module(text).functions["f"]


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize(("stride", "q"), [(1, 14), (2, 11), (1, 2)])
@pytest.mark.parametrize("channels", [2, 17])
def test_gradients_by_windows(channels: int, stride: int, q: int, window: int) -> None:
    check(weights(channels, window, stride, q))


def test_the_sums_of_a_window_go_along_rows_together() -> None:
    function = weights(17, 3, 2, 14)
    assert vector_extents(function) == {14}
    kernel = lower(Module.of(function), "f", Machine.host()).kernels[0]
    sums = {s.buffer for s in statements(kernel.body) if isinstance(s, Reduce)}
    assert {buffer.shape for buffer in sums} == {(3, 3)}


ONE_SUM = """
func @f(%x: f32[16, 64, 784], %y: f32[16, 784, 64]) -> (f32[]) {
  %0 = transpose %x {permutation = [0, 2, 1]} : f32[16, 784, 64]
  %1 = reshape %0 : f32[16, 28, 28, 64]
  %2 = reshape %y : f32[16, 28, 28, 64]
  %3 = mul %1, %2 : f32[16, 28, 28, 64]
  %4 = contract %3 {extents = [16, 28, 28, 64], maps = [(d0, d1, d2, d3) -> (d0, d1, d2, d3)], \
rank = 0} : f32[]
  return %4
}
"""


def test_a_long_sum_is_not_cut_where_vectors_run() -> None:
    """Its parts would have two elements in a row, as its longest dimension is the last one."""
    function = parse_module(ONE_SUM).functions["f"]
    assert vector_extents(function) == {64, 28}
    given = [np.abs(array) for array in random_arguments(function)]
    check(function, given, on=[Machine.host()])
