"""Whole programs natively: the fused patterns of networks, and a training step, at any batch."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Native, build, check, machines, random_arguments
from training_step import DIGITS, cross_entropy, training_step

from mapsto import ir
from mapsto.ir.core import Function, Module, Value
from mapsto.ir.dims import symbol
from mapsto.ir.ops.contraction import contract, reduce_axes
from mapsto.ir.passes.contractions import Contractions
from mapsto.ir.passes.cse import EliminateCommonSubexpressions
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.passes.differentiate import Differentiate
from mapsto.ir.passes.inline import Inline
from mapsto.ir.types import DType

F32, F64 = DType.F32, DType.F64
n = symbol("n")
BATCHES = [0, 1, 2, 7, 64]


def spread(b: ir.Builder, row: Value, like: Value, *axes: int) -> Value:
    return b.emit(ir.Broadcast, row, shape=like.shape, dims=axes)


def softmax(b: ir.Builder, x: Value, axis: int) -> Value:
    kept = [a for a in range(x.type.rank) if a != axis]
    top = spread(b, reduce_axes(b, "max", x, [axis]), x, *kept)
    e = b.emit(ir.Exp, b.emit(ir.Sub, x, top))
    return b.emit(ir.Div, e, spread(b, reduce_axes(b, "sum", e, [axis]), x, *kept))


def normalize(b: ir.Builder, x: Value, axes: list[int], count: int) -> Value:
    kept = [a for a in range(x.type.rank) if a not in axes]
    total = reduce_axes(b, "sum", x, axes)
    mean = b.emit(ir.Mul, total, b.like(1 / count, total))
    centered = b.emit(ir.Sub, x, spread(b, mean, x, *kept))
    square = reduce_axes(b, "sum", b.emit(ir.Mul, centered, centered), axes)
    variance = b.emit(ir.Mul, square, b.like(1 / count, square))
    scale = b.emit(ir.Rsqrt, b.emit(ir.Add, variance, b.like(1e-5, variance)))
    return b.emit(ir.Mul, centered, spread(b, scale, x, *kept))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", [F32, F64], ids=str)
def test_softmax(axis: int, dtype: DType) -> None:
    function = build("f", [(dtype, (n, 5, 19))], lambda b, x: softmax(b, x, axis))
    for size in BATCHES:
        check(function, sizes={"n": size})


@pytest.mark.parametrize("axes", [[2], [1, 2], [0, 1]], ids=str)
def test_normalization(axes: list[int]) -> None:
    """Layer norm, instance norm, and batch norm over all but the channels."""
    function = build("f", [(F32, (n, 5, 160))], lambda b, x: normalize(b, x, axes, 160))
    for size in BATCHES:
        check(function, sizes={"n": size})


def test_large_rows_and_columns_are_divided_into_tasks() -> None:
    def body(b, x, bias):
        y = b.emit(ir.Add, x, spread(b, bias, x, 1))
        return [softmax(b, y, 1), reduce_axes(b, "sum", y, [0]), b.emit(ir.Tanh, y)]

    check(build("f", [(F32, (700, 900)), (F32, (900,))], body), on=machines()[:1])
    check(build("f", [(F32, (n, 900)), (F32, (900,))], body), sizes={"n": 700}, on=machines()[:1])


def test_one_large_vector_is_divided_into_tasks() -> None:
    def body(b, x, y):
        return [b.emit(ir.Exp, b.emit(ir.Add, x, y)), reduce_axes(b, "sum", x, [0])]

    for size in (300_001, n):
        function = build("f", [(F32, (size,)), (F32, (size,))], body)
        check(function, sizes={"n": 300_001}, on=machines()[:1])


@pytest.mark.parametrize("axes", [[0, 1], [0]], ids=str)
def test_long_sums_are_divided_into_parts(axes: list[int]) -> None:
    """Sums with few results, whose parts are added in an order that threads don't change."""

    def body(b, x):
        total = reduce_axes(b, "sum", x, axes)
        return [b.emit(ir.Tanh, total), reduce_axes(b, "max", x, axes)]

    for rows in (60_001, n):
        function = build("f", [(F32, (rows, 9))], body)
        check(function, sizes={"n": 60_001}, on=machines()[:1], tolerance=1e-4)


def test_attention() -> None:
    """softmax(q k^T) v for several heads: batched products with a softmax between."""

    def body(b, q, k, v):
        def product(x, y, maps, extents):
            return contract(b, [x, y], [ir.projection(m, 5) for m in maps], extents, 4)

        batch, heads, length, width = q.shape
        scores = product(q, k, [(0, 1, 2, 4), (0, 1, 3, 4)], (batch, heads, length, length, width))
        weights = softmax(b, scores, 3)
        return product(
            weights, v, [(0, 1, 2, 4), (0, 1, 4, 3)], (batch, heads, length, width, length)
        )

    function = build("f", [(F32, (n, 3, 17, 12))] * 3, body)
    for size in (1, 2, 7):
        check(function, sizes={"n": size})


def test_heads_are_split_and_merged() -> None:
    def body(b, x):
        split = b.emit(ir.Reshape, x, shape=(n, 17, 3, 12))
        heads = b.emit(ir.Transpose, b.emit(ir.Exp, split), permutation=(0, 2, 1, 3))
        merged = b.emit(ir.Transpose, heads, permutation=(0, 2, 1, 3))
        return [heads, b.emit(ir.Reshape, merged, shape=(n, 17, 36))]

    for size in (1, 2, 7):
        check(build("f", [(F32, (n, 17, 36))], body), sizes={"n": size})


def test_embedding_and_its_gradient() -> None:
    def body(b, table, tokens, gradient):
        rows = b.emit(ir.Gather, table, tokens, axes=(0,))
        normal = softmax(b, rows, 2)
        update = b.emit(ir.ScatterAdd, gradient, tokens, axes=(0,), shape=table.shape)
        return [normal, b.emit(ir.Sub, table, update)]

    arguments = [(F32, (50, 24)), (DType.I32, (n, 9)), (F32, (n, 9, 24))]
    function = build("f", arguments, body, ((1, 0),))
    for size in (1, 2, 7):
        given = random_arguments(function, sizes={"n": size})
        given[1] = np.random.default_rng(0).integers(0, 50, (size, 9)).astype(np.int32)
        check(function, given)


def test_cross_entropy_and_accuracy() -> None:
    def body(b, logits, labels):
        best = b.emit(ir.ArgMax, logits, axis=1)
        right = b.emit(ir.Cast, b.emit(ir.Eq, best, labels), dtype=F32)
        return [cross_entropy(b, logits, labels), reduce_axes(b, "sum", right, [0])]

    function = build("f", [(F32, (n, 10)), (DType.I32, (n,))], body)
    for size in BATCHES:
        given = random_arguments(function, sizes={"n": size})
        given[1] = np.random.default_rng(0).integers(0, 10, size).astype(np.int32)
        check(function, given)


PASSES = (
    Differentiate(),
    Inline(),
    Contractions(),
    EliminateCommonSubexpressions(),
    Contractions(),
    EliminateDeadCode(),
)


def optimized_step(batch) -> Function:
    module: Module = training_step(batch)
    for step in PASSES:
        module = step.run(module)
    return module["step"]


def step_arguments(step: Function, batch: int) -> list[np.ndarray]:
    given = random_arguments(step, sizes={"n": batch})
    given[:4] = [0.1 * p for p in given[:4]]
    given[8:12] = [np.abs(v) for v in given[8:12]]
    given[12] = np.array(3, np.float32)
    given[14] = np.random.default_rng(0).integers(0, 10, batch).astype(np.int32)
    return given


@pytest.mark.parametrize("batch", [64, n])
def test_training_step(batch) -> None:
    step = optimized_step(batch)
    for size in BATCHES if batch is n else [64]:
        natives = check(step, step_arguments(step, size), tolerance=1e-4)
        plan = natives[0].compiled.functions["step"].plan
        assert not plan.copies


def test_the_training_step_learns() -> None:
    """Native steps bring the loss of a fixed batch down, all state in place."""
    step = optimized_step(64)
    generator = np.random.default_rng(0)
    scales = [0.1, 0.0, 0.1, 0.0]
    given = [
        s * generator.normal(size=z).astype(np.float32) for s, z in zip(scales, DIGITS, strict=True)
    ]
    given += [np.zeros(z, np.float32) for z in (*DIGITS, *DIGITS)]
    given = [np.ascontiguousarray(a, np.float32) for a in given]
    given.append(np.array(0, np.float32))
    given.append(generator.normal(size=(64, 64)).astype(np.float32))
    given.append(generator.integers(0, 10, 64).astype(np.int32))
    native = Native(step, machines()[0])
    losses = [float(native(given)[0]) for _ in range(40)]
    assert given[12] == 40
    assert losses[-1] < 0.1 * losses[0]


def test_kernels_that_differ_in_the_sign_of_a_zero_are_two() -> None:
    """As a factor, and as what stands outside of a tensor."""

    def body(b: ir.Builder, x: Value, y: Value) -> list[Value]:
        scaled = [b.emit(ir.Mul, v, b.like(zero, v)) for v, zero in ((x, 0.0), (y, -0.0))]
        padded = [
            b.emit(ir.Pad, v, low=(1,), high=(1,), value=zero) for v, zero in ((x, 0.0), (y, -0.0))
        ]
        return [*scaled, *padded]

    native = Native(build("f", [(F32, (5,)), (F32, (5,))], body), machines()[0])
    scaled, scaled_by_minus, padded, padded_by_minus = native([np.ones(5, np.float32)] * 2)
    assert not np.signbit(scaled).any() and np.signbit(scaled_by_minus).all()
    assert not np.signbit(padded).any() and np.signbit(padded_by_minus[[0, -1]]).all()
