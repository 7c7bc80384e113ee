"""Sums weighted by exponentials, in the tensor IR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapsto import ir
from mapsto.ir.core import Function, Module, Value
from mapsto.ir.ops.contraction import contract, reduce_axes
from mapsto.ir.passes.dce import EliminateDeadCode
from mapsto.ir.types import DType, TensorType

__all__ = ["Parts", "function_of", "indices", "masked", "weighted"]

Score = Callable[[ir.Builder, Value], Value]


@dataclass(frozen=True)
class Parts:
    """The values of weighted sums, from the scores on."""

    scores: Value
    weights: Value
    total: Value
    sums: Value
    result: Value


def weighted(
    b: ir.Builder, q: Value, k: Value, v: Value, score: Score | None = None, keys_last: bool = True
) -> Parts:
    """softmax(score(q @ k)) @ v for q[.., t, d], k[.., s, d], v[.., s, e]; or for k[.., d, s]."""
    outer, rank = q.shape[:-2], q.type.rank
    lead = list(range(rank - 2))
    t, s, last = rank - 2, rank - 1, rank
    maps = [ir.projection([*lead, t, last], rank + 1)]
    maps += [ir.projection([*lead, *((s, last) if keys_last else (last, s))], rank + 1)]
    keys = k.shape[-2] if keys_last else k.shape[-1]
    fits = contract(b, [q, k], maps, (*outer, q.shape[-2], keys, q.shape[-1]), rank)
    scores = fits if score is None else score(b, fits)
    top = reduce_axes(b, "max", scores, [rank - 1])
    weights = b.emit(ir.Exp, b.emit(ir.Sub, scores, _along(b, top, scores.shape)))
    total = reduce_axes(b, "sum", weights, [rank - 1])
    maps = [ir.projection([*lead, t, last], rank + 1), ir.projection([*lead, last, s], rank + 1)]
    extents = (*outer, q.shape[-2], v.shape[-1], keys)
    sums = contract(b, [weights, v], maps, extents, rank)
    result = b.emit(ir.Div, sums, _along(b, total, sums.shape))
    return Parts(scores, weights, total, sums, result)


def _along(b: ir.Builder, x: Value, shape: Sequence[int]) -> Value:
    return b.emit(ir.Broadcast, x, shape=tuple(shape), dims=tuple(range(x.type.rank)))


def masked(b: ir.Builder, fits: Value) -> Value:
    """A third of the scores, of keys up to the row; of others a number far below them."""
    rank = fits.type.rank
    keys, rows = (indices(b, fits.shape, axis) for axis in (rank - 1, rank - 2))
    seen = b.emit(ir.Le, keys, rows)
    third = b.emit(ir.Mul, fits, b.like(1 / 3, fits))
    return b.emit(ir.Select, seen, third, b.like(-3e4, fits))


def indices(b: ir.Builder, shape: Sequence[int], axis: int) -> Value:
    """The index of each element along an axis."""
    along = b.emit(ir.Iota, type=TensorType(DType.I32, (shape[axis],)), axis=0)
    return b.emit(ir.Broadcast, along, shape=tuple(shape), dims=(axis,))


def function_of(
    body: Callable[..., Value | Sequence[Value]],
    *shapes: Sequence[int],
    dtype: DType = DType.F32,
) -> Function:
    """The function of tensors of these shapes, without what its results do not need."""
    builder = ir.Builder(ir.Block([TensorType(dtype, tuple(shape)) for shape in shapes]))
    results = body(builder, *builder.block.arguments)
    results = [results] if isinstance(results, Value) else results
    module = Module.of(ir.finish_function("f", builder, results))
    return EliminateDeadCode().run(module)["f"]
