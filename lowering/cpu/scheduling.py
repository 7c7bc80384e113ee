"""How kernels are computed on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.core import Function
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.passes.bands import Bands
from mapsto.ir.passes.parts import MakeParts
from mapsto.ir.passes.split_sums import SplitSums
from mapsto.lowering.contraction_problem import OperandAccess
from mapsto.lowering.contractions import LoweredContraction, lower_contraction
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.schedule_choice import Choose, estimated
from mapsto.lowering.cpu.weighted_schedule import weighted_scheduling
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loop_pieces import cut_loops
from mapsto.lowering.loop_streams import stream_stores
from mapsto.lowering.loop_windows import copy_windows
from mapsto.lowering.loops import Statement
from mapsto.lowering.scheduling import Scheduling

__all__ = ["DIVISION", "cpu_scheduling"]

DIVISION = Division()
"""Tasks are worth handing to a thread."""
SPLIT_SUMS = SplitSums()


def cpu_scheduling(machine: Machine, choose: Choose | None = None) -> Scheduling:
    """Packed, register-blocked contractions for the machine's caches and registers, by the
    schedules that are chosen (None: by the cost model); rows that read windows from copies, without
    conditions that hold for a piece of a loop, and store what exceeds all caches past them; chains
    of kernels part by part, where their data is more than a cache; long sums of products with few
    results in parts."""
    chooser = choose or estimated(machine)

    def contraction(
        op: Contract, access: OperandAccess, invariant: frozenset[str]
    ) -> LoweredContraction | None:
        return lower_contraction(op, access, chooser, invariant)

    def rows(body: Sequence[Statement]) -> Sequence[Statement]:
        return stream_stores(cut_loops(copy_windows(body)), machine.l3)

    weighted = weighted_scheduling(machine)
    bands = Bands(takes_sums=weighted.takes)
    parts = MakeParts(cache=machine.l2, threads=machine.cores)

    def arrange(function: Function) -> Function:
        return SPLIT_SUMS.run_on(parts.run_on(bands.run_on(function)))

    return Scheduling(DIVISION, contraction, rows, weighted, arrange)
