"""What can be proved of dimensions and affine reads for all sizes, 0 too."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.affine import AffineExpr, AffineMap
from mapsto.ir.dims import Dim, FloorDiv

__all__ = ["in_bounds", "inside_above", "inside_below", "nonnegative"]


def nonnegative(dim: Dim) -> bool:
    """Whether the dimension is provably at least 0 for all sizes >= 0."""
    if isinstance(dim, int):
        return dim >= 0
    atoms = [a for monomial, _ in dim.terms for a in monomial if isinstance(a, FloorDiv)]
    quotients = all(nonnegative(a.numerator) and nonnegative(a.denominator) for a in atoms)
    return quotients and all(coefficient >= 0 for _, coefficient in dim.terms)


def inside_below(expr: AffineExpr, extents: Sequence[Dim]) -> bool:
    """Whether a read at the expression is provably never before element 0."""
    bounds = expr.bounds(extents)
    return bounds is not None and nonnegative(bounds[0])


def inside_above(expr: AffineExpr, extents: Sequence[Dim], size: Dim) -> bool:
    """Whether a read at the expression is provably never past an axis of this size."""
    bounds = expr.bounds(extents)
    return bounds is not None and nonnegative(size - 1 - bounds[1])


def in_bounds(map_: AffineMap, extents: Sequence[Dim], shape: Sequence[Dim]) -> bool:
    """Whether every read through the map is provably inside a tensor of this shape."""
    return all(
        inside_below(expr, extents) and inside_above(expr, extents, size)
        for expr, size in zip(map_.results, shape, strict=True)
    )
