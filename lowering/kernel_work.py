"""How much work a kernel is, and how it is divided into tasks.

The division depends on sizes alone, never on the number of threads.
"""

from __future__ import annotations

from mapsto.ir.core import Operation, Trait
from mapsto.ir.dims import Dim
from mapsto.ir.stages import Stage, estimate, is_external

__all__ = ["COLUMN_BLOCK", "FEW_TASKS", "TASK_WORK", "rows_per_task", "stage_work"]

TASK_WORK = 1 << 17
"""Scalar operations that one task should have at least: some ten microseconds of vector code,
several times what handing a task to another thread costs."""

COLUMN_BLOCK = 128
"""Blocks of columns are multiples of this many elements, so that tasks don't share cache lines."""

FEW_TASKS = 4
"""With fewer tasks than this, long sums are divided into parts."""

_EXPENSIVE = 10
"""What an expensive op costs, in cheap ones."""


def rows_per_task(rows: Dim, work: int) -> int:
    """How many of the rows make one task, where all rows together are this much work."""
    each = work // max(1, estimate((rows,)))
    return max(1, TASK_WORK // max(1, each))


def stage_work(stage: Stage) -> int:
    """Scalar operations that a stage takes, loads included."""
    inside = {read.value for read in stage.reads}
    ops = _cone(stage.op, {v for v in inside if v is not None}) if stage.op else set()
    cost = sum(_EXPENSIVE if op.has(Trait.EXPENSIVE) else 1 for op in ops)
    return estimate(stage.extents) * (cost + len(stage.reads))


def _cone(op: Operation, stages: set[object]) -> set[Operation]:
    found = {op}
    pending = list(op.operands)
    while pending:
        value = pending.pop()
        if value in stages or is_external(value) or value.owner in found:
            continue
        assert isinstance(value.owner, Operation)
        found.add(value.owner)
        pending.extend(value.owner.operands)
    return found
