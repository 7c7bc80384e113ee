"""Conditions on positions that say nothing new: decided ones, and those that keep a read inside of
a tensor, which gives 0 outside anyway."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from mapsto.ir.affine import AffineExpr, identity_map
from mapsto.ir.bounds import nonnegative
from mapsto.ir.core import Value
from mapsto.ir.dims import Dim
from mapsto.ir.index_values import least_where_true
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.logic import And, Compare, Select
from mapsto.ir.ops.shaping import Broadcast, Constant
from mapsto.ir.passes.contraction_views import rebuilt
from mapsto.ir.rewriting import Pattern, Rewriter, rewrite

__all__ = ["INDEX_RULES"]


@rewrite
def decided_comparison(op: Compare, rewriter: Rewriter) -> Value | None:
    """i + 1 > 0 for every index i"""
    expr = least_where_true(op)
    bounds = None if expr is None else expr.bounds(op.result.shape)
    if bounds is None:
        return None
    always, never = nonnegative(bounds[0]), nonnegative(-1 - bounds[1])
    return rewriter.constant_like(always, op.result) if always or never else None


@rewrite
def condition_of_a_read(op: Select, rewriter: Rewriter) -> Value | None:
    """select(i >= 3, x[i - 3], 0) = x[i - 3], as x[-1] reads 0; and so for ends, and parts of a
    condition"""
    condition, read, other = op.operands
    source = read.defining_op
    if not isinstance(source, Contract) or not _is_read(source) or not _is_zero(other):
        return None
    position = identity_map(source.rank).results
    left = _left(condition, position, lambda e: _false_outside(e, source), rewriter)
    if left is condition:
        return None
    return read if left is None else rewriter.emit(Select, left, read, other)


@rewrite
def condition_at_a_read(op: Contract, rewriter: Rewriter) -> Value | None:
    """y[i - 3] = x[i - 3] for i >= 3, where y is select(j >= 0, x, 0) at j; and so for parts of a
    condition: those that hold wherever y is read"""
    for number, operand in enumerate(op.operands):
        source = operand.defining_op
        if not isinstance(source, Select) or not rewriter.used_once(operand):
            continue
        condition, x, other = source.operands
        position = op.maps[number].results
        left = _left(condition, position, lambda e: _holds(e, op.extents), rewriter)
        if not _is_zero(other) or left is condition:
            continue
        inner = x if left is None else rewriter.emit(Select, left, x, other)
        operands = [*op.operands[:number], inner, *op.operands[number + 1 :]]
        return rebuilt(op, rewriter, operands, op.maps)
    return None


def _is_read(op: Contract) -> bool:
    """Whether it is an access to one tensor."""
    return len(op.operands) == 1 and not op.reduced and op.kind == "sum"


def _is_zero(value: Value) -> bool:
    op = value.defining_op
    if not isinstance(op, Constant) or op.splat is None:
        return False
    return op.splat == 0 and math.copysign(1, op.splat) > 0


def _left(
    condition: Value,
    position: Sequence[AffineExpr],
    needless: Callable[[AffineExpr], bool],
    rewriter: Rewriter,
) -> Value | None:
    """What is left of a condition, at this position, without its needless parts: those that hold
    just where some expression is at least 0.  None where nothing is left."""
    op = condition.defining_op
    match op:
        case Compare():
            expr = least_where_true(op)
            gone = expr is not None and needless(expr.compose(position))
            return None if gone else condition
        case Broadcast():
            inner = _left(op.operands[0], [position[d] for d in op.dims], needless, rewriter)
            if inner is None or inner is op.operands[0]:
                return None if inner is None else condition
            return rewriter.emit(Broadcast, inner, shape=op.shape, dims=op.dims)
        case And():
            both = [_left(part, position, needless, rewriter) for part in op.operands]
            if both == list(op.operands):
                return condition
            parts = [part for part in both if part is not None]
            return rewriter.emit(And, *parts) if len(parts) == 2 else next(iter(parts), None)
    return condition


def _holds(expr: AffineExpr, extents: Sequence[Dim]) -> bool:
    """Whether the expression is at least 0 all over a domain."""
    bounds = expr.bounds(extents)
    return bounds is not None and nonnegative(bounds[0])


def _false_outside(expr: AffineExpr, read: Contract) -> bool:
    """Whether some axis is read outside wherever the expression is negative."""
    pairs = zip(read.maps[0].results, read.operands[0].shape, strict=True)
    return any(_before(place, expr) or _past(place, expr, size) for place, size in pairs)


def _before(place: AffineExpr, expr: AffineExpr) -> bool:
    """Whether the place is negative where the expression is: no greater than that."""
    gap = expr + place.scaled(-1)
    return not gap.dims and nonnegative(gap.constant)


def _past(place: AffineExpr, expr: AffineExpr, size: Dim) -> bool:
    """Whether the place is `size` or more where the expression is negative, so -1 at most."""
    total = place + expr
    return not total.dims and nonnegative(total.constant + 1 - size)


INDEX_RULES: tuple[Pattern, ...] = (
    decided_comparison,
    condition_of_a_read,
    condition_at_a_read,
)
