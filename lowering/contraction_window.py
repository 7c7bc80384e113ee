"""A copy of an operand in which a contraction reads everything where it lies.

The window sums of a convolution read outside of the tensor at its edges, and where they have a
stride, not in order.  The copy has what they read, and nothing else: zeros around the tensor, each
axis from the first to the last position that is read.  Where neighbours along the vector are
`phases` positions apart, these are sorted by phase, so that a vector is read in one go:

    x:  0 1 2 3 4 5 6      windows of 3, stride 2, padding 1
    copy, phase 0:  . 1 3 5            . : a zero
    copy, phase 1:  0 2 4 6

It is as large as the tensor and its edges.  Elements come out of it at affine indices, without
conditions, many times; what is computed on reading the operand is computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

from mapsto.ir.affine import AffineExpr
from mapsto.ir.bounds import inside_above, inside_below
from mapsto.ir.dims import Dim, floor_div, product
from mapsto.ir.ops.contraction import Contract
from mapsto.lowering import indices
from mapsto.lowering.contraction_problem import ContractionProblem, OperandAccess
from mapsto.lowering.indices import Index, from_dim, maximum, minimum, split_offset, variable
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    For,
    If,
    Load,
    LoopKind,
    Space,
    Statement,
    all_of,
    compare,
    constant,
)

__all__ = ["Window", "column_window", "row_window"]


@dataclass(frozen=True, slots=True)
class _Axis:
    """The positions `low + step * i` of an axis, of which there are `count`; position i is at
    `[i % phases, i // phases]`."""

    expr: AffineExpr
    extents: tuple[Dim, ...]
    size: Dim
    step: int
    phases: int = 1

    @property
    def low(self) -> Dim:
        """The first position that is read; negative before the tensor."""
        return _bounds(self.expr, self.extents)[0]

    @property
    def count(self) -> Dim:
        low, high = _bounds(self.expr, self.extents)
        return floor_div(high - low, self.step) + 1

    def number(self, point: Mapping[int, Index]) -> Index:
        """Which of the positions is read at a point of the iteration domain."""
        total: Index = 0
        for dim, coefficient in enumerate(self.expr.coefficients):
            assert isinstance(coefficient, int), "an axis of a window has known coefficients"
            times = 0 if self.extents[dim] == 1 else coefficient // self.step
            if times > 0:
                total = total + point[dim] * times
            elif times < 0:
                total = total + (from_dim(self.extents[dim]) - 1 - point[dim]) * -times
        return total

    def position(self, number: Index) -> Index:
        """Where in the tensor a position is."""
        return from_dim(self.low) + number * self.step

    def inside(self, number: Index) -> Expression | None:
        """Whether a position is in the tensor; None where all are."""
        place, size = self.position(number), from_dim(self.size)
        return all_of(
            None if inside_below(self.expr, self.extents) else compare("ge", place, 0),
            None
            if inside_above(self.expr, self.extents, self.size)
            else compare("lt", place, size),
        )


def _bounds(expr: AffineExpr, extents: Sequence[Dim]) -> tuple[Dim, Dim]:
    found = expr.bounds(extents)
    assert found is not None, "an axis of a window has known coefficients"
    return found


@dataclass(frozen=True, slots=True)
class Window:
    """The copy of an operand; `buffer` has its axes in order, the last one as phases and positions,
    of which there are some more than are read: whole vectors are."""

    operand: int
    access: OperandAccess
    axes: tuple[_Axis, ...]
    buffer: Buffer

    def element(self, point: Mapping[int, Index]) -> Load:
        """The operand's factor at a point of the iteration domain."""
        last = self.axes[-1]
        numbers = [axis.number(point) for axis in self.axes]
        phase = indices.modulo(numbers[-1], last.phases)
        at = (*numbers[:-1], phase, indices.floor_div(numbers[-1], last.phases))
        return Load(self.buffer, at)

    def fill(self, kind: LoopKind) -> Statement:
        """The loop that makes the copy, line by line; the planes of the last two axes are tasks."""
        outer, inner = self.axes[:-2], self.axes[-2:-1]
        extents = [axis.count for axis in outer]
        numbers = split_offset(variable("plane"), extents)
        numbers += [variable("line") for _ in inner]
        pairs = list(zip((*outer, *inner), numbers, strict=True))
        inside = all_of(*(axis.inside(number) for axis, number in pairs))
        body: list[Statement] = self._line(
            numbers, [axis.position(number) for axis, number in pairs]
        )
        if inside is not None:
            body = [If(inside, tuple(body), tuple(self._clear(numbers)))]
        lines = [For("line", 0, from_dim(axis.count), tuple(body)) for axis in inner]
        planes = from_dim(product(tuple(extents)))
        return For("plane", 0, planes, tuple(lines or body), kind)

    def _line(self, numbers: Sequence[Index], places: Sequence[Index]) -> list[Statement]:
        """A line inside of the tensor: zeros, the elements, zeros; phase by phase."""
        axis, phase, q = self.axes[-1], self._phase, variable("q")
        width = from_dim(self.buffer.shape[-1])
        stride = axis.step * axis.phases
        before = -axis.position(phase)
        first = minimum(maximum(_ceil_div(before, stride), 0), width)
        used = _ceil_div(from_dim(axis.count) - phase, axis.phases)
        last = minimum(_ceil_div(before + from_dim(axis.size), stride), used)
        last = maximum(last, first)
        place = axis.position(q * axis.phases + phase)
        at = (*numbers, phase, q)
        value = self.access.element(self.operand, [*places, place])
        zero = self.buffer.store(at, constant(0, self.buffer.dtype))
        parts = [
            For("q", 0, first, (zero,), LoopKind.VECTOR),
            For("q", first, last, (self.buffer.store(at, value),), LoopKind.VECTOR),
            For("q", last, width, (zero,), LoopKind.VECTOR),
        ]
        return self._phases(parts)

    def _clear(self, numbers: Sequence[Index]) -> list[Statement]:
        at = (*numbers, self._phase, variable("q"))
        zero = self.buffer.store(at, constant(0, self.buffer.dtype))
        width = from_dim(self.buffer.shape[-1])
        return self._phases([For("q", 0, width, (zero,), LoopKind.VECTOR)])

    @property
    def _phase(self) -> Index:
        return variable("phase") if self.axes[-1].phases > 1 else 0

    def _phases(self, body: Sequence[Statement]) -> list[Statement]:
        phases = self.axes[-1].phases
        return [For("phase", 0, phases, tuple(body), LoopKind.UNROLL)] if phases > 1 else [*body]


def row_window(problem: ContractionProblem) -> Window | None:
    """The copy of the operand that rows read; None where an axis has a sign or a size that is not
    known."""
    return _window(problem, problem.row_operand, 1, 0)


def column_window(problem: ContractionProblem, lanes: int) -> Window | None:
    """The copy of the operand that columns read in vectors; None as for rows, and where vectors
    would not ascend along the last axis."""
    operand, columns = 1 - problem.row_operand, problem.columns
    axes = _axes(problem.op, operand)
    phases = _vector_phases(axes, columns.dims[-1]) if axes else None
    if phases is None:
        return None
    length = columns.extents[-1]
    slack = floor_div(length + (lanes - 1), lanes) * lanes - length
    return _window(problem, operand, phases, slack)


def _window(problem: ContractionProblem, operand: int, phases: int, slack: Dim) -> Window | None:
    """The copy, in which a line has `slack` elements more than there are."""
    axes = _axes(problem.op, operand)
    if not axes:
        return None
    axes[-1] = last = replace(axes[-1], phases=phases)
    length = floor_div(last.count + (phases - 1), phases) + slack
    sizes = (*(axis.count for axis in axes[:-1]), phases, length)
    buffer = Buffer(f"window{operand}", problem.op.operands[operand].dtype, sizes, Space.LOCAL)
    return Window(operand, problem.access, tuple(axes), buffer)


def _axes(op: Contract, operand: int) -> list[_Axis]:
    """The axes of an operand; none where they are not known."""
    exprs, shape = op.maps[operand].results, op.operands[operand].shape
    if not all(_is_windowed(expr, op.extents) for expr in exprs):
        return []
    pairs = zip(exprs, shape, strict=True)
    return [_Axis(expr, op.extents, size, _step(expr, op.extents)) for expr, size in pairs]


def _vector_phases(axes: Sequence[_Axis], vector: int) -> int | None:
    if any(axis.expr.coefficients[vector] != 0 for axis in axes[:-1]):
        return None
    coefficient = axes[-1].expr.coefficients[vector]
    assert isinstance(coefficient, int), "an axis of a window has known coefficients"
    return coefficient // axes[-1].step if coefficient > 0 else None


def _is_windowed(expr: AffineExpr, extents: Sequence[Dim]) -> bool:
    """Whether the range of positions is known, and not negative for any sizes."""
    least = _step(expr, extents)
    for coefficient, extent in zip(expr.coefficients, extents, strict=True):
        if not isinstance(coefficient, int):
            return False
        least += abs(coefficient) * (extent - 1 if isinstance(extent, int) else -1)
    return least >= 0


def _step(expr: AffineExpr, extents: Sequence[Dim]) -> int:
    pairs = zip(expr.coefficients, extents, strict=True)
    return gcd(*(c for c, extent in pairs if isinstance(c, int) and extent != 1)) or 1


def _ceil_div(index: Index, divisor: int) -> Index:
    return indices.floor_div(index + (divisor - 1), divisor)
