"""Contractions that deserve a packed, register-blocked schedule.

Sums of products of two tensors in which rows, columns and the reduction are all long enough to pay
for packing; what is not of this form (`None`) is lowered as a plain loop nest.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.contraction_layout import Packing
from mapsto.lowering.contraction_loops import contraction_body, contraction_packings
from mapsto.lowering.contraction_plan import sums_rows, takes_blocks
from mapsto.lowering.contraction_problem import OperandAccess
from mapsto.lowering.cpu.schedule_choice import Choose, Contraction
from mapsto.lowering.loops import Statement

__all__ = ["LoweredContraction", "lower_contraction"]


@dataclass(frozen=True, slots=True)
class LoweredContraction:
    """The body of a contraction's kernel, and what is packed ahead of a loop around it."""

    body: tuple[Statement, ...]
    packings: tuple[Packing, ...]


def lower_contraction(
    op: Contract, access: OperandAccess, choose: Choose, invariant: frozenset[str] = frozenset()
) -> LoweredContraction | None:
    """The body of a kernel that computes the contraction, by the schedule that is chosen; None
    where it has no such schedule, or is better rows.

    `invariant` are the names of buffers that stay the same while a loop runs the kernel again.
    """
    contraction = Contraction.of(op, access, invariant)
    if contraction is None:
        return None
    problem, schedule = choose(contraction)
    if sums_rows(problem, schedule):
        return None
    if access.blocks > 1 and not takes_blocks(problem, schedule):
        return None
    return LoweredContraction(
        contraction_body(problem, schedule), contraction_packings(problem, schedule)
    )
