"""Hints for what loops will read and write: their lines are on the way while something else runs.

The lines of a tile's results lie far from each other, a few elements on each, so that no processor
foresees them; the sums of the tile give the time to fetch them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mapsto.ir.dims import product
from mapsto.lowering.indices import ValueOf, atoms
from mapsto.lowering.loop_rewrite import Rewriter
from mapsto.lowering.loop_walk import direct_expressions, subexpressions
from mapsto.lowering.loops import (
    Buffer,
    For,
    If,
    Load,
    LoopKind,
    Prefetch,
    Space,
    Statement,
    Store,
)

__all__ = ["LINE", "prefetches"]

LINE = 64
"""Bytes of a cache line."""


def prefetches(body: Iterable[Statement], width: int, near: int) -> tuple[Statement, ...]:
    """The statements with hints in place of accesses of memory, one for each line of a vector loop.

    `width` is the most that a vector loop without a number of lanes runs over; tensors of at most
    `near` bytes are left out, as they are in the cache.
    """
    found: dict[Statement, None] = {}
    for statement in body:
        match statement:
            case For(kind=LoopKind.VECTOR, body=(For(kind=LoopKind.UNROLL) as inner,)):
                inside = tuple(_last_turn(statement, inner, near))
                around = replace(statement, kind=LoopKind.SERIAL, body=inside)
                found |= {around: None} if inside else {}
            case For(kind=LoopKind.VECTOR):
                found |= dict.fromkeys(_lines(statement, statement.lanes or width, near))
            case For():
                inside = prefetches(statement.body, width, near)
                found |= {replace(statement, body=inside): None} if inside else {}
            case If():
                inside = prefetches(statement.then, width, near)
                found |= {If(statement.condition, inside): None} if inside else {}
            case _:
                found |= dict.fromkeys(_accesses([statement], near))
    return tuple(found)


def _lines(loop: For, width: int, near: int) -> Iterator[Prefetch]:
    """Hints for the lines of a vector loop: of its last element, and of those a line before.  The
    line in which it begins may be shared with the loop before it, which has fetched it then."""
    extent = loop.stop - loop.start
    width = min(width, extent) if isinstance(extent, int) else width
    for access in _accesses(loop.body, near):
        if loop.variable not in atoms(access.indices[-1]):
            continue
        for back in range(0, width, LINE // access.buffer.dtype.bytes):
            at = Rewriter({loop.variable: loop.stop - 1 - back}).statement(access)
            assert isinstance(at, Prefetch), "as it was"
            yield at


def _last_turn(loop: For, inner: For, near: int) -> Iterator[Statement]:
    """Hints for the last turns of a loop that is laid out inside a vector loop, and goes over
    neighbours in memory: the line of its first turn is shared with what was before."""
    last = Rewriter({inner.variable: inner.stop - 1})
    for access in _accesses(inner.body, near):
        used = [atom for index in access.indices for atom in atoms(index)]
        if loop.variable in used and inner.variable in used:
            yield last.statement(access)


def _accesses(body: Sequence[Statement], near: int) -> Iterator[Prefetch]:
    """Hints for what the statements access, where that does not depend on what they read."""
    for statement in body:
        hints = [
            Prefetch(e.buffer, e.indices)
            for expression in direct_expressions(statement)
            for e in subexpressions(expression)
            if isinstance(e, Load)
        ]
        if isinstance(statement, Store):
            hints.append(Prefetch(statement.buffer, statement.indices, writes=True))
        for hint in hints:
            known = not any(isinstance(a, ValueOf) for i in hint.indices for a in atoms(i))
            if known and _is_far(hint.buffer, near):
                yield hint


def _is_far(buffer: Buffer, near: int) -> bool:
    size = product(buffer.shape) * buffer.dtype.bytes
    return buffer.space is Space.ARGUMENT and not (isinstance(size, int) and size <= near)
