"""What moves elements before or after a contraction becomes part of its maps."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.affine import AffineExpr, AffineMap, axis, projection
from mapsto.ir.bounds import in_bounds
from mapsto.ir.core import Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.shaping import Broadcast, Pad, Reshape, Slice, Transpose
from mapsto.ir.rewriting import Pattern, Rewriter, rewrite

__all__ = ["VIEW_RULES", "composed", "reads_inside", "rebuilt", "without_dimensions"]


def rebuilt(
    op: Contract, rewriter: Rewriter, operands: Sequence[Value], maps: Sequence[AffineMap]
) -> Value:
    """The same contraction of other operands."""
    return rewriter.emit(Contract, *operands, **{**op.attributes, "maps": tuple(maps)})


def reads_inside(op: Contract, number: int) -> bool:
    """Whether a contraction provably never reads outside of an operand."""
    return in_bounds(op.maps[number], op.extents, op.operands[number].shape)


@rewrite
def absorb_access(op: Contract, rewriter: Rewriter) -> Value | None:
    """contract(view(x), ...) = contract(x, ...), read through the composed map

    A view is a transpose, broadcast, slice, zero pad, a reshape that only adds or drops axes of
    size 1, or an access by an affine map.
    """
    for number, operand in enumerate(op.operands):
        found = _view(operand)
        if found is None:
            continue
        source, inner = found
        # What is outside of a rearrangement is outside of its source; other views lose that.
        if not _rearranges(source, inner, op, number) and not reads_inside(op, number):
            continue
        needs_zero = not in_bounds(inner, operand.shape, source.shape)
        if needs_zero and op.kind != "sum":
            continue
        maps = list(op.maps)
        maps[number] = composed(inner, op.maps[number], len(op.extents))
        operands = [*op.operands[:number], source, *op.operands[number + 1 :]]
        return rebuilt(op, rewriter, operands, maps)
    return None


def _rearranges(source: Value, inner: AffineMap, op: Contract, number: int) -> bool:
    """Whether a view has the axes of its source, whole, in some order, and others of size 1 that
    are read inside."""
    view = op.operands[number]
    seen: set[int] = set()
    for expr, size in zip(inner.results, source.shape, strict=True):
        dim = expr.single
        if dim is None:
            if expr.dims or expr.constant != 0 or size != 1:
                return False
        elif dim in seen or view.shape[dim] != size:
            return False
        else:
            seen.add(dim)
    added = [d for d in range(view.type.rank) if d not in seen]
    exprs = [op.maps[number].results[d] for d in added]
    return in_bounds(AffineMap(len(op.extents), tuple(exprs)), op.extents, [1] * len(added))


def composed(inner: AffineMap, outer: AffineMap, rank: int) -> AffineMap:
    """Where an operand's source is read; a source of rank 0 has no position."""
    if not outer.results:
        return AffineMap(rank, tuple(AffineExpr((0,) * rank, e.constant) for e in inner.results))
    return inner.compose(outer.results)


def _view(value: Value) -> tuple[Value, AffineMap] | None:
    """The source of a value that only moves its elements, and where each one comes from."""
    op = value.defining_op
    if op is None:
        return None
    rank = value.type.rank
    if isinstance(op, Slice):
        pairs = zip(op.starts, op.steps, strict=True)
        exprs = [axis(d, rank).scaled(step).shifted(s) for d, (s, step) in enumerate(pairs)]
        return op.operands[0], AffineMap(rank, tuple(exprs))
    if isinstance(op, Pad) and op.attributes["value"] == 0:
        shifted = [axis(d, rank).shifted(-low) for d, low in enumerate(op.low)]
        return op.operands[0], AffineMap(rank, tuple(shifted))
    if isinstance(op, Contract) and len(op.operands) == 1 and not op.reduced and op.kind == "sum":
        return op.operands[0], op.maps[0]
    if isinstance(op, Broadcast):
        return op.operands[0], projection(op.dims, rank)
    if isinstance(op, Transpose):
        return op.operands[0], projection([op.permutation.index(i) for i in range(rank)], rank)
    if isinstance(op, Reshape):
        return _unit_axes(op)
    return None


def _unit_axes(op: Reshape) -> tuple[Value, AffineMap] | None:
    """A reshape that adds and drops axes of size 1, as a view."""
    source, rank = op.operands[0], op.result.type.rank
    kept = [d for d, size in enumerate(op.shape) if size != 1]
    if [op.shape[d] for d in kept] != [size for size in source.shape if size != 1]:
        return None
    left = iter(kept)
    zero = AffineExpr((0,) * rank)
    exprs = [zero if size == 1 else axis(next(left), rank) for size in source.shape]
    return source, AffineMap(rank, tuple(exprs))


@rewrite
def transpose_of_contract(op: Transpose, rewriter: Rewriter) -> Value | None:
    """transpose(contract(...)) = contract(...) with its result dimensions in the other order"""
    inner = op.operands[0].defining_op
    if not isinstance(inner, Contract) or not rewriter.used_once(op.operands[0]):
        return None
    order = [*op.permutation, *inner.reduced]
    positions = [order.index(d) for d in range(len(order))]
    maps = tuple(map_.renumbered(positions, len(order)) for map_ in inner.maps)
    extents = tuple(inner.extents[d] for d in order)
    attributes = {**inner.attributes, "maps": maps, "extents": extents}
    return rewriter.emit(Contract, *inner.operands, **attributes)


@rewrite
def drop_unit_axis_of_result(op: Reshape, rewriter: Rewriter) -> Value | None:
    """reshape(contract(...)) = contract(...) where the reshape drops axes of size 1"""
    inner = op.operands[0].defining_op
    if not isinstance(inner, Contract) or not rewriter.used_once(op.operands[0]):
        return None
    gone = _dropped_axes(op.operands[0].shape, op.shape)
    return without_dimensions(inner, rewriter, gone) if gone else None


def _dropped_axes(source: Sequence[Dim], result: Sequence[Dim]) -> set[int]:
    """The axes of size 1 that a shape has more than another; none if that is not the difference."""
    gone: set[int] = set()
    for d, size in enumerate(source):
        kept = d - len(gone)
        if kept < len(result) and result[kept] == size:
            continue
        if size != 1:
            return set()
        gone.add(d)
    return gone if len(source) - len(gone) == len(result) else set()


def without_dimensions(op: Contract, rewriter: Rewriter, gone: set[int]) -> Value:
    """The contraction at 0 along some dimensions of its domain, which it no longer has."""
    kept = [d for d in range(len(op.extents)) if d not in gone]
    zero = AffineExpr((0,) * len(kept))
    positions = [
        axis(kept.index(d), len(kept)) if d in kept else zero for d in range(len(op.extents))
    ]
    attributes = {
        **op.attributes,
        "rank": sum(d < op.rank for d in kept),
        "extents": tuple(op.extents[d] for d in kept),
        "maps": tuple(_substituted(map_, positions, len(kept)) for map_ in op.maps),
    }
    return rewriter.emit(Contract, *op.operands, **attributes)


def _substituted(map_: AffineMap, positions: Sequence[AffineExpr], rank: int) -> AffineMap:
    if not rank:
        return AffineMap(0, tuple(AffineExpr((), e.constant) for e in map_.results))
    return map_.compose(positions)


VIEW_RULES: tuple[Pattern, ...] = (absorb_access, transpose_of_contract, drop_unit_axis_of_result)
