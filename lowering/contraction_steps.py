"""The loops over the reduction of a contraction.

One flat index where everything is packed along it.  Where elements are read at the indices of
several reduced dimensions, the last ones have loops of their own, and only the rest is flat:
divisions to find the indices are done once for each run of steps, not at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product as combinations
from math import prod

from mapsto.ir.dims import Dim, product
from mapsto.lowering.contraction_problem import Group
from mapsto.lowering.indices import Index, flat_offset, variable
from mapsto.lowering.loops import For, LoopKind, Statement

__all__ = ["KRange", "Step", "Steps", "steps_of"]

K_UNROLL = 2
"""Steps of the reduction that are laid out in a row in the innermost loop."""
LAID_OUT_STEPS = 12
"""Steps of inner dimensions up to this many are all laid out."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the reduction: its number in the range, and the index of each dimension."""

    number: Index
    dims: dict[int, Index]


@dataclass(frozen=True, slots=True)
class KRange:
    """A part of the reduction, in units of `Steps.unit`."""

    start: Index
    count: Index


@dataclass(frozen=True, slots=True)
class Steps:
    """The reduced dimensions; the last `inner` ones have loops of their own."""

    group: Group
    inner: int
    laid_out: bool = True
    """Whether short loops are laid out.  Not where steps read the same elements: LLVM would keep
    these in registers that the sums need."""

    @property
    def unit(self) -> int:
        """How many steps the inner loops do; 0 where that is not known."""
        return prod(e if isinstance(e, int) else 0 for e in self._inner.extents)

    @property
    def units(self) -> Dim:
        """How often they are done in the whole reduction."""
        return product(self._outer.extents)

    @property
    def _outer(self) -> Group:
        count = len(self.group.dims) - self.inner
        return Group(self.group.dims[:count], self.group.extents[:count])

    @property
    def _inner(self) -> Group:
        count = len(self.group.dims) - self.inner
        return Group(self.group.dims[count:], self.group.extents[count:])

    def neighbours(self) -> Iterator[Step]:
        """The steps, from the first one of a range on, that are laid out in a row."""
        k, inner = variable("k"), self._inner
        extents = [extent for extent in inner.extents if isinstance(extent, int)]
        if self.unit > LAID_OUT_STEPS:
            extents = [*[1] * (len(extents) - 1), min(K_UNROLL, extents[-1])]
        outer = self._outer.split(k)
        for places in combinations(*map(range, extents)):
            number = k * self.unit + flat_offset(places, inner.extents)
            yield Step(number, outer | dict(zip(inner.dims, places, strict=True)))

    def loops(self, part: KRange, body: Callable[[Step], Sequence[Statement]]) -> For:
        """The loops over a part of the reduction."""
        k, inner = variable("k"), self._inner
        outer = self._outer.split(part.start + k)
        if not inner.dims:
            return For("k", 0, part.count, tuple(body(Step(k, outer))), unroll=K_UNROLL)
        at: dict[int, Index] = {d: variable(f"k{i}") for i, d in enumerate(inner.dims)}
        number = k * self.unit + flat_offset(at.values(), inner.extents)
        return For("k", 0, part.count, self._nest(body(Step(number, outer | at))))

    def _nest(self, body: Sequence[Statement]) -> tuple[Statement, ...]:
        """The inner loops around a step."""
        nest, group = tuple(body), self._inner
        length = 1
        for number in reversed(range(len(group.dims))):
            extent = group.extents[number]
            assert isinstance(extent, int), "inner loops have known extents"
            length *= extent
            loop = For(f"k{number}", 0, extent, nest)
            if self.laid_out and length <= LAID_OUT_STEPS:
                loop = replace(loop, kind=LoopKind.UNROLL)
            elif self.laid_out and number == len(group.dims) - 1:
                loop = replace(loop, unroll=K_UNROLL)
            nest = (loop,)
        return nest


def steps_of(group: Group, laid_out: bool = True) -> Steps:
    """The steps of a reduction: inner loops for the last dimension, and for those before it that
    can be laid out too; none where there is but one dimension or an extent is unknown."""
    known = [extent for extent in group.extents if extent != 1]
    if len(known) < 2 or not isinstance(group.extents[-1], int):
        return Steps(group, 0)
    if not laid_out:
        return Steps(group, 1, laid_out)
    inner, total = 1, group.extents[-1]
    for extent in reversed(group.extents[1:-1]):
        if not isinstance(extent, int) or total * extent > LAID_OUT_STEPS:
            break
        inner, total = inner + 1, total * extent
    return Steps(group, inner)
