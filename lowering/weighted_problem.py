"""What the schedule of weighted sums needs to know of them: which dimensions are rows and keys.

The product of rows and keys, `fits`, and the sums of values, `values`, are contractions with the
same batch and the same rows, each numbered in one way; the reduction of the second is along the
columns of the first.  So are all `products` of a matrix, and the sums that it weights; where these
are along the rows of attention, its keys are called rows here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mapsto.ir.affine import AffineExpr
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.product_sums import ProductSums, SumsTogether
from mapsto.ir.types import DType
from mapsto.ir.weighted_sums import WeightedSums
from mapsto.lowering.contraction_problem import (
    ContractionProblem,
    Group,
    Sides,
    sort_dimensions,
)
from mapsto.lowering.weighted_access import ProductAccess, WeightedAccess

__all__ = [
    "FAR_BELOW",
    "ProductProblem",
    "ProductSides",
    "WeightedProblem",
    "WeightedSides",
    "at_most",
    "least_score",
    "sort_products",
    "sort_weighted",
]


FAR_BELOW = -1000.0
"""Only of scores of less it is likely that they have no weight."""
_UNDERFLOW = {DType.F64: 750.0}
"""The exponential of minus this is zero."""
_UNDERFLOW_32 = 105.0
_ROUNDING = 2.0**-7
"""By how much of itself a constant may be rounded in any type."""

_MATRIX = ("batch", "rows", "columns")
"""The sides of a matrix."""


def at_most(constant: float, dtype: DType) -> float:
    """No less than the constant is in a type."""
    with np.errstate(over="ignore"):
        rounded = float(np.float16(constant)) if dtype is DType.F16 else constant
    return rounded + abs(rounded) * _ROUNDING if np.isfinite(rounded) else rounded


def least_score(score: float, dtype: DType) -> float:
    """Where a row's greatest score is less than this, what has at most that score may have a
    weight."""
    return score + _UNDERFLOW.get(dtype, _UNDERFLOW_32)


@dataclass(frozen=True, slots=True)
class WeightedSides:
    """The dimensions of both contractions, sorted."""

    fits: Sides
    values: Sides

    def problem(self, access: WeightedAccess) -> WeightedProblem:
        """The weighted sums with these sides."""
        sums = access.sums
        fits = self.fits.problem(sums.fits, access.fits)
        return WeightedProblem(access, fits, self.values.problem(sums.sums, access.values))


@dataclass(frozen=True, slots=True)
class WeightedProblem:
    """Weighted sums with their dimensions sorted."""

    access: WeightedAccess
    fits: ContractionProblem
    values: ContractionProblem


@dataclass(frozen=True, slots=True)
class ProductSides:
    """The dimensions of all products, and of the sums, sorted."""

    products: tuple[Sides, ...]
    values: Sides

    def problem(self, access: ProductAccess) -> ProductProblem:
        """The sums with these sides."""
        ops = zip(self.products, access.sums.products, access.products, strict=True)
        products = tuple(sides.problem(op, own) for sides, op, own in ops)
        values = self.values.problem(access.sums.sums, access.values)
        return ProductProblem(access, products, values)


@dataclass(frozen=True, slots=True)
class ProductProblem:
    """Sums that are weighted by what is computed from products, with their dimensions sorted."""

    access: ProductAccess
    products: tuple[ContractionProblem, ...]
    values: ContractionProblem


def sort_products(sums: ProductSums) -> ProductSides | None:
    """The dimensions, sorted; None as for weighted sums, or where products differ in their rows."""
    found = [_with_keys(op, sums.keys) for op in sums.products]
    products = tuple(sides for sides in found if sides is not None)
    if len(products) < len(found) or not all(map(_is_inside, (*sums.products, sums.sums))):
        return None
    first = products[0]
    if any(getattr(s, side) != getattr(first, side) for s in products for side in _MATRIX):
        return None
    values = _values(sums, first)
    return None if values is None else ProductSides(products, values)


def sort_weighted(sums: WeightedSums, plain: bool = True) -> WeightedSides | None:
    """The dimensions, sorted; None where rows and keys are not those of one product each, or what
    is weighted depends on the row; and if operands have to be `plain`, where one is read otherwise
    than at single dimensions, perhaps outside of the tensor."""
    fits = _with_keys(sums.fits, (sums.keys,))
    if fits is None or (plain and not (_is_inside(sums.fits) and _is_inside(sums.sums))):
        return None
    values = _values(sums, fits)
    return None if values is None else WeightedSides(fits, values)


def _with_keys(fits: Contract, keys: Sequence[int]) -> Sides | None:
    """The sides of the product in which the keys are the columns."""
    several = [d for d in keys if fits.extents[d] != 1]
    for swapped in (False, True):
        sides = sort_dimensions(fits, swapped)
        wide = [] if sides is None else [d for d in sides.columns.dims if fits.extents[d] != 1]
        if sides is not None and several and wide == several:
            return sides
    return None


def _is_inside(op: Contract) -> bool:
    """Whether operands are read at single dimensions over their extents."""
    pairs = ((map_, operand.shape) for map_, operand in zip(op.maps, op.operands, strict=True))
    return all(
        expr == expr.scaled(0) or (expr.single is not None and op.extents[expr.single] == size)
        for map_, shape in pairs
        for expr, size in zip(map_.results, shape, strict=True)
    )


def _values(sums: SumsTogether, fits: Sides) -> Sides | None:
    """The sides of the sums, batch and rows in the order of the product's; None where what is
    weighted depends on the row."""
    op = sums.sums
    batch, rows, keys = (_images(sums, group) for group in (fits.batch, fits.rows, fits.columns))
    others = [d for d in range(op.rank) if d not in (*batch, *rows)]
    if not others or set(op.maps[1 - sums.side].dims).intersection(rows):
        return None
    if set(keys) != set(op.reduced):
        return None
    return Sides(
        _group(op, batch), _group(op, rows), _group(op, others), _group(op, keys), sums.side
    )


def _images(sums: SumsTogether, group: Group) -> list[int]:
    """The dimensions of the sums at which those of the weights are read."""
    places: Sequence[AffineExpr] = sums.places
    singles = (places[d].single for d in group.dims)
    return [d for d in singles if d is not None]


def _group(op: Contract, dims: Sequence[int]) -> Group:
    return Group(tuple(dims), tuple(op.extents[d] for d in dims))
