"""The few iterations of a thread laid out, so that what they read is under way at the same time.

    for j in thread..768 step 128 {          for j in 0..6 unroll {
      total[] += x0[row, j]                    total[] += x0[row, thread + 128*j]
    }                                        }

It comes last: where barriers stand was found from loops in steps of the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mapsto.lowering.gpu.accesses import in_step
from mapsto.lowering.indices import Composite, Index, IndexExpression, linear_parts, variable
from mapsto.lowering.loop_rewrite import Rewriter
from mapsto.lowering.loops import (
    For,
    If,
    LoopKind,
    Statement,
    all_of,
    compare,
)

__all__ = ["MOST_TURNS", "largest_extent", "lay_out_turns", "upper_bounds"]

MOST_TURNS = 8
"""Iterations of a thread that are laid out."""


def upper_bounds(stop: Index) -> Sequence[Index]:
    """The indices of which the stop of a loop is the least."""
    if isinstance(stop, IndexExpression) and len(stop.terms) == 1:
        ((monomial, coefficient),) = stop.terms
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Composite):
            atom = monomial[0]
            if atom.kind == "min":
                return [*upper_bounds(atom.left), *upper_bounds(atom.right)]
    return [stop]


def largest_extent(loop: For) -> int | None:
    """The most iterations that a loop can have, where that is known."""
    extents = [bound - loop.start for bound in upper_bounds(loop.stop)]
    return min((extent for extent in extents if isinstance(extent, int)), default=None)


def lay_out_turns(body: Iterable[Statement], thread: str, count: int) -> tuple[Statement, ...]:
    """The statements of a thread, of which there are `count`, with short loops laid out."""
    return tuple(new for statement in body for new in _laid_out(statement, thread, count))


def _laid_out(statement: Statement, thread: str, count: int) -> Iterator[Statement]:
    match statement:
        case If(condition, then, otherwise):
            parts = (lay_out_turns(part, thread, count) for part in (then, otherwise))
            yield If(condition, *parts)
        case For() if in_step(statement, thread, count):
            yield from _turns(statement, thread)
        case For(body=body):
            yield replace(statement, body=lay_out_turns(body, thread, count))
        case _:
            yield statement


def _turns(loop: For, thread: str) -> Iterator[Statement]:
    """The turns that all threads have, and those that some may have."""
    parts, step = linear_parts(loop.start, thread), loop.step
    assert parts is not None, "the loop starts at a multiple of the thread's number"
    bounds, first = upper_bounds(loop.stop), parts[1]
    extents = [bound - first for bound in bounds]
    known = [extent for extent in extents if isinstance(extent, int)]
    if not known or min(known) > MOST_TURNS * step:
        yield loop
        return
    turns = max(0, -(-min(known) // step))
    whole = max(0, min(known) // step) if len(known) == len(extents) else 0
    index = loop.start + variable(loop.variable) * step
    body = Rewriter({loop.variable: index}).block(loop.body)
    if whole:
        yield For(loop.variable, 0, whole, body, LoopKind.UNROLL)
    if turns > whole:
        inside = all_of(*(compare("lt", index, bound) for bound in bounds))
        assert inside is not None, "a loop has a bound"
        yield For(loop.variable, whole, turns, (If(inside, body),), LoopKind.UNROLL)
