"""Windows are read from copies with the edges around them, and the same as before."""

from __future__ import annotations

import numpy as np
import pytest
from harness import check
from loop_harness import random_array

from mapsto.ir.core import Function, Module
from mapsto.ir.parser import parse_module
from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.indices import variable
from mapsto.lowering.loop_interpreter import interpret
from mapsto.lowering.loop_verifier import verify_loops
from mapsto.lowering.loop_walk import expressions, statements
from mapsto.lowering.loop_windows import copy_windows
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Expression,
    For,
    Load,
    LoopFunction,
    LoopKind,
    Reduce,
    Space,
    Statement,
    all_of,
    within,
)

DEPTHWISE = """
func @f(%x: {t}[2, {c}, {h}, {w}], %k: {t}[{c}, {r}, {s}]) -> ({t}[2, {c}, {p}, {q}]) {{
  %0 = contract %x, %k {{extents = [2, {c}, {p}, {q}, {r}, {s}], maps = [\
(d0, d1, d2, d3, d4, d5) -> (d0, d1, {a}*d2 + {u}*d4 - {above}, {a}*d3 + {u}*d5 - {left}), \
(d0, d1, d2, d3, d4, d5) -> (d1, d4, d5)], rank = 4}} : {t}[2, {c}, {p}, {q}]
  return %0
}}
"""
CHANNELS_LAST = """
func @f(%x: f32[2, 9, 11, 24], %k: f32[3, 3, 24]) -> (f32[2, 9, 11, 24]) {
  %0 = contract %x, %k {extents = [2, 9, 11, 24, 3, 3], maps = [\
(d0, d1, d2, d3, d4, d5) -> (d0, d1 + d4 - 1, d2 + d5 - 1, d3), \
(d0, d1, d2, d3, d4, d5) -> (d4, d5, d3)], rank = 4} : f32[2, 9, 11, 24]
  return %0
}
"""
GRADIENTS = """
func @f(%x: f32[3, 17, 9, 11], %k: f32[17, 3, 3], %g: f32[3, 17, 9, 11]) -> (\
f32[17, 3, 3], f32[3, 17, 9, 11]) {
  %0 = add %g, %g : f32[3, 17, 9, 11]
  %1 = contract %x, %0 {extents = [17, 3, 3, 3, 9, 11], maps = [\
(d0, d1, d2, d3, d4, d5) -> (d3, d0, d1 + d4 - 1, d2 + d5 - 1), \
(d0, d1, d2, d3, d4, d5) -> (d3, d0, d4, d5)], rank = 3} : f32[17, 3, 3]
  %2 = contract %0, %k {extents = [3, 17, 9, 11, 3, 3], maps = [\
(d0, d1, d2, d3, d4, d5) -> (d0, d1, d2 - d4 + 1, d3 - d5 + 1), \
(d0, d1, d2, d3, d4, d5) -> (d1, d4, d5)], rank = 4} : f32[3, 17, 9, 11]
  return %1, %2
}
"""


def depthwise(stride: int, window: tuple[int, int], q: int, dilation: int, t: str) -> Function:
    (r, s), p = window, 5
    sizes = {"c": 3, "p": p, "q": q, "r": r, "s": s, "a": stride, "u": dilation, "t": t}
    above, left = dilation * (r // 2), dilation * (s // 2)
    high = stride * (p - 1) + dilation * (r - 1) + 1 - 2 * above
    wide = stride * (q - 1) + dilation * (s - 1) + 1 - 2 * left
    text = DEPTHWISE.format(**sizes, above=above, left=left, h=max(high, 1), w=max(wide, 1))
    return parse_module(text).functions["f"]


def copies(function: Function) -> int:
    """How many windows are copied, in a function without any other local buffer."""
    kernels = lower(Module.of(function), "f", Machine.host()).kernels
    declared = (s for kernel in kernels for s in statements(kernel.body))
    return sum(isinstance(s, Allocate) and s.buffer.space is Space.LOCAL for s in declared)


@pytest.mark.parametrize("q", [7, 37])
@pytest.mark.parametrize(
    ("stride", "window", "dilation"),
    [
        (1, (3, 3), 1),
        (1, (5, 5), 1),
        (2, (5, 3), 1),
        (3, (3, 4), 1),
        (5, (7, 7), 1),
        (1, (3, 3), 2),
    ],
)
def test_convolutions_of_each_channel(
    stride: int, window: tuple[int, int], dilation: int, q: int
) -> None:
    check(depthwise(stride, window, q, dilation, "f32"))


@pytest.mark.parametrize("dtype", ["f64", "f16"])
def test_element_types(dtype: str) -> None:
    check(depthwise(2, (3, 3), 13, 1, dtype))


@pytest.mark.parametrize("text", [CHANNELS_LAST, GRADIENTS])
def test_other_orders(text: str) -> None:
    function = parse_module(text).functions["f"]
    check(function)
    assert copies(function) >= 1


def test_windows_that_are_used_often_are_copied() -> None:
    assert copies(depthwise(1, (3, 3), 14, 1, "f32")) == 1
    assert copies(depthwise(3, (3, 3), 14, 1, "f32")) == 0


X, Y = Buffer("x", DType.F32, (6, 9)), Buffer("y", DType.F32, (6, 9))
TOTAL = Buffer("total", DType.F32, (), Space.REGISTER)


def sums(terms: tuple[Statement, ...], target: Buffer = Y) -> LoopFunction:
    """For each element the sum over the windows of 3 x 3 around it."""
    for name in ("s", "r"):
        terms = (For(name, 0, 3, terms, LoopKind.UNROLL),)
    body = (Allocate(TOTAL), TOTAL.store((), X[0, 0]), *terms, target.store(("i", "j"), TOTAL[()]))
    loop = For("i", 0, 6, (For("j", 0, 9, body, LoopKind.VECTOR),))
    return LoopFunction("sums", (X, Y), (), (loop,))


def windowed(op: str, factor: Expression | None = None, otherwise: float = 0.0) -> LoopFunction:
    row, column = variable("i") + variable("r") - 1, variable("j") + variable("s") - 1
    inside = all_of(within(row, 6), within(column, 9))
    element: Expression = Load(X, (row, column), inside, otherwise)
    value = element if factor is None else element * factor
    return sums((Reduce(op, TOTAL, (), value, inside),))


@pytest.mark.parametrize(
    ("function", "copied"),
    [(windowed("add"), True), (windowed("max"), False), (windowed("add", otherwise=1.0), False)],
)
def test_only_what_adds_zeros_outside_is_copied(function: LoopFunction, copied: bool) -> None:
    body = copy_windows(function.body)
    rewritten = LoopFunction("sums", function.buffers, (), body)
    verify_loops(rewritten)
    guards = [e for e in expressions(body) if isinstance(e, Load) and e.guard is not None]
    assert copied == (not guards) == any(isinstance(s, Allocate) for s in body)
    random = np.random.default_rng(0)
    x, results = random_array(random, DType.F32, (6, 9)), []
    for each in (function, rewritten):
        y = np.zeros((6, 9), np.float32)
        interpret(each, {"x": x.copy(), "y": y}, {})
        results.append(y)
    np.testing.assert_allclose(results[1], results[0], rtol=1e-6)


def test_what_a_loop_writes_is_not_copied() -> None:
    function = windowed("add")
    in_place = sums(function.body[0].body[0].body[2:-1], X)
    assert copy_windows(in_place.body) == in_place.body
