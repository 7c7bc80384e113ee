"""Sums of columns: rows are read in long stretches, and the sums so far wait in a buffer.

    for stretch in 0..m step 512:                    x     stretch
      for i in stretch..stretch + 512 vector:          ┌───┬────────┬───┐
        sums[i - stretch] = 0                        8 │   │ ──────>│   │
      for row in 0..n step 8:                          ├───┼────────┼───┤
        for i in stretch..stretch + 512 vector:        │   │ ──────>│   │
          total = sums[i - stretch]                    └───┴────────┴───┘
          for j in row..row + 8 unroll:                sums ▒▒▒▒▒▒▒▒ stays in the cache
            total += x[j, i]
          sums[i - stretch] = total

A vector of columns alone would be summed down all rows, one line of memory in each page.  Each sum
is the same, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from mapsto.ir.core import Value
from mapsto.ir.dims import Dim
from mapsto.ir.stages import Stage, estimate
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indexed import Indices
from mapsto.lowering.indices import Index, floor_div, from_dim, minimum, variable
from mapsto.lowering.kernel_space import OuterGroup
from mapsto.lowering.loops import Allocate, Buffer, Expression, LoopKind, Space, Store
from mapsto.lowering.row_passes import Bounds, RowPasses
from mapsto.lowering.stage_loops import Pass

__all__ = ["ROWS", "STRETCH", "ColumnSums", "Columns"]

STRETCH = 512
"""Columns that are summed together; a row of them is some 2 KiB."""
ROWS = 8
"""Rows that are added at once, so that the sums are read and written seldom."""
MANY = 64
"""Fewer rows are summed down a vector of columns: their pages are all known to the processor.  So
are fewer columns, as one vector after the other soon has all of a row."""


Columns = tuple[OuterGroup, Index, Index]
"""The group of columns, the first and the end of some of them."""


class ColumnSums(RowPasses):
    """Writes the vector loops over columns."""

    @property
    def is_plain(self) -> bool:
        """Whether nothing is done along the rows."""
        return all(not self.space.inner_dims(stage) for stage in self.space.stages)

    @property
    def in_stretches(self) -> bool:
        """Whether the kernel sums many rows of many columns, and does nothing else with rows."""
        first, *others = self.plan.passes
        if not self.columns or self.division.flat:
            return False
        if first.separate or any(other.extents for other in others):
            return False
        columns = (self.space.groups[-1].extent,)
        long = estimate(first.extents) >= MANY and estimate(columns) >= MANY
        return long and all(not stage.is_map for stage in first.stages)

    @contextmanager
    def summed(
        self, group: OuterGroup, start: Index, stop: Index, bounds: Bounds
    ) -> Iterator[None]:
        """The vector loop over columns; where the kernel is one of sums, one for each stretch,
        behind the first pass, over all rows or those within bounds."""
        if not self.in_stretches:
            with self.lanes(group, start, stop):
                yield
            return
        with self.loop("stretch", start, stop, LoopKind.SERIAL, STRETCH):
            first = variable("stretch")
            stretch = group, first, minimum(first + STRETCH, stop)
            self.sum_rows(self.plan.passes[0], stretch, bounds)
            with self.lanes(*stretch):
                yield
        self.sums = {}

    @contextmanager
    def lanes(self, group: OuterGroup, start: Index, stop: Index) -> Iterator[None]:
        """The vector loop over columns; each step reads whole cache lines of a row."""
        unroll = 0 if self.is_plain else 4
        with self.loop(group.name, start, stop, LoopKind.VECTOR, unroll=unroll):
            self.lane = variable(group.name)
            self.define(group, self.lane)
            yield

    def sum_rows(self, pass_: Pass, columns: Columns, bounds: Bounds) -> None:
        """A pass over some columns, a few rows at a time; `sums` has elements of buffers with what
        its reductions come to."""
        group, start, _ = columns
        place = (variable(group.name) - start,)
        buffers = self._declare_sums([stage for stage in pass_.stages if not stage.is_map])
        if buffers:
            with self.lanes(*columns):
                identities = {s.value: self.identity(s) for s in pass_.stages if not s.is_map}
                self._keep_sums(buffers, place, identities)
        self.sums = {value: buffer[place] for value, buffer in buffers.items()}
        for rows in self._blocks_of_rows(pass_.extents, bounds):
            with self.lanes(*columns):
                totals = self.sum_pass(pass_, rows)
                self._keep_sums(buffers, place, {v: total[()] for v, total in totals.items()})

    def _keep_sums(
        self, buffers: dict[Value, Buffer], place: Indices, sums: Mapping[Value, Expression]
    ) -> None:
        stores = [Store(buffers[value], place, element) for value, element in sums.items()]
        self.emitter.append(*stores)

    def _declare_sums(self, stages: Iterable[Stage]) -> dict[Value, Buffer]:
        return {s.value: self.for_columns("sums", sum_type(s.value.dtype)) for s in stages}

    def for_columns(self, name: str, dtype: DType, count: Dim = STRETCH) -> Buffer:
        """Memory for a number of each of so many columns, such as those of a stretch."""
        buffer = Buffer(self.emitter.fresh(name), dtype, (count,), Space.LOCAL)
        self.emitter.append(Allocate(self.emitter.declare(buffer)))
        return buffer

    def _blocks_of_rows(self, extents: Sequence[Dim], bounds: Bounds) -> Iterator[Bounds]:
        """The bounds of each few rows, within the loops over all of them."""
        *outer, (start, stop) = (bounds.get(d, (0, from_dim(n))) for d, n in enumerate(extents))
        whole = start + floor_div(stop - start, ROWS) * ROWS
        with ExitStack() as loops:
            names = [self.emitter.fresh("rows") for _ in outer]
            for name, ends in zip(names, outer, strict=True):
                loops.enter_context(self.loop(name, *ends, LoopKind.SERIAL))
            at = {d: (variable(name), variable(name) + 1) for d, name in enumerate(names)}
            blocks = [(start, whole, ROWS), (whole, stop, 1)]
            for low, high, step in blocks[: 1 if whole == stop else 2]:
                row = self.emitter.fresh("rows")
                with self.loop(row, low, high, LoopKind.SERIAL, step):
                    yield at | {len(outer): (variable(row), variable(row) + step)}
