"""A kernel's loop function as launches, and where its scratch memory goes.

Blocks of a grid cannot wait for each other, so each parallel loop is a launch of its own, and so
are the statements between two of them.  What is bound before and used in a launch is bound in it
again.  Local buffers outside of parallel loops are scratch memory that all launches have in common.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mapsto.lowering.loop_walk import free_names, statements, stored_buffers, subexpressions
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Comment,
    For,
    Let,
    Load,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
)

__all__ = ["Launch", "split_launches"]

_GRIDS = (LoopKind.PARALLEL, LoopKind.BLOCK)


@dataclass(frozen=True, slots=True)
class Launch:
    """Statements for one grid: what is bound first, then a loop over blocks or plain statements."""

    lets: tuple[Let, ...]
    body: tuple[Statement, ...]

    @property
    def loop(self) -> For | None:
        """The loop over tasks or blocks, if that is what it is."""
        (first, *rest) = self.body
        is_loop = isinstance(first, For) and first.kind in _GRIDS and not rest
        return first if is_loop and isinstance(first, For) else None


def split_launches(body: Sequence[Statement]) -> tuple[tuple[Launch, ...], tuple[Buffer, ...]]:
    """The launches of a kernel, in order, and the scratch buffers that they have in common.

    Raises ValueError where what was bound before one launch would have changed in a later one.
    """
    common = tuple(s.buffer for s in body if isinstance(s, Allocate) and _is_local(s.buffer))
    splitter = _Splitter()
    for statement in body:
        if not (isinstance(statement, Allocate) and _is_local(statement.buffer)):
            splitter.add(statement)
    splitter.close()
    return tuple(splitter.launches), common


def _is_local(buffer: Buffer) -> bool:
    return buffer.space is Space.LOCAL


@dataclass(slots=True)
class _Splitter:
    """Gathers statements until a loop over tasks comes."""

    launches: list[Launch] = field(default_factory=list)
    bound: list[Let] = field(default_factory=list)
    plain: list[Statement] = field(default_factory=list)
    written: set[str] = field(default_factory=set)

    def add(self, statement: Statement) -> None:
        """The next statement."""
        if isinstance(statement, For) and statement.kind in _GRIDS:
            self.close()
            self._launch((statement,))
        else:
            self.plain.append(statement)

    def close(self) -> None:
        """Ends a run of plain statements."""
        plain, self.plain = self.plain, []
        if any(isinstance(s, Store | Reduce) for s in statements(plain)):
            self._launch(tuple(plain))
        self.bound += [s for s in plain if isinstance(s, Let)]

    def _launch(self, body: tuple[Statement, ...]) -> None:
        lets = tuple(self._needed(body))
        for let in lets:
            read = {e.buffer.name for e in subexpressions(let.value) if isinstance(e, Load)}
            if read & self.written:
                raise ValueError(f"`{let.name}` is used in a launch after its buffer was written")
        self.launches.append(Launch(lets, tuple(s for s in body if not isinstance(s, Comment))))
        self.written |= stored_buffers(body)

    def _needed(self, body: tuple[Statement, ...]) -> Iterator[Let]:
        """What is bound before and used in these statements, in order."""
        names = set(free_names(body).lets)
        chosen: list[Let] = []
        for let in reversed(self.bound):
            if let.name in names:
                chosen.append(let)
                names |= set(free_names((let,)).lets)
        return reversed(chosen)
