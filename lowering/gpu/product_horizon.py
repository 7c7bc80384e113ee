"""Which keys certainly have no weight in sums that are weighted by what is computed from products.

A mask of indices hides the keys after a row's own number, or, where rows are the keys of attention,
those before it.  There the matrix is the same whatever the products are: zero in a gradient by the
scores, and the exponential of a constant far below the row's greatest score in what comes from the
weights.  That it is zero is seen once for each row, or each key, before its parts are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mapsto.ir.core import Value
from mapsto.ir.ops.logic import Select
from mapsto.ir.ops.shaping import Constant as TensorConstant
from mapsto.ir.product_sums import ProductSums
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.weighted_horizon import first_key, last_key, seen_distance
from mapsto.lowering.indexed import Indices
from mapsto.lowering.indices import Index, floor_div, maximum, minimum, variable
from mapsto.lowering.loop_walk import free_names
from mapsto.lowering.loops import Buffer, Constant, Expression, Space, Statement, constant
from mapsto.lowering.weighted_access import ProductAccess, Use
from mapsto.lowering.weighted_problem import ProductProblem

__all__ = ["ProductHorizon", "find_product_horizon"]

_HIDDEN = "hidden"


@dataclass(frozen=True, slots=True)
class ProductHorizon:
    """Row r, along the last dimension of the rows, sees the keys up to `slope * r + offset`, or,
    if that `is_first`, those from there on.  `condition` decides that, by being `hides`."""

    access: ProductAccess
    condition: Value
    hides: bool
    slope: int
    offset: int
    is_first: bool

    def steps(self, row: Index, tile: BlockTile, steps: Index) -> tuple[Index, Index]:
        """From which part of the keys to which, of all `steps`, the rows of a tile see some."""
        width = tile.columns
        if self.is_first:
            before = maximum(0, self.slope * row + self.offset)
            return minimum(steps, floor_div(before, width)), steps
        seen = maximum(0, self.slope * (row + (tile.rows - 1)) + (self.offset + 1))
        return 0, minimum(steps, floor_div(seen + (width - 1), width))

    def weight(self, at: Indices, use: Use) -> list[Statement]:
        """The statements that compute the matrix at indices that are hidden: no number where it
        depends on products."""
        emitter, sums = self.access.emitter, self.access.sums
        with emitter.floating_scope() as statements:
            for op in sums.products:
                emitter.know(op.result, at, constant(math.nan, op.result.dtype))
            for value, element in self._settled():
                emitter.know(value, at, element)
            weight = emitter.let("weight", emitter.element(sums.matrix, at))
        return [*statements, *use(weight)]

    def _settled(self) -> Iterator[tuple[Value, Constant]]:
        """The selections inside that are certain where the condition hides, with what they give."""
        known: dict[Value, Constant] = {}
        for op in _selections(self.access.sums):
            condition, *branches = op.operands
            found = [known.get(value) or _constant(value) for value in branches]
            if condition is self.condition:
                found = [found[0 if self.hides else 1]] * 2
            if found[0] is not None and found[0] == found[1]:
                known[op.result] = found[0]
                yield op.result, found[0]


def find_product_horizon(problem: ProductProblem) -> ProductHorizon | None:
    """The horizon of the rows, if they have one."""
    found = (horizon for horizon in _horizons(problem) if _is_certain(horizon, problem))
    return next(found, None)


def _horizons(problem: ProductProblem) -> Iterator[ProductHorizon]:
    """Those of masks by indices where one branch of a selection is a constant."""
    for op in _selections(problem.access.sums):
        for number, branch in enumerate(op.operands[1:]):
            if _constant(branch) is not None:
                yield from _lines(problem, op.operands[0], number == 0)


def _lines(problem: ProductProblem, condition: Value, hides: bool) -> Iterator[ProductHorizon]:
    """The horizon of a condition, if it compares the index of a row with that of a key."""
    access = problem.access
    distance = seen_distance(problem.products[0], access.emitter, condition, hides)
    for is_first, find in ((False, last_key), (True, first_key)):
        line = None if distance is None else find(distance)
        if line is not None:
            yield ProductHorizon(access, condition, hides, *line, is_first)


def _is_certain(horizon: ProductHorizon, problem: ProductProblem) -> bool:
    """Whether what is hidden depends on the row alone, or, behind a first key, on the key alone."""
    first = problem.products[0]
    at: list[Index] = [variable(f"axis{d}") for d in range(first.op.rank)]
    for d in first.rows.dims if horizon.is_first else first.columns.dims:
        at[d] = variable(_HIDDEN)

    probe = Buffer("probe", horizon.access.sums.matrix.dtype, (), Space.REGISTER)

    def use(weight: Expression) -> list[Statement]:
        return [probe.store((), weight)]

    return _HIDDEN not in free_names(tuple(horizon.weight(tuple(at), use))).indices


def _selections(sums: ProductSums) -> list[Select]:
    """The selections inside, operands first."""
    found: dict[Value, None] = {}

    def visit(value: Value) -> None:
        if value not in sums.inside or value in found:
            return
        op = value.defining_op
        for operand in () if op is None else op.operands:
            visit(operand)
        found[value] = None

    visit(sums.matrix)
    return [value.owner for value in found if isinstance(value.owner, Select)]


def _constant(value: Value) -> Constant | None:
    splat = value.owner.splat if isinstance(value.owner, TensorConstant) else None
    return None if splat is None else constant(splat, value.dtype)
