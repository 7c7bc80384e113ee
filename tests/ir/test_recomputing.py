"""Matrices of weights are computed anew for each product that uses one up, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from weighted_programs import function_of, masked, weighted

from mapsto import ir
from mapsto.ir.core import Function, Module, Value
from mapsto.ir.ops.contraction import Contract, contract, reduce_axes
from mapsto.ir.product_sums import ProductSums, SumsTogether, find_sums_together
from mapsto.ir.recomputing import recompute_weights
from mapsto.ir.stages import is_heavy
from mapsto.ir.verifier import verify

SHAPES = (2, 16, 8), (2, 20, 8), (2, 20, 12), (2, 16, 12)
Factor = Callable[[ir.Builder, Value, Value], Value]
"""What a matrix of weights is multiplied with, or divided by, given its total."""


def spread(b: ir.Builder, row: Value, like: Value) -> Value:
    return b.emit(ir.Broadcast, row, shape=like.shape, dims=(0, 1))


def plain(b: ir.Builder, weights: Value, total: Value) -> Value:
    return weights


def scaled(b: ir.Builder, weights: Value, total: Value) -> Value:
    twice = b.emit(ir.Mul, b.like(2, weights), weights)
    return b.emit(ir.Neg, b.emit(ir.Div, twice, spread(b, total, weights)))


def by_keys(b: ir.Builder, weights: Value, total: Value) -> Value:
    """By other numbers for each key, which cannot be taken out of a sum along these."""
    along = b.emit(ir.Iota, type=ir.TensorType(ir.DType.F32, (20,)), axis=0)
    spread_out = b.emit(ir.Broadcast, along, shape=weights.shape, dims=(2,))
    return b.emit(ir.Mul, weights, spread_out)


def gradient(factor: Factor) -> Callable[..., list[Value]]:
    """Weighted sums, and something with the form of their gradient by the queries."""

    def body(b: ir.Builder, q: Value, k: Value, v: Value, w: Value) -> list[Value]:
        parts = weighted(b, q, k, v, masked)
        maps = [ir.projection([0, 1, 3], 4), ir.projection([0, 2, 3], 4)]
        slopes = contract(b, [w, v], maps, (2, 16, 20, 12), 3)
        terms = b.emit(ir.Mul, slopes, factor(b, parts.weights, parts.total))
        delta = reduce_axes(b, "sum", terms, [2])
        rest = b.emit(ir.Sub, slopes, spread(b, delta, slopes))
        matrix = b.emit(ir.Mul, rest, parts.weights)
        maps = [ir.projection([0, 1, 3], 4), ir.projection([0, 3, 2], 4)]
        return [parts.result, contract(b, [matrix, k], maps, (2, 16, 8, 20), 3)]

    return body


def rewritten(function: Function, takes: Callable[[SumsTogether], bool]) -> Function:
    """The function with weights recomputed; checks that it computes the same."""
    result = recompute_weights(function, takes)
    verify(Module.of(result))
    given = [
        np.random.default_rng(0).normal(size=a.shape).astype(np.float32) for a in function.arguments
    ]
    expected = ir.evaluate(Module.of(function), "f", given)
    found = ir.evaluate(Module.of(result), "f", given)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=2e-4, atol=2e-5)
    return result


def products(function: Function) -> int:
    return sum(isinstance(op, Contract) and is_heavy(op) for op in function.block.operations)


@pytest.mark.parametrize("factor", [plain, scaled])
def test_each_use_has_a_matrix_of_its_own(factor: Factor) -> None:
    """And the sum along keys is one along columns."""
    function = function_of(gradient(factor), *SHAPES)
    assert (len(find_sums_together(function.block)), products(function)) == (0, 4)
    result = rewritten(function, lambda sums: True)
    forward, backward = find_sums_together(result.block)
    assert isinstance(backward, ProductSums) and len(backward.products) == 2
    assert forward.inside.isdisjoint(backward.inside)
    assert products(result) == 5, "scores are computed twice"


def test_what_cannot_be_written_otherwise_stays() -> None:
    function = function_of(gradient(by_keys), *SHAPES)
    assert rewritten(function, lambda sums: True).block is function.block


@pytest.mark.parametrize("kind", [ProductSums, ir.weighted_sums.WeightedSums])
def test_a_target_has_to_take_all(kind: type) -> None:
    function = function_of(gradient(plain), *SHAPES)
    result = rewritten(function, lambda sums: not isinstance(sums, kind))
    assert result.block is function.block


def test_a_matrix_that_is_needed_stays() -> None:
    def body(b: ir.Builder, q: Value, k: Value, v: Value, w: Value) -> list[Value]:
        results = gradient(plain)(b, q, k, v, w)
        (weights,) = [op.result for op in b.block.operations if isinstance(op, ir.Exp)]
        return [*results, weights]

    function = function_of(body, *SHAPES)
    assert rewritten(function, lambda sums: True).block is function.block
