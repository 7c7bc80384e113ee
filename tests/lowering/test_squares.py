"""Elementwise kernels that read or write across their lanes go over squares of rows and columns."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from harness import build, check, machines

from mapsto.ir.core import Function, Module
from mapsto.ir.dims import Dim, symbol
from mapsto.ir.ops.shaping import Transpose
from mapsto.ir.parser import parse_module
from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import For

HOST = Machine.host()


def transposed(dtype: DType, shape: tuple[Dim, ...], permutation: tuple[int, ...]) -> Function:
    return build("f", [(dtype, shape)], lambda b, x: b.emit(Transpose, x, permutation=permutation))


def has_squares(function: Function) -> bool:
    compiled = lower(Module.of(function), "f", HOST)
    loops = [s for k in compiled.kernels for s in statements(k.body) if isinstance(s, For)]
    return any(loop.variable.endswith("_square") for loop in loops)


@pytest.mark.parametrize("shape", [(8, 8), (37, 37), (64, 100), (131, 17), (9, 200), (15, 64)])
def test_sizes(shape: tuple[int, int]) -> None:
    check(transposed(DType.F32, shape, (1, 0)))


@pytest.mark.parametrize("dtype", ["f64", "f16", "i64", "i16", "bool"])
def test_types(dtype: str) -> None:
    check(transposed(DType(dtype), (70, 67), (1, 0)), on=[machines()[0], machines()[-1]])


def test_many_tasks() -> None:
    check(transposed(DType.F32, (600, 1000), (1, 0)), on=[HOST])


@pytest.mark.parametrize("permutation", [*permutations(range(3)), (0, 1, 3, 2), (3, 1, 0, 2)])
def test_permutations(permutation: tuple[int, ...]) -> None:
    shape = (11, 3, 18, 10)[: len(permutation)]
    check(transposed(DType.F32, shape, permutation), on=[HOST])


@pytest.mark.parametrize("sizes", [(5, 7), (16, 16), (19, 70), (70, 19), (0, 12)])
def test_named_sizes(sizes: tuple[int, int]) -> None:
    b, m, n = symbol("b"), symbol("m"), symbol("n")
    function = transposed(DType.F32, (b, m, n), (0, 2, 1))
    check(function, sizes={"b": 3, "m": sizes[0], "n": sizes[1]}, on=[HOST])


FUSED = """
func @f(%x: f32[41, 50], %y: f32[50, 41], %r: f32[41], %c: f32[50], %h: f16[41, 50]) \
-> (f32[50, 41]) attributes {{aliases = [{aliases}]}} {{
  %0 = transpose %x {{permutation = [1, 0]}} : f32[50, 41]
  %1 = exp %0 : f32[50, 41]
  %2 = mul %1, %y : f32[50, 41]
  %3 = broadcast %r {{dims = [1]}} : f32[50, 41]
  %4 = add %2, %3 : f32[50, 41]
  %5 = broadcast %c {{dims = [0]}} : f32[50, 41]
  %6 = mul %4, %5 : f32[50, 41]
  %7 = transpose %h {{permutation = [1, 0]}} : f16[50, 41]
  %8 = cast %7 {{dtype = f32}} : f32[50, 41]
  %9 = sub %6, %8 : f32[50, 41]
  return %9
}}
"""

BOTH = """
func @f(%x: f32[37, 70]) -> (f32[37, 70], f32[70, 37]) {
  %0 = exp %x : f32[37, 70]
  %1 = transpose %x {permutation = [1, 0]} : f32[70, 37]
  %2 = neg %1 : f32[70, 37]
  return %0, %2
}
"""


@pytest.mark.parametrize("aliases", ["", "[0, 1]"])
def test_fused(aliases: str) -> None:
    """Across and in order, rows and columns, two types; into new memory, and into an operand."""
    function = parse_module(FUSED.format(aliases=aliases)).functions["f"]
    assert has_squares(function)
    check(function, on=[HOST])


def test_written_both_ways() -> None:
    function = parse_module(BOTH).functions["f"]
    assert has_squares(function)
    check(function, on=[HOST])


def test_others_have_none() -> None:
    """Where nothing is across, or there are too few for a vector."""
    assert has_squares(transposed(DType.F32, (64, 64), (1, 0)))
    for shape, permutation in (((9, 8, 64), (1, 0, 2)), ((64, 3), (1, 0)), ((64, 64), (0, 1))):
        assert not has_squares(transposed(DType.F32, shape, permutation))


LOOKED_UP = """
func @f(%i: i32[20, 40], %table: i32[8], %z: i32[40, 20]) -> (i32[20, 40]) \
attributes {aliases = [[0, 0]]} {
  %0 = gather %table, %i {axes = [0]} : i32[20, 40]
  %1 = transpose %z {permutation = [1, 0]} : i32[20, 40]
  %2 = add %0, %1 : i32[20, 40]
  return %2
}
"""


def test_indices_that_are_written_over_are_not_checked_again() -> None:
    function = parse_module(LOOKED_UP).functions["f"]
    indices = np.arange(800, dtype=np.int32).reshape(20, 40) % 8
    arguments = [indices, np.full(8, 100, np.int32), np.zeros((40, 20), np.int32)]
    check(function, arguments, on=[HOST])
    assert not has_squares(function)
