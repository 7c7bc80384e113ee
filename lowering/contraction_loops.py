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
is packed window by window and never spread out in memory as a whole.  What its windows read is
copied before, without edges and strides (`contraction_window`).  A side that is read only once
or twice, straight from memory, is not packed at all; one that stays the same while a loop runs the
kernel again and again is packed ahead of the loop.  What the epilogue reads and writes is fetched
from far memory while the sums of its tile are on their way (`loop_prefetch`).  Where there
are many small products, a task computes some of them whole.  The division into tasks depends on
sizes alone, and each result is summed in one order, so the bits do not depend on the number of
threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from mapsto.ir.dims import Dim, ceil_div, floor_div
from mapsto.ir.types import DType
from mapsto.lowering import indices
from mapsto.lowering.contraction_layout import Packing, columns_of, rows_of, steps_for, window_of
from mapsto.lowering.contraction_places import (
    Chunk,
    Place,
    TileValues,
    tile_element,
    unflatten,
)
from mapsto.lowering.contraction_plan import (
    RowPart,
    Schedule,
    interleaves,
    row_chunks,
    row_parts,
)
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.contraction_results import Results
from mapsto.lowering.contraction_sides import Columns, Lane, Rows, Side
from mapsto.lowering.contraction_steps import KRange, Step, Steps
from mapsto.lowering.contraction_tile import RegisterTile
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indices import Index, from_dim, maximum, minimum, variable
from mapsto.lowering.loop_prefetch import LINE, prefetches
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Comment,
    Expression,
    For,
    If,
    LoopKind,
    Prefetch,
    Space,
    Statement,
    compare,
)

__all__ = ["contraction_body", "contraction_packings"]


def contraction_body(problem: ContractionProblem, schedule: Schedule) -> tuple[Statement, ...]:
    """The statements that compute the contraction and hand each result to its epilogue."""
    return _Loops(problem, schedule).body()


def contraction_packings(problem: ContractionProblem, schedule: Schedule) -> tuple[Packing, ...]:
    """What has to be done ahead, before the contraction's statements run."""
    return _Loops(problem, schedule).packings()


@dataclass(frozen=True, slots=True)
class _Loops:
    problem: ContractionProblem
    schedule: Schedule
    part: RowPart | None = None
    """The rows that it is about, where there are tiles of two heights."""

    @property
    def rows(self) -> Rows:
        return rows_of(self.problem, self.schedule, self.part)

    @property
    def columns(self) -> Columns:
        return columns_of(self.problem, self.schedule)

    @property
    def steps(self) -> Steps:
        return steps_for(self.problem, self.schedule)

    @property
    def private(self) -> Side:
        return self.rows if self.schedule.private_rows else self.columns

    @property
    def depth(self) -> Dim:
        return self.problem.reduced.size

    @property
    def batches(self) -> Dim:
        return self.problem.batch.size

    @property
    def k_blocks(self) -> Dim:
        return ceil_div(self.depth, self.schedule.reduction_block)

    @property
    def block_depth(self) -> Dim:
        """The depth of a private packed tile."""
        return self.depth if self.k_blocks == 1 else self.schedule.reduction_block

    def body(self) -> tuple[Statement, ...]:
        work = self._batch_tasks() if self.schedule.batches else self._work()
        return (*self._copy_windows(), *work)

    def _batch_tasks(self) -> list[Statement]:
        """Tasks of whole batches."""
        own, task = self.schedule.batches, variable("batch_task")
        count = ceil_div(self.batches, own)
        one = self.problem.of_batch(variable("batch"))
        schedule = replace(self.schedule, parallel=False)
        stop = minimum(task * own + own, from_dim(self.batches))
        loop = For("batch", task * own, stop, tuple(_Loops(one, schedule)._work()))
        return [For("batch_task", 0, from_dim(count), (loop,), self._outer)]

    def _work(self) -> list[Statement]:
        tasks = ceil_div(self._task_tiles, self._block)
        chunks = row_chunks(self.problem, self.schedule)
        task = variable("task")
        batch, block = unflatten(indices.floor_div(task, chunks), self.batches, tasks)
        work = self._task(batch, block * self._block)
        loop = For("task", 0, from_dim(self.batches * tasks * chunks), tuple(work), self._outer)
        return [*self._pack_shared(), loop]

    def _copy_windows(self) -> list[Statement]:
        found: list[Statement] = []
        for name in sorted(self.schedule.windows):
            window = window_of(self.problem, self.schedule, name)
            assert window is not None, "the schedule copies what can be copied"
            comment = Comment(f"copy what {name} read")
            found += [Allocate(window.buffer), comment, window.fill(self._outer)]
        return found

    @property
    def _outer(self) -> LoopKind:
        return LoopKind.PARALLEL if self.schedule.parallel else LoopKind.SERIAL

    def _pack_shared(self) -> list[Statement]:
        if self.schedule.private_rows:
            return self._pack_side(self.columns)
        return [s for loops in self._row_parts for s in loops._pack_side(loops.rows)]

    def _pack_side(self, side: Side) -> list[Statement]:
        if not side.packed or side.ahead:
            return []
        return [Allocate(self._whole(side)), Comment(f"pack {side.name}"), self._pack_whole(side)]

    def packings(self) -> tuple[Packing, ...]:
        """What packs the sides that are packed ahead."""
        sides = [side for side in (self.rows, self.columns) if side.ahead]
        return tuple(Packing(self._whole(side), (self._pack_whole(side),)) for side in sides)

    def _pack_whole(self, side: Side) -> For:
        task = variable("tile")
        batch, tile = unflatten(task, self.batches, side.tiles)
        pack = side.pack(self._whole(side), task, batch, tile, self._all_steps)
        count = from_dim(self.batches * side.tiles)
        return For("tile", 0, count, tuple(pack), self._outer)

    @property
    def _all_steps(self) -> KRange:
        return KRange(0, from_dim(self.steps.units))

    def _whole(self, side: Side) -> Buffer:
        """Memory for all tiles of a side."""
        return side.buffer(self.batches * side.tiles, self.depth)

    def _private_buffer(self) -> Buffer:
        slots = self.schedule.block if self.schedule.private_rows else 1
        return self.private.buffer(slots, self.block_depth)

    @property
    def _blocks(self) -> int:
        """How many blocks of columns the epilogue takes together, but for those of one tile."""
        return 1 if interleaves(self.problem, self.schedule) else self.problem.access.blocks

    @property
    def _task_tiles(self) -> Dim:
        """The tiles that tasks share; of each block the same number."""
        return floor_div(self.private.tiles, self._blocks)

    @property
    def _block(self) -> int:
        """How many of them a task owns."""
        return max(1, self.schedule.block // self._blocks)

    def _task(self, batch: Index, first: Index) -> list[Statement]:
        block = self._block
        count = 1 if block == 1 else minimum(block, from_dim(self._task_tiles) - first)
        if self.schedule.private_rows:
            body = self._row_task(batch, first, count)
        elif self._blocks == 1:
            body = self._column_task(batch, first, count)
        else:
            body = self._block_task(batch, first, count)
        packs = self.private.packed and not self.private.ahead
        buffers = [Allocate(self._private_buffer())] if packs else []
        sums = [Allocate(loops._partial()) for loops in self._row_parts]
        return [*buffers, *(sums if self.k_blocks != 1 else []), *body]

    def _row_task(self, batch: Index, first: Index, count: Index) -> list[Statement]:
        """All columns of a block of row tiles, one block of the reduction after another."""
        sliver, panel = variable("sliver"), variable("panel")
        shared_slot = batch * from_dim(self.columns.tiles) + panel
        place = Place(batch, first + sliver, panel, sliver, shared_slot, self._k_range())
        inner, outer = ("sliver", count), ("panel", from_dim(self.columns.tiles))
        if self.schedule.by_rows:
            inner, outer = outer, inner
        tiles = For(outer[0], 0, outer[1], (For(inner[0], 0, inner[1], tuple(self._tile(place))),))
        return self._over_k([*self._pack_private(place, sliver, count), tiles])

    def _column_task(self, batch: Index, first: Index, count: Index) -> list[Statement]:
        """All rows of a block of column tiles, one column tile after another."""
        column_tile = first + variable("panel")
        place = Place(batch, 0, column_tile, 0, 0, self._k_range())
        tiles = [loops._all_rows(place) for loops in self._row_parts]
        inner = self._over_k([*self._pack_private(place, 0, 1), *tiles])
        return [For("panel", 0, count, tuple(inner))]

    @property
    def _row_parts(self) -> list[_Loops]:
        """The loops of the rows that have tiles of the same height."""
        found = []
        for part in row_parts(self.problem, self.schedule):
            tile = replace(self.schedule.tile, rows=part.height)
            found.append(_Loops(self.problem, replace(self.schedule, tile=tile), part))
        return found or [self]

    def _all_rows(self, place: Place) -> For:
        """The tiles of all rows, for one of columns."""
        tile = self._tile(self._in_row(place, variable("sliver")))
        return For("sliver", 0, from_dim(self.rows.tiles), tuple(tile))

    def _in_row(self, place: Place, tile: Index) -> Place:
        """The place in a row of tiles, whose rows all tasks share."""
        slot = place.batch * from_dim(self.rows.tiles) + tile
        return replace(place, row_tile=tile, row_slot=slot)

    def _block_task(self, batch: Index, first: Index, count: Index) -> list[Statement]:
        """A chunk of rows of the same column tiles of each block, then the epilogue for all blocks.
        All chunks, of which there are some where there would be few tasks, follow each other."""
        part, column_tile = variable("part"), first + variable("panel")
        place = Place(batch, 0, column_tile, 0, 0, self._all_steps)
        at = replace(place, column_tile=part * from_dim(self._task_tiles) + column_tile)
        chunks, tile = row_chunks(self.problem, self.schedule), self.schedule.tile
        tiles = ceil_div(self.rows.tiles, chunks)
        shape = (tiles, self._blocks, tile.rows, tile.columns)
        sums = Buffer("sums", self._dtype, shape, Space.LOCAL)
        start = indices.modulo(variable("task"), chunks) * from_dim(tiles)
        chunk = Chunk(start, from_dim(tiles), sums)
        products = [loops._chunk_sums(at, place, chunk) for loops in self._row_parts]
        parts = For("part", 0, self._blocks, (*self._pack_private(at, 0, 1), *products))
        results = [loops._chunk_results(place, chunk) for loops in self._row_parts]
        return [Allocate(sums), For("panel", 0, count, (parts, *results))]

    def _chunk_sums(self, at: Place, first: Place, chunk: Chunk) -> For:
        """The sums of a block's tiles `at` a place; what the epilogue will read of the first block
        at the same columns is fetched at the last one."""
        part, sliver = variable("part"), variable("sliver")
        keep = self._register_tile.keep(chunk.sums, (chunk.slot(sliver, self._above), part))
        epilogue, width = self._chunk_epilogue(first, chunk), self.schedule.tile.columns
        fetch = prefetches(epilogue, width, self.schedule.near)
        hints = [If(compare("eq", part, self._blocks - 1), fetch)] if fetch else []
        return self._chunk_loop(chunk, [*hints, *self._sums(self._in_row(at, sliver)), keep])

    def _chunk_results(self, place: Place, chunk: Chunk) -> For:
        return self._chunk_loop(chunk, self._chunk_epilogue(place, chunk))

    def _chunk_epilogue(self, place: Place, chunk: Chunk) -> list[Statement]:
        sliver = variable("sliver")
        slot = chunk.slot(sliver, self._above)
        values = [
            partial(tile_element, chunk.sums, (slot, number)) for number in range(self._blocks)
        ]
        return self._epilogue(self._in_row(place, sliver), values)

    def _chunk_loop(self, chunk: Chunk, body: list[Statement]) -> For:
        """The tiles of a chunk of rows, among those of these loops."""
        start: Index = chunk.start - self._above
        stop = minimum(start + chunk.tiles, from_dim(self.rows.tiles))
        return For("sliver", maximum(start, 0) if self._above else start, stop, tuple(body))

    @property
    def _above(self) -> int:
        """How many tiles there are above those of these loops."""
        return self.part.tiles if self.part else 0

    def _pack_private(self, place: Place, slot: Index, count: Index) -> list[Statement]:
        side = self.private
        if not side.packed or side.ahead:
            return []
        buffer = self._private_buffer()
        rows = self.schedule.private_rows
        tile = place.row_tile if rows else place.column_tile
        at = slot if rows else 0
        pack = side.pack(buffer, at, place.batch, tile, place.part)
        return [For("sliver", 0, count, tuple(pack))] if rows else pack

    def _over_k(self, body: list[Statement]) -> list[Statement]:
        if self.k_blocks == 1:
            return body
        # An empty sum is a result as well: there is one block at least.
        return [For("k_block", 0, maximum(from_dim(self.k_blocks), 1), tuple(body))]

    def _k_range(self) -> KRange:
        """The current block of the reduction."""
        if self.k_blocks == 1:
            return self._all_steps
        block = self.schedule.reduction_block // self.steps.unit
        start = variable("k_block") * block
        return KRange(start, minimum(block, from_dim(self.steps.units) - start))

    def _partial(self) -> Buffer:
        """Sums of the blocks of the reduction so far, for the tiles of a task."""
        tile = self.schedule.tile
        rows = self.schedule.private_rows
        tiles = (self.schedule.block, self.columns.tiles) if rows else (self.rows.tiles, 1)
        name = f"partial{self.part.first}" if self.part else "partial"
        return Buffer(name, self._dtype, (*tiles, tile.rows, tile.columns), Space.LOCAL)

    @property
    def _dtype(self) -> DType:
        """The element type of the sums."""
        return sum_type(self.problem.dtype)

    def _tile(self, place: Place) -> list[Statement]:
        """One register tile: its sums over a block of the reduction, then the epilogue."""
        tile = self.schedule.tile
        result = Buffer("tile", self._dtype, (tile.rows, tile.columns), Space.LOCAL)
        body = self._sums(place)
        if self.k_blocks == 1:
            copy = self._register_tile.keep(result, ())
            epilogue = self._epilogue(place, self._tile_values(result, ()))
            fetch = prefetches(epilogue, tile.columns, self.schedule.near)
            return [*fetch, *body, Allocate(result), copy, *epilogue]
        sums, slots = self._partial(), self._partial_slots(place)
        keep = self._register_tile.keep(sums, slots)
        epilogue = self._epilogue(place, self._tile_values(sums, slots))
        last = compare("ge", variable("k_block"), from_dim(self.k_blocks) - 1)
        return [*body, keep, If(last, tuple(epilogue))]

    def _tile_values(self, tile: Buffer, slots: tuple[Index, ...]) -> list[TileValues]:
        """What is in a tile, of each block whose columns it has."""
        blocks = self.problem.access.blocks
        width = self.schedule.tile.columns // blocks
        return [
            partial(tile_element, tile, slots, first=number * width) for number in range(blocks)
        ]

    @property
    def _register_tile(self) -> RegisterTile:
        return RegisterTile(self.schedule.tile, self.columns, self.steps, self._dtype)

    def _sums(self, place: Place) -> list[Statement]:
        """The sums of a tile over a block of the reduction."""
        accumulators = self._register_tile.accumulators
        return [Allocate(accumulators), self._start(place), self._multiply(place)]

    def _partial_slots(self, place: Place) -> tuple[Index, Index]:
        if self.schedule.private_rows:
            return place.row_slot, place.column_tile
        return place.row_tile, 0

    def _start(self, place: Place) -> Statement:
        tile = self._register_tile
        if self.k_blocks == 1:
            return tile.clear()
        sums, slots = self._partial(), self._partial_slots(place)
        resume = tile.start(lambda i, j: sums[(*slots, i, j)])
        return If(compare("eq", variable("k_block"), 0), (tile.clear(),), (resume,))

    def _multiply(self, place: Place) -> Statement:
        """The sums of a block; only the last tile reads columns through masks."""
        columns = self.columns
        steps, unmasked = self._steps(place, columns), columns.unmasked()
        if unmasked is None:
            return steps
        full = compare("eq", columns.filled(place.column_tile), columns.width)
        return If(full, (self._steps(place, unmasked),), (steps,))

    def _steps(self, place: Place, side: Columns) -> Statement:
        """The steps of a block, with the columns read as a side does."""
        return replace(self._register_tile, columns=side).multiply(
            place.part,
            lambda step: self._row_element(place, step),
            lambda lane, step: self._column_element(side, place, lane, step),
            lambda step: self._fetch(side, place, step),
        )

    def _fetch(self, side: Columns, place: Place, step: Step) -> list[Statement]:
        """Hints for the columns of a later step, which may be those of the next panel."""
        later = self.schedule.fetched_steps
        if not later:
            return []
        buffer, slot, offset = self._packed(side, place)
        lines = range(0, side.width, LINE // buffer.dtype.bytes)
        return [Prefetch(buffer, (slot, offset + step.number + later, first)) for first in lines]

    def _row_element(self, place: Place, step: Step) -> Expression:
        i = variable("i")
        if not self.rows.packed:
            return self.rows.direct_element(place.batch, place.row_tile, i, step)
        buffer, slot, offset = self._packed(self.rows, place)
        return self.rows.packed_element(buffer, slot, i, offset + step.number)

    def _column_element(self, side: Columns, place: Place, lane: Lane, step: Step) -> Expression:
        if not side.packed:
            return side.direct_element(place.batch, place.column_tile, lane, step)
        buffer, slot, offset = self._packed(side, place)
        return side.packed_element(buffer, slot, lane, offset + step.number)

    def _packed(self, side: Side, place: Place) -> tuple[Buffer, Index, Index]:
        """The packed buffer of a side, the tile's slot in it, and where the current block of the
        reduction starts."""
        is_rows = side.name == "rows"
        slot = place.row_slot if is_rows else place.column_slot
        start = place.part.start * self.steps.unit
        if side.ahead:
            tile = place.row_tile if is_rows else place.column_tile
            return self._whole(side), place.batch * from_dim(side.tiles) + tile, start
        if side.name == self.private.name:
            return self._private_buffer(), slot, 0
        return self._whole(side), slot, start

    def _epilogue(self, place: Place, values: Sequence[TileValues]) -> list[Statement]:
        """Hands the results of a tile, of each block of columns, to what is fused behind the
        contraction."""
        return Results(self.problem, self.rows, self.columns).of(place, values)
