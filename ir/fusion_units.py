"""The stages of a block in the order in which fusion puts them into kernels.

Those of sums for which the target has one kernel, weighted by exponentials or by products, are put
there at once.  So everything
that they read comes before all of them, and everything that reads one of them after the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mapsto.ir.core import Operation, Value
from mapsto.ir.dataflow import is_view
from mapsto.ir.product_sums import SumsTogether
from mapsto.ir.stages import Stage

__all__ = ["Unit", "buffer_of", "together"]


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Stages that are put into a kernel at once: one, or those of sums together."""

    stages: tuple[Stage, ...]
    weighted: SumsTogether | None = None


def buffer_of(value: Value) -> Value:
    """The value in whose memory another view of it lies."""
    while isinstance(value.owner, Operation) and is_view(value.owner):
        value = value.owner.operands[0]
    return value


def together(stages: Sequence[Stage], weighted: Sequence[SumsTogether]) -> list[Unit]:
    """The units of a block's stages, what each reads before it; of such sums that need each
    other none but the first are units."""
    order = _ordered(_units(stages, weighted))
    while order is None:
        weighted = weighted[:-1]
        order = _ordered(_units(stages, weighted))
    return order


def _units(stages: Sequence[Stage], weighted: Iterable[SumsTogether]) -> list[Unit]:
    inside = {value: sums for sums in weighted for value in sums.inside}
    parts: dict[SumsTogether, list[Stage]] = {}
    units: list[Unit] = []
    for stage in stages:
        sums = inside.get(stage.value)
        if sums is None:
            units.append(Unit((stage,)))
            continue
        parts.setdefault(sums, []).append(stage)
        if stage.op is sums.sums:
            units.append(Unit(tuple(parts[sums]), sums))
    return units


def _ordered(units: Sequence[Unit]) -> list[Unit] | None:
    """The units, each behind those that it reads and else as they are; None if that cannot be."""
    homes = {stage.value: unit for unit in units for stage in unit.stages}
    order: dict[Unit, None] = {}
    for unit in units:
        path = [(unit, _needed(unit, homes))]
        while path:
            current, needed = path[-1]
            missing = next((each for each in needed if each not in order), None)
            if missing is None:
                order.setdefault(current)
                path.pop()
            elif any(missing is each for each, _ in path):
                return None
            else:
                path.append((missing, _needed(missing, homes)))
    return list(order)


def _needed(unit: Unit, homes: dict[Value, Unit]) -> Iterator[Unit]:
    reads = (read.value for stage in unit.stages for read in stage.reads)
    found = (homes.get(buffer_of(value)) for value in reads if value is not None)
    return (each for each in found if each is not None and each is not unit)
