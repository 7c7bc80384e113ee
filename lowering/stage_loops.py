"""The inner loops of a kernel: which stages are computed in the same pass over a row.

Stages whose inner domains have the same extents share a pass where each reads the others, if at
all, at the point that the pass is at.  What a reduction gives is known only after its pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mapsto.ir.core import Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.stages import Read, Stage
from mapsto.lowering.kernel_space import KernelSpace

__all__ = ["Pass", "plan_passes"]


@dataclass(slots=True)
class Pass:
    """Stages that are computed in one loop nest over the inner extents.

    A pass of `separate` kind has one stage, whose result elements take a loop each: a reduction
    that leaves inner dimensions, or the position of an extremum.
    """

    extents: tuple[Dim, ...]
    stages: list[Stage] = field(default_factory=list)
    separate: bool = False


@dataclass(frozen=True, slots=True)
class PassPlan:
    """The passes in order, and the stages that must be kept in memory for later passes."""

    passes: tuple[Pass, ...]
    kept: frozenset[Value]


def plan_passes(space: KernelSpace) -> PassPlan:
    """Groups the stages of a kernel into passes."""
    passes: list[Pass] = []
    home: dict[Value, int] = {}
    for stage in space.stages:
        number = _place(space, passes, home, stage)
        if number == len(passes):
            passes.append(Pass(space.inner_extents(stage), [], _is_separate(space, stage)))
        passes[number].stages.append(stage)
        home[stage.value] = number
    return PassPlan(tuple(passes), _kept(space, home))


def _place(space: KernelSpace, passes: Sequence[Pass], home: dict[Value, int], stage: Stage) -> int:
    """The first pass that can compute the stage; the number after the last for a new one."""
    first = 0
    for read in stage.reads:
        if read.value in home:
            number = home[read.value]
            first = max(first, number if _same_point(space, stage, read) else number + 1)
    if _is_separate(space, stage):
        return len(passes)
    extents = space.inner_extents(stage)
    for number in range(first, len(passes)):
        if passes[number].extents == extents and not passes[number].separate:
            return number
    return len(passes)


def _is_separate(space: KernelSpace, stage: Stage) -> bool:
    if stage.is_map:
        return False
    leaves = any(d < stage.rank for d in space.inner_dims(stage))
    return leaves or not isinstance(stage.op, Contract)


def _same_point(space: KernelSpace, stage: Stage, read: Read) -> bool:
    """Whether the stage reads an elementwise stage just where the common pass is."""
    source = next(s for s in space.stages if s.value is read.value)
    own, others = space.inner_dims(stage), space.inner_dims(source)
    if not source.is_map or space.inner_extents(stage) != space.inner_extents(source):
        return False
    places = [read.place[axis] for axis in others]
    return all(e is not None and e.single == d for e, d in zip(places, own, strict=True))


def _kept(space: KernelSpace, home: dict[Value, int]) -> frozenset[Value]:
    """The values with inner dimensions that are read in another pass or at another point."""
    kept: set[Value] = set()
    for stage in space.stages:
        for read in stage.reads:
            if read.value is None or read.value not in home:
                continue
            together = home[read.value] == home[stage.value] and _same_point(space, stage, read)
            source = next(s for s in space.stages if s.value is read.value)
            if not together and any(d < source.rank for d in space.inner_dims(source)):
                kept.add(read.value)
    return frozenset(kept)
