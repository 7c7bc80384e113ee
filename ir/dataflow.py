"""How ops read their operands: the affine positions, as far as there are any.

Every op computes its result over an iteration domain: the dimensions of the result and, of a
reduction, the reduced ones after them.  A `Place` tells where along each axis of an operand a point
of the domain reads: an affine expression of the point, or None where that depends on values.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate

from mapsto.ir.affine import AffineExpr, axis
from mapsto.ir.core import Operation, Trait
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.indexing import ArgMax, ArgMin, Gather
from mapsto.ir.ops.shaping import Broadcast, Concat, Pad, Reshape, Slice, Transpose

__all__ = [
    "Place",
    "compose_place",
    "domain",
    "identity_place",
    "is_identity",
    "is_view",
    "operand_places",
    "reshape_groups",
    "takes_loop",
]

Place = tuple[AffineExpr | None, ...]


def takes_loop(op: Operation) -> bool:
    """Whether one element of the result takes a loop over the operands."""
    if isinstance(op, Contract):
        return bool(op.reduced)
    return isinstance(op, ArgMax | ArgMin) or op.has(Trait.WHOLE)


def domain(op: Operation) -> tuple[Dim, ...]:
    """The extents of the iteration domain, those of the result first."""
    if isinstance(op, Contract):
        return op.extents
    if isinstance(op, ArgMax | ArgMin):
        return (*op.result.shape, op.operands[0].shape[op.axis])
    return op.result.shape


@cache
def identity_place(rank: int, total: int | None = None) -> Place:
    """Each axis at the domain's dimension of the same number; the domain has `total` of them."""
    return tuple(axis(i, rank if total is None else total) for i in range(rank))


def is_identity(place: Place) -> bool:
    """Whether each axis is read at the domain's dimension of the same number."""
    return all(expr is not None and expr.single == i for i, expr in enumerate(place))


def compose_place(inner: Place, outer: Place, rank: int) -> Place:
    """`inner` (over the axes of a value) where the value is itself read at `outer`, which is over a
    domain of this rank."""
    if inner is identity_place(len(outer)):
        return outer
    return tuple(_compose(expr, outer, rank) for expr in inner)


def _compose(expr: AffineExpr | None, outer: Place, rank: int) -> AffineExpr | None:
    if expr is None or any(outer[d] is None for d in expr.dims):
        return None
    total = AffineExpr((0,) * rank, expr.constant)
    for coefficient, replaced in zip(expr.coefficients, outer, strict=True):
        if coefficient != 0 and replaced is not None:
            total = total + replaced.scaled(coefficient)
    return total


def operand_places(op: Operation) -> list[Place]:
    """For each operand, where a point of the domain reads it."""
    if op.has(Trait.ELEMENTWISE):
        return [identity_place(op.result.type.rank)] * len(op.operands)
    match op:
        case Contract():
            return [map_.results for map_ in op.maps]
        case Broadcast():
            return [tuple(axis(d, len(op.shape)) for d in op.dims)]
        case Transpose():
            rank = len(op.permutation)
            return [tuple(axis(op.permutation.index(i), rank) for i in range(rank))]
        case Slice():
            return [_slice_place(op)]
        case Pad():
            rank = len(op.low)
            return [tuple(axis(i, rank).shifted(-low) for i, low in enumerate(op.low))]
        case Concat():
            return _concat_places(op)
        case Reshape():
            return [_reshape_place(op)]
        case Gather():
            return _gather_places(op)
        case ArgMax() | ArgMin():
            rank = op.operands[0].type.rank
            dims = [*range(op.axis), rank - 1, *range(op.axis, rank - 1)]
            return [tuple(axis(d, rank) for d in dims)]
    return [(None,) * operand.type.rank for operand in op.operands]


def _slice_place(op: Slice) -> Place:
    rank = len(op.starts)
    pairs = zip(op.starts, op.steps, strict=True)
    return tuple(axis(i, rank).scaled(step).shifted(start) for i, (start, step) in enumerate(pairs))


def _concat_places(op: Concat) -> list[Place]:
    rank = op.result.type.rank
    starts = accumulate((operand.shape[op.axis] for operand in op.operands), initial=0)
    shifts = [[-start if i == op.axis else 0 for i in range(rank)] for start in starts]
    return [
        tuple(axis(i, rank).shifted(offset) for i, offset in enumerate(shift))
        for shift, _ in zip(shifts, op.operands, strict=False)
    ]


def _gather_places(op: Gather) -> list[Place]:
    rank, batch = op.result.type.rank, op.indices[0].type.rank
    kept = iter(range(batch, rank))
    source = tuple(
        None if a in op.axes else axis(next(kept), rank) for a in range(op.operands[0].type.rank)
    )
    return [source, *[identity_place(batch, rank)] * len(op.indices)]


# ---- reshapes

Group = tuple[tuple[int, ...], tuple[int, ...]]


def reshape_groups(source: Sequence[Dim], target: Sequence[Dim]) -> list[Group]:
    """The axes, grouped so that each group of the source has as many elements as the group of the
    target beside it.  Axes of size 1 are in no group."""
    left = [i for i, d in enumerate(source) if d != 1]
    right = [i for i, d in enumerate(target) if d != 1]
    totals = _prefix_products([target[i] for i in right])
    groups: list[Group] = []
    first = start = 0
    for i, total in enumerate(_prefix_products([source[i] for i in left])):
        if total in totals[start:]:
            stop = totals.index(total, start) + 1
            groups.append((tuple(left[first : i + 1]), tuple(right[start:stop])))
            first, start = i + 1, stop
    if first < len(left) or start < len(right):
        groups.append((tuple(left[first:]), tuple(right[start:])))
    return groups


def _prefix_products(dims: Sequence[Dim]) -> list[Dim]:
    return list(accumulate(dims, lambda a, b: a * b))


def is_view(op: Operation) -> bool:
    """Whether the op is a reshape that reads several axes at what was one index: cheap as another
    view of the same memory, dear as arithmetic on indices."""
    if not isinstance(op, Reshape):
        return False
    groups = reshape_groups(op.operands[0].shape, op.shape)
    return any(len(source) != 1 for source, _ in groups)


def _reshape_place(op: Reshape) -> Place:
    rank = len(op.shape)
    place: list[AffineExpr | None] = [AffineExpr((0,) * rank)] * op.operands[0].type.rank
    for source, target in reshape_groups(op.operands[0].shape, op.shape):
        total: AffineExpr | None = AffineExpr((0,) * rank)
        for d in target:
            assert total is not None
            total = total.scaled(op.shape[d]) + axis(d, rank)
        for i in source:
            place[i] = total if len(source) == 1 else None
    return tuple(place)
