"""The few iterations of a thread laid out, so that what they read is under way at the same time.

    for j in thread..768 step 128 {          for j in 0..6 unroll {
      total[] += x0[row, j]                    total[] += x0[row, thread + 128*j]
    }                                        }

It comes last: where barriers stand was found from loops in steps of the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from mapsto.lowering.gpu.accesses import in_step
from mapsto.lowering.gpu.threads import upper_bounds
from mapsto.lowering.indices import variable
from mapsto.lowering.loop_rewrite import Rewriter
from mapsto.lowering.loops import (
    For,
    If,
    LoopKind,
    Statement,
    all_of,
    compare,
)

__all__ = ["MOST_TURNS", "lay_out_turns"]

MOST_TURNS = 8
"""Iterations of a thread that are laid out."""


def lay_out_turns(body: Iterable[Statement], thread: str, count: int) -> tuple[Statement, ...]:
    """The statements of a thread, of which there are `count`, with short loops laid out."""
    return tuple(new for statement in body for new in _laid_out(statement, thread, count))


def _laid_out(statement: Statement, thread: str, count: int) -> Iterator[Statement]:
    match statement:
        case If(condition, then, otherwise):
            parts = (lay_out_turns(part, thread, count) for part in (then, otherwise))
            yield If(condition, *parts)
        case For() if in_step(statement, thread, count):
            yield from _turns(statement, thread, count)
        case For(body=body):
            yield replace(statement, body=lay_out_turns(body, thread, count))
        case _:
            yield statement


def _turns(loop: For, thread: str, count: int) -> Iterator[Statement]:
    """The turns that all threads have, and those that some may have."""
    bounds, first = upper_bounds(loop.stop), loop.start - variable(thread)
    extents = [bound - first for bound in bounds]
    known = [extent for extent in extents if isinstance(extent, int)]
    if not known or min(known) > MOST_TURNS * count:
        yield loop
        return
    turns = max(0, -(-min(known) // count))
    whole = max(0, min(known) // count) if len(known) == len(extents) else 0
    body = Rewriter({loop.variable: loop.start + variable(loop.variable) * count}).block(loop.body)
    if whole:
        yield For(loop.variable, 0, whole, body, LoopKind.UNROLL)
    if turns > whole:
        index = loop.start + variable(loop.variable) * count
        inside = all_of(*(compare("lt", index, bound) for bound in bounds))
        assert inside is not None, "a loop has a bound"
        yield For(loop.variable, whole, turns, (If(inside, body),), LoopKind.UNROLL)
