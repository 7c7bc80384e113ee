"""Several passes over many rows of columns: each goes over the rows, and not each column over all.

    for stretch in 0..m step 512:
      total = sum over rows of x[j, i]             for i in stretch..stretch + 512, 8 rows at a time
      for i in stretch..stretch + 512 vector:      numbers of a column, such as its mean, are kept
        column[i - stretch] = total[i - stretch] / n
      for row in 0..n step 8:                      so that the next pass finds them
        for i in stretch..stretch + 512 vector:
          for j in row..row + 8 unroll:
            y[j, i] = x[j, i] - column[i - stretch]

A normalization over the batch, or a softmax along the first axis, would go down the rows of a
vector of columns several times, one line of memory in each page.  Each sum is the same, in the same
order.  Where there are too few columns for tasks, each pass has tasks for parts of the rows.
"""

from __future__ import annotations

from collections.abc import Callable

from mapsto.ir.dims import Dim, floor_div
from mapsto.ir.stages import Stage, estimate
from mapsto.lowering.column_sums import STRETCH, Columns, ColumnSums
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indexed import Indices
from mapsto.lowering.indices import Index, from_dim, minimum, variable
from mapsto.lowering.kernel_space import OuterGroup
from mapsto.lowering.loops import Allocate, Buffer, LoopKind, Space, Store
from mapsto.lowering.stage_loops import Pass

__all__ = ["ColumnPasses"]


LEAST = 16
"""With fewer rows, or columns, a vector of columns goes down all of them as quickly."""


class ColumnPasses(ColumnSums):
    """Writes the passes of a kernel over columns."""

    @property
    def by_rows(self) -> bool:
        """Whether there are passes over rows of columns, and not merely one of sums."""
        if not self.columns or self.division.flat:
            return False
        passes = [pass_ for pass_ in self.plan.passes if pass_.extents]
        if len(passes) == 1 and all(not stage.is_map for stage in passes[0].stages):
            return False
        columns = estimate((self.space.groups[-1].extent,))
        rows = max((estimate(pass_.extents) for pass_ in passes), default=0)
        return min(rows, columns) >= LEAST and not any(pass_.separate for pass_ in passes)

    def passes_by_rows(self, group: OuterGroup, start: Index, stop: Index) -> None:
        """Computes all stages for these columns."""
        with self.loop("stretch", start, stop, LoopKind.SERIAL, STRETCH):
            first = variable("stretch")
            columns = group, first, minimum(first + STRETCH, stop)
            for pass_ in self.plan.passes:
                self._over_rows(pass_, columns)
        self.sums = {}

    def passes_in_parts(self, rows_per_part: Callable[[Dim], int]) -> None:
        """Computes all stages, where columns are too few for tasks: each pass has a task for every
        part of so many rows of its longest dimension."""
        (group,) = self.space.groups
        self.allocate_locals((group.extent,))
        for pass_ in self.plan.passes:
            if pass_.extents:
                self._sum_parts(pass_, group, rows_per_part)
            self._keep_columns(pass_, (group, 0, from_dim(group.extent)), group.extent)
        self.parts = {}

    def _sum_parts(
        self, pass_: Pass, group: OuterGroup, rows_per_part: Callable[[Dim], int]
    ) -> None:
        """The tasks of a pass; `parts` has what the reductions of each come to."""
        extents, width = pass_.extents, from_dim(group.extent)
        which = max(range(len(extents)), key=lambda d: estimate((extents[d],)))
        rows, step = from_dim(extents[which]), rows_per_part(extents[which])
        count = floor_div(extents[which] + (step - 1), step)
        self.parts = {
            stage.value: self._for_parts(stage, (count, group.extent))
            for stage in pass_.stages
            if not stage.is_map
        }
        with self.loop("part", 0, from_dim(count), LoopKind.PARALLEL):
            start, first = self.part_number * step, variable("stretch")
            with self.loop("stretch", 0, width, LoopKind.SERIAL, STRETCH):
                columns = group, first, minimum(first + STRETCH, width)
                self.sum_rows(pass_, columns, {which: (start, minimum(start + step, rows))})
                self._keep_parts(columns)
        self.sums = {}

    def _keep_parts(self, columns: Columns) -> None:
        if not self.sums:
            return
        with self.lanes(*columns):
            for value, total in self.sums.items():
                self.emitter.append(Store(self.parts[value], self.part(), total))

    def _for_parts(self, stage: Stage, shape: tuple[Dim, ...]) -> Buffer:
        dtype = sum_type(stage.value.dtype)
        buffer = Buffer(self.emitter.fresh("part"), dtype, shape, Space.LOCAL)
        self.emitter.append(Allocate(self.emitter.declare(buffer)))
        return buffer

    def _over_rows(self, pass_: Pass, columns: Columns) -> None:
        if pass_.extents:
            self.sum_rows(pass_, columns, {})
        self._keep_columns(pass_, columns, STRETCH)

    def _keep_columns(self, pass_: Pass, columns: Columns, count: Dim) -> None:
        """Later passes find the numbers of columns, of which there are so many, in memory, and all
        else where it was written."""
        group, first, _ = columns
        numbers = [s for s in pass_.stages if not self.space.inner_dims(s) or not s.is_map]
        buffers = {s: self.for_columns("column", s.value.dtype, count) for s in numbers}
        if numbers:
            with self.lanes(*columns):
                self._finish(pass_)
                for stage, buffer in buffers.items():
                    element = self.emitter.element(stage.value, self._place(stage))
                    self.emitter.append(Store(buffer, (self.lane - first,), element))

        def address(indices: Indices) -> Indices:
            return (variable(group.name) - first,)

        for stage in pass_.stages:
            if stage in buffers:
                self.emitter.keep(stage.value, buffers[stage], address)
            else:
                self.keep(stage)

    def _finish(self, pass_: Pass) -> None:
        """What is done once for each column behind a pass: all of it, where it has no rows."""
        if not pass_.extents:
            self.common_pass(pass_)
            return
        for stage in (stage for stage in pass_.stages if not stage.is_map):
            is_divided = stage.value in self.parts
            total = self.combine_parts(stage) if is_divided else self.start_total(stage)
            self.finish_total(stage, total)

    def _place(self, stage: Stage) -> Indices:
        return self.point(stage, [0] * len(self.space.inner_dims(stage)))[: stage.rank]
