"""How kernels are computed on a GPU."""

from __future__ import annotations

from mapsto.ir.core import Function
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.recomputing import recompute_weights
from mapsto.lowering.contraction_problem import OperandAccess
from mapsto.lowering.contractions import LoweredContraction
from mapsto.lowering.gpu.contraction_schedule import lower_contraction
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.weighted_schedule import weighted_scheduling
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.scheduling import Scheduling

__all__ = ["gpu_scheduling"]

_FEW_TASKS = 8
_MOST_RANKED = 1 << 14


def gpu_scheduling(target: GpuTarget) -> Scheduling:
    """Small tasks, one for a block of threads, tiles of contractions, and weighted sums at once."""
    division = Division(
        task_work=target.task_work,
        column_block=target.block_threads,
        few_tasks=_FEW_TASKS,
        flat=True,
        least_lanes=0,
        many_elements=target.processors * target.processor_threads,
        least_row=target.warp,
        most_ranked=_MOST_RANKED,
        most_sorted_updates=target.processors * target.processor_threads // 2,
    )

    def contraction(
        op: Contract, access: OperandAccess, invariant: frozenset[str]
    ) -> LoweredContraction | None:
        return lower_contraction(op, access, target)

    weighted = weighted_scheduling(target)

    def arrange(function: Function) -> Function:
        return recompute_weights(function, weighted.takes)

    return Scheduling(division, contraction, weighted=weighted, arrange=arrange)
