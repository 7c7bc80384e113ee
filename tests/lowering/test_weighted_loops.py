"""Sums weighted by exponentials on a CPU: one kernel that goes over the keys once, with the results
of the evaluator."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from harness import Native, check, machines, random_arguments
from weighted_programs import function_of, indices, masked, weighted

import mapsto as mt
from mapsto import ir
from mapsto.compiler import optimized
from mapsto.ir.core import Function, Module
from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import For
from mapsto.runtime.threads import set_threads, threads

SMALL_CACHE = tuple(replace(machine, l2=1 << 10) for machine in machines())
"""Parts of 16 keys."""
SHAPES = (41, 7), (70, 7), (70, 9)

Body = Callable[..., list[ir.Value]]


def sums(b: ir.Builder, q, k, v) -> list[ir.Value]:
    """The sums and, negated, the totals."""
    parts = weighted(b, q, k, v)
    return [parts.result, b.emit(ir.Neg, parts.total)]


def causal(b: ir.Builder, q, k, v) -> list[ir.Value]:
    parts = weighted(b, q, k, v, masked)
    return [parts.result, parts.total]


def variables(function: Function, machine: Machine = SMALL_CACHE[0]) -> set[str]:
    """The variables of all loops."""
    kernels = lower(Module.of(function), "f", machine).kernels
    return {s.variable for k in kernels for s in statements(k.body) if isinstance(s, For)}


def is_one_pass(function: Function, machine: Machine = SMALL_CACHE[0]) -> bool:
    return "step" in variables(function, machine)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize("body", [sums, causal])
def test_tails(body: Body, dtype: DType) -> None:
    function = function_of(body, *SHAPES, dtype=dtype)
    assert is_one_pass(function)
    check(function, on=SMALL_CACHE if dtype is DType.F32 else SMALL_CACHE[:1])


def test_whole_parts_of_several_matrices() -> None:
    function = function_of(causal, (2, 3, 48, 16), (2, 3, 64, 16), (2, 3, 64, 32))
    assert is_one_pass(function)
    check(function, on=SMALL_CACHE[:1])


def test_keys_that_come_first() -> None:
    def body(b, q, k, v):
        return weighted(b, q, k, v, keys_last=False).result

    function = function_of(body, (40, 8), (8, 50), (50, 16))
    assert is_one_pass(function)
    check(function, on=SMALL_CACHE[:1])


def test_small_and_unknown_matrices_have_kernels_of_their_own() -> None:
    large = replace(SMALL_CACHE[0], l2=1 << 20)
    assert not is_one_pass(function_of(sums, *SHAPES), large)
    assert not is_one_pass(function_of(sums, (4, 7), *SHAPES[1:]))
    assert not is_one_pass(function_of(sums, *SHAPES, dtype=DType.F16))


def test_numbers_that_are_none() -> None:
    """A row of scores that are all infinitely small, or one of which is infinite or no number, has
    no number as its sums; a row that begins with such has."""

    def body(b, q, k, v, bias):
        parts = weighted(b, q, k, v, lambda b, fits: b.emit(ir.Add, fits, bias))
        return [parts.result, parts.total]

    function = function_of(body, (20, 4), (90, 4), (90, 8), (20, 90))
    arguments = random_arguments(function)
    bias = arguments[3]
    bias[1], bias[2, :70], bias[3, 75], bias[4, 3] = -np.inf, -np.inf, np.inf, np.nan
    assert is_one_pass(function)
    check(function, arguments, on=SMALL_CACHE[:1])


@pytest.mark.parametrize("case", ["plain", "no number beyond", "all scores far below"])
def test_keys_that_no_row_sees(case: str) -> None:
    """They are left out, unless they count: where a value is no number, or the row's scores are
    less than theirs."""
    function = function_of(causal, (24, 8), (130, 8), (130, 8))
    q, k, v = random_arguments(function)
    if case == "no number beyond":
        v[120, 2], v[110, 5] = np.nan, np.inf
    if case == "all scores far below":
        q, k = -1e3 * abs(q), 1e3 * abs(k)
    (expected, _) = ir.evaluate(Module.of(function), "f", [q, k, v])
    assert np.isnan(expected).any() == (case == "no number beyond")
    assert "phase" in variables(function)
    check(function, [q, k, v], on=SMALL_CACHE[:1])


def near(score: float) -> Body:
    """Keys from 20 before to 5 before the row's number are seen; others have a score."""

    def window(b: ir.Builder, fits: ir.Value) -> ir.Value:
        row, key = indices(b, fits.shape, 0), indices(b, fits.shape, 1)
        distance = b.emit(ir.Sub, row, key)
        seen = b.emit(
            ir.And,
            b.emit(ir.Le, distance, b.like(20, distance)),
            b.emit(ir.Ge, distance, b.like(5, distance)),
        )
        return b.emit(ir.Select, seen, fits, b.like(score, fits))

    return lambda b, q, k, v: [weighted(b, q, k, v, window).result]


@pytest.mark.parametrize("score", [-1e30, -1e5, -1.0, -math.inf])
def test_windows(score: float) -> None:
    """The first rows see nothing: the weights of all keys are the same there."""
    function = function_of(near(score), (90, 8), (130, 8), (130, 8))
    assert ("phase" in variables(function)) == (score < -1000)
    check(function, on=SMALL_CACHE[:1])


PROGRAM = """
map near(x: f32[n, d], y: f32[m, d], v: f32[m, k]) -> f32[n, k]:
    "Means of values whose weights fall with the distance (Nadaraya, 1964; Watson, 1964)."
    let closeness = [i, j] |-> sum[c](x[i, c] * y[j, c]) - 0.5 * sum[c](y[j, c] * y[j, c])
    let top = [i] |-> max[j](closeness[i, j])
    let weight = [i, j] |-> exp(closeness[i, j] - top[i])
    [i, c] |-> sum[j](weight[i, j] * v[j, c]) / sum[j](weight[i, j])

map grouped(q: f32[n, 6, t, 8], k: f32[n, 3, s, 8], v: f32[n, 3, s, 8]) -> f32[n, 6, t, 8]:
    grouped_attention(q, k, v, causal=true)

map images(q: f32[b, 8, h, w], k: f32[b, 8, m], v: f32[b, 8, m]) -> f32[b, 8, h, w]:
    let fits = [b, y, x, j] |-> sum[c](q[b, c, y, x] * k[b, c, j])
    let weight = softmax(fits, axis=-1)
    [b, c, y, x] |-> sum[j](weight[b, y, x, j] * v[b, c, j])

map heads(x: f32[n, t, 96]) -> f32[n, t, 32]:
    "The heads are beside each other before and after."
    let p = reshape(x, [n, t, 3, 4, 8])
    let q = [b, h, i, c] |-> p[b, i, 0, h, c]
    let k = [b, h, i, c] |-> p[b, i, 1, h, c]
    let v = [b, h, i, c] |-> p[b, i, 2, h, c]
    let mixed = attention(q, k, v, causal=true)
    let beside = [b, i, h, c] |-> mixed[b, h, i, c]
    reshape(beside, [n, t, 32])

map seen(q: f32[b, t, d], k: f32[b, s, d], v: f32[b, s, d], kept: bool[b, s]) -> f32[b, t, d]:
    attention(q, k, v, reshape(kept, [b, 1, s]))
"""
SIZES = {
    "near": {"x": (40, 12), "y": (70, 12), "v": (70, 5)},
    "grouped": {"q": (2, 6, 33, 8), "k": (2, 3, 40, 8), "v": (2, 3, 40, 8)},
    "images": {"q": (2, 8, 6, 9), "k": (2, 8, 54), "v": (2, 8, 54)},
    "heads": {"x": (2, 50, 96)},
    "seen": {"q": (3, 35, 16), "k": (3, 50, 16), "v": (3, 50, 16), "kept": (3, 50)},
}


@pytest.mark.parametrize("name", SIZES)
def test_whoever_writes_it(name: str) -> None:
    random = np.random.default_rng(2)
    drawn = {n: random.normal(size=shape) for n, shape in SIZES[name].items()}
    named = {n: a > 0 if n == "kept" else a.astype(np.float32) for n, a in drawn.items()}
    library = mt.loads(PROGRAM)
    whole = getattr(library, name)
    types = {n: (mt.bool_ if a.dtype == bool else mt.f32)[a.shape] for n, a in named.items()}
    elaborated = whole.elaborate(types, {})
    function = optimized(elaborated.module, mt.Options())[elaborated.entry]
    assert is_one_pass(replace(function, name="f"))
    parts = getattr(mt.loads(PROGRAM, mt.Options(machine=SMALL_CACHE[0])), name)
    np.testing.assert_allclose(parts(**named), whole(**named), rtol=1e-5, atol=1e-5)


def test_same_bits_on_any_number_of_threads_and_in_any_batch() -> None:
    shapes = (3, 2, 70, 8), (3, 2, 90, 8), (3, 2, 90, 16)
    function = function_of(lambda b, q, k, v: causal(b, q, k, v)[0], *shapes)
    given = random_arguments(function)
    native = Native(function, SMALL_CACHE[0], threads=True)
    results, before = [], threads()
    try:
        for count in (1, 2, 5):
            set_threads(count)
            results.append(native(given)[0])
    finally:
        set_threads(before)
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    one = function_of(lambda b, q, k, v: causal(b, q, k, v)[0], *((1, *s[1:]) for s in shapes))
    for number in range(3):
        (alone,) = Native(one, SMALL_CACHE[0])([array[number : number + 1] for array in given])
        assert np.array_equal(alone[0], results[0][number])
