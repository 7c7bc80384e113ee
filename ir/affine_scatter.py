"""Scatters through affine maps, turned into reads.

The transpose of a sum of products adds terms to the places `target(d)` that the operand was read
at.  Here the map is inverted, so that each place collects its own terms by a contraction:

- An axis `c0 + d + sum c_j d_j` gives `d = p - c0 - sum c_j d_j`, by substitution.
- An axis `c0 + s*d + r` with a stride s is split (see `affine_stride`).
- An axis that no dimension is left for is an equality: a read of a single 1 at the difference,
  which is outside, and so 0, wherever the equality does not hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mapsto.ir.affine import AffineExpr, AffineMap, axis
from mapsto.ir.builder import Builder
from mapsto.ir.core import Value
from mapsto.ir.dims import Dim, floor_div

__all__ = ["AffineScatter", "Term", "emit_product", "magnitude"]

_SYMBOLIC_MAGNITUDE = 1 << 40


@dataclass(frozen=True, slots=True)
class Term:
    """A factor of a product: a tensor, and where it is read at a point of the domain."""

    value: Value
    map: AffineMap


@dataclass(frozen=True, slots=True)
class AffineScatter:
    """`result[target(d)] += product of the terms at d`, over the points d of a domain.

    The result has the shape `shape` and starts as zeros; what falls outside is dropped, as is a
    point at which a term is read outside its tensor.
    """

    shape: tuple[Dim, ...]
    target: tuple[AffineExpr, ...]
    extents: tuple[Dim, ...]
    terms: tuple[Term, ...]

    def emit(self, build: Builder) -> Value:
        """Emits the result as contractions, which only read."""
        from mapsto.ir.affine_stride import find_stride

        for i, expr in enumerate(self.target):
            if not expr.dims:
                return _placed(build, self, i)
        for i in range(len(self.target)):
            stride = find_stride(self, i)
            if stride is not None:
                return stride.emit(build, self)
        return _Inverse(self).emit(build)

    def with_axis(self, i: int, exprs: Sequence[AffineExpr], sizes: Sequence[Dim]) -> AffineScatter:
        """The scatter with target axis i replaced by any number of axes."""
        target = (*self.target[:i], *exprs, *self.target[i + 1 :])
        shape = (*self.shape[:i], *sizes, *self.shape[i + 1 :])
        return AffineScatter(shape, target, self.extents, self.terms)

    def with_term(self, term: Term) -> AffineScatter:
        """The scatter with one more factor."""
        return AffineScatter(self.shape, self.target, self.extents, (*self.terms, term))

    def over(self, extents: Sequence[Dim], exprs: Sequence[AffineExpr]) -> AffineScatter:
        """The scatter over another domain, in which old dimension j is `exprs[j]`."""
        return AffineScatter(
            self.shape,
            tuple(expr.compose(exprs) for expr in self.target),
            tuple(extents),
            tuple(Term(term.value, term.map.compose(exprs)) for term in self.terms),
        )

    def guarded(self, build: Builder, dim: int) -> AffineScatter:
        """The scatter where points with `dim` outside its extent contribute nothing."""
        extent = self.extents[dim]
        if any(_limits(term, dim, extent) for term in self.terms):
            return self
        return self.with_term(_inside(build, self, axis(dim, len(self.extents)), extent))


def magnitude(extent: Dim) -> int:
    """A number to compare extents by; named sizes count as large."""
    return extent if isinstance(extent, int) else _SYMBOLIC_MAGNITUDE


def emit_product(build: Builder, terms: Sequence[Term], extents: Sequence[Dim], rank: int) -> Value:
    """A sum of products of the terms, as a broadcast or transpose where it is no more than that."""
    from mapsto.ir.ops.contraction import contract
    from mapsto.ir.ops.shaping import Broadcast, Constant, Transpose

    term = terms[0]
    dims = _plain_dims(term, extents) if len(terms) == 1 and rank == len(extents) else None
    source = term.value.defining_op
    if dims is not None and isinstance(source, Constant) and source.splat is not None:
        return build.constant(source.splat, term.value.dtype, extents)
    if dims is None:
        return contract(build, [t.value for t in terms], [t.map for t in terms], extents, rank)
    if dims == list(range(rank)):
        return term.value
    if dims == sorted(dims):
        return build.emit(Broadcast, term.value, shape=tuple(extents), dims=tuple(dims))
    if len(dims) < rank:
        return contract(build, [term.value], [term.map], extents, rank)
    return build.emit(Transpose, term.value, permutation=tuple(map(dims.index, range(rank))))


def _plain_dims(term: Term, extents: Sequence[Dim]) -> list[int] | None:
    """The dimension that each axis is read along, where all are read whole and once."""
    if not term.map.is_projection:
        return None
    dims = [expr.dims[0] for expr in term.map.results]
    whole = all(extents[d] == size for d, size in zip(dims, term.value.shape, strict=True))
    return dims if whole else None


def _placed(build: Builder, scatter: AffineScatter, i: int) -> Value:
    """The scatter to one constant position of axis i: the rest of it, put there."""
    from mapsto.ir.ops.contraction import access
    from mapsto.ir.ops.shaping import Reshape

    position, shape = scatter.target[i].constant, scatter.shape
    slab = scatter.with_axis(i, [], []).emit(build)
    slab = build.emit(Reshape, slab, shape=(*shape[:i], 1, *shape[i + 1 :]))
    if position == 0 and shape[i] == 1:
        return slab
    exprs = [axis(d, len(shape)) for d in range(len(shape))]
    exprs[i] = exprs[i].shifted(-position)
    return access(build, slab, exprs, shape)


class _Inverse:
    """The dimensions of a scatter's domain, from positions of the result and what dims remain.

    Expressions here are over the result's dimensions followed by those of the domain.
    """

    def __init__(self, scatter: AffineScatter) -> None:
        self.scatter = scatter
        self.rank = len(scatter.shape)
        self.width = self.rank + len(scatter.extents)
        self.exprs = [axis(d, self.width) for d in range(self.rank, self.width)]
        self.equalities: list[AffineExpr] = []
        self.eliminated: list[int] = []
        singles_first = sorted(range(self.rank), key=lambda i: scatter.target[i].single is None)
        for i in singles_first:
            self._solve(i)

    def _solve(self, i: int) -> None:
        value = self.scatter.target[i].compose(self.exprs)
        gap = axis(i, self.width) + value.scaled(-1)
        dim = self._pivot(value)
        if dim is None:
            self.equalities.append(gap)
            return
        sign = value.coefficients[self.rank + dim]
        variables = [axis(d, self.width) for d in range(self.width)]
        own = variables[self.rank + dim].scaled(sign)
        variables[self.rank + dim] = (gap + own).scaled(sign)
        self.exprs = [expr.compose(variables) for expr in self.exprs]
        self.equalities = [expr.compose(variables) for expr in self.equalities]
        self.eliminated.append(dim)

    def _pivot(self, value: AffineExpr) -> int | None:
        """The dimension to eliminate: of those with coefficient 1 or -1, the largest."""
        extents = self.scatter.extents
        units = [d for d in range(len(extents)) if value.coefficients[self.rank + d] in (1, -1)]
        return max(units, key=lambda d: magnitude(extents[d]), default=None)

    def emit(self, build: Builder) -> Value:
        """Emits the contraction over the result's dimensions and those that remain."""
        scatter = self.scatter
        kept = [d for d in range(len(scatter.extents)) if d not in self.eliminated]
        variables = [*range(self.rank), *(self.rank + d for d in kept)]
        extents = [*scatter.shape, *(scatter.extents[d] for d in kept)]
        guarded = scatter
        for dim in self.eliminated:
            if not _stays_inside(_pick(self.exprs[dim], variables), extents, scatter.extents[dim]):
                guarded = guarded.guarded(build, dim)
        exprs = [_pick(expr, variables) for expr in self.exprs]
        terms = list(guarded.over(extents, exprs).terms)
        for gap in self.equalities:
            terms.append(_inside(build, scatter, _pick(gap, variables), 1))
        return emit_product(build, terms, extents, self.rank)


def _pick(expr: AffineExpr, variables: Sequence[int]) -> AffineExpr:
    return AffineExpr(tuple(expr.coefficients[v] for v in variables), expr.constant)


def _inside(build: Builder, scatter: AffineScatter, expr: AffineExpr, extent: Dim) -> Term:
    """A factor that is 1 where the expression is in [0, extent), and outside elsewhere."""
    ones = build.constant(1, scatter.terms[0].value.dtype, (extent,))
    return Term(ones, AffineMap(len(expr.coefficients), (expr,)))


def _stays_inside(expr: AffineExpr, extents: Sequence[Dim], size: Dim) -> bool:
    bounds = expr.bounds(extents)
    return bounds is not None and _within(bounds[0], bounds[1] + 1, size)


def _limits(term: Term, dim: int, extent: Dim) -> bool:
    """Whether the term is outside its tensor wherever `dim` is outside [0, extent)."""
    for expr, size in zip(term.map.results, term.value.shape, strict=True):
        coefficient = expr.coefficients[dim]
        if expr.dims != (dim,) or not isinstance(coefficient, int):
            continue
        last = size - 1 - expr.constant
        if coefficient > 0:
            low, stop = -floor_div(expr.constant, coefficient), floor_div(last, coefficient) + 1
        else:
            low, stop = -floor_div(last, -coefficient), floor_div(expr.constant, -coefficient) + 1
        if _within(low, stop, extent):
            return True
    return False


def _within(low: Dim, stop: Dim, extent: Dim) -> bool:
    """Whether [low, stop) is provably inside [0, extent)."""
    slack = extent - stop
    return isinstance(low, int) and low >= 0 and isinstance(slack, int) and slack >= 0
