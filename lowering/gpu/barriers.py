"""Where threads of a block have to wait for each other.

Between two barriers no element may be written by one thread and touched by another.  The pass walks
through the statements that all threads come to, with what was touched since the last barrier, and
puts a barrier before a statement that could race with that.  A barrier that a loop needs for what
was before stands before it.  A loop is walked again with what its end leaves, until nothing is new:
what comes last in one iteration may race with what comes first in the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mapsto.lowering.gpu.accesses import Access, BlockMemory, mentions
from mapsto.lowering.loops import Barrier, For, If, Statement

__all__ = ["BarrierInsertion"]

Pending = frozenset[Access]
"""What was touched since the last barrier."""


class BarrierInsertion:
    """Inserts barriers into what the threads of a block execute.

    Statements that depend on the number of the thread are taken as a whole: no barrier goes inside,
    and what threads do in it must not depend on each other.
    """

    def __init__(self, memory: BlockMemory) -> None:
        self.memory = memory

    def run(self, body: Iterable[Statement]) -> tuple[Statement, ...]:
        """The statements with barriers."""
        return self._block(body, frozenset())[0]

    def _block(
        self, body: Iterable[Statement], pending: Pending
    ) -> tuple[tuple[Statement, ...], Pending]:
        result: list[Statement] = []
        for statement in body:
            before = self._before(statement)
            everything = isinstance(statement, For)
            touched = frozenset(self.memory.accesses(statement)) if everything else before
            if _race(touched, pending):
                result.append(Barrier())
                pending = frozenset()
            rebuilt, pending = self._statement(statement, pending | before)
            result.append(rebuilt)
        return tuple(result), pending

    def _is_common(self, statement: Statement) -> bool:
        """Whether a loop or branch takes all threads the same way."""
        return isinstance(statement, For | If) and not mentions(self.memory.thread, statement)

    def _before(self, statement: Statement) -> Pending:
        """What a statement touches before a barrier could stand inside of it."""
        if self._is_common(statement):
            return frozenset(self.memory.direct(statement))
        return frozenset(self.memory.accesses(statement))

    def _statement(self, statement: Statement, pending: Pending) -> tuple[Statement, Pending]:
        if isinstance(statement, Barrier):
            return statement, frozenset()
        if not self._is_common(statement):
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


def _race(accesses: Pending, pending: Pending) -> bool:
    return any(access.races(other) for access in accesses for other in pending)
