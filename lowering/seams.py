"""Which indices of a kernel are used together as they lie in memory, and can be one index.

Two indices are one where every access that uses them does so at neighbouring axes, over the whole
extent of both; then these axes of the value that is accessed are one as well: its *seams*.  All
accesses of a value have to agree on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.core import Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.stages import Read, Stage

__all__ = ["Joint", "Pair", "inner_joints", "seams_of"]

Pair = tuple[int, int]
"""Two dimensions of a stage's domain, the second after the first."""
Seam = tuple[Value, int]
"""A value, and the axis that is one with the axis after it."""


@dataclass(frozen=True, slots=True)
class Joint:
    """An inner dimension, by its number, that is one with the one after it, for all stages with
    these inner extents."""

    extents: tuple[Dim, ...]
    number: int


def seams_of(stages: Sequence[Stage], pairs: Sequence[Pair]) -> frozenset[Seam] | None:
    """The seams of values where a pair of dimensions of each stage is one index; None where they
    cannot be."""
    found: dict[Value, int | None] = {}
    for stage, (a, b) in zip(stages, pairs, strict=True):
        if b != a + 1 or (a < stage.rank) != (b < stage.rank):
            return None
        if a < stage.rank and found.setdefault(stage.value, a) != a:
            return None
        for read in stage.reads:
            axis = _axis_of(read, stage.extents, a, b)
            if axis == -1:
                return None
            # Also where it is read at other dimensions, or at one place: no seam is there.
            if read.value is not None and found.setdefault(read.value, axis) != axis:
                return None
    return frozenset((value, axis) for value, axis in found.items() if axis is not None)


def _axis_of(read: Read, extents: Sequence[Dim], a: int, b: int) -> int | None:
    """The axis of the value that is read at dimension a, the next being read at b over its whole
    extent; None where neither is used; -1 where they are used otherwise."""
    place = read.place
    used = [i for i, e in enumerate(place) if e is not None and (e.coefficients[a] != 0)]
    next_used = [i for i, e in enumerate(place) if e is not None and (e.coefficients[b] != 0)]
    if not used and not next_used:
        return None
    if len(used) != 1 or next_used != [used[0] + 1] or read.value is None:
        return -1
    i = used[0]
    first, second = place[i], place[i + 1]
    assert first is not None and second is not None
    whole = read.value.shape[i] == extents[a] and read.value.shape[i + 1] == extents[b]
    return i if first.single == a and second.single == b and whole else -1


def inner_joints(
    stages: Sequence[Stage], inner: Sequence[Sequence[int]], outer: Sequence[Iterable[Pair]]
) -> dict[Joint, frozenset[Seam]]:
    """The inner dimensions that are one, with the seams that come of it.

    `inner` are the inner dimensions of each stage, `outer` the pairs of its other ones that are
    one.  Stages that have a loop nest for each of their elements have none.
    """
    groups: dict[tuple[Dim, ...], list[int]] = {}
    for t, (stage, dims) in enumerate(zip(stages, inner, strict=True)):
        groups.setdefault(tuple(stage.extents[d] for d in dims), []).append(t)
    found: dict[Joint, frozenset[Seam]] = {}
    for extents, members in groups.items():
        if not all(_is_common(stages[t], inner[t]) for t in members):
            continue
        for k in range(len(extents) - 1):
            pairs = [(inner[t][k], inner[t][k + 1]) for t in members]
            seams = seams_of([stages[t] for t in members], pairs)
            found |= {} if seams is None else {Joint(extents, k): seams}
    return _agreed(stages, inner, outer, found)


def _is_common(stage: Stage, dims: Sequence[int]) -> bool:
    """Whether one loop nest over the inner dimensions computes the stage."""
    reduces = isinstance(stage.op, Contract) and all(d >= stage.rank for d in dims)
    return stage.is_map or reduces


def _agreed(
    stages: Sequence[Stage],
    inner: Sequence[Sequence[int]],
    outer: Sequence[Iterable[Pair]],
    found: Mapping[Joint, frozenset[Seam]],
) -> dict[Joint, frozenset[Seam]]:
    """The joints whose seams are those of every access of a value."""
    kept = dict(found)
    while True:
        pairs = [
            [*outer[t], *_inner_pairs(stage, inner[t], kept)] for t, stage in enumerate(stages)
        ]
        wrong = [
            joint
            for joint, seams in kept.items()
            if not all(_is_everywhere(seam, stages, pairs) for seam in seams)
        ]
        if not wrong:
            return kept
        for joint in wrong:
            del kept[joint]


def _inner_pairs(stage: Stage, dims: Sequence[int], kept: Iterable[Joint]) -> list[Pair]:
    extents = tuple(stage.extents[d] for d in dims)
    return [(dims[j.number], dims[j.number + 1]) for j in kept if j.extents == extents]


def _is_everywhere(seam: Seam, stages: Sequence[Stage], pairs: Sequence[Sequence[Pair]]) -> bool:
    """Whether all accesses of the value have the seam."""
    value, axis = seam
    for stage, own in zip(stages, pairs, strict=True):
        if stage.value is value and not any(a == axis for a, _ in own):
            return False
        for read in stage.reads:
            axes = [_axis_of(read, stage.extents, a, b) for a, b in own]
            if read.value is value and axis not in axes:
                return False
    return True
