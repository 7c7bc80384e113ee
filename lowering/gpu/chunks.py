"""What each thread does of a vector loop: a few elements beside each other, in several turns.

    for j in 0..4096 vector {              for j in 4*thread..4096 step 512 {
      y[j] = x[j]                            for lane in 0..4 unroll {
    }                                          y[j + lane] = x[j + lane]

Elements beside each other are one access of up to 16 bytes: several are taken where every access of
the loop becomes one (see `vector_access`).  Where the turns are so few that they are laid out
(`turns`), what a thread keeps of a row between loops is in its registers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mapsto.lowering.gpu.turns import MOST_TURNS, largest_extent, upper_bounds
from mapsto.lowering.gpu.vector_access import LARGEST_ACCESS, is_one_access
from mapsto.lowering.index_facts import index_multiple
from mapsto.lowering.indices import Index, floor_div, variable
from mapsto.lowering.loop_rewrite import Access, Rewriter
from mapsto.lowering.loop_walk import direct_buffers, direct_indices, expressions, statements
from mapsto.lowering.loops import (
    Buffer,
    For,
    Let,
    Load,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
)

__all__ = ["Chunks", "Rows", "is_plain"]


def is_plain(loop: For) -> bool:
    """Whether a vector loop only binds values, stores them, and reduces into registers."""
    return all(
        isinstance(s, Let | Store) or (isinstance(s, Reduce) and s.buffer.space is Space.REGISTER)
        for s in loop.body
    )


def _chunk_width(loop: For, count: int, extent: int) -> int:
    """How many elements beside each other a thread takes of a plain loop."""
    buffers = {b for s in loop.body for b in direct_buffers(s)}
    buffers |= {e.buffer for e in expressions(loop.body) if isinstance(e, Load)}
    largest = max((b.dtype.bytes for b in buffers), default=LARGEST_ACCESS)
    width = LARGEST_ACCESS // largest
    while width > 1 and not (width * count <= extent and _fits(loop, width)):
        width //= 2
    return width


def _fits(loop: For, width: int) -> bool:
    """Whether chunks of a width are inside of the bounds or outside, and each one access."""
    bounds = [bound - loop.start for bound in upper_bounds(loop.stop)]
    if any(index_multiple(bound) % width for bound in bounds):
        return False
    first = width * variable("chunk") + loop.start
    body = Rewriter({loop.variable: first + variable("lane")}).block(loop.body)
    return is_one_access(body, "lane", width)


@dataclass(frozen=True, slots=True)
class Chunks:
    """How `count` threads, numbered `thread`, divide the elements of a loop: `width` beside each
    other at a time, `extent` in all."""

    thread: Index
    count: int
    width: int
    extent: int

    @property
    def span(self) -> int:
        """What all threads take in a round."""
        return self.count * self.width

    @property
    def rounds(self) -> int:
        """How many elements beside each other a thread has at most."""
        return -(-self.extent // self.span)

    def share(self, loop: For, lane: str, rows: Mapping[str, Buffer]) -> For:
        """What a thread does of a plain loop, which may keep `rows` in the registers given."""
        first = loop.start + self.width * self.thread
        at, element = variable(loop.variable), variable(lane) if self.width > 1 else 0
        place = floor_div(at - first, self.count) + element
        buffers = {name: _Placed(register, place) for name, register in rows.items()}
        body = Rewriter({loop.variable: at + element}, buffers).block(loop.body)
        if self.width > 1:
            body = (For(lane, 0, self.width, body, LoopKind.UNROLL),)
        return For(loop.variable, first, loop.stop, body, LoopKind.SERIAL, step=self.span)


@dataclass(frozen=True, slots=True)
class _Placed:
    """An access to an element of a row as that of a register."""

    register: Buffer
    place: Index

    def __call__(self, indices: tuple[Index, ...]) -> Access:
        return self.register, (self.place,)


@dataclass(slots=True)
class Rows:
    """The chunks of all plain vector loops of a task: those of one extent are divided alike, so a
    local buffer that only they touch, each iteration its own element, is in registers."""

    thread: Index
    count: int
    widths: dict[int, int] = field(default_factory=dict)
    registers: dict[str, Buffer] = field(default_factory=dict)

    def find(self, body: Iterable[Statement], buffers: Iterable[Buffer]) -> None:
        """Look at the statements of a task, with these local buffers."""
        found = [s for s in statements(body) if isinstance(s, For) and s.kind is LoopKind.VECTOR]
        loops = [loop for loop in found if is_plain(loop)]
        for loop in loops:
            extent = largest_extent(loop)
            if extent is not None and extent > self.count:
                width = _chunk_width(loop, self.count, extent)
                self.widths[extent] = min(width, self.widths.get(extent, width))
        body = tuple(body)
        for buffer in buffers:
            self._find_row(body, loops, buffer)

    def _find_row(self, body: tuple[Statement, ...], loops: Sequence[For], buffer: Buffer) -> None:
        extent = buffer.shape[0] if len(buffer.shape) == 1 else None
        if not isinstance(extent, int) or extent not in self.widths:
            return
        chunks = self._chunks(extent)
        own = sum(
            indices == (variable(loop.variable),)
            for loop in loops
            if loop.start == 0 and loop.stop == extent
            for indices in _accesses(loop.body, buffer)
        )
        if chunks.rounds <= MOST_TURNS and own == sum(1 for _ in _accesses(body, buffer)):
            size = chunks.rounds * chunks.width
            register = Buffer(f"{buffer.name}_part", buffer.dtype, (size,), Space.REGISTER)
            self.registers[buffer.name] = register

    def _chunks(self, extent: int) -> Chunks:
        return Chunks(self.thread, self.count, self.widths[extent], extent)

    def chunks(self, loop: For) -> Chunks | None:
        """How a loop is divided; None where it is not plain, or a thread has one iteration."""
        extent = largest_extent(loop)
        known = extent is not None and extent in self.widths and is_plain(loop)
        return self._chunks(extent) if known and extent is not None else None


def _accesses(body: Iterable[Statement], buffer: Buffer) -> Iterator[tuple[Index, ...]]:
    """The indices of all accesses to a buffer."""
    body = tuple(body)
    for statement in statements(body):
        if any(each.name == buffer.name for each in direct_buffers(statement)):
            yield direct_indices(statement)
    for expression in expressions(body):
        if isinstance(expression, Load) and expression.buffer.name == buffer.name:
            yield expression.indices
