"""Contractions that deserve a packed, register-blocked schedule.

Sums of products of two tensors in which rows, columns and the reduction are all long enough to pay
for packing; what is not of this form (`None`) is lowered as a plain loop nest.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.contraction_loops import Packing, contraction_body, contraction_packings
from mapsto.lowering.contraction_problem import ContractionProblem, OperandAccess, analyze
from mapsto.lowering.cpu.contraction_schedule import choose_orientation, choose_schedule
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.indices import variable
from mapsto.lowering.loop_walk import subexpressions
from mapsto.lowering.loops import Expression, Load, Statement

__all__ = ["LoweredContraction", "lower_contraction"]


@dataclass(frozen=True, slots=True)
class LoweredContraction:
    """The body of a contraction's kernel, and what is packed ahead of a loop around it."""

    body: tuple[Statement, ...]
    packings: tuple[Packing, ...]


def lower_contraction(
    op: Contract, access: OperandAccess, machine: Machine, invariant: frozenset[str] = frozenset()
) -> LoweredContraction | None:
    """The body of a kernel that computes the contraction; None where it has no such schedule.

    `invariant` are the names of buffers that stay the same while a loop runs the kernel again.
    """
    problem = choose_orientation([analyze(op, access), analyze(op, access, swapped=True)], machine)
    if problem is None or not problem.dtype.is_float:
        return None
    schedule = choose_schedule(problem, machine, _invariant_sides(problem, invariant))
    return LoweredContraction(
        contraction_body(problem, schedule), contraction_packings(problem, schedule)
    )


def _invariant_sides(problem: ContractionProblem, invariant: frozenset[str]) -> frozenset[str]:
    """The sides of which all elements come from these buffers."""
    point = {dim: variable(f"d{dim}") for dim in range(len(problem.op.extents))}
    operands = {"rows": problem.row_operand, "columns": 1 - problem.row_operand}
    sides = {name: problem.read(operand, point) for name, operand in operands.items()}
    return frozenset(name for name, element in sides.items() if _buffers(element) <= invariant)


def _buffers(expression: Expression) -> set[str]:
    return {e.buffer.name for e in subexpressions(expression) if isinstance(e, Load)}
