"""Scatters through an axis with a stride: `c0 + s*d + c*r + s*(...)`.

With `r = s*r' + q`, position `c0 + s*u + c*q` collects the terms with `d + c*r' + ... = u`: a
scatter without stride for each q.  Where the extent of r is at most s, a multiple of it or unknown,
and c is 1, q is an axis of the result that is then merged with u (non-overlapping windows
above all: one contraction and a reshape).  Elsewhere each q is a contraction of its own, with as
many steps of r' as it needs, and the s results are interleaved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from mapsto.ir.affine import AffineExpr, axis
from mapsto.ir.affine_scatter import AffineScatter, magnitude
from mapsto.ir.builder import Builder
from mapsto.ir.core import Value
from mapsto.ir.dims import Dim, floor_div
from mapsto.ir.ops.shaping import Concat, Pad, Reshape, Slice

__all__ = ["Stride", "find_stride"]

_MOST_PHASES = 4


def find_stride(scatter: AffineScatter, i: int) -> Stride | None:
    """The stride by which target axis i should be split; None where it is inverted as it is."""
    expr = scatter.target[i]
    elsewhere = {d for j, other in enumerate(scatter.target) if j != i for d in other.dims}
    numbers = [c for c in expr.coefficients if isinstance(c, int)]
    if elsewhere.intersection(expr.dims) or len(numbers) < len(expr.coefficients):
        return None
    spans = {d: abs(numbers[d]) * magnitude(scatter.extents[d]) for d in expr.dims}
    step = abs(numbers[max(spans, key=lambda d: spans[d])])
    offsets = [d for d in expr.dims if numbers[d] % step]
    if step == 1 or len(offsets) > 1:
        return None
    if not offsets:
        return Stride(i, step, None)
    stride = Stride(i, step, offsets[0])
    return stride if stride.is_tile(scatter) or stride.is_phased(scatter) else None


@dataclass(frozen=True, slots=True)
class Stride:
    """Target axis `axis` has stride `step`; all its dims but `offset` have multiples of it."""

    axis: int
    step: int
    offset: int | None

    def is_tile(self, scatter: AffineScatter) -> bool:
        """Whether the offset within a stride can be an axis of the result."""
        return self.offset is None or abs(self._coefficient(scatter)) == 1

    def is_phased(self, scatter: AffineScatter) -> bool:
        """Whether each offset within a stride can be a contraction of its own."""
        coprime = gcd(self._coefficient(scatter), self.step) == 1
        return coprime and isinstance(scatter.target[self.axis].constant, int)

    def _coefficient(self, scatter: AffineScatter) -> int:
        assert self.offset is not None
        coefficient = scatter.target[self.axis].coefficients[self.offset]
        assert isinstance(coefficient, int)
        return coefficient

    def emit(self, build: Builder, scatter: AffineScatter) -> Value:
        """Emits the scatter without the stride."""
        if self._prefers_phases(scatter):
            return self._phases(build, scatter)
        return self._tiles(build, scatter)

    def _prefers_phases(self, scatter: AffineScatter) -> bool:
        if self.offset is None or not self.is_phased(scatter):
            return False
        if not self.is_tile(scatter):
            return True
        extent = scatter.extents[self.offset]
        known = isinstance(extent, int) and extent > self.step and extent % self.step != 0
        return known and self.step <= _MOST_PHASES

    def _tiles(self, build: Builder, scatter: AffineScatter) -> Value:
        step, i = self.step, self.axis
        within: list[int] = []
        if self.offset is not None:
            scatter, position = self._offset_split(build, scatter)
            within = [position]
        expr = scatter.target[i]
        first = floor_div(-expr.constant, step)
        count = floor_div(scatter.shape[i] - 1 - expr.constant, step) + 1 - first
        quotient = _quotient(expr, set(expr.dims) - set(within), step).shifted(-first)
        offsets = [axis(d, len(scatter.extents)) for d in within]
        widths = [scatter.extents[d] for d in within]
        tiled = scatter.with_axis(i, [quotient, *offsets], [count, *widths])
        value = _filled(build, tiled.emit(build), i, widths, step)
        return _merged(build, value, i, -expr.constant - first * step, scatter.shape[i])

    def _offset_split(self, build: Builder, scatter: AffineScatter) -> tuple[AffineScatter, int]:
        """The offset as `step*r' + q` with coefficient 1; gives the dimension that is q."""
        offset = self.offset
        assert offset is not None
        if self._coefficient(scatter) < 0:
            scatter = _reversed(scatter, offset)
        extent = scatter.extents[offset]
        if isinstance(extent, int) and extent <= self.step:
            return scatter, offset
        if not isinstance(extent, int) or extent % self.step:
            scatter = scatter.guarded(build, offset)
        rank = len(scatter.extents)
        exprs = [axis(d, rank + 1) for d in range(rank)]
        exprs[offset] = exprs[offset].scaled(self.step) + axis(rank, rank + 1)
        extents: list[Dim] = [*scatter.extents, self.step]
        extents[offset] = floor_div(extent + self.step - 1, self.step)
        return scatter.over(extents, exprs), rank

    def _phases(self, build: Builder, scatter: AffineScatter) -> Value:
        assert self.offset is not None
        step, i = self.step, self.axis
        count = floor_div(scatter.shape[i] + step - 1, step)
        shape = (*scatter.shape[:i], count, *scatter.shape[i + 1 :])
        parts: dict[int, Value] = {}
        for q in range(step):
            phase, residue = self._phase(scatter, q, count)
            if phase.extents[self.offset] != 0:
                parts[residue] = phase.emit(build)
        dtype = scatter.terms[0].value.dtype
        split = (*shape[: i + 1], 1, *shape[i + 1 :])
        columns = [
            build.emit(Reshape, parts[q], shape=split)
            if q in parts
            else build.constant(0, dtype, split)
            for q in range(step)
        ]
        value = build.emit(Concat, *columns, axis=i + 1)
        return _merged(build, value, i, 0, scatter.shape[i])

    def _phase(self, scatter: AffineScatter, q: int, count: Dim) -> tuple[AffineScatter, int]:
        """The terms with offset `step*r' + q`, and the residue of the positions they go to."""
        offset, step, rank = self.offset, self.step, len(scatter.extents)
        assert offset is not None
        exprs = [axis(d, rank) for d in range(rank)]
        exprs[offset] = exprs[offset].scaled(step).shifted(q)
        extents = list(scatter.extents)
        extents[offset] = floor_div(extents[offset] - q + step - 1, step)
        phase = scatter.over(extents, exprs)
        expr = phase.target[self.axis]
        assert isinstance(expr.constant, int)
        start, residue = divmod(expr.constant, step)
        quotient = _quotient(expr, set(expr.dims), step).shifted(start)
        return phase.with_axis(self.axis, [quotient], [count]), residue


def _quotient(expr: AffineExpr, dims: set[int], step: int) -> AffineExpr:
    """The part of the expression in `dims`, whose coefficients are multiples, over `step`."""
    coefficients = tuple(
        floor_div(c, step) if d in dims else 0 for d, c in enumerate(expr.coefficients)
    )
    return AffineExpr(coefficients)


def _reversed(scatter: AffineScatter, dim: int) -> AffineScatter:
    """The scatter with a dimension walked backwards."""
    rank = len(scatter.extents)
    exprs = [axis(d, rank) for d in range(rank)]
    exprs[dim] = exprs[dim].scaled(-1).shifted(scatter.extents[dim] - 1)
    return scatter.over(scatter.extents, exprs)


def _filled(build: Builder, value: Value, i: int, widths: Sequence[Dim], step: int) -> Value:
    """Axis i, then an axis of `step` elements: those of the next axis (or one), then zeros."""
    shape = value.shape
    if not widths:
        value = build.emit(Reshape, value, shape=(*shape[: i + 1], 1, *shape[i + 1 :]))
    missing = step - value.shape[i + 1]
    if missing == 0:
        return value
    none = (0,) * value.type.rank
    high = (*none[: i + 1], missing, *none[i + 2 :])
    return build.emit(Pad, value, low=none, high=high)


def _merged(build: Builder, value: Value, i: int, start: Dim, extent: Dim) -> Value:
    """Axes i and i + 1 as one, of which `extent` elements from `start` are kept."""
    shape = value.shape
    merged = shape[i] * shape[i + 1]
    value = build.emit(Reshape, value, shape=(*shape[:i], merged, *shape[i + 2 :]))
    if start == 0 and merged == extent:
        return value
    starts: list[Dim] = [0] * value.type.rank
    starts[i] = start
    sizes: Sequence[Dim] = (*shape[:i], extent, *shape[i + 2 :])
    steps = (1,) * value.type.rank
    return build.emit(Slice, value, starts=tuple(starts), sizes=tuple(sizes), steps=steps)
