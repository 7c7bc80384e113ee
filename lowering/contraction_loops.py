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
from far memory while the sums of its tile are on their way (`loop_prefetch`).  The division into
tasks depends on sizes alone, and each result is summed in one order, so the bits do not depend on
the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mapsto.ir.dims import Dim, floor_div
from mapsto.ir.types import DType
from mapsto.lowering import indices
from mapsto.lowering.contraction_plan import Schedule, row_chunks
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.contraction_sides import (
    Columns,
    Lane,
    Point,
    Reader,
    Rows,
    RunColumns,
    Side,
    ceil_div,
)
from mapsto.lowering.contraction_steps import KRange, Step, Steps, steps_of
from mapsto.lowering.contraction_window import Window, column_window, row_window
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indices import Index, from_dim, maximum, minimum, variable
from mapsto.lowering.loop_prefetch import prefetches
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Comment,
    Expression,
    For,
    If,
    LoopKind,
    Space,
    Statement,
    cast,
    compare,
    constant,
    fma,
)

__all__ = ["Packing", "contraction_body", "contraction_packings"]


SHORT_REDUCTION = 32
"""Steps up to which results are handed on from registers, row by row, without a loop."""


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
class _Place:
    """Where a tile is: its batch, its row and column tile, and its slots in packed buffers."""

    batch: Index
    row_tile: Index
    column_tile: Index
    row_slot: Index
    column_slot: Index
    part: KRange


@dataclass(frozen=True, slots=True)
class _Loops:
    problem: ContractionProblem
    schedule: Schedule

    @property
    def rows(self) -> Rows:
        problem, schedule = self.problem, self.schedule
        window, ahead = self._window("rows"), "rows" in schedule.ahead
        return Rows(
            "rows",
            problem.rows,
            problem.batch,
            self.steps,
            self._reader(problem.row_operand, window),
            schedule.tile,
            packed=schedule.pack_rows or ahead,
            ahead=ahead,
            k_inner=problem.contiguous_in(problem.row_operand, problem.reduced),
        )

    @property
    def columns(self) -> Columns:
        problem, schedule = self.problem, self.schedule
        operand = 1 - problem.row_operand
        window, ahead = self._window("columns"), "columns" in schedule.ahead
        across = problem.contiguous_in(operand, problem.columns)
        side = Columns(
            "columns",
            problem.columns,
            problem.batch,
            self.steps,
            self._reader(operand, window),
            schedule.tile,
            packed=schedule.pack_columns or ahead,
            ahead=ahead,
            anywhere=window is not None,
            k_run=0 if across else problem.contiguous_dims(operand, problem.reduced),
        )
        return RunColumns.of(side, schedule.run) if schedule.run else side

    @property
    def steps(self) -> Steps:
        """The reduction: with loops of their own for some dimensions where elements are read at
        the indices of these."""
        flat = Steps(self.problem.reduced, 0)
        direct = not (self.schedule.pack_rows and self.schedule.pack_columns)
        if not direct and not self.schedule.run:
            return flat
        return steps_of(self.problem.reduced, self.schedule.laid_out)

    def _window(self, name: str) -> Window | None:
        if name not in self.schedule.windows:
            return None
        lanes = self.schedule.tile.lanes
        return row_window(self.problem) if name == "rows" else column_window(self.problem, lanes)

    def _reader(self, operand: int, window: Window | None) -> Reader:
        return window.element if window else lambda point: self.problem.read(operand, point)

    @property
    def private(self) -> Side:
        return self.rows if self.schedule.private_rows else self.columns

    @property
    def shared(self) -> Side:
        return self.columns if self.schedule.private_rows else self.rows

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
        tasks = ceil_div(self._task_tiles, self._block)
        chunks = row_chunks(self.problem, self.schedule)
        task = variable("task")
        batch, block = _unflatten(indices.floor_div(task, chunks), self.batches, tasks)
        work = self._task(batch, block * self._block)
        loop = For("task", 0, from_dim(self.batches * tasks * chunks), tuple(work), self._outer)
        return (*self._copy_windows(), *self._pack_shared(), loop)

    def _copy_windows(self) -> list[Statement]:
        found: list[Statement] = []
        for name in sorted(self.schedule.windows):
            window = self._window(name)
            assert window is not None, "the schedule copies what can be copied"
            comment = Comment(f"copy what {name} read")
            found += [Allocate(window.buffer), comment, window.fill(self._outer)]
        return found

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

    def _pack_whole(self, side: Side) -> For:
        task = variable("tile")
        batch, tile = _unflatten(task, self.batches, side.tiles)
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
        """How many blocks of columns the epilogue takes together."""
        return self.problem.access.blocks

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
        sums = [Allocate(self._partial())] if self.k_blocks != 1 else []
        return [*buffers, *sums, *body]

    def _row_task(self, batch: Index, first: Index, count: Index) -> list[Statement]:
        """All columns of a block of row tiles, one block of the reduction after another."""
        sliver, panel = variable("sliver"), variable("panel")
        shared_slot = batch * from_dim(self.columns.tiles) + panel
        place = _Place(batch, first + sliver, panel, sliver, shared_slot, self._k_range())
        tiles = For("sliver", 0, count, tuple(self._tile(place)))
        panels = For("panel", 0, from_dim(self.columns.tiles), (tiles,))
        return self._over_k([*self._pack_private(place, sliver, count), panels])

    def _column_task(self, batch: Index, first: Index, count: Index) -> list[Statement]:
        """All rows of a block of column tiles, one column tile after another."""
        sliver, panel = variable("sliver"), variable("panel")
        shared_slot = batch * from_dim(self.rows.tiles) + sliver
        place = _Place(batch, sliver, first + panel, shared_slot, 0, self._k_range())
        tiles = For("sliver", 0, from_dim(self.rows.tiles), tuple(self._tile(place)))
        inner = self._over_k([*self._pack_private(place, panel, 1), tiles])
        return [For("panel", 0, count, tuple(inner))]

    def _block_task(self, batch: Index, first: Index, count: Index) -> list[Statement]:
        """A chunk of rows of the same column tiles of each block, then the epilogue for all blocks.
        All chunks, of which there are some where there would be few tasks, follow each other."""
        sliver, part, tile = variable("sliver"), variable("part"), self.schedule.tile
        column_tile = first + variable("panel")
        chunks = row_chunks(self.problem, self.schedule)
        slivers = ceil_div(self.rows.tiles, chunks)
        start = indices.modulo(variable("task"), chunks) * from_dim(slivers)
        row_tile = start + sliver
        shared_slot = batch * from_dim(self.rows.tiles) + row_tile
        place = _Place(batch, row_tile, column_tile, shared_slot, 0, self._all_steps)
        at = replace(place, column_tile=part * from_dim(self._task_tiles) + column_tile)
        rows = minimum(from_dim(slivers), from_dim(self.rows.tiles) - start)
        shape = (slivers, self._blocks, tile.rows, tile.columns)
        sums = Buffer("sums", self._dtype, shape, Space.LOCAL)
        acc = self._accumulators
        keep = self._tile_loop(lambda i, j: sums.store((sliver, part, i, j), acc[i, j]))
        values = [partial(_at, sums, (sliver, number)) for number in range(self._blocks)]
        epilogue = self._epilogue(place, values)
        fetch = prefetches(epilogue, tile.columns, self.schedule.near)
        hints = [If(compare("eq", part, self._blocks - 1), fetch)] if fetch else []
        tiles = For("sliver", 0, rows, (*hints, *self._sums(at), keep))
        parts = For("part", 0, self._blocks, (*self._pack_private(at, 0, 1), tiles))
        results = For("sliver", 0, rows, tuple(epilogue))
        return [Allocate(sums), For("panel", 0, count, (parts, results))]

    def _pack_private(self, place: _Place, slot: Index, count: Index) -> list[Statement]:
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
        return Buffer("partial", self._dtype, (*tiles, tile.rows, tile.columns), Space.LOCAL)

    @property
    def _dtype(self) -> DType:
        """The element type of the sums."""
        return sum_type(self.problem.dtype)

    def _tile(self, place: _Place) -> list[Statement]:
        """One register tile: its sums over a block of the reduction, then the epilogue."""
        tile, accumulators = self.schedule.tile, self._accumulators
        result = Buffer("tile", self._dtype, (tile.rows, tile.columns), Space.LOCAL)
        body = self._sums(place)
        if self.k_blocks == 1:
            copy = self._tile_loop(lambda i, j: result.store((i, j), accumulators[i, j]))
            epilogue = self._epilogue(place, [partial(_at, result, ())])
            fetch = prefetches(epilogue, tile.columns, self.schedule.near)
            return [*fetch, *body, Allocate(result), copy, *epilogue]
        sums, slots = self._partial(), self._partial_slots(place)
        keep = self._tile_loop(lambda i, j: sums.store((*slots, i, j), accumulators[i, j]))
        epilogue = self._epilogue(place, [partial(_at, sums, slots)])
        last = compare("ge", variable("k_block"), from_dim(self.k_blocks) - 1)
        return [*body, keep, If(last, tuple(epilogue))]

    @property
    def _accumulators(self) -> Buffer:
        tile = self.schedule.tile
        return Buffer("acc", self._dtype, (tile.rows, tile.columns), Space.REGISTER)

    def _sums(self, place: _Place) -> list[Statement]:
        """The sums of a tile over a block of the reduction."""
        accumulators = self._accumulators
        start = self._start(place, accumulators)
        return [Allocate(accumulators), *start, self._multiply(place, accumulators)]

    def _partial_slots(self, place: _Place) -> tuple[Index, Index]:
        if self.schedule.private_rows:
            return place.row_slot, place.column_tile
        return place.row_tile, 0

    def _start(self, place: _Place, accumulators: Buffer) -> list[Statement]:
        zero = self._tile_loop(lambda i, j: accumulators.store((i, j), constant(0, self._dtype)))
        if self.k_blocks == 1:
            return [zero]
        sums, slots = self._partial(), self._partial_slots(place)
        resume = self._tile_loop(lambda i, j: accumulators.store((i, j), sums[(*slots, i, j)]))
        return [If(compare("eq", variable("k_block"), 0), (zero,), (resume,))]

    def _tile_loop(self, body: Callable[[Index, Index], Statement]) -> Statement:
        """The body for each row and column of a tile, laid out flat."""
        tile = self.schedule.tile

        def rows(lane: Lane) -> Statement:
            statement = body(variable("i"), lane.column(tile))
            return For("i", 0, tile.rows, (statement,), LoopKind.UNROLL)

        return self.columns.vectors(rows)

    def _multiply(self, place: _Place, accumulators: Buffer) -> Statement:
        """The sums of a block; only the last tile reads columns through masks."""
        columns = self.columns
        steps, unmasked = self._steps(place, accumulators, columns), columns.unmasked()
        if unmasked is None:
            return steps
        full = compare("eq", columns.filled(place.column_tile), columns.width)
        return If(full, (self._steps(place, accumulators, unmasked),), (steps,))

    def _steps(self, place: _Place, accumulators: Buffer, side: Columns) -> Statement:
        """For each step the column vectors, then row after row, so that one broadcast element at a
        time occupies a register."""
        tile, i = self.schedule.tile, variable("i")
        columns = Buffer("column", self._dtype, (tile.columns,), Space.REGISTER)
        vectors = side.vectors

        def step(at: Step) -> list[Statement]:
            def load(lane: Lane) -> Statement:
                element = cast(self._column_element(side, place, lane, at), self._dtype)
                return columns.store((lane.column(tile),), element)

            def add(lane: Lane) -> Statement:
                j = lane.column(tile)
                row = cast(self._row_element(place, at), self._dtype)
                return accumulators.store((i, j), fma(row, columns[j], accumulators[i, j]))

            rows = For("i", 0, tile.rows, (vectors(add),), LoopKind.UNROLL)
            return [Allocate(columns), vectors(load), rows]

        return self.steps.loops(place.part, step)

    def _row_element(self, place: _Place, step: Step) -> Expression:
        i = variable("i")
        if not self.rows.packed:
            return self.rows.direct_element(place.batch, place.row_tile, i, step)
        buffer, slot, offset = self._packed(self.rows, place)
        return self.rows.packed_element(buffer, slot, i, offset + step.number)

    def _column_element(self, side: Columns, place: _Place, lane: Lane, step: Step) -> Expression:
        if not side.packed:
            return side.direct_element(place.batch, place.column_tile, lane, step)
        buffer, slot, offset = self._packed(side, place)
        return side.packed_element(buffer, slot, lane, offset + step.number)

    def _packed(self, side: Side, place: _Place) -> tuple[Buffer, Index, Index]:
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

    @property
    def _is_short(self) -> bool:
        """Whether results are such a part of the work that they are laid out as the sums are."""
        return isinstance(self.depth, int) and self.depth <= SHORT_REDUCTION

    def _epilogue(
        self, place: _Place, values: Sequence[Callable[[Index, Index], Expression]]
    ) -> list[Statement]:
        """Hands the results of a tile, of each block of columns, to what is fused behind the
        contraction."""
        problem, tile, i = self.problem, self.schedule.tile, variable("i")
        row = problem.batch.split(place.batch) | self.rows.points(place.row_tile, i)

        def store(lane: Lane, column: Point) -> Sequence[Statement]:
            found = [cast(value(i, lane.column(tile)), problem.dtype) for value in values]
            point = {**row, **column}
            if len(found) == 1:
                return problem.store(point, found[0])
            return problem.store_blocks(point, found)

        def rows(columns: Statement) -> Statement:
            filled = self.rows.filled(place.row_tile)
            short = isinstance(filled, int) and self._is_short
            return For("i", 0, filled, (columns,), LoopKind.UNROLL if short else LoopKind.SERIAL)

        return self.columns.results(place.column_tile, store, rows)


def _at(buffer: Buffer, slots: Sequence[Index], row: Index, column: Index) -> Expression:
    """An element of a tile, in the slots of a buffer of tiles."""
    return buffer[(*slots, row, column)]


def _unflatten(flat: Index, outer: Dim, inner: Dim) -> tuple[Index, Index]:
    """The two indices of a flat one over `outer * inner`."""
    if outer == 1:
        return 0, flat
    return indices.floor_div(flat, from_dim(inner)), indices.modulo(flat, from_dim(inner))
