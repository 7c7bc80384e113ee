"""How far the keys go that a row of weighted sums can see.

Where scores are `select(key <= row + c, .., constant)`, all keys after the last one that a row of
the block sees have that constant as their score.  Their weights are zero if it is far enough below
the greatest score of the row, and zeros change nothing, unless what is weighted by them is not
finite.  Both is known when the keys that are seen have been gone over, and only then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mapsto.ir.core import Value
from mapsto.ir.ops.logic import Select
from mapsto.ir.ops.shaping import Constant as TensorConstant
from mapsto.ir.types import DType
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.indices import (
    Index,
    floor_div,
    linear_parts,
    maximum,
    minimum,
    variable,
)
from mapsto.lowering.loops import Apply, Constant, Expression, IndexValue
from mapsto.lowering.weighted_problem import FAR_BELOW, WeightedProblem, at_most, least_score

__all__ = ["Horizon", "find_horizon", "first_key", "last_key", "seen_distance"]

_ROW, _KEY = "row", "key"
_SEEN = {"le": (1, -1, 0), "lt": (1, -1, 1), "ge": (-1, 1, 0), "gt": (-1, 1, 1)}
"""What a comparison comes to: it holds where `right * r + left * l - strict` is not negative."""
_OPPOSITE = {"le": "gt", "lt": "ge", "ge": "lt", "gt": "le"}


@dataclass(frozen=True, slots=True)
class Horizon:
    """Row r, along the last dimension of the rows, sees the keys up to `slope * r + offset`; later
    ones have scores of at most `beyond`."""

    slope: int
    offset: int
    beyond: float
    dtype: DType

    def steps(self, last_row: Index, width: int, steps: Index) -> Index:
        """How many parts of so many keys, of all `steps`, the rows up to the last one see."""
        seen = maximum(0, self.slope * last_row + (self.offset + 1))
        return minimum(steps, floor_div(seen + (width - 1), width))

    @property
    def least(self) -> float:
        """Where a row's greatest score is less, what is beyond may have a weight."""
        return least_score(self.beyond, self.dtype)


def find_horizon(problem: WeightedProblem) -> Horizon | None:
    """The horizon of the rows, if they have one."""
    scores, beyond = problem.access.sums.scores, -np.inf
    found = _constant_branch(scores)
    while found is not None:
        select, is_first, constant = found
        beyond = max(beyond, constant)
        condition, *branches = select.operands
        emitter = problem.access.emitter
        distance = seen_distance(problem.fits, emitter, condition, is_first)
        line = None if distance is None else last_key(distance)
        if line is not None and beyond <= FAR_BELOW:
            return Horizon(*line, float(beyond), scores.dtype)
        found = _constant_branch(branches[1 if is_first else 0])
    return None


def _constant_branch(value: Value) -> tuple[Select, bool, float] | None:
    """A selection one branch of which is a constant: whether it is the first, and at most what."""
    op = value.owner
    if not isinstance(op, Select):
        return None
    for number, branch in enumerate(op.operands[1:]):
        constant = branch.owner.splat if isinstance(branch.owner, TensorConstant) else None
        if constant is not None:
            return op, number == 0, at_most(float(constant), value.dtype)
    return None


def seen_distance(
    problem: ContractionProblem, emitter: IndexedEmitter, condition: Value, is_hidden: bool
) -> Index | None:
    """What is not negative, of a row and a key of a product, where a condition holds, or does not
    hold if it says what is hidden."""
    rows, columns = problem.rows, problem.columns
    if not rows.dims:
        return None
    at: list[Index] = [variable(f"axis{d}") for d in range(condition.type.rank)]
    at[rows.dims[-1]], at[columns.dims[-1]] = variable(_ROW), variable(_KEY)
    compared = emitter.element(condition, at)
    if not isinstance(compared, Apply) or compared.op not in _SEEN:
        return None
    right, left, strict = _SEEN[_OPPOSITE[compared.op] if is_hidden else compared.op]
    sides = [_affine(operand) for operand in compared.operands]
    if sides[0] is None or sides[1] is None:
        return None
    return right * sides[1] + left * sides[0] - strict


def last_key(distance: Index) -> tuple[int, int] | None:
    """The last key, `slope * row + offset`, at which a distance is not negative yet."""
    parts = linear_parts(distance, _KEY)
    return None if parts is None or parts[0] != -1 else _line(parts[1])


def first_key(distance: Index) -> tuple[int, int] | None:
    """The first key, `slope * row + offset`, at which a distance is not negative."""
    parts = linear_parts(distance, _KEY)
    return None if parts is None or parts[0] != 1 else _line(-1 * parts[1])


def _line(key: Index) -> tuple[int, int] | None:
    own = linear_parts(key, _ROW)
    if own is None or not isinstance(own[0], int) or not isinstance(own[1], int) or own[0] < 0:
        return None
    return own[0], own[1]


def _affine(value: Expression) -> Index | None:
    """A whole number as an index, where it is a sum of indices."""
    match value:
        case IndexValue(index):
            return index
        case Constant(number, dtype) if not dtype.is_float:
            return int(number)
        case Apply("cast", (operand,), dtype) if not dtype.is_float:
            return _affine(operand)
        case Apply("add" | "sub" as op, operands):
            return _sum(op, [_affine(operand) for operand in operands])
    return None


def _sum(op: str, sides: Sequence[Index | None]) -> Index | None:
    left, right = sides
    if left is None or right is None:
        return None
    return left + right if op == "add" else left - right
