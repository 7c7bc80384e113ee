"""Weighted sums under masks of indices: what is left out, and that the results stay the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from harness import Native, build, compare, machines, random_arguments

import mapsto as mt
from mapsto import ir
from mapsto.compiler import optimized
from mapsto.ir.bands import Band, constant_outside
from mapsto.ir.core import Function, Module
from mapsto.ir.evaluator import evaluate
from mapsto.ir.ops.contraction import Contract, contract, reduce_axes
from mapsto.ir.passes.bands import Bands
from mapsto.ir.types import DType, TensorType
from mapsto.ir.verifier import verify
from mapsto.lowering.driver import lower
from mapsto.runtime.threads import set_threads, threads

F32, I32 = DType.F32, DType.I32
SMALL = Bands(rows=8, work=1)
TYPES = [(F32, (2, 3, 32, 8)), (F32, (2, 3, 32, 8)), (F32, (2, 3, 32, 16))]
SHAPE = (2, 3, 32, 32)

Mask = Callable[[ir.Builder, ir.Value, ir.Value], ir.Value]
"""From the indices of rows and keys, of shape [32, 32], to truth values."""


def causal(b, i, j):
    return b.emit(ir.Le, j, i)


def window(b, i, j):
    near = b.emit(ir.Gt, j, b.emit(ir.Sub, i, b.like(6, i)))
    return b.emit(ir.And, causal(b, i, j), near)


def later(b, i, j):
    return b.emit(ir.Not, b.emit(ir.Lt, b.emit(ir.Add, j, b.like(3, j)), i))


def diagonal(b, i, j):
    return b.emit(ir.Eq, b.emit(ir.Neg, j), b.emit(ir.Neg, i))


def off_diagonal(b, i, j):
    return b.emit(ir.Ne, j, i)


def either(b, i, j):
    return b.emit(ir.Or, diagonal(b, i, j), b.emit(ir.Ge, b.emit(ir.Sub, i, j), b.like(20, i)))


def squares(b, i, j):
    return b.emit(ir.Le, b.emit(ir.Mul, j, j), i)


MASKS = [causal, window, later, diagonal, off_diagonal, either, squares]


def masked(b: ir.Builder, fits: ir.Value, mask: Mask, fill: float) -> ir.Value:
    size = fits.shape[-2:]
    i, j = (
        b.emit(ir.Broadcast, index, shape=size, dims=(axis,))
        for axis, extent in enumerate(size)
        for index in [b.emit(ir.Iota, axis=0, type=TensorType(I32, (extent,)))]
    )
    seen = b.emit(ir.Broadcast, mask(b, i, j), shape=fits.shape, dims=(2, 3))
    return b.emit(ir.Select, seen, fits, b.like(fill, fits))


def attention(mask: Mask, fill: float = -1e30):
    def body(b: ir.Builder, q: ir.Value, k: ir.Value, v: ir.Value) -> ir.Value:
        return weighted(b, masked(b, fits_of(b, q, k), mask, fill), v)

    return body


def fits_of(b: ir.Builder, q: ir.Value, k: ir.Value) -> ir.Value:
    n, heads, rows, width = q.shape
    maps = [ir.projection((0, 1, 2, 4), 5), ir.projection((0, 1, 3, 4), 5)]
    return contract(b, [q, k], maps, (n, heads, rows, k.shape[2], width), 4)


def weighted(b: ir.Builder, scores: ir.Value, v: ir.Value) -> ir.Value:
    n, heads, rows, keys = scores.shape
    top = reduce_axes(b, "max", scores, [3])
    top = b.emit(ir.Broadcast, top, shape=scores.shape, dims=(0, 1, 2))
    e = b.emit(ir.Exp, b.emit(ir.Sub, scores, top))
    total = reduce_axes(b, "sum", e, [3])
    maps = [ir.projection((0, 1, 2, 4), 5), ir.projection((0, 1, 4, 3), 5)]
    sums = contract(b, [e, v], maps, (n, heads, rows, v.shape[3], keys), 4)
    return b.emit(ir.Div, sums, b.emit(ir.Broadcast, total, shape=sums.shape, dims=(0, 1, 2)))


def keys_read(function: Function) -> int:
    """How many scores are computed, for a batch and a head."""
    found = [op for op in function.operations() if isinstance(op, Contract) and op.rank == 4]
    fits = [op for op in found if len(op.operands) == 2 and op.extents[4] == 8]
    return sum(int(op.extents[2]) * int(op.extents[3]) for op in fits)


def products(function: Function) -> int:
    """How many products are summed."""
    found = [op for op in function.operations() if isinstance(op, Contract)]
    return sum(math.prod(op.extents) for op in found if len(op.operands) == 2)


def in_bands(function: Function, make: Bands = SMALL) -> Function:
    made = make.run(Module.of(function))
    verify(made)
    return made["f"]


def values(function: Function, arguments: list[np.ndarray]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return evaluate(Module.of(function), "f", arguments)[0]


@pytest.mark.parametrize("mask", MASKS)
def test_what_is_found_holds(mask: Mask) -> None:
    """Outside of the band every element is the constant."""

    def body(b, x):
        return masked(b, x, mask, -7.0)

    function = build("f", [(F32, SHAPE)], body)
    found = constant_outside(function.results[0], (2, 3))
    if mask in (off_diagonal, squares):
        assert found is None
        return
    assert found is not None and found[0] == -7.0
    band = found[1]
    result = values(function, random_arguments(function))
    i, j = np.ogrid[:32, :32]
    outside = (j - i < band.low) | (j - i > band.high)
    assert outside.any() and (result[..., outside] == -7.0).all()
    narrower = Band(band.low + 1, band.high) if band.low > -32 else Band(band.low, band.high - 1)
    more = (j - i < narrower.low) | (j - i > narrower.high)
    assert (result[..., more] != -7.0).any(), "the band is no wider than it has to be"


@pytest.mark.parametrize("mask", [causal, window, later, diagonal])
@pytest.mark.parametrize("fill", [-1e30, 0.5, float("-inf")])
def test_results_are_those_of_the_whole(mask: Mask, fill: float) -> None:
    """For any number in place of what is masked: it need not be small."""
    function = build("f", TYPES, attention(mask, fill))
    arguments = random_arguments(function)
    split = in_bands(function)
    assert keys_read(split) < keys_read(function)
    found, wanted = values(split, arguments), values(function, arguments)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_infinities_and_nan_go_where_they_went(bad: float, which: int) -> None:
    function = build("f", TYPES, attention(causal))
    arguments = random_arguments(function)
    arguments[which][0, 1, 20] = bad
    arguments[which][1, :, 5, 2] = bad
    found, wanted = values(in_bands(function), arguments), values(function, arguments)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_rows_that_see_nothing_but_what_is_masked() -> None:
    """All scores are far below the number: the weights of what is left out are what counts."""
    function = build("f", TYPES, attention(causal, 3.0))
    arguments = random_arguments(function)
    arguments[0][...] = np.abs(arguments[0]) * 100
    arguments[1][...] = -np.abs(arguments[1])
    found, wanted = values(in_bands(function), arguments), values(function, arguments)
    assert np.ptp(wanted[0, 0, :31], axis=0).max() > 0
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_scores_may_be_scaled_before_and_after_and_have_biases() -> None:
    def body(b, q, k, v, bias):
        fits = fits_of(b, q, k)
        added = b.emit(ir.Broadcast, bias, shape=fits.shape, dims=(1, 2, 3))
        scores = masked(b, b.emit(ir.Add, fits, added), window, -40.0)
        return weighted(b, b.emit(ir.Mul, scores, b.like(0.5, scores)), v)

    function = build("f", [*TYPES, (F32, (3, 32, 32))], body)
    split = in_bands(function)
    assert keys_read(split) < keys_read(function) / 2
    arguments = random_arguments(function)
    found, wanted = values(split, arguments), values(function, arguments)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


def test_a_second_mask_that_is_not_known_changes_nothing() -> None:
    def body(b, q, k, v, kept):
        scores = masked(b, fits_of(b, q, k), causal, -1e30)
        seen = b.emit(ir.Broadcast, kept, shape=scores.shape, dims=(0, 3))
        return weighted(b, b.emit(ir.Select, seen, scores, b.like(-1e30, scores)), v)

    function = build("f", [*TYPES, (DType.BOOL, (2, 32))], body)
    split = in_bands(function)
    assert keys_read(split) < keys_read(function)
    arguments = random_arguments(function)
    found, wanted = values(split, arguments), values(function, arguments)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)


SOURCE = """
map attend(q: f32[2,3,32,8], k: f32[2,3,32,8], v: f32[2,3,32,16]) -> f32[2,3,32,16]:
    let fits = [n, h, i, j] |-> sum[c](q[n, h, i, c] * k[n, h, j, c])
    let seen = [n, h, i, j] |-> if j <= i and j > i - 12 then fits[n, h, i, j] else FILL
    weigh(seen, v)

map softly(s: f32[2,3,32,32], v: f32[2,3,32,16]) -> f32[2,3,32,16]:
    softmax(s) @ v

map linear(s: f32[2,3,32,32], v: f32[2,3,32,16]) -> f32[2,3,32,16]:
    s @ v

map loss(q: f32[2,3,32,8], k: f32[2,3,32,8], v: f32[2,3,32,16]) -> f32:
    sum(attend(q, k, v)^3)

map gradients(q: f32[2,3,32,8], k: f32[2,3,32,8], v: f32[2,3,32,16]):
    grad(loss, argnums=(0, 1, 2))(q, k, v)
"""


GROUPED = (
    SOURCE.replace("n, h, i", "n, h, g, i")
    .replace("s: f32[2,3,32", "s: f32[2,3,1,32")
    .replace("q: f32[2,3,32", "q: f32[2,3,1,32")
    .replace("    s @ v", "    mixed(s, v)")
    .replace("    softmax(s) @ v", "    mixed(softmax(s), v)")
    + """
map mixed(w: f32[2,3,1,32,32], v: f32[2,3,32,16]) -> f32[2,3,32,16]:
    let sums = [n, h, g, i, c] |-> sum[j](w[n, h, g, i, j] * v[n, h, j, c])
    reshape(sums, [2, 3, 32, 16])
"""
)
"""The same with an axis of queries that share keys, of which there is one."""


@pytest.mark.parametrize("source", [SOURCE, GROUPED], ids=["heads", "groups of one"])
@pytest.mark.parametrize("weigh", ["softly", "linear"])
@pytest.mark.parametrize("fill", ["-1e30", "0.25"])
def test_backward_passes_are_in_bands_too(source: str, weigh: str, fill: str) -> None:
    """By queries, keys and values; the weights of what is masked need not be zero."""
    library = mt.loads(source.replace("weigh", weigh).replace("FILL", fill))
    types = {name: mt.f32[shape] for name, (_, shape) in zip("qkv", TYPES, strict=True)}
    if source == GROUPED:
        types["q"] = mt.f32[2, 3, 1, 32, 8]
    elaborated = library.gradients.elaborate(types, {})
    module = optimized(elaborated.module, mt.Options())
    function = replace(module[elaborated.entry], name="f")
    split = in_bands(function)
    assert products(split) < 0.75 * products(function)
    arguments = random_arguments(function)
    wanted = evaluate(Module.of(function), "f", arguments)
    found = evaluate(Module.of(split), "f", arguments)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_same_bits_on_any_number_of_threads() -> None:
    split = in_bands(build("f", TYPES, attention(causal)))
    arguments = random_arguments(split)
    native = Native(split, machines()[0], threads=True)
    results, before = [], threads()
    try:
        for count in (1, 2, 5):
            set_threads(count)
            results.append(native(arguments)[0].tobytes())
    finally:
        set_threads(before)
    assert results[0] == results[1] == results[2]
    compare(Native(split, machines()[0]), arguments, evaluate(Module.of(split), "f", arguments))


@pytest.mark.parametrize("mask", [off_diagonal, squares])
def test_masks_that_leave_no_band(mask: Mask) -> None:
    function = build("f", TYPES, attention(mask))
    assert keys_read(in_bands(function)) == 32 * 32


@pytest.mark.parametrize(
    "make", [replace(SMALL, rows=17), replace(SMALL, work=1 << 20)], ids=["few rows", "little work"]
)
def test_where_it_does_not_pay(make: Bands) -> None:
    assert keys_read(in_bands(build("f", TYPES, attention(causal)), make)) == 32 * 32


def test_weights_that_something_else_needs() -> None:
    def body(b, q, k, v):
        scores = masked(b, fits_of(b, q, k), causal, -1e30)
        return [weighted(b, scores, v), b.emit(ir.Exp, scores)]

    assert keys_read(in_bands(build("f", TYPES, body))) == 32 * 32


def test_long_sequences_are_in_bands_on_a_cpu() -> None:
    types = [(F32, (1, 2, 256, 32))] * 3
    machine = replace(machines()[0], cores=10**6)
    compiled = lower(Module.of(build("f", types, attention(causal))), "f", machine)
    fused = compiled.functions["f"].function
    fits = [op for op in fused.operations() if isinstance(op, Contract) and op.extents[-1] == 32]
    assert sorted(op.extents[2:4] for op in fits if op.rank == 4) == [
        (64, keys) for keys in (64, 128, 192, 256)
    ]


def test_sums_of_half_numbers_stay_in_their_range() -> None:
    library = mt.loads(
        "map f(q: f16[1, 1, 512, 16], v: f16[1, 1, 512, 16]): attention(q, q, v, causal=true)"
    )
    q = np.random.default_rng(0).normal(size=(1, 1, 512, 16)).astype(np.float16)
    found = library.f(q, np.full_like(q, 400.0))
    np.testing.assert_allclose(found.astype(np.float32), 400.0, rtol=1e-2)
