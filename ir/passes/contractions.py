"""Algebra of contractions: what moves elements is read through their maps, what does not depend on
the reduction leaves it, and products of many are taken two at a time.

Laws that change the order of a sum apply where the contraction says `reassociate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from math import prod

from mapsto.ir.affine import AffineExpr, AffineMap, axis, identity_map, projection
from mapsto.ir.bounds import inside_above, inside_below
from mapsto.ir.core import Module, Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract, access, contract
from mapsto.ir.ops.elementwise import Div, Mul, Neg
from mapsto.ir.ops.logic import And
from mapsto.ir.ops.shaping import Broadcast, Constant, Transpose
from mapsto.ir.passes.base import Pass
from mapsto.ir.passes.canonicalize import RULES as CANONICAL_RULES
from mapsto.ir.passes.contraction_views import (
    VIEW_RULES,
    composed,
    reads_inside,
    rebuilt,
    without_dimensions,
)
from mapsto.ir.passes.fold import FOLDING
from mapsto.ir.passes.index_conditions import INDEX_RULES
from mapsto.ir.product_order import first_pair
from mapsto.ir.rewriting import Pattern, Rewriter, rewrite, rewrite_module
from mapsto.ir.types import DType

__all__ = ["RULES", "Contractions"]

UNKNOWN_EXTENT = 256
"""Stands for a size that is known only at run time, in comparisons of cost."""

LARGEST_COUNT = 1 << 24
COUNTING = (DType.F32, DType.F64, DType.I32, DType.I64)
"""Element types that have all numbers up to that."""


# ---- an access, a product


@rewrite
def access_to_named_op(op: Contract, rewriter: Rewriter) -> Value | None:
    """An access that only permutes or repeats axes is a transpose or a broadcast."""
    if op.reduced or len(op.operands) != 1:
        return None
    operand, map_ = op.operands[0], op.maps[0]
    if operand.type == op.result.type and map_ == identity_map(op.rank):
        return operand
    dims = [expr.single for expr in map_.results]
    known = [d for d in dims if d is not None]
    fits = len(set(known)) == len(dims) and all(
        op.extents[d] == size for d, size in zip(known, operand.shape, strict=False)
    )
    if not fits:
        return None
    order = sorted(range(len(known)), key=known.__getitem__)
    moved = rewriter.emit(Transpose, operand, permutation=tuple(order))
    return rewriter.emit(Broadcast, moved, shape=op.extents, dims=tuple(sorted(known)))


@rewrite
def product_without_reduction(op: Contract, rewriter: Rewriter) -> Value | None:
    """A product of several without a reduction is elementwise."""
    if op.reduced or len(op.operands) < 2:
        return None
    multiply = And if op.result.dtype is DType.BOOL else Mul
    pairs = zip(op.operands, op.maps, strict=True)
    factors = [access(rewriter.build, x, map_.results, op.extents) for x, map_ in pairs]
    result = factors[0]
    for factor in factors[1:]:
        result = rewriter.emit(multiply, result, factor)
    return result


# ---- products and sums


@rewrite
def product_into_sum(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum(x * y) = contract(x, y) where x or y is repeated along an axis: a matrix product"""
    if op.kind != "sum" or len(op.operands) != 1 or not op.reduced:
        return None
    factors = op.operands[0].defining_op
    if not isinstance(factors, Mul) or not rewriter.used_once(op.operands[0]):
        return None
    if not any(isinstance(f.defining_op, Broadcast) for f in factors.operands):
        return None
    return rebuilt(op, rewriter, factors.operands, op.maps * 2)


@rewrite
def hoist_factor(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum_k(x[i, k] * y[i]) = y[i] * sum_k(x[i, k])"""
    if op.kind != "sum" or len(op.operands) < 2 or not op.reduced:
        return None
    if not op.attributes["reassociate"]:
        return None
    for number, map_ in enumerate(op.maps):
        if any(d >= op.rank for d in map_.dims) or not reads_inside(op, number):
            continue
        operands = [x for i, x in enumerate(op.operands) if i != number]
        maps = [m for i, m in enumerate(op.maps) if i != number]
        total = rebuilt(op, rewriter, operands, maps)
        exprs = [AffineExpr(e.coefficients[: op.rank], e.constant) for e in map_.results]
        factor = access(rewriter.build, op.operands[number], exprs, op.extents[: op.rank])
        return rewriter.emit(Mul, total, factor)
    return None


@rewrite
def hoist_scale(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum_k(x[i, k] / s[i]) = sum_k(x[i, k]) / s[i], where the result is no larger than x; and so
    for products"""
    if op.kind != "sum" or not op.reduced or not op.attributes["reassociate"]:
        return None
    for number, operand in enumerate(op.operands):
        smaller = _count(op.result.shape) <= _count(operand.shape)
        if not smaller or not rewriter.used_once(operand) or not reads_inside(op, number):
            continue
        for rest, scale, map_ in _scales(op, number):
            operands = [*op.operands[:number], rest, *op.operands[number + 1 :]]
            total = rebuilt(op, rewriter, operands, op.maps)
            exprs = [AffineExpr(e.coefficients[: op.rank], e.constant) for e in map_.results]
            factor = access(rewriter.build, scale, exprs, op.result.shape)
            record = type(operand.defining_op)
            return rewriter.emit(record, total, factor)  # type: ignore[arg-type]
    return None


def _scales(op: Contract, number: int) -> Iterator[tuple[Value, Value, AffineMap]]:
    """What an operand is a multiple or a quotient of, by what, and where that is read: numbers that
    are the same for all terms of a sum."""
    inner = op.operands[number].defining_op
    if not isinstance(inner, Mul | Div) or not op.result.dtype.is_float:
        return
    x, y = inner.operands
    for rest, scale in ((x, y), (y, x)) if isinstance(inner, Mul) else ((x, y),):
        source = scale.defining_op
        if not isinstance(source, Broadcast):
            continue
        inside = projection(source.dims, len(source.shape))
        map_ = composed(inside, op.maps[number], len(op.extents))
        if all(d < op.rank for d in map_.dims):
            yield rest, source.operands[0], map_


@rewrite
def hoist_negation(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum(-x) = -sum(x), where the result is no larger than x"""
    if op.kind != "sum" or not op.reduced:
        return None
    for number, operand in enumerate(op.operands):
        inner = operand.defining_op
        if not isinstance(inner, Neg) or not rewriter.used_once(operand):
            continue
        if _count(op.result.shape) <= _count(operand.shape):
            operands = [*op.operands[:number], *inner.operands, *op.operands[number + 1 :]]
            return rewriter.emit(Neg, rebuilt(op, rewriter, operands, op.maps))
    return None


@rewrite
def sum_of_sum(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum_j(sum_k(x[i, j, k])) = sum_jk(x[i, j, k]), and so for the other reductions"""
    inner = _inner_reduction(op, rewriter)
    if inner is None or len(inner.operands) != 1 or not reads_inside(op, 0):
        return None
    return _both_at_once(op, inner, rewriter)


@rewrite
def sum_of_windows(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum_r(sum_k(w[k, r] * x[i - r, k])) = sum_rk(w[k, r] * x[i - r, k]): a transposed window,
    where that takes no more products than the sum over k at all i and r"""
    inner = _inner_reduction(op, rewriter)
    if inner is None or len(inner.operands) < 2 or op.kind != "sum":
        return None
    if all(len(expr.dims) < 2 for expr in op.maps[0].results) or not _reads_zero_too(op, inner):
        return None
    merged = [*op.extents, *(inner.extents[d] for d in inner.reduced)]
    cheaper = _count(merged) <= _count(inner.extents)
    return _both_at_once(op, inner, rewriter) if cheaper else None


def _inner_reduction(op: Contract, rewriter: Rewriter) -> Contract | None:
    """What is reduced again, in the same way and by this alone, where the order is free."""
    if len(op.operands) != 1 or not op.reduced:
        return None
    inner = op.operands[0].defining_op
    if not isinstance(inner, Contract) or not inner.reduced or inner.kind != op.kind:
        return None
    both = op.attributes["reassociate"] and inner.attributes["reassociate"]
    return inner if both and rewriter.used_once(op.operands[0]) else None


def _reads_zero_too(op: Contract, inner: Contract) -> bool:
    """Whether an element outside of the inner result, which reads as 0, is also a product with a
    factor that reads as 0: one that has the same axis."""
    shape = op.operands[0].shape
    outside = [
        d
        for d, (expr, size) in enumerate(zip(op.maps[0].results, shape, strict=True))
        if not (inside_below(expr, op.extents) and inside_above(expr, op.extents, size))
    ]
    return all(
        any(
            expr.single == d and size == shape[d]
            for map_, x in zip(inner.maps, inner.operands, strict=True)
            for expr, size in zip(map_.results, x.shape, strict=True)
        )
        for d in outside
    )


def _both_at_once(op: Contract, inner: Contract, rewriter: Rewriter) -> Value:
    """A reduction of a reduction as one over all indices."""
    extents = (*op.extents, *(inner.extents[d] for d in inner.reduced))
    rank = len(extents)
    own = [axis(d, rank) for d in range(len(op.extents))]
    outer = [expr.compose(own) for expr in op.maps[0].results]
    positions = [*outer, *(axis(d, rank) for d in range(len(op.extents), rank))]
    maps = [map_.compose(positions) for map_ in inner.maps]
    return contract(rewriter.build, inner.operands, maps, extents, op.rank, op.kind)


@rewrite
def constant_factor(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum(c * x) = c * sum(x) for a number c"""
    if op.kind != "sum" or len(op.operands) < 2 or not op.attributes["reassociate"]:
        return None
    for number, operand in enumerate(op.operands):
        source = operand.defining_op
        if not isinstance(source, Constant) or source.splat is None:
            continue
        if not reads_inside(op, number):
            continue
        operands = [x for i, x in enumerate(op.operands) if i != number]
        maps = [m for i, m in enumerate(op.maps) if i != number]
        total = rebuilt(op, rewriter, operands, maps)
        return rewriter.emit(Mul, total, rewriter.constant_like(source.splat, total))
    return None


# ---- the iteration domain


@rewrite
def drop_unit_dimension(op: Contract, rewriter: Rewriter) -> Value | None:
    """A reduction over an index with one value is no reduction over it."""
    unit = next((d for d in op.reduced if op.extents[d] == 1), None)
    if unit is None or not _reducible_without(op, unit):
        return None
    return without_dimensions(op, rewriter, {unit})


@rewrite
def drop_unread_dimension(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum_k(x[i]) = K * x[i] for k in 0 .. K; an extremum over such a k is x[i]"""
    unread = next((d for d in op.reduced if d not in _read_dims(op)), None)
    if unread is None or op.kind == "prod" or not _reducible_without(op, unread):
        return None
    extent, dtype = op.extents[unread], op.result.dtype
    if not isinstance(extent, int) or not 1 <= extent <= LARGEST_COUNT:
        return None
    if op.kind != "sum":
        return without_dimensions(op, rewriter, {unread})
    if dtype not in COUNTING or not op.attributes["reassociate"]:
        return None
    once = without_dimensions(op, rewriter, {unread})
    return rewriter.emit(Mul, once, rewriter.constant_like(extent, once))


@rewrite
def repeat_unread_dimension(op: Contract, rewriter: Rewriter) -> Value | None:
    """Where no operand depends on an index of the result, the result is a broadcast along it.

    An index with one value stays: what uses the result element by element has the same shape then.
    """
    unread = {d for d in range(op.rank) if op.extents[d] != 1} - _read_dims(op)
    if not unread:
        return None
    once = without_dimensions(op, rewriter, unread)
    kept = tuple(d for d in range(op.rank) if d not in unread)
    return rewriter.emit(Broadcast, once, shape=op.result.shape, dims=kept)


@rewrite
def order_reduced_dimensions(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum_kj(x[j, k]) = sum_jk(x[j, k]): in the order in which the operands' axes read them"""
    read = [d for map_ in op.maps for expr in map_.results for d in expr.dims if d >= op.rank]
    order = [*range(op.rank), *dict.fromkeys([*read, *op.reduced])]
    if order == sorted(order) or not op.attributes["reassociate"]:
        return None
    positions = [order.index(d) for d in range(len(order))]
    maps = tuple(map_.renumbered(positions, len(order)) for map_ in op.maps)
    extents = tuple(op.extents[d] for d in order)
    return rewriter.emit(
        Contract, *op.operands, **{**op.attributes, "maps": maps, "extents": extents}
    )


def _read_dims(op: Contract) -> frozenset[int]:
    """The dimensions of the domain on which some operand's position depends."""
    return frozenset().union(*(map_.dims for map_ in op.maps))


def _reducible_without(op: Contract, dim: int) -> bool:
    """Whether reads outside mean the same without a reduction over the dimension: where nothing is
    reduced they give 0, which is the identity of sums alone."""
    is_last = list(op.reduced) == [dim]
    inside = (reads_inside(op, number) for number in range(len(op.operands)))
    return op.kind == "sum" or not is_last or all(inside)


# ---- products of many


@rewrite
def split_product(op: Contract, rewriter: Rewriter) -> Value | None:
    """sum(x * y * z) = sum(sum(x * y) * z), the pair first with which the whole costs least"""
    if op.kind != "sum" or len(op.operands) < 3 or not op.attributes["reassociate"]:
        return None
    sizes = {d: _count([size]) for d, size in enumerate(op.extents)}
    dims = [map_.dims for map_ in op.maps]
    pair = first_pair(dims, frozenset(range(op.rank)), sizes)
    # The larger first: so the same pair looks the same in another product.
    first, second = sorted(pair, key=lambda number: -_count(op.operands[number].shape))
    rest = [i for i in range(len(op.operands)) if i not in pair]
    used = dims[first] | dims[second]
    needed = {d for i in rest for d in op.maps[i].dims} | set(range(op.rank))
    kept, gone = _between(op.maps[first], used & needed), sorted(used - needed)
    between = _contract_over(op, rewriter, (first, second), [*kept, *gone], len(kept))
    left = [d for d in range(len(op.extents)) if d not in gone]
    position = {d: i for i, d in enumerate(left)}
    maps = [*(_over(op.maps[i], position) for i in rest), _over(_reads(kept, op), position)]
    operands = [*(op.operands[i] for i in rest), between]
    return contract(rewriter.build, operands, maps, [op.extents[d] for d in left], op.rank)


def _between(map_: AffineMap, kept: Set[int]) -> list[int]:
    """The order of the axes of what only lies between two products: last the axes of the operand
    that is read through the map, as they are there, so that neighbours stay neighbours."""
    own = [d for expr in map_.results for d in expr.dims if d in kept]
    last = list(dict.fromkeys(reversed(own)))[::-1]
    return [*sorted(kept - set(last)), *last]


def _reads(dims: Sequence[int], op: Contract) -> AffineMap:
    return projection(dims, len(op.extents))


def _contract_over(
    op: Contract, rewriter: Rewriter, chosen: Sequence[int], dims: Sequence[int], rank: int
) -> Value:
    """The contraction of some operands over some dimensions of the domain."""
    position = {d: i for i, d in enumerate(dims)}
    maps = [_over(op.maps[i], position) for i in chosen]
    extents = [op.extents[d] for d in dims]
    return contract(rewriter.build, [op.operands[i] for i in chosen], maps, extents, rank)


def _over(map_: AffineMap, position: dict[int, int]) -> AffineMap:
    """The map over the dimensions that have a position, at these positions."""
    rank = len(position)
    exprs = []
    for expr in map_.results:
        coefficients: list[Dim] = [0] * rank
        for d in expr.dims:
            coefficients[position[d]] = expr.coefficients[d]
        exprs.append(AffineExpr(tuple(coefficients), expr.constant))
    return AffineMap(rank, tuple(exprs))


def _count(dims: Sequence[Dim]) -> int:
    """The number of points, with a guess for what is known only at run time."""
    return prod(size if isinstance(size, int) else UNKNOWN_EXTENT for size in dims)


RULES: tuple[Pattern, ...] = (
    *VIEW_RULES,
    *INDEX_RULES,
    access_to_named_op,
    product_without_reduction,
    product_into_sum,
    constant_factor,
    hoist_factor,
    hoist_scale,
    hoist_negation,
    sum_of_sum,
    sum_of_windows,
    drop_unit_dimension,
    drop_unread_dimension,
    repeat_unread_dimension,
    order_reduced_dimensions,
    split_product,
)


@dataclass(frozen=True)
class Contractions(Pass):
    """Simplifies contractions by the rules of this file, together with the canonical forms.

    %1 = transpose %w
    %2 = broadcast %x       =>      %y = contract %x, %w  (one matrix product)
    %3 = mul %2, %1
    %y = contract %3
    """

    name = "contractions"

    def run(self, module: Module) -> Module:
        return rewrite_module(module, (*FOLDING, *CANONICAL_RULES, *RULES))
