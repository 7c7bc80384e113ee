"""The loops of a contraction on a GPU: a block computes a tile of the result.

    for block:
        shared  rows_panel[stages, depth, rows], columns_panel[stages, depth, columns]
        for thread:
            sums = 0
            copy the panels of the first stages - 1 steps
            for step:
                wait for the panels of the step; barrier
                copy the panels of step + stages - 1, into the stage that the last step has read
                sums += rows_panel[step % stages] x columns_panel[step % stages]
            results of the tile -> epilogue

The barrier does two things: what all threads have copied is there for all, and the stage that is
written next has been read by all.  Tiles are numbered so that blocks that run at the same time
share rows and columns in the second-level cache.  Where there are few tiles, several blocks share a
long reduction: each writes its sums to scratch memory, and a second launch adds them up, in order,
before the epilogue.  So the bits of a result depend on sizes and the target alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mapsto.ir.dims import Dim, ceil_div, product
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.gpu.contraction_fragments import WarpWork
from mapsto.lowering.gpu.contraction_panels import THREAD, Panel, Place, is_multiple
from mapsto.lowering.gpu.contraction_threads import ThreadWork
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.vector_access import vector_statements
from mapsto.lowering.indices import Index, from_dim, minimum, split_offset, variable
from mapsto.lowering.loops import (
    Allocate,
    Apply,
    Barrier,
    Buffer,
    CommitCopies,
    Expression,
    For,
    If,
    IndexValue,
    LoopKind,
    Reduce,
    Space,
    Statement,
    WaitCopies,
    all_of,
    cast,
    compare,
    constant,
)

__all__ = [
    "LANE",
    "Schedule",
    "bring",
    "contraction_body",
    "split_flat",
    "use_run",
    "where",
    "within_side",
]

ROWS_TOGETHER = 8
"""Tiles above one another that are numbered before those beside them."""
LANE = "e"
"""The variable that goes along results beside each other."""
SUM_THREADS = 128
"""Threads of the blocks that add up the parts of a reduction."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The tile, its panels, and how a block multiplies them."""

    tile: BlockTile
    rows: Panel
    columns: Panel
    work: ThreadWork | WarpWork


def contraction_body(problem: ContractionProblem, schedule: Schedule) -> tuple[Statement, ...]:
    """The launches that compute the contraction and hand each result to its epilogue."""
    blocks = _Blocks(problem, schedule)
    if schedule.tile.splits == 1:
        return (blocks.products(),)
    return (Allocate(blocks.parts), blocks.products(), blocks.sums())


@dataclass(frozen=True, slots=True)
class _Tile:
    """Which part of the result a block computes: the flat batch, the first row and column, and the
    first step of the reduction and how many there are."""

    batch: Index
    row: Index
    column: Index
    split: Index
    first_step: Index
    steps: Index


@dataclass(frozen=True, slots=True)
class _Blocks:
    problem: ContractionProblem
    schedule: Schedule

    @property
    def tile(self) -> BlockTile:
        return self.schedule.tile

    @property
    def panels(self) -> tuple[Panel, Panel]:
        return self.schedule.rows, self.schedule.columns

    @property
    def parts(self) -> Buffer:
        """The sums of the parts of a split reduction."""
        problem = self.problem
        sides = (problem.batch.size, problem.rows.size, problem.columns.size)
        dtype = sum_type(problem.dtype)
        return Buffer("parts", dtype, (self.tile.splits, *sides), Space.LOCAL)

    # ---- blocks

    def products(self) -> Statement:
        """The launch that multiplies."""
        tile = self._tile()
        thread = For(THREAD, 0, self.tile.threads, tuple(self._thread(tile)), LoopKind.THREAD)
        shared = [Allocate(panel.buffer) for panel in self.panels]
        return For("block", 0, from_dim(product(self._grid())), (*shared, thread), LoopKind.BLOCK)

    def _grid(self) -> tuple[Dim, ...]:
        """How many batches, parts of the reduction, groups of tiles above one another, tiles beside
        one another, and tiles in a group there are."""
        problem, tile = self.problem, self.tile
        down = ceil_div(problem.rows.size, tile.rows)
        across = ceil_div(problem.columns.size, tile.columns)
        together = ROWS_TOGETHER if is_multiple(down, ROWS_TOGETHER) else 1
        return problem.batch.size, tile.splits, ceil_div(down, together), across, together

    def _tile(self) -> _Tile:
        grid, tile = self._grid(), self.tile
        batch, split, group, across, inner = split_flat(variable("block"), grid)
        row = group * from_dim(grid[-1]) + inner
        every = ceil_div(self.problem.reduced.size, tile.depth)
        steps = ceil_div(every, tile.splits)
        first = split * from_dim(steps)
        count = from_dim(steps)
        if not is_multiple(every, tile.splits):
            count = minimum(count, from_dim(every) - first)
        return _Tile(batch, row * tile.rows, across * tile.columns, split, first, count)

    # ---- threads

    def _thread(self, tile: _Tile) -> list[Statement]:
        ahead = self.tile.stages - 1
        step = variable("step")
        first = [self._bring(tile, stage, stage) for stage in range(ahead)]
        start, finish = self._bring(tile, step + ahead, (step + ahead) % self.tile.stages)
        body = [
            *self._wait(),
            Barrier(),
            *start,
            *self.schedule.work.multiply(step % self.tile.stages, step % self.tile.stages),
            *finish,
        ]
        return [
            *(allocate for panel in self.panels for allocate in panel.allocate()),
            *self.schedule.work.begin(),
            *(statement for stage in first for part in stage for statement in part),
            For("step", 0, tile.steps, tuple(body)),
            *self.schedule.work.results(partial(self._use, tile)),
        ]

    def _wait(self) -> list[Statement]:
        copies = any(panel.is_copy for panel in self.panels)
        return [WaitCopies(self.tile.stages - 2)] if copies else []

    def _bring(
        self, tile: _Tile, step: Index, stage: Index
    ) -> tuple[list[Statement], list[Statement]]:
        """What begins to bring the panels of a step, if there is one, into a stage of shared
        memory, and what ends it."""
        places = []
        for panel in self.panels:
            side = tile.row if panel is self.schedule.rows else tile.column
            place = Place(tile.batch, side, (tile.first_step + step) * self.tile.depth)
            places.append((panel, place))
        return bring(places, stage, step, tile.steps)

    # ---- results

    def _use(
        self,
        tile: _Tile,
        row: Index,
        column: Index,
        run: int,
        value: Callable[[Index], Expression],
    ) -> list[Statement]:
        """What is done with sums beside each other, where they exist: all at once, if what is read
        and written with them are neighbours too, else one by one."""

        def results(column: Index, lane: Index) -> list[Statement]:
            return self._results(tile, tile.row + row, column, lane, value(variable(LANE)))

        place = tile.row + row, tile.column + column
        return use_run(self.problem, self.tile, place, run, results)

    def _results(
        self, tile: _Tile, row: Index, column: Index, lane: Index, value: Expression
    ) -> list[Statement]:
        """What is done with the sum `lane` behind a column."""
        if self.tile.splits > 1:
            return [self.parts.store((tile.split, tile.batch, row, column + lane), value)]
        return self._store(tile.batch, row, column, value, lane)

    def _store(
        self, batch: Index, row: Index, column: Index, value: Expression, lane: Index = 0
    ) -> list[Statement]:
        problem = self.problem
        point = {
            **problem.batch.split(batch),
            **problem.rows.split(row),
            **problem.columns.split(column, lane),
        }
        return list(problem.store(point, cast(value, problem.dtype)))

    def sums(self) -> Statement:
        """The launch that adds up the parts of the reduction, a thread for each result."""
        parts = self.parts
        sides = parts.shape[1:]
        flat = variable("block") * SUM_THREADS + variable(THREAD)
        batch, row, column = split_flat(flat, sides)
        total = Buffer("total", parts.dtype, (), Space.REGISTER)
        part = parts[variable("split"), batch, row, column]
        body = [
            Allocate(total),
            total.store((), constant(0, parts.dtype)),
            For("split", 0, self.tile.splits, (Reduce("add", total, (), part),), unroll=4),
            *self._store(batch, row, column, total[()]),
        ]
        inside = If(compare("lt", flat, from_dim(product(sides))), tuple(body))
        thread = For(THREAD, 0, SUM_THREADS, (inside,), LoopKind.THREAD)
        count = from_dim(ceil_div(product(sides), SUM_THREADS))
        return For("block", 0, count, (thread,), LoopKind.BLOCK)


def split_flat(flat: Index, shape: tuple[Dim, ...]) -> list[Index]:
    """The indices at a flat place, 0 for extents of 1."""
    some = iter(split_offset(flat, [extent for extent in shape if extent != 1]))
    return [0 if extent == 1 else next(some) for extent in shape]


def bring(
    panels: Sequence[tuple[Panel, Place]], stage: Index, step: Index, steps: Index
) -> tuple[list[Statement], list[Statement]]:
    """What begins to bring panels into a stage of shared memory, if there is such a step, and what
    ends it."""
    start: list[Statement] = []
    finish: list[Statement] = []
    for panel, place in panels:
        start += panel.copy(place, stage) if panel.is_copy else panel.fetch(place)
        finish += [] if panel.is_copy else panel.deliver(stage)
    exists = _unless_known(compare("lt", step, steps))
    begun = where(exists, start)
    if any(panel.is_copy for panel, _ in panels):
        # A group for every step, if an empty one: so the number to wait for is always the same.
        begun.append(CommitCopies())
    return begun, where(exists, finish)


def use_run(
    problem: ContractionProblem,
    tile: BlockTile,
    place: tuple[Index, Index],
    run: int,
    results: Callable[[Index, Index], list[Statement]],
) -> list[Statement]:
    """What is done with `run` results beside each other, from a row and column on, where they
    exist: all at once, if what is read and written with them are neighbours too, else one by one.

    `results` gives the statements for one, `LANE` behind the first; it is told its column as one
    before, and how far behind that.
    """
    row, column = place
    lane, columns = variable(LANE), problem.columns
    exists = within_side(row, problem.rows.size, tile.rows)
    inside = within_side(column, columns.size, tile.columns)
    vector = None
    if run > 1 and is_multiple(columns.extents[-1] if columns.extents else 1, run):
        vector = vector_statements(results(column, lane), LANE, run)
    if vector is not None:
        together = [For(LANE, 0, run, vector, LoopKind.VECTOR, lanes=run)]
        return where(all_of(exists, inside), together)
    inside = within_side(column + lane, columns.size, tile.columns)
    body = where(inside, results(column + lane, 0))
    return where(exists, [For(LANE, 0, run, tuple(body), LoopKind.UNROLL)])


def within_side(position: Index, size: Dim, width: int) -> Expression | None:
    """Whether a position exists; None where tiles end where the side does."""
    return None if is_multiple(size, width) else compare("lt", position, from_dim(size))


def where(condition: Expression | None, body: Sequence[Statement]) -> list[Statement]:
    """The statements where the condition holds, without a branch where there is none."""
    return list(body) if condition is None or not body else [If(condition, tuple(body))]


def _unless_known(condition: Expression) -> Expression | None:
    """The comparison `left < right`, or None if it holds whatever the variables are."""
    assert isinstance(condition, Apply)
    left, right = condition.operands
    assert isinstance(left, IndexValue) and isinstance(right, IndexValue)
    difference = right.index - left.index
    return None if isinstance(difference, int) and difference > 0 else condition
