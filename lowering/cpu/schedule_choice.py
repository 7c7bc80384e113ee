"""Who chooses the schedule of a contraction: the cost model, or what was measured here before.

A choice is what may be changed of a schedule without changing a bit of the results, so a program
computes the same whoever chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.contraction_plan import Schedule
from mapsto.lowering.contraction_problem import ContractionProblem, OperandAccess, analyze
from mapsto.lowering.cpu.contraction_schedule import (
    alternatives,
    choose_orientation,
    choose_schedule,
    with_tile,
)
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.tiles import Tile
from mapsto.lowering.indices import variable
from mapsto.lowering.loop_walk import subexpressions
from mapsto.lowering.loops import Expression, Load

__all__ = ["Choice", "Choose", "Contraction", "Plan", "estimated", "measured", "neighbours"]

Plan = tuple[ContractionProblem, Schedule]
"""A contraction one way round, and its schedule."""


@dataclass(frozen=True)
class Contraction:
    """What a schedule is chosen for: a contraction either way round (`analyze`), the second None
    where there is only one, and the buffers that stay the same while a loop runs it again."""

    first: ContractionProblem
    second: ContractionProblem | None
    invariant: frozenset[str] = frozenset()

    @staticmethod
    def of(
        op: Contract, access: OperandAccess, invariant: frozenset[str] = frozenset()
    ) -> Contraction | None:
        """The contraction; None where it is not of that form, or not of floats."""
        first = analyze(op, access)
        if first is None or not first.dtype.is_float:
            return None
        return Contraction(first, analyze(op, access, swapped=True), invariant)

    @cached_property
    def key(self) -> str:
        """A text that is the same for contractions that may have the same schedules."""
        op, access = self.first.op, self.first.access
        domain = "x".join(map(str, op.extents))
        reads = (
            f"{operand.type} at {map_}{'' if access.is_direct(i) else ', computed'}"
            for i, (operand, map_) in enumerate(zip(op.operands, op.maps, strict=True))
        )
        same = " and ".join(sorted(self._invariant_sides(self.first))) or "no side"
        blocks = f"{access.blocks} blocks to rank {op.rank}"
        return f"{domain}, {blocks}: {'; '.join(reads)}; {same} as before"

    def plans(self, machine: Machine) -> Iterator[Plan]:
        """The estimated schedule for each way round."""
        for problem in (self.first, self.second):
            if problem is not None:
                yield self.plan(problem, machine)

    def plan(self, problem: ContractionProblem, machine: Machine) -> Plan:
        """One way round with its estimated schedule."""
        return problem, choose_schedule(problem, machine, self._invariant_sides(problem))

    def estimated(self, machine: Machine) -> Plan:
        """What the cost model takes for the quickest."""
        problem = choose_orientation([self.first, self.second], machine)
        assert problem is not None, "the first is there"
        return self.plan(problem, machine)

    def _invariant_sides(self, problem: ContractionProblem) -> frozenset[str]:
        """The sides of which all elements come from buffers that stay the same."""
        point = {dim: variable(f"d{dim}") for dim in range(len(problem.op.extents))}
        operands = {"rows": problem.row_operand, "columns": 1 - problem.row_operand}
        sides = {name: problem.read(operand, point) for name, operand in operands.items()}
        return frozenset(n for n, element in sides.items() if _buffers(element) <= self.invariant)


def _buffers(expression: Expression) -> set[str]:
    return {e.buffer.name for e in subexpressions(expression) if isinstance(e, Load)}


Choose = Callable[[Contraction], Plan]
"""What decides on the schedule of a contraction."""


def estimated(machine: Machine) -> Choose:
    """The cost model decides."""
    return lambda contraction: contraction.estimated(machine)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen of a schedule; all sizes as in `Schedule` and `Tile`."""

    swapped: bool
    """Whether rows are columns (`analyze`)."""
    rows: int
    vectors: int
    private_rows: bool
    block: int
    pack_rows: bool
    pack_columns: bool

    @staticmethod
    def of(plan: Plan, contraction: Contraction) -> Choice:
        """The choices of a plan for the contraction."""
        problem, schedule = plan
        return Choice(
            problem is contraction.second,
            schedule.tile.rows,
            schedule.tile.vectors,
            schedule.private_rows,
            schedule.block,
            schedule.pack_rows,
            schedule.pack_columns,
        )

    def plan(self, contraction: Contraction, machine: Machine) -> Plan | None:
        """The plan of these choices; None where the contraction has none such."""
        problem = contraction.second if self.swapped else contraction.first
        if problem is None:
            return None
        _, schedule = contraction.plan(problem, machine)
        tile = Tile(self.rows, self.vectors, schedule.tile.lanes)
        return problem, replace(
            with_tile(problem, machine, schedule, tile),
            private_rows=self.private_rows,
            block=self.block,
            pack_rows=self.pack_rows,
            pack_columns=self.pack_columns,
        )


def measured(find: Callable[[str], Choice | None], machine: Machine) -> Choose:
    """What is known for the key of a contraction decides, else the cost model."""

    def choose(contraction: Contraction) -> Plan:
        choice = find(contraction.key)
        plan = None if choice is None else choice.plan(contraction, machine)
        return contraction.estimated(machine) if plan is None else plan

    return choose


def neighbours(contraction: Contraction, plan: Plan, machine: Machine) -> Iterator[Choice]:
    """The choices that differ from a plan in one."""
    problem, schedule = plan
    for other in alternatives(problem, machine, schedule):
        yield Choice.of((problem, other), contraction)
