"""Stores past the caches, of results that are larger than those.

A line that is stored to is read first, as a rule, and later thrown out by what follows it: a result
that exceeds the last cache would move through memory twice, and take with it what the cache held.
Nothing of it would be found there by who reads it from its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mapsto.ir.dims import product
from mapsto.lowering.indices import atoms
from mapsto.lowering.loop_walk import expressions, statements
from mapsto.lowering.loops import (
    Buffer,
    For,
    If,
    Load,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
)

__all__ = ["stream_stores"]

LEAST_RUN = 1024
"""Bytes that follow each other, at least: lines that are not filled at once are written in parts,
which takes longer than to read them first."""


def stream_stores(body: Sequence[Statement], least: int) -> tuple[Statement, ...]:
    """The statements of a kernel, in which vector loops stream to buffers of at least so many
    bytes that the kernel only stores to, and only there."""
    stores = {s.buffer.name: s.buffer for s in statements(body) if isinstance(s, Store)}
    large = {name for name, buffer in stores.items() if _exceeds(buffer, least)}
    if not large:
        return tuple(body)
    streamed = large & {s.buffer.name for s in _runs(body)} - _used_otherwise(body, large)
    return _streaming(body, streamed) if streamed else tuple(body)


def _exceeds(buffer: Buffer, least: int) -> bool:
    size = product(buffer.shape) * buffer.dtype.bytes
    return buffer.space is Space.ARGUMENT and isinstance(size, int) and size >= least


def _runs(body: Iterable[Statement]) -> Iterator[Store]:
    """The stores of long vector loops along their variable."""
    for loop in statements(body):
        if not isinstance(loop, For) or loop.kind is not LoopKind.VECTOR:
            continue
        extent = loop.stop - loop.start
        for store in loop.body:
            if not isinstance(store, Store) or store.guard is not None or not store.indices:
                continue
            is_long = not isinstance(extent, int) or extent * store.buffer.dtype.bytes >= LEAST_RUN
            if is_long and loop.variable in atoms(store.indices[-1]):
                yield store


def _used_otherwise(body: Sequence[Statement], names: set[str]) -> set[str]:
    """Those of the buffers that are read, in whole or as memory that another one may be, or stored
    to elsewhere."""
    loads = [e.buffer for e in expressions(body) if isinstance(e, Load)]
    loads += [s.buffer for s in statements(body) if isinstance(s, Reduce)]
    read = {buffer.name for buffer in loads}
    all_stores = [s for s in statements(body) if isinstance(s, Store)]
    runs = set(map(id, _runs(body)))
    elsewhere = {s.buffer.name for s in all_stores if id(s) not in runs}
    if any(buffer.may_alias for buffer in loads):
        elsewhere |= {s.buffer.name for s in all_stores if s.buffer.may_alias}
    return names & (read | elsewhere)


def _streaming(body: Iterable[Statement], names: set[str]) -> tuple[Statement, ...]:
    """The statements, where stores to the buffers of these names stream."""
    return tuple(_streaming_one(statement, names) for statement in body)


def _streaming_one(statement: Statement, names: set[str]) -> Statement:
    match statement:
        case For(body=body):
            return replace(statement, body=_streaming(body, names))
        case If(condition, then, otherwise):
            return If(condition, _streaming(then, names), _streaming(otherwise, names))
        case Store(buffer) if buffer.name in names:
            return replace(statement, streams=True)
    return statement
