"""What masks of indices leave: where, between two diagonals, a matrix is not one constant number.

A *band* of the axes i (rows) and j (columns) are the elements with `low <= j - i <= high`.  A
causal mask leaves those with high = 0; a sliding window has both ends.  What is found is certain:
outside of the band the value is the constant, inside it may be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from operator import or_

import numpy as np

from mapsto.ir.core import Operation, Trait, Value
from mapsto.ir.index_values import affine_value
from mapsto.ir.ops.logic import And, Compare, Eq, Ge, Gt, Le, Lt, Ne, Not, Or, Select
from mapsto.ir.ops.shaping import Broadcast, Constant

__all__ = ["Axes", "Band", "constant_outside", "never_outside"]

_FAR = 1 << 62
_DEEPEST = 8
"""So many ops behind each other are looked at, at most: masks are no deeper."""


@dataclass(frozen=True, slots=True)
class Band:
    """The elements of a matrix with `low <= j - i <= high`."""

    low: int = -_FAR
    high: int = _FAR

    def __and__(self, other: Band) -> Band:
        """What is in both."""
        return Band(max(self.low, other.low), min(self.high, other.high))

    def __or__(self, other: Band) -> Band:
        """A band that holds both."""
        if self.low > self.high:
            return other
        if other.low > other.high:
            return self
        return Band(min(self.low, other.low), max(self.high, other.high))

    def columns(self, first: int, last: int, size: int) -> range:
        """The columns, of so many, that the rows from `first` to `last` have in the band."""
        start = min(size, max(0, first + self.low))
        return range(start, max(start, min(size, last + self.high + 1)))


_ALL, _NOTHING = Band(), Band(1, 0)
Axes = tuple[int, int]
"""The axes of a tensor that are rows and columns."""


def constant_outside(value: Value, axes: Axes) -> tuple[float, Band] | None:
    """A number and the band outside of which the tensor is that number; None if there is none."""
    found = _constant(value, axes, _DEEPEST)
    return None if found is None or found[1] == _ALL else found


def never_outside(condition: Value, axes: Axes, wanted: bool, band: Band) -> bool:
    """Whether outside of the band the condition is certain not to be as wanted."""
    return _holds(condition, axes, wanted, _DEEPEST) | band == band


def _constant(value: Value, axes: Axes, depth: int) -> tuple[float, Band] | None:
    """The number and the band, which may be everything, found `depth` ops deep at most."""
    op = value.owner
    if isinstance(op, Constant):
        return None if op.splat is None else (float(op.splat), _NOTHING)
    if not isinstance(op, Operation) or not op.has(Trait.ELEMENTWISE) or depth == 0:
        return None
    if isinstance(op, Select):
        return _selected(op, axes, depth - 1)
    known: list[tuple[float, Band]] = []
    for operand in op.operands:
        part = _constant(operand, axes, depth - 1) if value.dtype.is_float else None
        if part is None:
            return None
        known.append(part)
    pairs = zip(known, op.operands, strict=True)
    numbers = [np.asarray(number, operand.dtype.numpy) for (number, _), operand in pairs]
    with np.errstate(all="ignore"):
        (number,) = op.evaluate(*numbers)
    return float(number), reduce(or_, (band for _, band in known))


def _selected(op: Select, axes: Axes, depth: int) -> tuple[float, Band] | None:
    """Each of the values counts where it is taken."""
    condition, *values = op.operands
    taken = [_holds(condition, axes, wanted, depth) for wanted in (True, False)]
    found = [_constant(value, axes, depth) for value in values]
    bands: dict[float, Band] = {}
    for number in dict.fromkeys(part[0] for part in found if part is not None):
        own = [part[1] if part is not None and part[0] == number else _ALL for part in found]
        bands[number] = (own[0] & taken[0]) | (own[1] & taken[1])
    return min(bands.items(), key=lambda item: item[1].high - item[1].low, default=None)


def _holds(condition: Value, axes: Axes, wanted: bool, depth: int) -> Band:
    """A band outside of which the condition is never as wanted."""
    op = condition.owner
    if depth == 0:
        return _ALL
    match op:
        case Not():
            return _holds(op.operands[0], axes, not wanted, depth - 1)
        case And() | Or():
            left, right = (_holds(operand, axes, wanted, depth - 1) for operand in op.operands)
            return left & right if isinstance(op, And) == wanted else left | right
        case Broadcast():
            if any(axis not in op.dims for axis in axes):
                return _ALL
            row, column = (op.dims.index(axis) for axis in axes)
            return _holds(op.operands[0], (row, column), wanted, depth - 1)
        case Compare():
            return _compared(op, axes, wanted)
    return _ALL


def _compared(op: Compare, axes: Axes, wanted: bool) -> Band:
    left, right = map(affine_value, op.operands)
    if left is None or right is None:
        return _ALL
    difference = left + right.scaled(-1)
    row, column = axes
    slope, constant = difference.coefficients[column], difference.constant
    expected = [0] * len(difference.coefficients)
    if slope not in (1, -1) or not isinstance(slope, int) or not isinstance(constant, int):
        return _ALL
    expected[row], expected[column] = -slope, slope
    if list(difference.coefficients) != expected:
        return _ALL
    # The difference is slope * (j - i) + constant.
    record = type(op) if wanted else _OPPOSITE[type(op)]
    interval = _INTERVALS[record](constant)
    return interval if slope == 1 else Band(-interval.high, -interval.low)


_OPPOSITE: dict[type[Compare], type[Compare]] = {
    Le: Gt,
    Gt: Le,
    Lt: Ge,
    Ge: Lt,
    Eq: Ne,
    Ne: Eq,
}
_INTERVALS: dict[type[Compare], Callable[[int], Band]] = {
    Le: lambda c: Band(high=-c),
    Lt: lambda c: Band(high=-c - 1),
    Ge: lambda c: Band(low=-c),
    Gt: lambda c: Band(low=1 - c),
    Eq: lambda c: Band(-c, -c),
    Ne: lambda _: _ALL,
}
"""Where x + c compares so with 0."""
