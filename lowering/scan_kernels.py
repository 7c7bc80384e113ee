"""The kernels of running reductions and recurrences along an axis.

Along the axis elements follow one another; across it, rows are divided into tasks, and where the
axis is not the last one, vectors run over the last, each lane with a row of its own.  Else a few
rows go along together: while one waits for its sum, the others add to theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mapsto.ir.dims import product
from mapsto.ir.ops.sequences import Cumulative, Recurrence
from mapsto.ir.stages import estimate
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indexed import IndexedEmitter, Indices
from mapsto.lowering.indices import Index, floor_div, from_dim, split_offset
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
    cast,
    constant,
    fma,
)
from mapsto.lowering.scalar_operations import REDUCTION_OPERATIONS, identity
from mapsto.lowering.whole_loops import Range, loop, tasks

__all__ = ["cumulative_body", "recurrence_body"]

Step = Callable[[Buffer, Indices], Statement]
"""The statement that takes the state (a register) past one element."""


_TOGETHER = 4
"""Rows that go along together."""
_STEP_COST = 4
"""What a step costs, in scalar operations: each waits for the one before."""


def cumulative_body(
    op: Cumulative, emitter: IndexedEmitter, output: Buffer, division: Division
) -> tuple[Statement, ...]:
    """The statements that compute a running reduction into the buffer."""
    operation = REDUCTION_OPERATIONS[op.kind]

    def step(state: Buffer, at: Indices) -> Statement:
        element = cast(emitter.element(op.operands[0], at), state.dtype)
        return Reduce(operation, state, (), element)

    first = identity(operation, sum_type(output.dtype))
    return _Scan(op, emitter, output, step, first).body(division)


def recurrence_body(
    op: Recurrence, emitter: IndexedEmitter, output: Buffer, division: Division
) -> tuple[Statement, ...]:
    """The statements that compute a linear recurrence into the buffer."""

    def step(state: Buffer, at: Indices) -> Statement:
        a, b = (cast(emitter.element(operand, at), state.dtype) for operand in op.operands)
        return Store(state, (), fma(a, state[()], b))

    return _Scan(op, emitter, output, step, 0).body(division)


class _Scan:
    """Writes the statements of one kernel; `first` is the state before the first element."""

    def __init__(
        self,
        op: Cumulative | Recurrence,
        emitter: IndexedEmitter,
        output: Buffer,
        step: Step,
        first: float,
    ) -> None:
        self.op, self.emitter, self.output = op, emitter, output
        self.step, self.first = step, first
        self.shape = op.result.shape
        self.together = 1

    def body(self, division: Division) -> tuple[Statement, ...]:
        """The kernel's statements."""
        axis, shape = self.op.axis, self.shape
        self.together = 1 if division.flat else _TOGETHER
        in_lanes = axis < len(shape) - 1
        others = [d for d in range(len(shape)) if d != axis]
        outer = others[:-1] if in_lanes else others
        rows = product(tuple(shape[d] for d in outer))
        work = _STEP_COST * estimate(shape)
        with self.emitter.scope() as statements:
            if in_lanes and estimate((rows,)) * division.task_work < work:
                block = division.column_block
                width = -(-division.rows_per_task(shape[-1], work) // block) * block
                with tasks(self.emitter, shape[-1], width) as columns:
                    self._rows(outer, (0, from_dim(rows)), columns)
            else:
                whole_rows = (0, from_dim(shape[-1])) if in_lanes else None
                with tasks(self.emitter, rows, division.rows_per_task(rows, work)) as range_:
                    self._rows(outer, range_, whole_rows)
        return tuple(statements)

    def _rows(self, outer: list[int], range_: Range, columns: Range | None) -> None:
        """Flat numbers of rows; `columns` are the range of the last axis if vectors run over it."""
        if columns is not None:
            with loop(self.emitter, "row", range_) as row:
                at = self._split(outer, row)
                with loop(self.emitter, "i", columns, LoopKind.VECTOR) as column:
                    self._along([at | {len(self.shape) - 1: column}])
            return
        start, stop = range_
        whole = start
        if self.together > 1:
            whole = start + floor_div(stop - start, self.together) * self.together
            with loop(self.emitter, "row", (start, whole), step=self.together) as row:
                self._along([self._split(outer, row + i) for i in range(self.together)])
        with loop(self.emitter, "row", (whole, stop)) as row:
            self._along([self._split(outer, row)])

    def _split(self, outer: list[int], row: Index) -> dict[int, Index]:
        """The indices of a row."""
        return dict(zip(outer, split_offset(row, [self.shape[d] for d in outer]), strict=True))

    def _along(self, rows: Sequence[dict[int, Index]]) -> None:
        """The loop along the axis, for rows at these indices."""
        emitter, axis = self.emitter, self.op.axis
        dtype = sum_type(self.output.dtype)
        states = [Buffer(emitter.fresh("state"), dtype, (), Space.REGISTER) for _ in rows]
        for state in states:
            start = Store(state, (), constant(self.first, dtype))
            emitter.append(Allocate(emitter.declare(state)), start)
        extent = from_dim(self.shape[axis])
        with loop(emitter, "j", (0, extent)) as number:
            position = extent - 1 - number if self.op.reverse else number
            for at, state in zip(rows, states, strict=True):
                place = at | {axis: position}
                indices = tuple(place[d] for d in range(len(self.shape)))
                emitter.append(self.step(state, indices))
                emitter.append(Store(self.output, indices, cast(state[()], self.output.dtype)))
