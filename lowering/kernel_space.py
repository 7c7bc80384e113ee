"""The loops that all stages of a kernel have in common, and how tensors look from inside them.

Indices that every access uses together, as they lie in memory, are merged into one: an elementwise
kernel over `[n, h, w, c]` is one loop over `n*h*w*c` elements, and a mean over the pixels of each
channel is one over `h*w`.  Inside the kernel the merged indices are placeholder variables (`i0.0`,
`i0.1`); an access replaces them, next to each other, by the index that they make up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product as pairs
from typing import TypeVar

from mapsto.ir.alignment import Alignment, align
from mapsto.ir.bounds import inside_above, inside_below
from mapsto.ir.core import Value
from mapsto.ir.dataflow import Place, identity_place
from mapsto.ir.dims import Dim, product
from mapsto.ir.stages import Stage, estimate
from mapsto.lowering.indices import Index
from mapsto.lowering.seams import inner_joints, seams_of

__all__ = [
    "MOST_TOTALS",
    "SHORT_ROW",
    "SHUFFLED_STRIDE",
    "KernelSpace",
    "OuterGroup",
    "group_across",
    "kernel_space",
    "plain_space",
    "reads_across",
    "vectorize_outer",
]


_Key = TypeVar("_Key")

SHORT_ROW = 8
"""Contiguous rows that are shorter than this do not fill a vector."""
SHUFFLED_STRIDE = 4
"""The largest stride of which vectors are made by shuffles."""
MOST_TOTALS = 12
"""So many vectors of sums stay in registers while a loop adds to all of them."""
MANY_ROWS = 16
"""So many rows are tasks enough, whatever is done in each."""


@dataclass(frozen=True, slots=True)
class OuterGroup:
    """Outer indices that are one loop: their numbers, the loop's variable and its extent."""

    dims: tuple[int, ...]
    name: str
    extent: Dim

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The variables that stand for the indices of a merged group."""
        return tuple(f"{self.name}.{i}" for i in range(len(self.dims)))


@dataclass(frozen=True, slots=True)
class KernelSpace:
    """The outer loops of a kernel; `alignment` says which axes of each stage they are."""

    stages: tuple[Stage, ...]
    alignment: Alignment
    groups: tuple[OuterGroup, ...]
    seams: Mapping[Value, frozenset[int]]
    """For each value, the axes that are merged with the axis after them."""
    joints: Mapping[tuple[Dim, ...], frozenset[int]] = field(default_factory=dict)
    """For stages with the same inner extents, which of these are merged with the one after them."""

    def inner_dims(self, stage: Stage) -> tuple[int, ...]:
        """The dimensions of a stage's domain that are not outer indices."""
        axes = self.alignment.axes[self.stages.index(stage)]
        return tuple(d for d in range(len(stage.extents)) if d not in axes)

    def inner_extents(self, stage: Stage) -> tuple[Dim, ...]:
        """The extents of those."""
        return tuple(stage.extents[d] for d in self.inner_dims(stage))

    def runs(self, extents: Sequence[Dim]) -> list[range]:
        """The numbers of inner extents, those together that are merged."""
        return _runs(len(extents), self.joints.get(tuple(extents), frozenset()))

    def kept_shape(self, stage: Stage) -> tuple[Dim, ...]:
        """The shape of what is kept of a stage for one outer index."""
        extents = self.inner_extents(stage)
        count = sum(d < stage.rank for d in self.inner_dims(stage))
        runs = (run for run in self.runs(extents) if run.start < count)
        return tuple(product(extents[run.start : run.stop]) for run in runs)

    def point(
        self, stage: Stage, outer: Sequence[Index], inner: Sequence[Index]
    ) -> tuple[Index, ...]:
        """The point of a stage's domain at these outer and inner indices."""
        axes = self.alignment.axes[self.stages.index(stage)]
        chosen: dict[int, Index] = dict(zip(axes, outer, strict=True))
        chosen |= dict(zip(self.inner_dims(stage), inner, strict=True))
        return tuple(chosen[d] for d in range(len(stage.extents)))

    def shape(self, value: Value) -> tuple[Dim, ...]:
        """The shape in which a value's buffer is declared."""
        runs = _runs(len(value.shape), self.seams.get(value, frozenset()))
        return tuple(product(value.shape[run.start : run.stop]) for run in runs)

    def length(self, stage: Stage, dim: int) -> int:
        """The extent of an inner dimension, with those before it that it is merged with."""
        dims, extents = self.inner_dims(stage), self.inner_extents(stage)
        run = next(run for run in self.runs(extents) if dims.index(dim) in run)
        return estimate(extents[run.start : dims.index(dim) + 1])

    def is_contiguous(self, stage: Stage, dim: int) -> bool:
        """Whether some tensor that a stage reads, or writes element by element, has neighbours
        along a dimension of the stage's domain next to each other, and none that is read or written
        along it has them elsewhere."""
        return self.is_near(stage, dim, 1)

    def is_near(self, stage: Stage, dim: int, stride: int) -> bool:
        """As `is_contiguous`, where neighbours may be up to a stride apart: shuffles take apart
        what is read, and put together what is written."""
        places = [read.place for read in stage.reads if read.value is not None]
        places += [identity_place(stage.rank)] if stage.is_map and stride == 1 else []
        along = [place for place in places if _moves(place, dim)]
        return bool(along) and all(_is_last(place, dim, stride) for place in along)


def _is_last(place: Place, dim: int, stride: int) -> bool:
    slopes = [0 if expr is None else expr.coefficients[dim] for expr in place]
    known = isinstance(slopes[-1], int) and 0 < slopes[-1] <= stride
    return known and not any(slope != 0 for slope in slopes[:-1])


def kernel_space(stages: Sequence[Stage], least_lanes: int = 0) -> KernelSpace:
    """The outer loops that the stages have in common.

    A last outer index of fewer than `least_lanes` is no outer index where vectors can run along the
    one before it: each lane loops over it.
    """
    space = _space(stages, align(stages))
    *others, last = space.groups or (None,)
    if last is None or not others or least_lanes == 0:
        return space
    kept = _kept_groups(space)
    if kept < len(space.groups):
        return _first_groups(space, kept)
    if estimate((last.extent,)) >= least_lanes:
        return space
    shorter = _first_groups(space, len(others))
    return shorter if vectorize_outer(shorter) else space


def _first_groups(space: KernelSpace, number: int) -> KernelSpace:
    """The space of so many outer groups; the indices of the others are loops in each row."""
    outer, axes = space.alignment.outer, space.alignment.axes
    count = sum(len(group.dims) for group in space.groups[:number])
    return _space(space.stages, Alignment(outer[:count], tuple(found[:count] for found in axes)))


def _kept_groups(space: KernelSpace) -> int:
    """How many outer groups are left without the last ones, where these are few elements, such as
    the window in the gradient by the weights of a depthwise convolution, that have reads in common:
    one row sums up all of them."""
    count = len(space.groups)
    while count > 1:
        together = [group.extent for group in space.groups[count - 1 :]]
        if not 1 <= estimate(together) <= MOST_TOTALS:
            break
        count -= 1
    rows = estimate([group.extent for group in space.groups[:count]])
    dims = {dim for group in space.groups[count:] for dim in group.dims}
    alike = any(_reads_once(space, number, dims) for number in range(len(space.stages)))
    return count if rows >= MANY_ROWS and alike else len(space.groups)


def _reads_once(space: KernelSpace, number: int, dims: Collection[int]) -> bool:
    """Whether a stage reduces along memory, and something that it reads is the same for all of some
    outer indices."""
    stage, axes = space.stages[number], space.alignment.axes[number]
    inner = space.inner_dims(stage)
    if stage.is_map or not inner or not space.is_near(stage, inner[-1], SHUFFLED_STRIDE):
        return False
    own = [axes[dim] for dim in dims]
    places = [read.place for read in stage.reads if read.value is not None]
    return any(not any(_moves(place, dim) for dim in own) for place in places)


def plain_space(stages: Sequence[Stage]) -> KernelSpace:
    """The outer loops that the stages have in common, each on its own: buffers have the shapes of
    their values."""
    found = align(stages)
    groups = tuple(OuterGroup((k,), f"i{k}", extent) for k, extent in enumerate(found.outer))
    return KernelSpace(tuple(stages), found, groups, {})


def _space(stages: Sequence[Stage], alignment: Alignment) -> KernelSpace:
    axes = alignment.axes
    seams: dict[Value, set[int]] = {}
    joined: set[int] = set()
    for k in range(len(alignment.outer) - 1):
        found = seams_of(stages, [(own[k], own[k + 1]) for own in axes])
        if found is not None:
            joined.add(k)
            _add(seams, found)
    runs = _runs(len(alignment.outer), joined)
    groups = tuple(
        OuterGroup(tuple(run), f"i{g}", product(tuple(alignment.outer[k] for k in run)))
        for g, run in enumerate(runs)
    )
    inner = [
        tuple(d for d in range(len(stage.extents)) if d not in own)
        for stage, own in zip(stages, axes, strict=True)
    ]
    outer = [[(own[k], own[k + 1]) for k in joined] for own in axes]
    joints: dict[tuple[Dim, ...], set[int]] = {}
    for joint, found in inner_joints(stages, inner, outer).items():
        joints.setdefault(joint.extents, set()).add(joint.number)
        _add(seams, found)
    return KernelSpace(tuple(stages), alignment, groups, _frozen(seams), _frozen(joints))


def _add(seams: dict[Value, set[int]], found: Iterable[tuple[Value, int]]) -> None:
    for value, axis in found:
        seams.setdefault(value, set()).add(axis)


def _frozen(found: Mapping[_Key, set[int]]) -> dict[_Key, frozenset[int]]:
    return {key: frozenset(numbers) for key, numbers in found.items()}


def _runs(count: int, joined: Collection[int]) -> list[range]:
    """The numbers below `count`, those together that are joined with the one after them."""
    starts = [k for k in range(count) if k - 1 not in joined]
    stops = [*starts[1:], count] if count else []
    return [range(*ends) for ends in zip(starts, stops, strict=True)]


def vectorize_outer(space: KernelSpace, least_row: int = 0) -> bool:
    """Whether vectors run along the last outer index rather than along rows: where memory is
    contiguous in it, where rows are shorter than `least_row`, or where there is nothing else.

    Rows or columns that do not fill a vector where the others do, such as the windows of a pooling,
    count as if they were not contiguous; strides that a vector takes apart by shuffles count as if
    there were none.
    """
    if not space.groups:
        return False
    longest = max(estimate(space.inner_extents(stage)) for stage in space.stages)
    if longest < least_row or not any(space.inner_dims(stage) for stage in space.stages):
        return True
    along_outer = along_inner = 0
    for stage, axes in zip(space.stages, space.alignment.axes, strict=True):
        work = estimate(stage.extents)
        inner = [d for d in space.inner_dims(stage) if space.is_contiguous(stage, d)]
        length = max((space.length(stage, d) for d in inner), default=0)
        across = estimate((stage.extents[axes[-1]],))
        short = bool(inner) and length < min(SHORT_ROW, across)
        stride = SHUFFLED_STRIDE if short else 1
        narrow = across < min(SHORT_ROW, length)
        along_outer += work * (not narrow and space.is_near(stage, axes[-1], stride))
        along_inner += work * (length > 0 and not short)
    return along_outer > 0 and along_outer >= along_inner


def group_across(space: KernelSpace, stored: Collection[Value]) -> OuterGroup | None:
    """The group along which memory is contiguous where vectors along the last one are not: that of
    the most elements, if there is any and it is long enough to fill vectors as well.

    `stored` are the values that are written to memory.
    """
    if not space.groups:
        return None
    *others, last = space.groups
    elements = dict.fromkeys((group for group in others if _fills(group)), 0)
    for stage, axes in zip(space.stages, space.alignment.axes, strict=True):
        places = [read.place for read in stage.reads if read.value is not None]
        places += [identity_place(stage.rank)] if stage.value in stored else []
        moving = [place for place in places if _moves(place, axes[last.dims[-1]])]
        for group, place in pairs(elements, moving):
            if _is_last(place, axes[group.dims[-1]], 1):
                elements[group] += estimate(stage.extents)
    most = max(elements, key=lambda group: elements[group], default=None)
    return most if most is not None and elements[most] and _fills(last) else None


def reads_across(space: KernelSpace, group: OuterGroup) -> list[tuple[Value, Stage, Place]]:
    """Tensors that are read across the last group and along another one, never outside."""
    last = space.groups[-1]
    found: dict[tuple[Value, Place], Stage] = {}
    for stage, axes in zip(space.stages, space.alignment.axes, strict=True):
        for read in stage.reads:
            moves = _moves(read.place, axes[last.dims[-1]])
            if read.value is not None and moves and _is_last(read.place, axes[group.dims[-1]], 1):
                found.setdefault((read.value, read.place), stage)
    return [(v, s, place) for (v, place), s in found.items() if _is_inside(v, s, place)]


def _is_inside(value: Value, stage: Stage, place: Place) -> bool:
    """Whether a value has an element at every point of a stage's domain."""
    return all(
        expr is not None
        and inside_below(expr, stage.extents)
        and inside_above(expr, stage.extents, size)
        for expr, size in zip(place, value.shape, strict=True)
    )


def _fills(group: OuterGroup) -> bool:
    return estimate((group.extent,)) >= SHORT_ROW


def _moves(place: Place, dim: int) -> bool:
    return any(expr is not None and expr.coefficients[dim] != 0 for expr in place)
