"""The index space that the stages of one kernel have in common.

Stages can share a kernel where an outer loop runs over some indices for all of them: a softmax is
a maximum, an exponential, a sum and a quotient for each row.  An outer index must be an axis of
every stage, and where one stage reads another, the axis must be read at the reader's own index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mapsto.ir.core import Value
from mapsto.ir.dims import Dim
from mapsto.ir.stages import Read, Stage

__all__ = ["Alignment", "align"]

_Axis = tuple[int, int]
"""A stage's number and an axis of its value."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """The extents of the outer indices, and for each stage which axis each of them is."""

    outer: tuple[Dim, ...]
    axes: tuple[tuple[int, ...], ...]


class _Classes:
    """Disjoint sets of axes."""

    def __init__(self) -> None:
        self._parents: dict[_Axis, _Axis] = {}

    def find(self, axis: _Axis) -> _Axis:
        """The representative of the axis's set."""
        while (parent := self._parents.get(axis, axis)) != axis:
            axis = parent
        return axis

    def unite(self, left: _Axis, right: _Axis) -> None:
        """Puts the sets of two axes together."""
        first, second = sorted((self.find(left), self.find(right)))
        self._parents[second] = first


def align(stages: Sequence[Stage]) -> Alignment:
    """The largest space of outer indices; it may have no dimensions."""
    numbers = {stage.value: i for i, stage in enumerate(stages)}
    classes, components = _Classes(), _Classes()
    broken: list[_Axis] = []
    for t, stage in enumerate(stages):
        for read in stage.reads:
            s = None if read.value is None else numbers.get(read.value)
            if s is None or s == t:
                continue
            components.unite((s, 0), (t, 0))
            _unite_read(classes, broken, s, t, stage, read)
    _unite_by_memory(stages, numbers, classes, components)
    _unite_by_shape(stages, classes, components)
    return _outer_space(stages, classes, {classes.find(axis) for axis in broken})


def _unite_read(
    classes: _Classes, broken: list[_Axis], s: int, t: int, stage: Stage, read: Read
) -> None:
    assert read.value is not None
    for i, expr in enumerate(read.place):
        j = None if expr is None else expr.single
        if j is None or j >= stage.rank or read.value.shape[i] != stage.extents[j]:
            broken.append((s, i))
        else:
            classes.unite((s, i), (t, j))


def _unite_by_memory(
    stages: Sequence[Stage], numbers: dict[Value, int], classes: _Classes, components: _Classes
) -> None:
    """Stages that don't depend on each other go along with each other as they read memory."""
    readers: dict[Value, tuple[int, Read]] = {}
    for t, stage in enumerate(stages):
        for read in stage.reads:
            if read.value is None or read.value in numbers:
                continue
            other, first = readers.setdefault(read.value, (t, read))
            if components.find((other, 0)) != components.find((t, 0)):
                components.unite((other, 0), (t, 0))
                _unite_reads(stages, classes, (other, first), (t, read))


def _unite_reads(
    stages: Sequence[Stage], classes: _Classes, first: tuple[int, Read], second: tuple[int, Read]
) -> None:
    for left, right in zip(first[1].place, second[1].place, strict=True):
        i = None if left is None else left.single
        j = None if right is None else right.single
        if i is None or j is None or i >= stages[first[0]].rank or j >= stages[second[0]].rank:
            continue
        classes.unite((first[0], i), (second[0], j))


def _unite_by_shape(stages: Sequence[Stage], classes: _Classes, components: _Classes) -> None:
    for t, stage in enumerate(stages[1:], 1):
        same = stage.value.shape == stages[0].value.shape
        if same and components.find((t, 0)) != components.find((0, 0)):
            components.unite((t, 0), (0, 0))
            for i in range(stage.rank):
                classes.unite((0, i), (t, i))


def _outer_space(stages: Sequence[Stage], classes: _Classes, broken: set[_Axis]) -> Alignment:
    members: dict[_Axis, list[_Axis]] = {}
    for t, stage in enumerate(stages):
        for i in range(stage.rank):
            members.setdefault(classes.find((t, i)), []).append((t, i))
    outer = [axes for root, axes in members.items() if root not in broken and _covers(stages, axes)]
    widest = max(range(len(stages)), key=lambda t: len(stages[t].extents))
    outer.sort(key=lambda axes: axes[widest][1])
    extents = tuple(stages[0].value.shape[axes[0][1]] for axes in outer)
    return Alignment(extents, tuple(tuple(a[t][1] for a in outer) for t in range(len(stages))))


def _covers(stages: Sequence[Stage], axes: list[_Axis]) -> bool:
    """Whether the set has one axis of every stage, all of one extent."""
    if [t for t, _ in axes] != list(range(len(stages))):
        return False
    return len({stages[t].value.shape[i] for t, i in axes}) == 1
