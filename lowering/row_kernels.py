"""Kernels of elementwise ops and reductions: the loops over rows and their division into tasks.

The rows are the outer indices that all stages share.  Vectors run along the rows, or (columns)
along the last outer index, each lane doing a column of its own; see `vectorize_outer`.  Work is
divided into tasks by sizes alone.  What happens in a row is in `row_passes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import isqrt, prod

from mapsto.ir.dims import Dim, product
from mapsto.ir.dims import floor_div as dim_quotient
from mapsto.ir.stages import estimate
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indices import Index, floor_div, from_dim, minimum, split_offset, variable
from mapsto.lowering.kernel_space import OuterGroup
from mapsto.lowering.kernel_work import stage_work
from mapsto.lowering.loops import Allocate, Buffer, LoopKind, Space, Statement, Store
from mapsto.lowering.row_passes import RowPasses

__all__ = ["RowKernel"]

ELEMENTS_PER_LANE = 4
"""Of elementwise kernels with many elements: reads of several are under way at a time."""


class RowKernel(RowPasses):
    """Writes the statements of a kernel."""

    def body(self) -> tuple[Statement, ...]:
        """The kernel's statements."""
        with self.emitter.scope() as statements:
            if self._is_one_long_sum():
                self._sum_in_parts()
            if self._is_flat:
                self._flat_tasks()
            elif self.columns:
                self._column_tasks()
            else:
                self._row_tasks()
        return tuple(statements)

    # ---- outer loops

    @property
    def _work(self) -> int:
        """Scalar operations of the whole kernel."""
        return sum(stage_work(stage) for stage in self.space.stages)

    @property
    def _is_plain(self) -> bool:
        """Whether nothing is done along the rows."""
        return all(not self.space.inner_dims(stage) for stage in self.space.stages)

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
            if not isinstance(extent, int) or not 0 < rows * extent <= step:
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
        blocks = -(-self.division.rows_per_task(columns, self._work) // self.division.column_block)
        width = blocks * self.division.column_block
        return columns if isinstance(columns, int) and width >= columns else width

    def _flat_tasks(self) -> None:
        """Tasks of so many flat numbers of columns."""
        groups = self.space.groups
        extent = product(tuple(group.extent for group in groups))
        width = self.division.column_block
        if self._is_plain and estimate((extent,)) >= self.division.many_elements > 0:
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
        with self._lanes(group, start, stop):
            self.run_passes()

    @contextmanager
    def _lanes(self, group: OuterGroup, start: Index, stop: Index) -> Iterator[None]:
        """The vector loop over columns; each step reads whole cache lines of a row."""
        unroll = 0 if self._is_plain else 4
        with self.loop(group.name, start, stop, LoopKind.VECTOR, unroll=unroll):
            self.lane = variable(group.name)
            self.define(group, self.lane)
            yield

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
        rows = estimate([group.extent for group in self.space.groups])
        few, least = self.division.few_tasks, self.division.task_work
        tasks = rows // self.division.column_block if self.columns else rows
        plain = not first.separate and all(not stage.is_map for stage in first.stages)
        return plain and tasks < few and self._work >= 2 * few * least

    def _sum_in_parts(self) -> None:
        """Computes partial results of the first pass, each over a part of its longest dimension."""
        first = self.plan.passes[0]
        which = max(range(len(first.extents)), key=lambda d: estimate((first.extents[d],)))
        extent = first.extents[which]
        step = self._rows_per_part(extent)
        shape = (dim_quotient(extent + (step - 1), step), *(g.extent for g in self.space.groups))
        for stage in first.stages:
            dtype = sum_type(stage.value.dtype)
            buffer = Buffer(self.emitter.fresh("part"), dtype, shape, Space.LOCAL)
            self.parts[stage.value] = self.emitter.declare(buffer)
            self.emitter.append(Allocate(buffer))
        with self._part_tasks(shape[0]):
            start = self.part_number * step
            bounds = {which: (start, minimum(start + step, from_dim(extent)))}
            totals = self.sum_pass(first, bounds)
            for value, total in totals.items():
                self.emitter.append(Store(self.parts[value], self.part(), total[()]))

    def _rows_per_part(self, extent: Dim) -> int:
        """How much of a dimension is a part.  Where a lane adds up the parts of a column one after
        the other, there are about as many as each has elements: both take as long."""
        step = self.division.rows_per_task(extent, self._work)
        return max(step, isqrt(estimate((extent,)))) if self._is_flat else step

    @property
    def _is_flat(self) -> bool:
        """Whether lanes run over flat numbers of columns."""
        return self.columns and self.division.flat

    @contextmanager
    def _part_tasks(self, parts: Dim) -> Iterator[None]:
        """A task for each part; where lanes run over flat numbers, and block of columns."""
        groups = self.space.groups
        if not self._is_flat:
            with self.loop("part", 0, from_dim(parts), LoopKind.PARALLEL), self._all_rows():
                yield
            return
        extent, width = product(tuple(g.extent for g in groups)), self.division.column_block
        blocks = dim_quotient(extent + (width - 1), width)
        with self.loop("part_task", 0, from_dim(parts * blocks), LoopKind.PARALLEL):
            before = self.part_number
            self.part_number, block = split_offset(variable("part_task"), (parts, blocks))
            stop = minimum(block * width + width, from_dim(extent))
            with self._flat_lanes(groups, block * width, stop):
                yield
            self.part_number = before

    @contextmanager
    def _all_rows(self) -> Iterator[None]:
        """Loops over all outer indices, in one task."""
        groups = self.space.groups
        rows = groups[:-1] if self.columns else groups
        with self._every_row(rows):
            if not self.columns:
                yield
                return
            with self._lanes(groups[-1], 0, from_dim(groups[-1].extent)):
                yield
