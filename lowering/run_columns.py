"""Columns of several dimensions, cut into runs of neighbours, and each run into vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapsto.ir.dims import Dim, ceil_div, product
from mapsto.lowering import indices
from mapsto.lowering.contraction_problem import Group
from mapsto.lowering.contraction_sides import Columns, Lane, Point, guarded, powers
from mapsto.lowering.contraction_steps import KRange, Step
from mapsto.lowering.indices import Index, from_dim, minimum, variable
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    For,
    If,
    LoopKind,
    Statement,
    compare,
    constant,
)

__all__ = ["RunColumns"]


@dataclass(frozen=True, slots=True)
class RunColumns(Columns):
    """Columns whose last `run` dimensions are neighbours in memory, in runs of whole vectors."""

    run: int = 1

    @property
    def _outer(self) -> Group:
        count = len(self.group.dims) - self.run
        return Group(self.group.dims[:count], self.group.extents[:count])

    @property
    def _run(self) -> Group:
        count = len(self.group.dims) - self.run
        return Group(self.group.dims[count:], self.group.extents[count:])

    @property
    def _run_vectors(self) -> Dim:
        return ceil_div(self._run.size, self.tile.lanes)

    @property
    def _vectors(self) -> Dim:
        return product(self._outer.extents) * self._run_vectors

    @property
    def tiles(self) -> Dim:
        return ceil_div(self._vectors, self.tile.vectors)

    @property
    def is_even(self) -> bool:
        return isinstance(self._vectors, int) and self._vectors % self.tile.vectors == 0

    @property
    def _has_full_runs(self) -> bool:
        size = self._run.size
        return isinstance(size, int) and size % self.tile.lanes == 0

    def _number(self, tile: Index, vector: Index) -> Index:
        """Which vector of the side it is; past the end of the side the last one again."""
        number = tile * self.tile.vectors + vector
        return number if self.is_even else minimum(number, from_dim(self._vectors) - 1)

    def _point(self, number: Index, lane: Index) -> dict[int, Index]:
        """The indices of the side's dimensions in a lane of a vector."""
        vectors = from_dim(self._run_vectors)
        line, part = indices.floor_div(number, vectors), indices.modulo(number, vectors)
        return self._outer.split(line) | self._run.split(part * self.tile.lanes + lane)

    def _lanes(self, number: Index) -> Index:
        """How many lanes of a vector are filled."""
        if self._has_full_runs:
            return self.tile.lanes
        part = indices.modulo(number, from_dim(self._run_vectors))
        return minimum(self.tile.lanes, from_dim(self._run.size) - part * self.tile.lanes)

    def pack(
        self, buffer: Buffer, slot: Index, batch: Index, tile: Index, part: KRange
    ) -> list[Statement]:
        """Packs a part of the reduction of one tile, vector by vector."""

        def copies(step: Step) -> list[Statement]:
            return [
                statement
                for vector in range(self.tile.vectors)
                for statement in self._copy(buffer, slot, batch, tile, vector, part, step)
            ]

        return [self.steps.loops(part, copies)]

    def _copy(
        self,
        buffer: Buffer,
        slot: Index,
        batch: Index,
        tile: Index,
        vector: int,
        part: KRange,
        step: Step,
    ) -> list[Statement]:
        lane, lanes = variable("l"), self.tile.lanes
        number = self._number(tile, vector)
        at = (slot, step.number, lane + vector * lanes)
        value = self.read(self.batch.split(batch) | self._point(number, lane) | step.dims)
        copy = buffer.store(at, value)
        if self.anywhere or self._has_full_runs:
            return [_vector(lanes, lanes, copy)]
        clear = buffer.store(at, constant(0, buffer.dtype))
        filled = self._lanes(number)
        whole, edge = _vector(lanes, lanes, copy), _vector(filled, lanes, copy)
        zeros = _vector(lanes, lanes, clear)
        return [If(compare("eq", filled, lanes), (whole,), (zeros, edge))]

    def vectors(self, body: Callable[[Lane], Statement]) -> For:
        lanes = self.tile.lanes
        statement = body(Lane(variable("v"), variable("l")))
        vector = _vector(lanes, lanes, statement)
        return For("v", 0, self.tile.vectors, (vector,), LoopKind.UNROLL)

    def direct_element(self, batch: Index, tile: Index, lane: Lane, step: Step) -> Expression:
        number = self._number(tile, lane.vector)
        point = self._point(number, lane.lane)
        element = self.read(self.batch.split(batch) | point | step.dims)
        if self.anywhere or self._has_full_runs:
            return element
        return guarded(element, compare("lt", lane.lane, self._lanes(number)))

    def unmasked(self) -> Columns | None:
        return None

    def results(
        self,
        tile: Index,
        body: Callable[[Lane, Point], Sequence[Statement]],
        around: Callable[[Statement], Statement],
    ) -> list[Statement]:
        loops: list[Statement] = []
        for vector in range(self.tile.vectors):
            parts = self._vector_results(tile, vector, body, around)
            exists = compare("lt", tile * self.tile.vectors + vector, from_dim(self._vectors))
            loops += parts if self.is_even else [If(exists, tuple(parts))]
        return loops

    def _vector_results(
        self,
        tile: Index,
        vector: int,
        body: Callable[[Lane, Point], Sequence[Statement]],
        around: Callable[[Statement], Statement],
    ) -> list[Statement]:
        """The loops that hand on a vector: all of its lanes, or those that are left at the end of a
        run, as shorter vectors, which need no masks."""
        number = tile * self.tile.vectors + vector
        filled, lanes, size = self._lanes(number), self.tile.lanes, self._run.size

        def part(first: int, count: Index, width: int) -> Statement:
            at = variable("l") + first
            statements = body(Lane(vector, at), self._point(number, at))
            return around(_vector(count, width, *statements))

        if not isinstance(size, int):
            return [part(0, filled, lanes)]
        rest = [part(first, width, width) for first, width in powers(size % lanes, lanes)]
        if not rest or filled == lanes:
            return [part(0, lanes, lanes)]
        if isinstance(filled, int) or size < lanes:
            return rest
        return [If(compare("eq", filled, lanes), (part(0, lanes, lanes),), tuple(rest))]


def _vector(count: Index, lanes: int, *body: Statement) -> For:
    return For("l", 0, count, body, LoopKind.VECTOR, lanes=lanes)
