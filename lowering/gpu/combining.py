"""Combining the partial results that the threads of a block have, in an order that is fixed.

Within a warp by halving: lane `l` with lane `l ^ 16`, then `l ^ 8`, down to 1.  Lane 0 of each warp
hands its result to the others through shared memory, and every thread adds them in their order.
Without reads of other threads' registers, all halving goes through shared memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mapsto.lowering.gpu.names import Names
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.totals import Partial, Total
from mapsto.lowering.indices import Index, floor_div, modulo, variable
from mapsto.lowering.loops import (
    Buffer,
    For,
    If,
    Let,
    Load,
    LoopKind,
    Reduce,
    Ref,
    Shuffle,
    Space,
    Statement,
    Store,
    compare,
)

__all__ = ["Combiner"]


@dataclass(slots=True)
class Combiner:
    """Combines in blocks of `count` threads; `shared` are the buffers that this takes."""

    target: GpuTarget
    thread: str
    count: int
    shared: list[Buffer] = field(default_factory=list)

    def partial(self, total: Total, names: Names) -> Partial:
        """The register for a thread's part of a total."""
        buffer = total.buffer
        name = names.fresh(f"{buffer.name}_part")
        return Partial(total, Buffer(name, buffer.dtype, buffer.shape, Space.REGISTER))

    def combine(self, partials: Sequence[Partial], names: Names) -> Iterator[Statement]:
        """The statements that add the parts of all threads to the totals, in every thread."""
        elements = [(partial, place) for partial in partials for place in partial.places]
        each = [self._element(number, *element) for number, element in enumerate(elements)]
        for element in each:
            yield from element.gather(names)
        for element in each:
            yield from element.add(names)

    def _element(self, number: int, partial: Partial, place: tuple[int, ...]) -> _Element:
        whole_warps = self.target.has_shuffle and self.count % self.target.warp == 0
        kind = _WarpElement if whole_warps else _Element
        slots = self.count // self.target.warp if whole_warps else self.count
        memory = self._memory(partial.buffer, number, slots)
        return kind(partial, place, variable(self.thread), self.count, memory, self.target.warp)

    def _memory(self, like: Buffer, number: int, slots: int) -> Buffer:
        """Shared memory for a value of each thread or warp; other reductions have it as well."""
        name = f"parts_{like.dtype}_{number}"
        buffer = Buffer(name, like.dtype, (slots,), Space.SHARED)
        if slots > 1 and buffer not in self.shared:
            self.shared.append(buffer)
        return buffer


@dataclass(frozen=True, slots=True)
class _Element:
    """One element of a partial result, combined through shared memory alone."""

    partial: Partial
    place: tuple[int, ...]
    thread: Index
    count: int
    memory: Buffer
    warp: int

    @property
    def op(self) -> str:
        """The operation that combines."""
        return self.partial.total.op

    def gather(self, names: Names) -> Iterator[Statement]:
        """Halving, until the first thread's slot has all."""
        yield Store(self.memory, (self.thread,), Load(self.partial.buffer, self.place))
        size = self.count
        while size > 1:
            half = (size + 1) // 2
            other = Load(self.memory, (self.thread + half,))
            add = Reduce(self.op, self.memory, (self.thread,), other)
            yield If(compare("lt", self.thread, size - half), (add,))
            size = half

    def add(self, names: Names) -> Iterator[Statement]:
        """Takes what was gathered into the total."""
        yield Reduce(self.op, self.partial.total.buffer, self.place, Load(self.memory, (0,)))


@dataclass(frozen=True, slots=True)
class _WarpElement(_Element):
    """One element of a partial result, combined by shuffles within warps."""

    def gather(self, names: Names) -> Iterator[Statement]:
        """Halving within the warp; then lane 0 hands over what its warp has."""
        register, dtype, lane = self.partial.buffer, self.memory.dtype, self.warp // 2
        value = Load(register, self.place)
        while lane:
            other = names.fresh("other")
            yield Let(other, Shuffle(value, lane))
            yield Reduce(self.op, register, self.place, Ref(other, dtype))
            lane //= 2
        if self.count == self.warp:
            first = names.fresh("first")
            yield Let(first, Shuffle(value, 0, across=False))
            yield Reduce(self.op, self.partial.total.buffer, self.place, Ref(first, dtype))
            return
        slot = floor_div(self.thread, self.warp)
        hand_over = Store(self.memory, (slot,), value)
        yield If(compare("eq", modulo(self.thread, self.warp), 0), (hand_over,))

    def add(self, names: Names) -> Iterator[Statement]:
        """The results of all warps, in order."""
        if self.count == self.warp:
            return
        name = names.fresh("warp")
        part = Load(self.memory, (variable(name),))
        total = Reduce(self.op, self.partial.total.buffer, self.place, part)
        yield For(name, 0, self.count // self.warp, (total,), LoopKind.UNROLL)
