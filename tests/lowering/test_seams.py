"""Indices within a row that every access uses together are one loop."""

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

SOFTMAX = """
func @f(%x: {dtype}[{n}, 3, {i}, {j}]) -> ({dtype}[{n}, 3, {i}, {j}]) {{
  %0 = contract %x {{extents = [{n}, 3, {i}, {j}], kind = "max", \
maps = [(d0, d1, d2, d3) -> (d0, d1, d2, d3)], rank = 2}} : {dtype}[{n}, 3]
  %1 = broadcast %0 {{dims = [0, 1]}} : {dtype}[{n}, 3, {i}, {j}]
  %2 = sub %x, %1 : {dtype}[{n}, 3, {i}, {j}]
  %3 = exp %2 : {dtype}[{n}, 3, {i}, {j}]
  %4 = contract %3 {{extents = [{n}, 3, {i}, {j}], \
maps = [(d0, d1, d2, d3) -> (d0, d1, d2, d3)], rank = 2}} : {dtype}[{n}, 3]
  %5 = broadcast %4 {{dims = [0, 1]}} : {dtype}[{n}, 3, {i}, {j}]
  %6 = div %3, %5 : {dtype}[{n}, 3, {i}, {j}]
  return %6
}}
"""
"""Over the pixels of each channel; the exponentials are kept."""

CENTERED = """
func @f(%x: f32[4, 6, 5, 7]) -> (f32[4, 6, 5, 7]) {
  %0 = contract %x {extents = [6, 4, 5, 7], \
maps = [(d0, d1, d2, d3) -> (d1, d0, d2, d3)], rank = 1} : f32[6]
  %1 = broadcast %0 {dims = [1]} : f32[4, 6, 5, 7]
  %2 = sub %x, %1 : f32[4, 6, 5, 7]
  return %2
}
"""
"""By the sums of each channel over the batch and the pixels."""

MIXED = """
func @f(%x: f32[3, 6, 6]) -> (f32[3], f32[3]) {
  %0 = contract %x {extents = [3, 6, 6], maps = [(d0, d1, d2) -> (d0, d1, d2)], rank = 1} : f32[3]
  %1 = contract %x, %x {extents = [3, 6, 6], \
maps = [(d0, d1, d2) -> (d0, d1, d2), (d0, d1, d2) -> (d0, d2, d1)], rank = 1} : f32[3]
  return %0, %1
}
"""
"""One sum reads the pixels in another order as well."""

WINDOWS = """
func @f(%x: f32[3, 40]) -> (f32[3]) {
  %0 = contract %x {extents = [3, 4, 9], maps = [(d0, d1, d2) -> (d0, 10*d1 + d2)], rank = 1} : \
f32[3]
  return %0
}
"""


def function(text: str) -> Function:
    return parse_module(text).functions["f"]


def vector_extents(function: Function) -> set[object]:
    compiled = lower(Module.of(function), "f", HOST)
    loops = (s for k in compiled.kernels for s in statements(k.body) if isinstance(s, For))
    return {loop.stop for loop in loops if loop.kind is LoopKind.VECTOR}


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_pixels_are_one_loop_and_kept_as_one_row(dtype: str) -> None:
    found = function(SOFTMAX.format(dtype=dtype, n=2, i=5, j=7))
    assert vector_extents(found) == {35}
    check(found)


@pytest.mark.parametrize("sizes", [(2, 3, 5), (1, 1, 9), (0, 4, 4), (2, 0, 3)])
def test_named_sizes(sizes: tuple[int, int, int]) -> None:
    found = function(SOFTMAX.format(dtype="f32", n="n", i="i", j="j"))
    check(found, on=[HOST], sizes=dict(zip("nij", sizes, strict=True)))


def test_others_stay_apart() -> None:
    found = function(CENTERED)
    assert vector_extents(found) == {35}
    check(found)


@pytest.mark.parametrize("text", [MIXED, WINDOWS])
def test_accesses_that_disagree_keep_their_loops(text: str) -> None:
    found = function(text)
    assert vector_extents(found) <= {6, 9}
    check(found, on=[HOST])
