"""How much work a kernel is, and how it is divided into tasks.

The division depends on sizes and on the target alone, never on the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Operation, Trait
from mapsto.ir.dims import Dim
from mapsto.ir.stages import Stage, estimate, is_external

__all__ = ["Division", "stage_work"]


@dataclass(frozen=True, slots=True)
class Division:
    """How a target wants the work of a kernel divided into tasks; the defaults are for CPUs."""

    task_work: int = 1 << 17
    """Scalar operations that one task should have at least: some ten microseconds of vector code,
    several times what handing a task to another thread costs."""
    column_block: int = 128
    """Blocks of columns are multiples of this many elements: tasks don't share cache lines."""
    few_tasks: int = 4
    """With fewer tasks than this, long sums are divided into parts."""
    flat: bool = False
    """Whether lanes run over all outer indices as one, rather than over the last of them."""
    least_lanes: int = 8
    """Vectors do not run along a last outer index of fewer than this, where there is another
    (0: they may)."""
    many_elements: int = 0
    """From so many elements on a flat lane does several (0: never)."""
    least_row: int = 0
    """Rows that are shorter than this have no lanes of their own."""
    most_ranked: int = 0
    """Rows are sorted by counting what comes before each element up to this length."""
    most_sorted_updates: int = 0
    """So many updates of a scatter at most are sorted by where they go."""

    def rows_per_task(self, rows: Dim, work: int) -> int:
        """How many of the rows make one task, where all rows together are this much work."""
        each = work // max(1, estimate((rows,)))
        return max(1, self.task_work // max(1, each))


_EXPENSIVE = 10
"""What an expensive op costs, in cheap ones."""


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
