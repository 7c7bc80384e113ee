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
from mapsto.ir.ops.elementwise import Add, Neg, Sub
from mapsto.ir.ops.logic import And, Compare, Eq, Ge, Gt, Le, Lt, Ne, Not, Or, Select
from mapsto.ir.ops.shaping import Broadcast, Constant, Iota
from mapsto.ir.types import DType

__all__ = ["Band", "constant_outside"]

_FAR = 1 << 62
_SMALL = 1 << 28
"""Below this, sums of constants and indices do not overflow."""


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
    found = _Search(axes).visit(value)
    return None if found is None or found[1] == _ALL else found


@dataclass(frozen=True, slots=True)
class _Search:
    axes: Axes

    def visit(self, value: Value) -> tuple[float, Band] | None:
        """The number and the band of a value, which may be everything."""
        op = value.owner
        if isinstance(op, Constant):
            return None if op.splat is None else (float(op.splat), _NOTHING)
        if isinstance(op, Select):
            return self._selected(op)
        if not isinstance(op, Operation) or not op.has(Trait.ELEMENTWISE):
            return None
        parts = [self.visit(operand) for operand in op.operands]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts) or not value.dtype.is_float:
            return None
        pairs = zip(known, op.operands, strict=True)
        numbers = [np.asarray(number, operand.dtype.numpy) for (number, _), operand in pairs]
        (number,) = op.evaluate(*numbers)
        return float(number), reduce(or_, (band for _, band in known))

    def _selected(self, op: Select) -> tuple[float, Band] | None:
        """Each value counts where it is taken."""
        condition, *values = op.operands
        taken = [_holds(condition, self.axes, wanted) for wanted in (True, False)]
        found = [self.visit(value) for value in values]
        bands: dict[float, Band] = {}
        for number in dict.fromkeys(part[0] for part in found if part is not None):
            own = [part[1] if part is not None and part[0] == number else _ALL for part in found]
            bands[number] = (own[0] & taken[0]) | (own[1] & taken[1])
        return min(bands.items(), key=lambda item: item[1].high - item[1].low, default=None)


def _holds(condition: Value, axes: Axes, wanted: bool) -> Band:
    """A band outside of which the condition is never as wanted."""
    op = condition.owner
    match op:
        case Not():
            return _holds(op.operands[0], axes, not wanted)
        case And() | Or():
            left, right = (_holds(operand, axes, wanted) for operand in op.operands)
            return left & right if isinstance(op, And) == wanted else left | right
        case Broadcast():
            if any(axis not in op.dims for axis in axes):
                return _ALL
            row, column = (op.dims.index(axis) for axis in axes)
            return _holds(op.operands[0], (row, column), wanted)
        case Compare():
            return _compared(op, axes, wanted)
    return _ALL


def _compared(op: Compare, axes: Axes, wanted: bool) -> Band:
    left, right = (_index(operand) for operand in op.operands)
    if left is None or right is None:
        return _ALL
    difference = left - right
    row, column = axes
    slope = difference.slopes.get(column, 0)
    if slope not in (1, -1) or difference.slopes != {row: -slope, column: slope}:
        return _ALL
    # The difference is slope * (j - i) + constant.
    record = type(op) if wanted else _OPPOSITE[type(op)]
    interval = _INTERVALS[record](difference.constant)
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


@dataclass(frozen=True, slots=True)
class _AffineIndex:
    """A tensor of integers that is a sum of indices, by axis, and a constant."""

    slopes: dict[int, int]
    constant: int

    def __neg__(self) -> _AffineIndex:
        return _AffineIndex({axis: -slope for axis, slope in self.slopes.items()}, -self.constant)

    def __add__(self, other: _AffineIndex) -> _AffineIndex:
        slopes = dict(self.slopes)
        for axis, slope in other.slopes.items():
            slopes[axis] = slopes.get(axis, 0) + slope
        kept = {axis: slope for axis, slope in slopes.items() if slope}
        return _AffineIndex(kept, self.constant + other.constant)

    def __sub__(self, other: _AffineIndex) -> _AffineIndex:
        return self + -other


def _index(value: Value) -> _AffineIndex | None:
    op = value.owner
    if value.dtype not in (DType.I32, DType.I64):
        return None
    match op:
        case Iota():
            axis = op.attributes["axis"]
            assert isinstance(axis, int)
            return _AffineIndex({axis: 1}, 0)
        case Constant():
            small = op.splat is not None and abs(op.splat) < _SMALL
            return _AffineIndex({}, int(op.splat or 0)) if small else None
        case Broadcast():
            inner = _index(op.operands[0])
            moved = {} if inner is None else {op.dims[a]: s for a, s in inner.slopes.items()}
            return None if inner is None else _AffineIndex(moved, inner.constant)
        case Add() | Sub() | Neg():
            parts = [_index(operand) for operand in op.operands]
            known = [part for part in parts if part is not None]
            return _combined(op, known) if len(known) == len(parts) else None
    return None


def _combined(op: Add | Sub | Neg, parts: list[_AffineIndex]) -> _AffineIndex:
    match op:
        case Add():
            return parts[0] + parts[1]
        case Sub():
            return parts[0] - parts[1]
    return -parts[0]
