"""The loops of a packed, register-blocked contraction.

One side (rows or columns) is *shared*: it is packed once, by all threads, before the work starts.
The other is *private*: each task packs its own block just before using it, so the block is still in
the cache of the core that needs it.  With rows private:

    for panel parallel:                      pack columns   [panel][k][columns of a tile]
    for block parallel:
        for k-block:
            for sliver of the block:         pack rows      [sliver][row][k]
            for panel:
                for sliver of the block:
                    accumulators[rows, vectors] = 0
                    for k: for vector: for row:
                        accumulators += row element * column vector
                    results of the tile -> epilogue

Packing evaluates the operand's index map and whatever is fused into reading it, so a convolution
is packed window by window and never spread out in memory as a whole.  A side that is read only once
or twice, straight from memory, is not packed at all; one that stays the same while a loop runs the
kernel again and again is packed ahead of the loop.  The division into tasks depends on sizes
alone, and each result is summed in one order, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mapsto.ir.dims import Dim, floor_div
from mapsto.ir.types import DType
from mapsto.lowering import indices
from mapsto.lowering.contraction_problem import ContractionProblem, Group
from mapsto.lowering.cpu.tiles import Tile
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indices import Index, from_dim, maximum, minimum, variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Comment,
    Expression,
    For,
    If,
    Load,
    LoopKind,
    Space,
    Statement,
    all_of,
    cast,
    compare,
    constant,
    fma,
)

__all__ = ["Packing", "Schedule", "contraction_body", "contraction_packings"]

PADDING = 16
"""Elements added to the stride of packed rows."""
K_UNROLL = 2
"""Steps of the reduction that are laid out in a row in the innermost loop."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The choices that fix the loops; all sizes in elements."""

    tile: Tile
    private_rows: bool
    """Whether tasks own rows (and share packed columns) or the other way round."""
    block: int
    """Tiles of the private side that a task owns."""
    reduction_block: int
    """How much of the reduction is packed at a time."""
    pack_rows: bool
    pack_columns: bool
    parallel: bool = True
    """Whether the work is worth waking other threads."""
    ahead: frozenset[str] = frozenset()
    """The sides, rows or columns, that are packed ahead of a loop around the kernel."""


@dataclass(frozen=True, slots=True)
class Packing:
    """What packs a side ahead: the packed buffer and the statements that fill it."""

    buffer: Buffer
    body: tuple[Statement, ...]


def contraction_body(problem: ContractionProblem, schedule: Schedule) -> tuple[Statement, ...]:
    """The statements that compute the contraction and hand each result to its epilogue."""
    return _Loops(problem, schedule).body()


def contraction_packings(problem: ContractionProblem, schedule: Schedule) -> tuple[Packing, ...]:
    """What has to be done ahead, before the contraction's statements run."""
    return _Loops(problem, schedule).packings()


@dataclass(frozen=True, slots=True)
class _Side:
    """Rows or columns: how its elements are packed, and whether that is done `ahead`.

    `element(batch, position, k)` reads the operand; `width` is the tile's extent along the side.
    `k_inner` tells the order inside a tile: [position][k] where k is contiguous in memory and the
    elements are broadcast, else [k][position]; `transposed`: contiguous in memory along k all the
    same.
    """

    name: str
    group: Group
    element: Callable[[Index, Index, Index], Expression]
    width: int
    packed: bool
    k_inner: bool
    transposed: bool = False
    lanes: int = 1
    ahead: bool = False

    @property
    def size(self) -> Index:
        return from_dim(self.group.size)

    @property
    def tiles(self) -> Dim:
        return _ceil_div(self.group.size, self.width)

    @property
    def is_even(self) -> bool:
        size = self.group.size
        return isinstance(size, int) and size % self.width == 0

    def filled(self, tile: Index) -> Index:
        """How many positions of a tile exist."""
        if self.is_even:
            return self.width
        return minimum(self.width, self.size - tile * self.width)

    def buffer(self, tiles: Dim, depth: Dim) -> Buffer:
        """Memory for packed tiles."""
        # A row stride that is a large power of two would map all rows to the same cache sets.
        order = (self.width, depth + PADDING) if self.k_inner else (depth, self.width)
        name, shape = f"packed_{self.name}", (tiles, *order)
        if self.ahead:
            return Buffer(name, self.dtype, shape, alignment=64)
        return Buffer(name, self.dtype, shape, Space.LOCAL)

    @property
    def dtype(self) -> DType:
        return self.element(0, 0, 0).type

    def pack(
        self, buffer: Buffer, slot: Index, batch: Index, tile: Index, start: Index, depth: Index
    ) -> list[Statement]:
        """Packs elements `start .. start + depth` of the reduction of one tile."""
        k, position = variable("k"), variable("p")
        filled = self.filled(tile)
        at = (slot, position, k) if self.k_inner else (slot, k, position)
        value = self.element(batch, tile * self.width + position, start + k)
        copy, clear = buffer.store(at, value), buffer.store(at, constant(0, buffer.dtype))
        nest = _position_outer if self.k_inner else _position_inner
        whole = self._transposing(copy, depth) if self.transposed else nest(copy, 0, filled, depth)
        if self.is_even:
            return whole
        edge = [*nest(copy, 0, filled, depth), *nest(clear, filled, self.width, depth)]
        if not self.transposed:
            return edge
        return [If(compare("eq", filled, self.width), tuple(whole), tuple(edge))]

    def _transposing(self, copy: Statement, depth: Index) -> list[Statement]:
        """Square blocks of a tile, read along k and written along the positions."""
        blocks: list[Statement] = []
        for start in range(0, self.width, self.lanes):
            block = For("p", start, start + self.lanes, (copy,), LoopKind.UNROLL)
            blocks.append(For("k", 0, depth, (block,), LoopKind.VECTOR, lanes=self.lanes))
        return blocks

    def packed_element(self, buffer: Buffer, slot: Index, position: Index, k: Index) -> Load:
        """An element of a packed tile."""
        return buffer[(slot, position, k) if self.k_inner else (slot, k, position)]

    def direct_element(self, batch: Index, tile: Index, position: Index, k: Index) -> Expression:
        """An element read where it lies, whatever it is past the end of the side."""
        index = tile * self.width + position
        if self.is_even:
            return self.element(batch, index, k)
        if self.name == "rows":
            return self.element(batch, minimum(index, self.size - 1), k)
        load = self.element(batch, index, k)
        assert isinstance(load, Load)
        return replace(load, guard=all_of(load.guard, compare("lt", index, self.size)))


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


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tile is: its batch, its row and column tile, and its slots in packed buffers."""

    batch: Index
    row_tile: Index
    column_tile: Index
    row_slot: Index
    column_slot: Index
    k_start: Index
    k_count: Index


@dataclass(frozen=True, slots=True)
class _Loops:
    problem: ContractionProblem
    schedule: Schedule

    @property
    def rows(self) -> _Side:
        problem, schedule = self.problem, self.schedule
        k_inner = problem.contiguous_in(problem.row_operand, problem.reduced)
        width, ahead = schedule.tile.rows, "rows" in schedule.ahead
        packed = schedule.pack_rows or ahead
        return _Side("rows", problem.rows, problem.read_row, width, packed, k_inner, ahead=ahead)

    @property
    def columns(self) -> _Side:
        problem, schedule = self.problem, self.schedule
        width, ahead = schedule.tile.columns, "columns" in schedule.ahead
        operand = 1 - problem.row_operand
        transposed = (
            problem.contiguous_in(operand, problem.reduced)
            and not problem.contiguous_in(operand, problem.columns)
            and len(problem.reduced.dims) == 1
        )
        return _Side(
            "columns",
            problem.columns,
            problem.read_column,
            width,
            schedule.pack_columns or ahead,
            k_inner=False,
            transposed=transposed,
            lanes=schedule.tile.lanes,
            ahead=ahead,
        )

    @property
    def private(self) -> _Side:
        return self.rows if self.schedule.private_rows else self.columns

    @property
    def shared(self) -> _Side:
        return self.columns if self.schedule.private_rows else self.rows

    @property
    def depth(self) -> Dim:
        return self.problem.reduced.size

    @property
    def batches(self) -> Dim:
        return self.problem.batch.size

    @property
    def k_blocks(self) -> Dim:
        return _ceil_div(self.depth, self.schedule.reduction_block)

    @property
    def block_depth(self) -> Dim:
        """The depth of a private packed tile."""
        return self.depth if self.k_blocks == 1 else self.schedule.reduction_block

    def body(self) -> tuple[Statement, ...]:
        tasks = _ceil_div(self.private.tiles, self.schedule.block)
        task = variable("task")
        batch, block = _unflatten(task, self.batches, tasks)
        work = self._task(batch, block * self.schedule.block)
        loop = For("task", 0, from_dim(self.batches * tasks), tuple(work), self._outer)
        return (*self._pack_shared(), loop)

    @property
    def _outer(self) -> LoopKind:
        return LoopKind.PARALLEL if self.schedule.parallel else LoopKind.SERIAL

    def _pack_shared(self) -> list[Statement]:
        side = self.shared
        if not side.packed or side.ahead:
            return []
        return [Allocate(self._whole(side)), Comment(f"pack {side.name}"), self._pack_whole(side)]

    def packings(self) -> tuple[Packing, ...]:
        """What packs the sides that are packed ahead."""
        sides = [side for side in (self.rows, self.columns) if side.ahead]
        return tuple(Packing(self._whole(side), (self._pack_whole(side),)) for side in sides)

    def _pack_whole(self, side: _Side) -> For:
        task = variable("tile")
        batch, tile = _unflatten(task, self.batches, side.tiles)
        pack = side.pack(self._whole(side), task, batch, tile, 0, from_dim(self.depth))
        count = from_dim(self.batches * side.tiles)
        return For("tile", 0, count, tuple(pack), self._outer)

    def _whole(self, side: _Side) -> Buffer:
        """Memory for all tiles of a side."""
        return side.buffer(self.batches * side.tiles, self.depth)

    def _private_buffer(self) -> Buffer:
        slots = self.schedule.block if self.schedule.private_rows else 1
        return self.private.buffer(slots, self.block_depth)

    def _task(self, batch: Index, first: Index) -> list[Statement]:
        block = self.schedule.block
        count = 1 if block == 1 else minimum(block, from_dim(self.private.tiles) - first)
        body = self._row_task(batch, first, count)
        if not self.schedule.private_rows:
            body = self._column_task(batch, first, count)
        packs = self.private.packed and not self.private.ahead
        buffers = [Allocate(self._private_buffer())] if packs else []
        partial = [Allocate(self._partial())] if self.k_blocks != 1 else []
        return [*buffers, *partial, *body]

    def _row_task(self, batch: Index, first: Index, count: Index) -> list[Statement]:
        """All columns of a block of row tiles, one block of the reduction after another."""
        sliver, panel = variable("sliver"), variable("panel")
        start, depth = self._k_range()
        shared_slot = batch * from_dim(self.columns.tiles) + panel
        place = _Place(batch, first + sliver, panel, sliver, shared_slot, start, depth)
        tiles = For("sliver", 0, count, tuple(self._tile(place)))
        panels = For("panel", 0, from_dim(self.columns.tiles), (tiles,))
        return self._over_k([*self._pack_private(place, sliver, count), panels])

    def _column_task(self, batch: Index, first: Index, count: Index) -> list[Statement]:
        """All rows of a block of column tiles, one column tile after another."""
        sliver, panel = variable("sliver"), variable("panel")
        start, depth = self._k_range()
        shared_slot = batch * from_dim(self.rows.tiles) + sliver
        place = _Place(batch, sliver, first + panel, shared_slot, 0, start, depth)
        tiles = For("sliver", 0, from_dim(self.rows.tiles), tuple(self._tile(place)))
        inner = self._over_k([*self._pack_private(place, panel, 1), tiles])
        return [For("panel", 0, count, tuple(inner))]

    def _pack_private(self, place: _Place, slot: Index, count: Index) -> list[Statement]:
        side = self.private
        if not side.packed or side.ahead:
            return []
        buffer = self._private_buffer()
        rows = self.schedule.private_rows
        tile = place.row_tile if rows else place.column_tile
        at = slot if rows else 0
        pack = side.pack(buffer, at, place.batch, tile, place.k_start, place.k_count)
        return [For("sliver", 0, count, tuple(pack))] if rows else pack

    def _over_k(self, body: list[Statement]) -> list[Statement]:
        if self.k_blocks == 1:
            return body
        # An empty sum is a result as well: there is one block at least.
        return [For("k_block", 0, maximum(from_dim(self.k_blocks), 1), tuple(body))]

    def _k_range(self) -> tuple[Index, Index]:
        """First element and length of the current block of the reduction."""
        if self.k_blocks == 1:
            return 0, from_dim(self.depth)
        start = variable("k_block") * self.schedule.reduction_block
        return start, minimum(self.schedule.reduction_block, from_dim(self.depth) - start)

    def _partial(self) -> Buffer:
        """Sums of the blocks of the reduction so far, for the tiles of a task."""
        tile = self.schedule.tile
        rows = self.schedule.private_rows
        tiles = (self.schedule.block, self.columns.tiles) if rows else (self.rows.tiles, 1)
        return Buffer("partial", self._dtype, (*tiles, tile.rows, tile.columns), Space.LOCAL)

    @property
    def _dtype(self) -> DType:
        """The element type of the sums."""
        return sum_type(self.problem.dtype)

    def _tile(self, place: _Place) -> list[Statement]:
        """One register tile: its sums over a block of the reduction, then the epilogue."""
        tile = self.schedule.tile
        accumulators = Buffer("acc", self._dtype, (tile.rows, tile.columns), Space.REGISTER)
        result = Buffer("tile", self._dtype, (tile.rows, tile.columns), Space.LOCAL)
        body = [Allocate(accumulators), *self._start(place, accumulators)]
        body.append(self._multiply(place, accumulators))
        at = ("i", "j")
        if self.k_blocks == 1:
            copy = result.store(at, accumulators[at])
            body += [Allocate(result), self._tile_loop(copy)]
            return [*body, *self._epilogue(place, lambda i, j: result[i, j])]
        partial, slots = self._partial(), self._partial_slots(place)
        body.append(self._tile_loop(partial.store((*slots, *at), accumulators[at])))
        epilogue = self._epilogue(place, lambda i, j: partial[(*slots, i, j)])
        last = compare("ge", variable("k_block"), from_dim(self.k_blocks) - 1)
        return [*body, If(last, tuple(epilogue))]

    def _partial_slots(self, place: _Place) -> tuple[Index, Index]:
        if self.schedule.private_rows:
            return place.row_slot, place.column_tile
        return place.row_tile, 0

    def _start(self, place: _Place, accumulators: Buffer) -> list[Statement]:
        zero = self._tile_loop(accumulators.store(("i", "j"), constant(0, self._dtype)))
        if self.k_blocks == 1:
            return [zero]
        partial = self._partial()[(*self._partial_slots(place), "i", "j")]
        resume = self._tile_loop(accumulators.store(("i", "j"), partial))
        return [If(compare("eq", variable("k_block"), 0), (zero,), (resume,))]

    def _tile_loop(self, body: Statement) -> Statement:
        """The body for each row i and column j of a tile, laid out flat."""
        inner = For("i", 0, self.schedule.tile.rows, (body,), LoopKind.UNROLL)
        return self._vectors(inner)

    def _multiply(self, place: _Place, accumulators: Buffer) -> Statement:
        """The sums of a block: for each step the column vectors, then row after row, so that one
        broadcast element at a time occupies a register."""
        tile, k = self.schedule.tile, variable("k")
        columns = Buffer("column", self._dtype, (tile.columns,), Space.REGISTER)
        load = columns.store(("j",), cast(self._column_element(place, k), self._dtype))
        row = cast(self._row_element(place, k), self._dtype)
        add = accumulators.store(("i", "j"), fma(row, columns["j"], accumulators["i", "j"]))
        rows = For("i", 0, tile.rows, (self._vectors(add),), LoopKind.UNROLL)
        body = (Allocate(columns), self._vectors(load), rows)
        return For("k", 0, place.k_count, body, unroll=K_UNROLL)

    def _vectors(self, statement: Statement) -> For:
        """The statement for each column j of a tile, a vector at a time."""
        tile = self.schedule.tile
        return For("j", 0, tile.columns, (statement,), LoopKind.VECTOR, lanes=tile.lanes)

    def _row_element(self, place: _Place, k: Index) -> Expression:
        i = variable("i")
        if not self.rows.packed:
            return self.rows.direct_element(place.batch, place.row_tile, i, place.k_start + k)
        buffer, slot, offset = self._packed(self.rows, place)
        return self.rows.packed_element(buffer, slot, i, offset + k)

    def _column_element(self, place: _Place, k: Index) -> Expression:
        j, side = variable("j"), self.columns
        if not side.packed:
            return side.direct_element(place.batch, place.column_tile, j, place.k_start + k)
        buffer, slot, offset = self._packed(side, place)
        return side.packed_element(buffer, slot, j, offset + k)

    def _packed(self, side: _Side, place: _Place) -> tuple[Buffer, Index, Index]:
        """The packed buffer of a side, the tile's slot in it, and where the current block of the
        reduction starts."""
        is_rows = side.name == "rows"
        slot = place.row_slot if is_rows else place.column_slot
        if side.ahead:
            tile = place.row_tile if is_rows else place.column_tile
            return self._whole(side), place.batch * from_dim(side.tiles) + tile, place.k_start
        if side.name == self.private.name:
            return self._private_buffer(), slot, 0
        return self._whole(side), slot, place.k_start

    def _epilogue(
        self, place: _Place, value: Callable[[Index, Index], Expression]
    ) -> list[Statement]:
        """Hands the results of a tile to what is fused behind the contraction."""
        i, j = variable("i"), variable("j")
        row = place.row_tile * self.rows.width + i
        column = place.column_tile * self.columns.width + j
        element = cast(value(i, j), self.problem.dtype)
        stores = self.problem.store(place.batch, row, column, element, None)
        vectors = For(
            "j", 0, self.columns.filled(place.column_tile), tuple(stores), LoopKind.VECTOR
        )
        return [For("i", 0, self.rows.filled(place.row_tile), (vectors,))]


def _ceil_div(size: Dim, width: int) -> Dim:
    return floor_div(size + (width - 1), width)


def _unflatten(flat: Index, outer: Dim, inner: Dim) -> tuple[Index, Index]:
    """The two indices of a flat one over `outer * inner`."""
    if outer == 1:
        return 0, flat
    return indices.floor_div(flat, from_dim(inner)), indices.modulo(flat, from_dim(inner))
