"""The statements of a task as those of each thread of a block.

A vector loop is divided among the threads, iteration `i` going to thread `i % threads`.  Statements
outside of vector loops are executed by all threads alike, each on registers of its own, but for
stores to memory, which one thread does.  What a vector loop reduces into a register becomes a
partial result of each thread; these are combined in a fixed order (`combining`), and then the
register has the same value in all threads again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from mapsto.lowering.gpu.combining import Combiner
from mapsto.lowering.gpu.names import Names
from mapsto.lowering.gpu.totals import find_totals, into
from mapsto.lowering.indices import Composite, Index, IndexExpression, variable
from mapsto.lowering.loop_rewrite import Rewriter
from mapsto.lowering.loops import (
    Comment,
    Expression,
    For,
    If,
    LoopKind,
    Prefetch,
    Reduce,
    Space,
    Statement,
    Store,
    all_of,
    compare,
)

__all__ = ["ThreadMapper", "largest_extent", "upper_bounds"]


class ThreadMapper:
    """Maps the statements of one task to `count` threads, of which `thread` is the number."""

    def __init__(self, thread: str, count: int, combiner: Combiner, names: Names) -> None:
        self.thread, self.count = variable(thread), count
        self.first = compare("eq", self.thread, 0)
        self.combiner = combiner
        self.names = names
        self.parts: set[str] = set()

    def block(self, body: Iterable[Statement]) -> tuple[Statement, ...]:
        """The statements of a block of statements that all threads come to."""
        mapped = [new for statement in body for new in self._statement(statement)]
        return tuple(_together(mapped, self.first))

    def _statement(self, statement: Statement) -> Iterator[Statement]:
        match statement:
            case Store() | Reduce() if statement.buffer.space is not Space.REGISTER:
                yield self._alone(statement)
            case If(condition, then, otherwise):
                yield If(condition, self.block(then), self.block(otherwise))
            case For(kind=LoopKind.VECTOR):
                yield from self._combined(statement, self._share)
            case For() if statement.stop - statement.start == 1:
                once = Rewriter({statement.variable: statement.start}).block(statement.body)
                yield from self.block(once)
            case For():
                yield from self._combined(statement, self._in_common)
            case Prefetch() | Comment():
                return
            case _:
                yield statement

    def _alone(self, statement: Statement) -> Statement:
        """What one thread does."""
        if self.count == 1:
            return statement
        return If(self.first, (statement,))

    # ---- loops

    def _in_common(self, loop: For) -> Statement:
        """A loop that all threads go through together."""
        kind = LoopKind.SERIAL if loop.kind is LoopKind.PARALLEL else loop.kind
        return replace(loop, kind=kind, body=self.block(loop.body))

    def _combined(self, loop: For, map_loop: Callable[[For], Statement]) -> Iterator[Statement]:
        """A loop with partial results of what it only reduces into, combined after it."""
        totals = find_totals(loop, frozenset(self.parts)) if self.count > 1 else []
        if not totals:
            yield map_loop(loop)
            return
        partials = [self.combiner.partial(total, self.names) for total in totals]
        for partial in partials:
            yield from partial.declaration()
        self.parts.update(partial.buffer.name for partial in partials)
        yield map_loop(replace(loop, body=into(partials, loop.body)))
        yield from self.combiner.combine(partials, self.names)

    def _share(self, loop: For) -> Statement:
        """The iterations of one thread: a loop, unless there is one at most."""
        first = loop.start + self.thread
        conditions = _conditions(loop.start, loop.stop, first, self.count)
        if conditions is None:
            kind, step = LoopKind.SERIAL, self.count
            return For(loop.variable, first, loop.stop, loop.body, kind, step=step)
        body = Rewriter({loop.variable: first}).block(loop.body)
        condition = all_of(*conditions)
        once = If(condition, body) if condition is not None else None
        return once or For(self.names.fresh("once"), 0, 1, body, LoopKind.UNROLL)


def _conditions(start: Index, stop: Index, index: Index, count: int) -> list[Expression] | None:
    """What says that a thread has an iteration, where none can have a second; else None."""
    bounds = upper_bounds(stop)
    extents = [bound - start for bound in bounds]
    known = [extent for extent in extents if isinstance(extent, int)]
    if not known or min(known) > count:
        return None
    return [
        compare("lt", index - start, extent) if extent in known else compare("lt", index, bound)
        for bound, extent in zip(bounds, extents, strict=True)
        if not (isinstance(extent, int) and extent >= count)
    ]


def largest_extent(loop: For) -> int | None:
    """The most iterations that a loop can have, where that is known."""
    extents = [bound - loop.start for bound in upper_bounds(loop.stop)]
    return min((extent for extent in extents if isinstance(extent, int)), default=None)


def upper_bounds(stop: Index) -> Sequence[Index]:
    """The indices of which the stop is the least."""
    if isinstance(stop, IndexExpression) and len(stop.terms) == 1:
        ((monomial, coefficient),) = stop.terms
        if coefficient == 1 and len(monomial) == 1 and isinstance(monomial[0], Composite):
            atom = monomial[0]
            if atom.kind == "min":
                return [*upper_bounds(atom.left), *upper_bounds(atom.right)]
    return [stop]


def _together(body: Iterable[Statement], condition: Expression) -> Iterator[Statement]:
    """The statements, with neighbours under this condition in one block."""
    held: tuple[Statement, ...] = ()
    for statement in body:
        if isinstance(statement, If) and statement.condition == condition:
            held += statement.then
            continue
        if held:
            yield If(condition, held)
        held = ()
        yield statement
    if held:
        yield If(condition, held)
