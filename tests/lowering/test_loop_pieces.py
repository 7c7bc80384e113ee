"""Loops are cut where conditions on their variable change, and do the same as before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import mapsto as mt
from mapsto.ir.parser import parse_module
from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.indices import variable
from mapsto.lowering.loop_pieces import _changes, _compared, cut_loops
from mapsto.lowering.loop_printer import loop_text
from mapsto.lowering.loop_verifier import verify_loops
from mapsto.lowering.loops import (
    FALSE,
    TRUE,
    Buffer,
    For,
    If,
    LoopKind,
    Reduce,
    Space,
    compare,
)

OPERATORS = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
GATES = """
map gates(x: f32[n, 4*h]) -> f32[n, h]:
    let (i, f, g, o) = (x[:, :h], x[:, h:2*h], x[:, 2*h:3*h], x[:, 3*h:])
    tanh(i * g + f) * o

map loss(x: f32[n, 4*h]) -> f32: sum(gates(x)^2)

map joined(a: f32[n, i], b: f32[n, j], c: f32[n, k]) -> f32[n, i + j + k]:
    concat([exp(a), b, c * c], axis=1) * 2

map stacked(a: f32[n, h], b: f32[n, h]) -> f32[h, 2]:
    stack([sum(a, axis=0), max(b, axis=0)], axis=1)

map looked_up(x: f32[n, 16], a: f32[9, 16], b: f32[9, 16], ids: i32[n, 2]) -> f32[n, 3, 16]:
    stack([x, a[ids[:, 0]], b[ids[:, 1]]], axis=1)

map shifted(x: f32[n]) -> f32[n]:
    [i] |-> x[i - 1] + x[i + 1]

map pooled(x: f32[n, c, h, w], scale: f32[c], shift: f32[c]):
    let channels = [1, c, 1, 1]
    let y = x * reshape(scale * shift, channels) + reshape(shift, channels)
    max_pool2d(y, 3, stride=2, padding=1)
"""


@pytest.fixture(scope="module")
def library() -> mt.Library:
    return mt.loads(GATES)


@pytest.mark.parametrize(
    ("op", "slope", "rest"), list(itertools.product(OPERATORS, (1, -1), (-3, 0, 2)))
)
def test_places_where_a_condition_changes(op: str, slope: int, rest: int) -> None:
    holds = [bool(OPERATORS[op](slope * v + rest, 0)) for v in range(-9, 10)]
    pairs = zip(range(-8, 10), itertools.pairwise(holds), strict=True)
    assert sorted(_changes(op, slope, rest)) == [v for v, (a, b) in pairs if a != b]


@pytest.mark.parametrize("op", OPERATORS)
def test_conditions_that_bounds_decide(op: str) -> None:
    condition = compare(op, "v", 0)
    for low, high in itertools.combinations_with_replacement(range(-3, 4), 2):
        holds = {bool(OPERATORS[op](v, 0)) for v in range(low, high + 1)}
        expected = {(True,): TRUE, (False,): FALSE}.get(tuple(holds), condition)
        assert _compared(op, low, high, condition) == expected


def kernels(library: mt.Library, name: str, **types: mt.ir.TensorType) -> str:
    """The loops of the kernels of a map, checked."""
    text = getattr(library, name).ir(**types)
    found = lower(parse_module(text), name, Machine.named("x86-64-v3")).kernels
    for kernel in found:
        verify_loops(kernel)
    return "\n".join(map(loop_text, found))


def test_each_part_has_a_loop_of_its_own(library: mt.Library) -> None:
    text = kernels(library, "joined", a=mt.f32[8, 32], b=mt.f32[8, 64], c=mt.f32[8, 16])
    assert text.count("vector") == 3 and " if " not in text and "select" not in text
    assert text.count("exp") == 1 and "32..96 vector" in text


def test_parts_that_are_short_stay_conditions(library: mt.Library) -> None:
    text = kernels(library, "joined", a=mt.f32[8, 3], b=mt.f32[8, 64], c=mt.f32[8, 16])
    assert text.count("vector") == 1 and " if " in text


def test_edges_stay_conditions(library: mt.Library) -> None:
    text = kernels(library, "shifted", x=mt.f32[64])
    assert text.count("vector") == 1 and " if " in text


def test_inner_taps_of_windows_are_read_without_conditions(library: mt.Library) -> None:
    types = {"x": mt.f32[2, 3, 16, 32], "scale": mt.f32[3], "shift": mt.f32[3]}
    text = kernels(library, "pooled", **types)
    taps = [line for line in text.splitlines() if "max=" in line]
    assert len(taps) == 4 and sum("where" in line for line in taps) == 3


def test_what_edges_do_not_change_is_computed_once_a_row(library: mt.Library) -> None:
    types = {"x": mt.f32[2, 3, 16, 32], "scale": mt.f32[3], "shift": mt.f32[3]}
    text = kernels(library, "pooled", **types)
    before, inside = text.split(" vector", 1)
    assert "x1[" in before and "x2[" in before
    assert "x1[" not in inside and "x2[" not in inside


@pytest.mark.parametrize(("h", "w"), [(1, 1), (5, 3), (16, 32), (7, 45)])
def test_pools_of_scaled_images(library: mt.Library, h: int, w: int) -> None:
    random = np.random.default_rng(h)
    x = random.normal(size=(2, 3, h, w)).astype(np.float32)
    scale, shift = (random.normal(size=3).astype(np.float32) for _ in range(2))
    expected = library.pooled.reference(x, scale, shift)
    np.testing.assert_allclose(library.pooled(x, scale, shift), expected, rtol=1e-5, atol=1e-6)


def test_short_outer_indices_have_loops_of_their_own(library: mt.Library) -> None:
    table = mt.f32[9, 16]
    types = {"x": mt.f32[64, 16], "a": table, "b": table, "ids": mt.i32[64, 2]}
    text = kernels(library, "looked_up", **types)
    assert "%" not in text and "//" not in text and text.count("for i1 in") == 3
    random = np.random.default_rng(1)
    a, b, x = (random.normal(size=(k, 16)).astype(np.float32) for k in (9, 9, 64))
    ids = random.integers(0, 9, (64, 2)).astype(np.int32)
    expected = np.stack([x, a[ids[:, 0]], b[ids[:, 1]]], axis=1)
    assert np.array_equal(library.looked_up(x, a, b, ids), expected)


SIZES = [(1, 16, 16, 16), (3, 32, 64, 16), (2, 17, 40, 31), (5, 3, 64, 20)]


@pytest.mark.parametrize("sizes", SIZES)
def test_concatenations(library: mt.Library, sizes: tuple[int, ...]) -> None:
    n, *widths = sizes
    random = np.random.default_rng(n)
    parts = [random.normal(size=(n, width)).astype(np.float32) for width in widths]
    expected = library.joined.reference(*parts)
    np.testing.assert_allclose(library.joined(*parts), expected, rtol=1e-6)
    a = random.normal(size=(n, widths[0])).astype(np.float32)
    np.testing.assert_allclose(library.stacked(a, a), library.stacked.reference(a, a), rtol=1e-6)


@pytest.mark.parametrize("h", [5, 16, 33])
def test_gradients_of_slices(library: mt.Library, h: int) -> None:
    x = np.random.default_rng(h).normal(size=(4, 4 * h)).astype(np.float32)
    slope = mt.grad(library.loss)
    np.testing.assert_allclose(slope(x), slope.reference(x), rtol=1e-5, atol=1e-6)


def sum_of(count: int, kind: LoopKind) -> For:
    """Adds up the first and the second half of an array apart."""
    x, total = Buffer("x", DType.F32, (count,)), Buffer("s", DType.F32, (2,), Space.REGISTER)
    v = variable("v")
    halves = [Reduce("add", total, (i,), x[v]) for i in (0, 1)]
    body = If(compare("lt", "v", count // 2), (halves[0],), (halves[1],))
    return For("v", 0, count, (body,), kind)


def test_reductions_keep_their_order() -> None:
    serial = cut_loops([sum_of(64, LoopKind.SERIAL)])
    assert [(loop.start, loop.stop) for loop in serial] == [(0, 32), (32, 64)]  # type: ignore[union-attr]
    assert not any(isinstance(s, If) for loop in serial for s in loop.body)  # type: ignore[union-attr]
    vector = sum_of(64, LoopKind.VECTOR)
    assert cut_loops([vector]) == (vector,)
