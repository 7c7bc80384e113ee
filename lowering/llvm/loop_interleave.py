"""Vectors of results that fill memory together, stored in one go.

    for v 0..n vector {                          a:  a0 a1 a2 ..     b:  b0 b1 b2 ..
      for q 0..1 unroll { y[v, q] = a }     =>
      for q 1..2 unroll { y[v, q] = b }          y:  a0 b0 a1 b1 a2 b2 ..
    }

So the phases of a stride are put together.  Each alone would be stored element by element.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mapsto.lowering.llvm.loop_access import AccessEmitter
from mapsto.lowering.llvm.loop_scope import Scope
from mapsto.lowering.llvm.types import Operand
from mapsto.lowering.llvm.writer import FunctionWriter
from mapsto.lowering.loop_walk import expressions
from mapsto.lowering.loops import For, Let, Load, LoopKind, Statement, Store

__all__ = ["Strands", "find_strands", "interleaved"]

_COUNTS = (2, 4)
"""Into so many strands shuffles of two vectors at a time take memory apart."""


@dataclass(frozen=True, slots=True)
class Strands:
    """Laid out loops one after another that store elements next to each other, in each lane as many
    as the lanes are apart: for each turn what is bound before, and the store."""

    loops: int
    variable: str
    turns: tuple[tuple[int, tuple[Let, ...], Store], ...]


def find_strands(emitter: AccessEmitter, scope: Scope, body: Sequence[Statement]) -> Strands | None:
    """The strands that a block begins with; None where there are none."""
    lanes = scope.lanes
    whole = lanes is not None and (lanes.tail is None or lanes.filled is not None)
    if lanes is None or lanes.predicate is not None or not whole:
        return None
    loops = list(_loops(body))
    turns = tuple(turn for loop in loops for turn in _turns(loop))
    if len(turns) not in _COUNTS or not _fill(emitter, scope, loops[0].variable, turns):
        return None
    return Strands(len(loops), loops[0].variable, turns)


def _loops(body: Sequence[Statement]) -> Iterator[For]:
    """The laid out loops that a block begins with, as far as one goes on where another ends."""
    stop: object = None
    for statement in body:
        match statement:
            case For(kind=LoopKind.UNROLL, step=1, body=(*lets, Store(guard=None))) if (
                stop is None or (statement.variable, statement.start) == stop
            ) and all(isinstance(let, Let) for let in lets):
                stop = statement.variable, statement.stop
                yield statement
            case _:
                return


def _turns(loop: For) -> Iterator[tuple[int, tuple[Let, ...], Store]]:
    *lets, store = loop.body
    assert isinstance(store, Store), "as it was found"
    if isinstance(loop.start, int) and isinstance(loop.stop, int):
        bound = tuple(let for let in lets if isinstance(let, Let))
        yield from ((turn, bound, store) for turn in range(loop.start, loop.stop))


def _fill(
    emitter: AccessEmitter,
    scope: Scope,
    variable: str,
    turns: Sequence[tuple[int, tuple[Let, ...], Store]],
) -> bool:
    """Whether turns store elements of a buffer next to each other, and none of them reads it."""
    buffer = turns[0][2].buffer
    place = scope.places[buffer.name]
    bodies: list[Statement] = []
    for _, lets, store in turns:
        bodies += [*lets, store]
    reads = {e.buffer for e in expressions(bodies) if isinstance(e, Load)}
    if place.is_register or any(read == buffer or read.may_alias for read in reads):
        return False
    firsts = []
    for turn, _, store in turns:
        inside = scope.with_index(variable, turn)
        parts = emitter.split(inside, emitter.flat_offset(place, store.indices))
        if store.buffer != buffer or parts is None or parts[1] != len(turns):
            return False
        firsts.append(parts[0])
    return all(first - firsts[0] == number for number, first in enumerate(firsts))


def interleaved(f: FunctionWriter, vectors: Sequence[Operand]) -> Operand:
    """One vector with the first elements of all, then the second ones, and so on."""
    while len(vectors) > 1:
        half, lanes = len(vectors) // 2, vectors[0].type.lanes
        picks = [lane + part * lanes for lane in range(lanes) for part in range(2)]
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [f.shufflevector(left, right, picks) for left, right in pairs]
    return vectors[0]
