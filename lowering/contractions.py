"""Contractions that deserve a packed, register-blocked schedule.

Sums of products of two tensors in which rows, columns and the reduction are all long enough to pay
for packing; what is not of this form (`None`) is lowered as a plain loop nest.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.contraction_loops import contraction_body
from mapsto.lowering.contraction_problem import OperandAccess, analyze
from mapsto.lowering.cpu.contraction_schedule import choose_schedule
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.loops import Statement

__all__ = ["lower_contraction"]


def lower_contraction(
    op: Contract, access: OperandAccess, machine: Machine
) -> Sequence[Statement] | None:
    """The body of a kernel that computes the contraction; None where it has no such schedule."""
    problem = analyze(op, access)
    if problem is None or not problem.dtype.is_float:
        return None
    return contraction_body(problem, choose_schedule(problem, machine))
