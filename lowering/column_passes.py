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
order.
"""

from __future__ import annotations

from mapsto.ir.stages import Stage, estimate
from mapsto.lowering.column_sums import MANY, STRETCH, Columns, ColumnSums
from mapsto.lowering.indexed import Indices
from mapsto.lowering.indices import Index, minimum, variable
from mapsto.lowering.kernel_space import OuterGroup
from mapsto.lowering.loops import LoopKind, Store
from mapsto.lowering.stage_loops import Pass

__all__ = ["ColumnPasses"]


class ColumnPasses(ColumnSums):
    """Writes the passes of a kernel over columns."""

    @property
    def by_rows(self) -> bool:
        """Whether there are passes over many rows of many columns, and not merely one of sums."""
        if not self.columns or self.division.flat or self.in_stretches:
            return False
        passes = [pass_ for pass_ in self.plan.passes if pass_.extents]
        columns = estimate((self.space.groups[-1].extent,))
        rows = max((estimate(pass_.extents) for pass_ in passes), default=0)
        return min(rows, columns) >= MANY and not any(pass_.separate for pass_ in passes)

    def passes_by_rows(self, group: OuterGroup, start: Index, stop: Index) -> None:
        """Computes all stages for these columns."""
        with self.loop("stretch", start, stop, LoopKind.SERIAL, STRETCH):
            first = variable("stretch")
            columns = group, first, minimum(first + STRETCH, stop)
            for pass_ in self.plan.passes:
                self._over_rows(pass_, columns)
        self.sums = {}

    def _over_rows(self, pass_: Pass, columns: Columns) -> None:
        is_first = pass_ is self.plan.passes[0]
        combines = is_first and bool(self.parts)
        if pass_.extents and not combines:
            self.sum_rows(pass_, columns, {})
        numbers = [s for s in pass_.stages if not self.space.inner_dims(s) or not s.is_map]
        group, first, _ = columns
        buffers = {s: self.for_columns("column", s.value.dtype) for s in numbers}
        if numbers:
            with self.lanes(*columns):
                self._finish(pass_, combines)
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

    def _finish(self, pass_: Pass, combines: bool) -> None:
        """What is done once for each column behind a pass: all of it, where it has no rows."""
        if not pass_.extents:
            self.common_pass(pass_)
            return
        for stage in (stage for stage in pass_.stages if not stage.is_map):
            total = self.combine_parts(stage) if combines else self.start_total(stage)
            self.finish_total(stage, total)

    def _place(self, stage: Stage) -> Indices:
        return self.point(stage, [0] * len(self.space.inner_dims(stage)))[: stage.rank]
