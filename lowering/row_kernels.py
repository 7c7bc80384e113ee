"""Kernels of elementwise ops and reductions: the loops over rows and their division into tasks.

The rows are the outer indices that all stages share.  Vectors run along the rows, or (columns)
along the last outer index, each lane doing a column of its own; see `vectorize_outer`.  Where an
elementwise kernel has neighbours in memory along another index as well, as a transposition, it goes
over blocks of both.  Work is divided into tasks by sizes alone.  What happens in a row is in
`row_passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from math import isqrt, prod

from mapsto.ir.dims import Dim, ceil_div, product
from mapsto.ir.stages import estimate
from mapsto.lowering.column_passes import ColumnPasses
from mapsto.lowering.column_sums import ROWS, STRETCH
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indices import (
    Composite,
    Index,
    atoms,
    floor_div,
    from_dim,
    minimum,
    split_offset,
    value_of,
    variable,
)
from mapsto.lowering.kernel_space import OuterGroup, group_across
from mapsto.lowering.kernel_work import stage_work
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Expression,
    If,
    IndexValue,
    LoopKind,
    Space,
    Statement,
    Store,
    compare,
)
from mapsto.lowering.row_passes import Bounds
from mapsto.lowering.staged_squares import StagedSquares

__all__ = ["RowKernel"]

ELEMENTS_PER_LANE = 4
"""Of elementwise kernels with many elements: reads of several are under way at a time."""
SQUARE = 64
"""Rows and columns of a square; the last ones may have fewer."""
MANY_TASKS = 16
"""So many tasks end at about the same time on all threads, ..."""
LARGEST_TASK = 4
"""... though each is so much more work than has to be."""
SHORT_PART = 16
"""Elements: parts of fewer along vectors are not worth it."""
LINE_BYTES = 64
"""What memory and caches hand on at a time."""

Columns = Callable[[], AbstractContextManager[None]]
"""The vector loop over some columns."""


class RowKernel(ColumnPasses):
    """Writes the statements of a kernel."""

    def body(self) -> tuple[Statement, ...]:
        """The kernel's statements."""
        with self.emitter.scope() as statements:
            if self.by_rows and self._are_few_tasks() and len(self.space.groups) == 1:
                self.passes_in_parts(self._rows_per_part)
                return tuple(statements)
            if self._is_one_long_sum():
                self._sum_in_parts()
            squares = self._staged_squares()
            if squares is not None:
                squares.write()
            elif self._is_flat:
                self._flat_tasks()
            elif self.columns:
                across = self._across()
                self._column_tasks() if across is None else self._square_tasks(across)
            else:
                self._row_tasks()
        return tuple(statements)

    def _across(self) -> OuterGroup | None:
        """The rows that make squares with the columns, if any.  Not where something is checked:
        squares compute some elements again, and may find there what they have written in place."""
        is_checked = self.emitter.errors is not None
        if is_checked or not self.is_plain:
            return None
        return group_across(self.space, self.outputs)

    def _staged_squares(self) -> StagedSquares | None:
        """Squares that are read along memory and written along memory, by lanes that have a buffer
        in common."""
        across = self._across() if self._is_flat else None
        squares = None if across is None else StagedSquares(self, across)
        return squares if squares is not None and squares.staged else None

    # ---- outer loops

    @property
    def _work(self) -> int:
        """Scalar operations of the whole kernel."""
        return sum(stage_work(stage) for stage in self.space.stages)

    def _row_tasks(self) -> None:
        groups = self.space.groups
        rows = product(tuple(group.extent for group in groups))
        if not groups:
            self.allocate_locals(())
            self.run_passes()
            return
        step = self.division.rows_per_task(rows, self._work)
        with self._row_loops(groups, step, ()):
            self.run_passes()

    @contextmanager
    def _row_loops(
        self, groups: Sequence[OuterGroup], step: int, shape: tuple[Dim, ...]
    ) -> Iterator[None]:
        """Tasks of about so many rows, with local buffers of a shape, and the loops in each."""
        inner = self._inner_groups(groups, step)
        each = prod(extent for group in inner if isinstance(extent := group.extent, int))
        outer = groups[: len(groups) - len(inner)]
        rows = product(tuple(group.extent for group in outer))
        with self._tasks("row", rows, -(-step // each)) as (start, stop):
            self.allocate_locals(shape)
            with self._rows(outer, start, stop), self._every_row(inner):
                yield

    @contextmanager
    def _every_row(self, groups: Sequence[OuterGroup]) -> Iterator[None]:
        """Loops over all indices of the groups."""
        if self.division.flat:
            extents = tuple(group.extent for group in groups)
            with self._rows(groups, 0, from_dim(product(extents))):
                yield
            return
        with ExitStack() as loops:
            for group in groups:
                bounds = 0, from_dim(group.extent)
                loops.enter_context(self.loop(group.name, *bounds, LoopKind.SERIAL))
                self.define(group, variable(group.name))
            yield

    def _inner_groups(self, groups: Sequence[OuterGroup], step: int) -> Sequence[OuterGroup]:
        """The last groups, which have loops of their own in a task of so many rows.  Their indices
        need no division, and conditions on them are those of a loop."""
        count, rows = 0, 1
        while not self.division.flat and count < len(groups) - 1:
            extent = groups[-1 - count].extent
            tasks = estimate([group.extent for group in groups[: len(groups) - 1 - count]])
            most = step * (LARGEST_TASK if tasks >= MANY_TASKS else 1)
            if not isinstance(extent, int) or not 0 < rows * extent <= most:
                break
            count, rows = count + 1, rows * extent
        return groups[len(groups) - count :]

    def _split_row(self, groups: Sequence[OuterGroup], row: Index) -> None:
        """Makes the groups' indices known from a flat row number."""
        indices = split_offset(row, [group.extent for group in groups])
        for group, index in zip(groups, indices, strict=True):
            self.define(group, index)

    def _column_tasks(self) -> None:
        """Tasks of several rows where there are many, else of blocks of columns."""
        *groups, last = self.space.groups
        rows = product(tuple(group.extent for group in groups))
        step = self.division.rows_per_task(rows, self._work)
        if groups and (not isinstance(rows, int) or rows > 2 * step):
            with self._row_loops(groups, step, (last.extent,)):
                self._columns(last, 0, from_dim(last.extent))
            return
        width = self._column_block(last)
        with self._tasks("block", last.extent, width) as (start, stop):
            self.block_start = start
            self.allocate_locals((width,))
            with self._every_row(groups):
                self._columns(last, start, stop)

    def _column_block(self, last: OuterGroup) -> Dim:
        columns = last.extent
        blocks = -(-self.division.rows_per_task(columns, self._work) // self._least_block)
        width = blocks * self._least_block
        return columns if isinstance(columns, int) and width >= columns else width

    @property
    def _least_block(self) -> int:
        return STRETCH if self.in_stretches else self.division.column_block

    def _square_tasks(self, across: OuterGroup) -> None:
        """Tasks of squares of some rows along `across` and as many columns.

        A square keeps what is read and written within a few pages, and of each of their lines all
        that it needs together.
        """
        last = self.space.groups[-1]
        others = [group for group in self.space.groups if group not in (across, last)]
        squares = [
            OuterGroup((0,), f"{group.name}_square", ceil_div(group.extent, SQUARE))
            for group in (across, last)
        ]
        groups = (*others, *squares)
        count = product(tuple(group.extent for group in groups))
        with self._row_loops(groups, self.division.rows_per_task(count, self._work), ()):
            for group in groups:
                self._bind(group)
            row, column = (self.index(square) for square in squares)
            start, stop = column * SQUARE, minimum(column * SQUARE + SQUARE, from_dim(last.extent))
            self._strips(across, row * SQUARE, partial(self.lanes, last, start, stop))

    def _bind(self, group: OuterGroup) -> None:
        """Divides a flat row number here, and not where the index is used."""
        index = self.index(group)
        if any(isinstance(atom, Composite) for atom in atoms(index)):
            self.define(group, value_of(self.emitter.let("index", IndexValue(index))))

    def _strips(self, across: OuterGroup, start: Index, columns: Columns) -> None:
        """Strips of as many rows as elements fill a line, laid out inside the loop over columns.
        After the last whole strip comes one that ends with the last row, if there are enough, and
        computes again, but does not store, what the strip before has done."""
        extent, strip = from_dim(across.extent), self._rows_per_strip
        if isinstance(extent, int) and extent <= strip:
            self._strip(across, 0, extent, columns)
            return
        whole = floor_div(extent, strip) * strip
        with self.loop("strip", start, minimum(start + SQUARE, whole), LoopKind.SERIAL, strip):
            self._strip(across, variable("strip"), strip, columns)
        if whole == extent:
            return
        with self._if(compare("gt", minimum(start + SQUARE, extent), whole)):
            self._last_strip(across, extent, strip, columns)

    def _last_strip(self, across: OuterGroup, extent: Index, strip: int, columns: Columns) -> None:
        whole = floor_div(extent, strip) * strip
        known = isinstance(extent, int)
        with nullcontext() if known else self._if(compare("ge", extent, strip)):
            self.wanted = compare("ge", across.name, whole)
            self._strip(across, extent - strip, strip, columns)
            self.wanted = None
        if not known:
            few = self._if(compare("lt", extent, strip))
            with few, self.loop(across.name, 0, extent, LoopKind.SERIAL), columns():
                self.define(across, variable(across.name))
                self.run_passes()

    def _strip(self, across: OuterGroup, start: Index, count: int, columns: Columns) -> None:
        with columns(), self.loop(across.name, start, start + count, LoopKind.UNROLL):
            self.define(across, variable(across.name))
            self.run_passes()

    @property
    def _rows_per_strip(self) -> int:
        """How many of the widest elements of the kernel fill a line."""
        values = [r.value for stage in self.space.stages for r in stage.reads if r.value]
        return LINE_BYTES // max(value.dtype.bytes for value in (*values, *self.outputs))

    @contextmanager
    def _if(self, condition: Expression) -> Iterator[None]:
        with self.emitter.scope() as statements:
            yield
        self.emitter.append(If(condition, tuple(statements)))

    def _flat_tasks(self) -> None:
        """Tasks of so many flat numbers of columns."""
        groups = self.space.groups
        extent = product(tuple(group.extent for group in groups))
        width = self.division.column_block
        if self.is_plain and estimate((extent,)) >= self.division.many_elements > 0:
            width *= ELEMENTS_PER_LANE
        with self._tasks("block", extent, width) as (start, stop):
            self.block_start = start
            self.allocate_locals((width,))
            with self._flat_lanes(groups, start, stop):
                self.run_passes()

    @contextmanager
    def _flat_lanes(
        self, groups: Sequence[OuterGroup], start: Index, stop: Index
    ) -> Iterator[None]:
        """The vector loop over flat numbers of columns."""
        name = groups[0].name if len(groups) == 1 else "column"
        with self.loop(name, start, stop, LoopKind.VECTOR):
            self.lane = variable(name)
            self._split_row(groups, self.lane)
            yield

    @contextmanager
    def _rows(self, groups: Sequence[OuterGroup], start: Index, stop: Index) -> Iterator[None]:
        if not groups:
            yield
            return
        name = groups[0].name if len(groups) == 1 else "row"
        with self.loop(name, start, stop, LoopKind.SERIAL):
            self._split_row(groups, variable(name))
            yield

    def _columns(self, group: OuterGroup, start: Index, stop: Index) -> None:
        ends = group, start, stop
        if self.by_rows:
            self.passes_by_rows(*ends)
            return
        with self.lanes(*ends) if self.parts else self.summed(*ends, {}):
            self.run_passes()

    @contextmanager
    def _tasks(self, name: str, extent: Dim, step: Dim) -> Iterator[tuple[Index, Index]]:
        """A parallel loop over chunks of `step`; plain statements where there is one chunk."""
        whole = from_dim(extent)
        if step == extent or (isinstance(extent, int) and isinstance(step, int) and step >= extent):
            yield 0, whole
            return
        size = from_dim(step)
        count = floor_div(whole + (size - 1), size)
        with self.loop(f"{name}_task", 0, count, LoopKind.PARALLEL):
            start = variable(f"{name}_task") * size
            yield start, minimum(start + size, whole)

    # ---- few long sums, divided into parts that tasks compute

    def _is_one_long_sum(self) -> bool:
        """Whether the first pass is reductions, too long for as few tasks as there are rows."""
        first = self.plan.passes[0]
        plain = not first.separate and all(not stage.is_map for stage in first.stages)
        return plain and self._are_few_tasks()

    def _are_few_tasks(self) -> bool:
        """Whether rows, or blocks of columns, are fewer tasks than there is work for."""
        rows = estimate([group.extent for group in self.space.groups])
        few, least = self.division.few_tasks, self.division.task_work
        tasks = rows // self._least_block if self.columns else rows
        return tasks < few and self._work >= 2 * few * least

    def _sum_in_parts(self) -> None:
        """Computes partial results of the first pass, each over a part of one dimension."""
        first = self.plan.passes[0]
        which = self._cut_dimension(first.extents)
        extent = first.extents[which]
        step = self._rows_per_part(extent)
        shape = (ceil_div(extent, step), *(g.extent for g in self.space.groups))
        for stage in first.stages:
            dtype = sum_type(stage.value.dtype)
            buffer = Buffer(self.emitter.fresh("part"), dtype, shape, Space.LOCAL)
            self.parts[stage.value] = self.emitter.declare(buffer)
            self.emitter.append(Allocate(buffer))

        def bounds() -> Bounds:
            start = self.part_number * step
            return {which: (start, minimum(start + step, from_dim(extent)))}

        with self._part_tasks(shape[0], bounds):
            totals = self.totals_so_far(first) if self.sums else self.sum_pass(first, bounds())
            for value, total in totals.items():
                self.emitter.append(Store(self.parts[value], self.part(), total[()]))

    def _cut_dimension(self, extents: Sequence[Dim]) -> int:
        """The longest dimension; if vectors run along that, and its parts would be shorter than
        one, the longest of the others."""
        lengths = [estimate((extent,)) for extent in extents]
        longest = max(range(len(extents)), key=lengths.__getitem__)
        along = longest == len(extents) - 1 and not self.columns
        if not along or longest == 0 or self._rows_per_part(extents[longest]) >= SHORT_PART:
            return longest
        return max(range(longest), key=lengths.__getitem__)

    def _rows_per_part(self, extent: Dim) -> int:
        """How much of a dimension is a part.  Where a lane adds up the parts of a column one after
        the other, there are about as many as each has elements: both take as long."""
        step = self.division.rows_per_task(extent, self._work)
        if self._is_flat:
            return max(step, isqrt(estimate((extent,))))
        return -(-step // ROWS) * ROWS if self.in_stretches or self.by_rows else step

    @property
    def _is_flat(self) -> bool:
        """Whether lanes run over flat numbers of columns."""
        return self.columns and self.division.flat

    @contextmanager
    def _part_tasks(self, parts: Dim, bounds: Callable[[], Bounds]) -> Iterator[None]:
        """A task for each part; where lanes run over flat numbers, and block of columns."""
        groups = self.space.groups
        if not self._is_flat:
            part = self.loop("part", 0, from_dim(parts), LoopKind.PARALLEL)
            with part, self._all_rows(bounds()):
                yield
            return
        extent, width = product(tuple(g.extent for g in groups)), self.division.column_block
        blocks = ceil_div(extent, width)
        with self.loop("part_task", 0, from_dim(parts * blocks), LoopKind.PARALLEL):
            before = self.part_number
            self.part_number, block = split_offset(variable("part_task"), (parts, blocks))
            stop = minimum(block * width + width, from_dim(extent))
            with self._flat_lanes(groups, block * width, stop):
                yield
            self.part_number = before

    @contextmanager
    def _all_rows(self, bounds: Bounds) -> Iterator[None]:
        """Loops over all outer indices, in one task."""
        groups = self.space.groups
        rows = groups[:-1] if self.columns else groups
        with self._every_row(rows):
            if not self.columns:
                yield
                return
            with self.summed(groups[-1], 0, from_dim(groups[-1].extent), bounds):
                yield
