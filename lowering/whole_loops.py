"""Loops that the kernels of whole ops have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mapsto.ir.dims import Dim
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.indices import Index, floor_div, from_dim, minimum, variable
from mapsto.lowering.loops import Expression, For, If, LoopKind

__all__ = ["Range", "branch", "loop", "nest", "tasks", "whole"]

Range = tuple[Index, Index]
"""The first value of a loop's variable and the one after the last."""


def whole(extents: Sequence[Dim]) -> list[Range]:
    """The ranges of loops over all of these extents."""
    return [(0, from_dim(extent)) for extent in extents]


@contextmanager
def loop(
    emitter: IndexedEmitter,
    prefix: str,
    bounds: Range,
    kind: LoopKind = LoopKind.SERIAL,
    step: int = 1,
) -> Iterator[Index]:
    """A loop around the statements that are written inside; gives its variable."""
    name = emitter.fresh(prefix)
    with emitter.scope(name) as statements:
        yield variable(name)
    emitter.append(For(name, *bounds, tuple(statements), kind, step))


@contextmanager
def branch(emitter: IndexedEmitter, condition: Expression) -> Iterator[None]:
    """Statements that run where the condition holds."""
    with emitter.scope() as statements:
        yield
    emitter.append(If(condition, tuple(statements)))


def nest(
    emitter: IndexedEmitter,
    prefix: str,
    ranges: Sequence[Range],
    body: Callable[[tuple[Index, ...]], None],
    vector: bool = False,
    outer: tuple[Index, ...] = (),
) -> None:
    """Loops over the ranges, the last one in vectors if asked, with the body inside."""
    if not ranges:
        body(outer)
        return
    kind = LoopKind.VECTOR if vector and len(ranges) == 1 else LoopKind.SERIAL
    with loop(emitter, prefix, ranges[0], kind) as index:
        nest(emitter, prefix, ranges[1:], body, vector, (*outer, index))


@contextmanager
def tasks(emitter: IndexedEmitter, extent: Dim, step: int) -> Iterator[Range]:
    """A parallel loop over ranges of `step` of an extent; plain statements where one is enough."""
    end = from_dim(extent)
    if isinstance(extent, int) and step >= extent:
        yield 0, end
        return
    count = floor_div(end + (step - 1), step)
    with loop(emitter, "task", (0, count), LoopKind.PARALLEL) as number:
        start = number * step
        yield start, minimum(start + step, end)
