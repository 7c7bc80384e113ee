"""Where threads of a block have to wait for each other, and whether they do.

Between two barriers no element may be written by one thread and touched by another.  An `Intervals`
walks through the statements that all threads come to, with what was touched since the last barrier.
A loop is walked again with what its end leaves, until nothing is new: what comes last in one
iteration may race with what comes first in the next.

`BarrierInsertion` puts a barrier before each statement that could race with what was before; one
that a loop needs stands before the loop.  `RaceSearch` lists what it cannot prove to be no race.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations_with_replacement

from mapsto.lowering.gpu.accesses import Access, BlockMemory, mentions, static_loops
from mapsto.lowering.loops import Barrier, For, If, Statement

__all__ = ["BarrierInsertion", "RaceSearch"]

Pending = frozenset[Access]
"""What was touched since the last barrier."""
Pair = tuple[Access, Access]


class Intervals:
    """Walks through what the threads of a block execute.

    Statements that depend on the number of the thread are taken as a whole: no barrier is inside.
    """

    def __init__(self, memory: BlockMemory) -> None:
        self.memory = memory

    def separates(self, statement: Statement, before: Pending, pending: Pending) -> bool:
        """Whether to put a barrier before a statement that touches `before` at first."""
        raise NotImplementedError

    def run(self, body: Iterable[Statement]) -> tuple[Statement, ...]:
        """The statements, with the barriers that were put between them."""
        body = tuple(body)
        self.memory = replace(self.memory, lanes=static_loops(body))
        return self._block(body, frozenset())[0]

    def _block(
        self, body: Iterable[Statement], pending: Pending
    ) -> tuple[tuple[Statement, ...], Pending]:
        result: list[Statement] = []
        for statement in body:
            before = self._before(statement)
            if self.separates(statement, before, pending):
                result.append(Barrier())
                pending = frozenset()
            rebuilt, pending = self._statement(statement, pending | before)
            result.append(rebuilt)
        return tuple(result), pending

    def is_common(self, statement: Statement) -> bool:
        """Whether a loop or branch takes all threads the same way."""
        return isinstance(statement, For | If) and not mentions(self.memory.thread, statement)

    def _before(self, statement: Statement) -> Pending:
        """What a statement touches before a barrier could stand inside of it."""
        if self.is_common(statement):
            return frozenset(self.memory.direct(statement))
        return frozenset(self.memory.accesses(statement))

    def _statement(self, statement: Statement, pending: Pending) -> tuple[Statement, Pending]:
        if isinstance(statement, Barrier):
            return statement, frozenset()
        if not self.is_common(statement):
            return statement, pending
        if isinstance(statement, If):
            then, after = self._block(statement.then, pending)
            otherwise, after_otherwise = self._block(statement.otherwise, pending)
            return If(statement.condition, then, otherwise), after | after_otherwise
        assert isinstance(statement, For)
        return self._loop(statement, pending)

    def _loop(self, loop: For, pending: Pending) -> tuple[Statement, Pending]:
        entry = pending
        if loop.stop - loop.start == 1:
            body, after = self._block(loop.body, entry)
            return replace(loop, body=body), after
        while True:
            body, after = self._block(loop.body, entry)
            if after <= entry:
                return replace(loop, body=body), pending | after
            entry = entry | after


class BarrierInsertion(Intervals):
    """Inserts the barriers that a kernel needs."""

    def separates(self, statement: Statement, before: Pending, pending: Pending) -> bool:
        touched = before
        if isinstance(statement, For):
            touched = frozenset(self.memory.accesses(statement))
        return any(True for _ in _races(touched, pending))


class RaceSearch(Intervals):
    """Finds pairs of accesses that may be a race, in `found`."""

    def __init__(self, memory: BlockMemory) -> None:
        super().__init__(memory)
        self.found: dict[Pair, None] = {}

    def separates(self, statement: Statement, before: Pending, pending: Pending) -> bool:
        """No: it notes the races with what was before, and those of threads in the statement."""
        self.found.update(dict.fromkeys(_races(before, pending)))
        if not self.is_common(statement):
            pairs = combinations_with_replacement(sorted(before, key=str), 2)
            self.found.update(dict.fromkeys((a, b) for a, b in pairs if a.races(b)))
        return False


def _races(accesses: Pending, pending: Pending) -> Iterator[Pair]:
    for access in accesses:
        for other in pending:
            if access.races(other):
                yield other, access
