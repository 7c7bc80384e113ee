"""The statements of a task as those of each thread of a block.

A vector loop is divided among the threads (`chunks`; where that cannot be, iteration `i` goes to
thread `i % threads`).  Statements
outside of vector loops are executed by all threads alike, each on registers of its own, but for
stores to memory, which one thread does.  What a vector loop reduces into a register becomes a
partial result of each thread; these are combined in a fixed order (`combining`), and then the
register has the same value in all threads again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from mapsto.lowering.gpu.chunks import Rows
from mapsto.lowering.gpu.combining import Combiner
from mapsto.lowering.gpu.names import Names
from mapsto.lowering.gpu.totals import find_totals, into
from mapsto.lowering.gpu.turns import upper_bounds
from mapsto.lowering.indices import Index
from mapsto.lowering.loop_rewrite import Rewriter
from mapsto.lowering.loops import (
    Allocate,
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

__all__ = ["ThreadMapper"]


class ThreadMapper:
    """Maps the statements of one task to threads, whose vector loops are divided as `rows` say."""

    def __init__(self, rows: Rows, combiner: Combiner, names: Names) -> None:
        self.rows, self.thread, self.count = rows, rows.thread, rows.count
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
            case Allocate(buffer) if buffer.name in self.rows.registers:
                yield Allocate(self.rows.registers[buffer.name])
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

    def _in_common(self, loop: For) -> Iterator[Statement]:
        """A loop that all threads go through together."""
        kind = LoopKind.SERIAL if loop.kind is LoopKind.PARALLEL else loop.kind
        yield replace(loop, kind=kind, body=self.block(loop.body))

    def _combined(
        self, loop: For, map_loop: Callable[[For], Iterable[Statement]]
    ) -> Iterator[Statement]:
        """A loop with partial results of what it only reduces into, combined after it."""
        totals = find_totals(loop, frozenset(self.parts)) if self.count > 1 else []
        if not totals:
            yield from map_loop(loop)
            return
        partials = [self.combiner.partial(total, self.names) for total in totals]
        for partial in partials:
            yield from partial.declaration()
        self.parts.update(partial.buffer.name for partial in partials)
        yield from map_loop(replace(loop, body=into(partials, loop.body)))
        yield from self.combiner.combine(partials, self.names)

    def _share(self, loop: For) -> Iterator[Statement]:
        """The iterations of one thread: a loop, unless there is one at most."""
        chunks = self.rows.chunks(loop)
        if chunks is not None:
            yield chunks.share(loop, self.names.fresh("lane"), self.rows.registers)
            return
        first = loop.start + self.thread
        conditions = _conditions(loop.start, loop.stop, first, self.count)
        if conditions is None:
            kind, step = LoopKind.SERIAL, self.count
            yield For(loop.variable, first, loop.stop, loop.body, kind, step=step)
            return
        body = Rewriter({loop.variable: first}).block(loop.body)
        condition = all_of(*conditions)
        once = If(condition, body) if condition is not None else None
        yield once or For(self.names.fresh("once"), 0, 1, body, LoopKind.UNROLL)


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
