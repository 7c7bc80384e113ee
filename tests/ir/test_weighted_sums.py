"""Sums weighted by exponentials are found where nothing else needs what is inside, and share a
kernel where the target wants that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from weighted_programs import function_of, masked, weighted

from mapsto import ir
from mapsto.ir.core import Function, Module
from mapsto.ir.fusion import fuse_function
from mapsto.ir.ops.contraction import contract, reduce_axes
from mapsto.ir.ops.control import Kernel
from mapsto.ir.weighted_sums import WeightedSums, find_weighted_sums

SHAPES = ((2, 16, 8), (2, 20, 8), (2, 20, 12))


def found(function: Function) -> list[WeightedSums]:
    return find_weighted_sums(function.block)


def kernels(function: Function) -> list[Kernel]:
    """The kernels where every weighted sum has one; checks that they compute the same."""
    fused = fuse_function(function, lambda sums: True)
    arrays = [np.random.default_rng(0).normal(size=a.shape) for a in function.arguments]
    given = [array.astype(np.float32) for array in arrays]
    expected = ir.evaluate(Module.of(function), "f", given)
    for left, right in zip(ir.evaluate(Module.of(fused), "f", given), expected, strict=True):
        np.testing.assert_array_equal(left, right)
    return [op for op in fused.block.operations if isinstance(op, Kernel)]


def test_all_of_it_is_one_kernel() -> None:
    def body(b, q, k, v, bias):
        parts = weighted(b, q, k, v, lambda b, fits: b.emit(ir.Add, masked(b, fits), bias))
        return [b.emit(ir.Tanh, parts.result), parts.total]

    function = function_of(body, *SHAPES, (2, 16, 20))
    (sums,) = found(function)
    assert (sums.keys, sums.side) == (2, 0)
    (kernel,) = kernels(function)
    assert [r.shape for r in kernel.results] == [(2, 16), (2, 16, 12)]


@pytest.mark.parametrize("along", ["total", "another"])
def test_weights_that_are_divided_and_rounded(along: str) -> None:
    def body(b, q, k, v, other):
        weights = weighted(b, q, k, v, masked)
        divisor = weights.total if along == "total" else other
        spread = b.emit(ir.Broadcast, divisor, shape=weights.weights.shape, dims=(0, 1))
        mean = b.emit(ir.Div, weights.weights, spread)
        halves = [b.emit(ir.Cast, x, dtype=ir.DType.F16) for x in (mean, v)]
        maps = [ir.projection([0, 1, 3], 4), ir.projection([0, 3, 2], 4)]
        return [contract(b, halves, maps, (2, 16, 12, 20), 3), weights.total]

    function = function_of(body, *SHAPES, (2, 16))
    assert [sums.is_mean for sums in found(function)] == ([True] if along == "total" else [])
    kernels(function)


def test_what_uses_the_sums_elsewhere_has_another_kernel() -> None:
    def body(b, q, k, v):
        parts = weighted(b, q, k, v)
        return reduce_axes(b, "sum", parts.result, [1])

    assert len(kernels(function_of(body, *SHAPES))) == 2


@pytest.mark.parametrize("kept", ["weights", "scores"])
def test_what_is_needed_outside_is_computed_as_before(kept: str) -> None:
    def body(b, q, k, v):
        parts = weighted(b, q, k, v, masked)
        return [parts.result, getattr(parts, kept)]

    assert not found(function_of(body, *SHAPES))


def test_scores_of_two_products_are_not_taken() -> None:
    def body(b, q, k, v):
        maps = [ir.projection([0, 1, 3], 4), ir.projection([0, 2, 3], 4)]
        other = contract(b, [q, k], maps, (2, 16, 20, 8), 3)
        return weighted(
            b, q, k, v, lambda b, fits: b.emit(ir.Add, fits, b.emit(ir.Exp, other))
        ).sums

    assert not found(function_of(body, *SHAPES))


def test_values_that_need_the_total_are_not_taken() -> None:
    def body(b, q, k, v):
        parts = weighted(b, q, k, v)
        square = b.emit(ir.Broadcast, parts.total, shape=(2, 16, 12), dims=(0, 1))
        again = weighted(b, q, k, b.emit(ir.Mul, v, square))
        return [again.result, parts.result]

    # Both have one product, one greatest score and the same weights; the second reads the first.
    shapes = (2, 16, 8), (2, 16, 8), (2, 16, 12)
    assert len(found(function_of(body, *shapes))) == 2
    assert len(kernels(function_of(body, *shapes))) == 3


def needing_each_other(b: ir.Builder, q, k, v) -> Sequence[ir.Value]:
    """Two of which each weights by the total of the other."""
    maps = [ir.projection([0, 1, 3], 4), ir.projection([0, 3, 2], 4)]
    parts = [weighted(b, q, k, v), weighted(b, k, q, v)]
    results = []
    for own, other in (parts, reversed(parts)):
        spread = b.emit(ir.Broadcast, other.total, shape=v.shape, dims=(0, 1))
        values = b.emit(ir.Mul, v, spread)
        results.append(contract(b, [own.weights, values], maps, (2, 16, 12, 16), 3))
    return results


def test_those_that_need_each_other_are_not_both_taken() -> None:
    function = function_of(needing_each_other, (2, 16, 8), (2, 16, 8), (2, 16, 12))
    assert len(found(function)) == 2
    assert len(kernels(function)) > 2
