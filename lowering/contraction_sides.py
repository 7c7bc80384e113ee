"""The two sides of a contraction, cut into tiles: where their elements are, how they are packed.

Rows give the elements that are broadcast, columns those that are read in vectors.  The positions of
a side are one flat index; columns of several dimensions are cut into *runs* instead, such as the
rows of an image, and each run into vectors, of which the last one may not be full: a vector never
goes from one run to the next, and divisions are needed once for each vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mapsto.ir.dims import Dim, ceil_div
from mapsto.ir.types import DType
from mapsto.lowering.contraction_plan import RowPart
from mapsto.lowering.contraction_problem import Group
from mapsto.lowering.contraction_steps import KRange, Step, Steps
from mapsto.lowering.cpu.tiles import Tile
from mapsto.lowering.indices import Index, from_dim, minimum, variable
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

__all__ = ["Columns", "Lane", "Point", "Reader", "Rows", "Side", "guarded", "powers"]

PADDING = 16
"""Elements added to the stride of packed rows."""

Point = dict[int, Index]
"""The indices of some dimensions of the iteration domain."""
Reader = Callable[[Mapping[int, Index]], Expression]
"""The factor at a point: those dimensions are given that it depends on."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A column of a tile, by vector and lane."""

    vector: Index
    lane: Index

    def column(self, tile: Tile) -> Index:
        """Which column of the tile it is."""
        return self.vector * tile.lanes + self.lane


@dataclass(frozen=True, slots=True)
class Side:
    """Rows or columns: what they read, and whether they are packed, and that `ahead`.

    `anywhere`: reading past the end of the side is harmless, as the memory is there.
    """

    name: str
    group: Group
    batch: Group
    steps: Steps
    read: Reader
    tile: Tile
    packed: bool
    ahead: bool = False
    anywhere: bool = False

    @property
    def positions(self) -> Dim:
        """The number of positions."""
        return self.group.size

    @property
    def size(self) -> Index:
        """The number of positions, as an index."""
        return from_dim(self.positions)

    @property
    def width(self) -> int:
        """The number of positions of a tile."""
        raise NotImplementedError

    @property
    def tiles(self) -> Dim:
        """The number of tiles."""
        return ceil_div(self.positions, self.width)

    @property
    def is_even(self) -> bool:
        """Whether all tiles are full."""
        size = self.positions
        return isinstance(size, int) and size % self.width == 0

    @property
    def dtype(self) -> DType:
        """The element type."""
        zeros = {d: 0 for g in (self.group, self.batch, self.steps.group) for d in g.dims}
        return self.read(zeros).type

    @property
    def depth(self) -> Dim:
        """The length of the reduction."""
        return self.steps.group.size

    def filled(self, tile: Index) -> Index:
        """How many positions of a tile exist."""
        if self.is_even:
            return self.width
        return minimum(self.width, self.size - tile * self.width)

    def flat_element(self, batch: Index, position: Index, k: Index) -> Expression:
        """The element at flat positions of the side and of the reduction."""
        split = self.batch.split(batch) | self.group.split(position) | self.steps.group.split(k)
        return self.read(split)

    def buffer(self, tiles: Dim, depth: Dim) -> Buffer:
        """Memory for packed tiles."""
        name, shape = f"packed_{self.name}", (tiles, *self._order(depth))
        if self.ahead:
            return Buffer(name, self.dtype, shape, alignment=64)
        return Buffer(name, self.dtype, shape, Space.LOCAL)

    def _order(self, depth: Dim) -> tuple[Dim, Dim]:
        return depth, self.width

    def pack(
        self, buffer: Buffer, slot: Index, batch: Index, tile: Index, part: KRange
    ) -> list[Statement]:
        """Packs a part of the reduction of one tile."""
        raise NotImplementedError

    def flat_range(self, part: KRange) -> tuple[Index, Index]:
        """The first step of a part of the reduction, and how many there are."""
        return part.start * self.steps.unit, part.count * self.steps.unit


@dataclass(frozen=True, slots=True)
class Rows(Side):
    """The side whose elements are broadcast, or a `part` of its positions.  `k_inner` tells the
    order inside a packed tile: [position][k] where k is contiguous in memory, else [k][position].
    """

    k_inner: bool = False
    part: RowPart | None = None

    @property
    def positions(self) -> Dim:
        return self.part.count if self.part else self.group.size

    @property
    def _first(self) -> int:
        """Where the part begins."""
        return self.part.first if self.part else 0

    def buffer(self, tiles: Dim, depth: Dim) -> Buffer:
        whole = Side.buffer(self, tiles, depth)
        return replace(whole, name=f"{whole.name}_{self._first}") if self._first else whole

    @property
    def width(self) -> int:
        return self.tile.rows

    def _order(self, depth: Dim) -> tuple[Dim, Dim]:
        # A row stride that is a large power of two would map all rows to the same cache sets.
        return (self.width, depth + PADDING) if self.k_inner else (depth, self.width)

    def pack(
        self, buffer: Buffer, slot: Index, batch: Index, tile: Index, part: KRange
    ) -> list[Statement]:
        """Packs a part of the reduction of one tile."""
        k, position = variable("k"), variable("p")
        start, depth = self.flat_range(part)
        filled = self.filled(tile)
        at = (slot, position, k) if self.k_inner else (slot, k, position)
        value = self.flat_element(batch, self._position(tile, position), start + k)
        copy, clear = buffer.store(at, value), buffer.store(at, constant(0, buffer.dtype))
        nest = _position_outer if self.k_inner else _position_inner
        edge = [] if self.is_even else nest(clear, filled, self.width, depth)
        edge = [*nest(copy, 0, filled, depth), *edge]
        if self.k_inner:
            return edge
        whole = For("k", 0, depth, tuple(self._pieces(copy)))
        return [whole] if self.is_even else _where_full(filled, self.width, [whole], edge)

    def _pieces(self, copy: Statement) -> Iterator[Statement]:
        """The positions of a full tile in vectors without a mask, shorter where fewer are left:
        stores through a mask take many cycles on some CPUs."""
        lanes = self.tile.lanes
        whole = self.width // lanes * lanes
        if whole:
            yield For("p", 0, whole, (copy,), LoopKind.VECTOR, lanes=lanes)
        for first, width in powers(self.width - whole, lanes):
            start = whole + first
            yield For("p", start, start + width, (copy,), LoopKind.VECTOR, lanes=width)

    def packed_element(self, buffer: Buffer, slot: Index, position: Index, k: Index) -> Load:
        """An element of a packed tile."""
        return buffer[(slot, position, k) if self.k_inner else (slot, k, position)]

    def direct_element(self, batch: Index, tile: Index, position: Index, step: Step) -> Expression:
        """An element read where it lies; past the end of the side the last one again."""
        index = self._position(tile, position)
        if not self.is_even:
            index = minimum(index, self.size - 1 + self._first)
        return self.read(self.batch.split(batch) | self.group.split(index) | step.dims)

    def first(self, tile: Index) -> Index:
        """The first position of a tile."""
        return self._position(tile, 0)

    def points(self, tile: Index, position: Index) -> Point:
        """The indices of the side's dimensions at a position of a tile."""
        return self.group.split(self._position(tile, position))

    def _position(self, tile: Index, position: Index) -> Index:
        return tile * self.width + position + self._first


@dataclass(frozen=True, slots=True)
class Columns(Side):
    """The side that is read in vectors, its positions a flat index.  `k_run`: how many of the last
    reduced dimensions are a run of neighbours in memory, where the columns are not."""

    k_run: int = 0

    @property
    def width(self) -> int:
        return self.tile.columns

    def pack(
        self, buffer: Buffer, slot: Index, batch: Index, tile: Index, part: KRange
    ) -> list[Statement]:
        """Packs a part of the reduction of one tile."""
        k, position = variable("k"), variable("p")
        start, depth = self.flat_range(part)
        filled, at = self.filled(tile), (slot, k, position)
        positions = tile * self.width + position
        value = self.flat_element(batch, positions, start + k)
        copy, clear = buffer.store(at, value), buffer.store(at, constant(0, buffer.dtype))
        full = For("p", 0, self.width, (copy,), LoopKind.VECTOR)
        whole = self._transposing(buffer, slot, batch, positions, part)
        last_again = minimum(positions, self.size - 1)
        edge = self._transposing(buffer, slot, batch, last_again, part) or [
            *_position_inner(copy, 0, filled, depth),
            *_position_inner(clear, filled, self.width, depth),
        ]
        whole = whole or [For("k", 0, depth, (full,))]
        return whole if self.is_even else _where_full(filled, self.width, whole, edge)

    def _transposing(
        self, buffer: Buffer, slot: Index, batch: Index, positions: Index, part: KRange
    ) -> list[Statement]:
        """Square blocks of a tile, read along k and written along the positions; nothing where the
        part is not one of whole runs along k."""
        if self.k_run == 0:
            return []
        k: Index = variable("k")
        start, depth = self.flat_range(part)
        if self.k_run == len(self.steps.group.dims):
            return self._blocks(buffer, slot, batch, positions, start, k, depth)
        found = self._runs(part)
        if found is None:
            return []
        length, runs = found
        k = variable("run") * length + k
        blocks = self._blocks(buffer, slot, batch, positions, start, k, length)
        return [For("run", 0, runs, tuple(blocks))]

    def _runs(self, part: KRange) -> tuple[int, Index] | None:
        """How long runs of neighbours are, and how many a part has: the longest ones in the whole
        reduction, else those of the inner loops; None where neither may be."""
        longest = Steps(self.steps.group, self.k_run)
        if longest.unit and part.count == from_dim(self.steps.units):
            return longest.unit, from_dim(longest.units)
        inner = self.steps.unit if 0 < self.steps.inner <= self.k_run else 0
        return (inner, part.count) if inner >= self.tile.lanes else None

    def _blocks(
        self,
        buffer: Buffer,
        slot: Index,
        batch: Index,
        positions: Index,
        start: Index,
        k: Index,
        length: Index,
    ) -> list[Statement]:
        position, lanes = variable("p"), self.tile.lanes
        value = self.flat_element(batch, positions, start + k)
        copy = buffer.store((slot, k, position), value)
        blocks: list[Statement] = []
        for first in range(0, self.width, lanes):
            block = For("p", first, first + lanes, (copy,), LoopKind.UNROLL)
            blocks.append(For("k", 0, length, (block,), LoopKind.VECTOR, lanes=lanes))
        return blocks

    def vectors(self, body: Callable[[Lane], Statement]) -> For:
        """The statement for each column of a tile, a vector at a time."""
        statement = body(Lane(0, variable("j")))
        return For("j", 0, self.width, (statement,), LoopKind.VECTOR, lanes=self.tile.lanes)

    def packed_element(self, buffer: Buffer, slot: Index, lane: Lane, k: Index) -> Load:
        """An element of a packed tile."""
        return buffer[slot, k, lane.column(self.tile)]

    def direct_element(self, batch: Index, tile: Index, lane: Lane, step: Step) -> Expression:
        """An element read where it lies; past the end of the side it is zero."""
        index = tile * self.width + lane.column(self.tile)
        element = self.read(self.batch.split(batch) | self.group.split(index) | step.dims)
        if self.is_even or self.anywhere:
            return element
        return guarded(element, compare("lt", index, self.size))

    def unmasked(self) -> Columns | None:
        """The columns as full tiles may read them; None where all tiles read alike."""
        return None if self.packed or self.is_even else replace(self, anywhere=True)

    def results(
        self,
        tile: Index,
        body: Callable[[Lane, Point], Sequence[Statement]],
        around: Callable[[Statement], Statement],
    ) -> list[Statement]:
        """The loops that hand on the columns of a tile; `around` adds the loop over its rows."""
        lane = Lane(0, variable("j"))
        first, count = self.handed_on(tile)
        point = self.group.split(first + lane.lane)
        return [around(For("j", 0, count, tuple(body(lane, point)), LoopKind.VECTOR))]

    def handed_on(self, tile: Index) -> tuple[Index, Index]:
        """The first column of those that a tile hands on, and how many they are: where several
        blocks are taken together, those of the first one."""
        return tile * self.width, self.filled(tile)

    def settings(self) -> dict[str, Any]:
        """All fields, for columns that are cut otherwise."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def powers(count: int, limit: int) -> Iterator[tuple[int, int]]:
    """Powers of two below the limit that add up to the count, and where each of them starts."""
    start, width = 0, limit // 2
    while width:
        if count & width:
            yield start, width
            start += width
        width //= 2


def _where_full(
    filled: Index, width: int, whole: Sequence[Statement], edge: Sequence[Statement]
) -> list[Statement]:
    return [If(compare("eq", filled, width), tuple(whole), tuple(edge))]


def guarded(element: Expression, condition: Expression) -> Load:
    """The element where the condition holds, else zero."""
    assert isinstance(element, Load), "only plain loads are read where they lie"
    return replace(element, guard=all_of(element.guard, condition))


def _position_outer(
    statement: Statement, first: Index, last: Index, depth: Index
) -> list[Statement]:
    inner = For("k", 0, depth, (statement,), LoopKind.VECTOR)
    return [For("p", first, last, (inner,))]


def _position_inner(
    statement: Statement, first: Index, last: Index, depth: Index
) -> list[Statement]:
    inner = For("p", first, last, (statement,), LoopKind.VECTOR)
    return [For("k", 0, depth, (inner,))]
