"""Which values differ between the threads of a block, and what they must not decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mapsto.lowering.indices import Index, ValueOf, atoms
from mapsto.lowering.loop_walk import direct_expressions, direct_indices, subexpressions
from mapsto.lowering.loops import (
    Barrier,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoadMatrix,
    LoopKind,
    MatrixMultiply,
    Reduce,
    Ref,
    Shuffle,
    Space,
    Statement,
    Store,
)

__all__ = ["divergent_meetings"]


def divergent_meetings(body: tuple[Statement, ...], threads: int, warp: int) -> list[Statement]:
    """The barriers, shuffles and matrix operations that some threads may not come to.

    A value differs between threads if it is made from the number of the thread: directly, through a
    register that is written with such a value or where only some threads come, or by a shuffle.
    What is read from memory, where all threads read the same element, is the same.
    """
    values = _Values(one_warp=threads <= warp)
    size = -1
    while size != len(values.differing):
        size = len(values.differing)
        list(values.walk(body, False))
    return list(values.walk(body, False))


@dataclass(slots=True)
class _Values:
    """`differing`: names of variables, `Let`s and registers that differ between threads."""

    one_warp: bool
    differing: set[str] = field(default_factory=set)

    def walk(self, body: Iterable[Statement], divergent: bool) -> Iterator[Statement]:
        """Notes what differs; gives the meetings in places where only some threads may come."""
        for statement in body:
            if divergent and _is_meeting(statement):
                yield statement
            inside = divergent or self._decides(statement)
            match statement:
                case Let(name, value):
                    self._note(name, self.differs(value))
                case Store() | Reduce() if statement.buffer.space is Space.REGISTER:
                    self._note(statement.buffer.name, inside)
                case For(variable=name, kind=kind):
                    self._note(name, kind is LoopKind.THREAD or inside)
                    inside = inside and kind is not LoopKind.THREAD
                    yield from self.walk(statement.body, inside)
                case If(then=then, otherwise=otherwise):
                    yield from self.walk((*then, *otherwise), inside)

    def _note(self, name: str, differs: bool) -> None:
        if differs:
            self.differing.add(name)

    def _decides(self, statement: Statement) -> bool:
        """Whether something that a statement itself holds differs between threads."""
        return any(map(self.differs, direct_expressions(statement))) or any(
            map(self._index_differs, direct_indices(statement))
        )

    def differs(self, expression: Expression) -> bool:
        """Whether the value of an expression differs between threads."""
        return any(map(self._part_differs, subexpressions(expression)))

    def _part_differs(self, part: Expression) -> bool:
        match part:
            case Ref(name):
                return name in self.differing
            case IndexValue(index):
                return self._index_differs(index)
            case Load(buffer, indices):
                return buffer.name in self.differing or any(map(self._index_differs, indices))
            case Shuffle(_, _, across):
                return across or not self.one_warp
        return False

    def _index_differs(self, index: Index) -> bool:
        return any(
            self.differs(atom.expression) if isinstance(atom, ValueOf) else atom in self.differing
            for atom in atoms(index)
        )


def _is_meeting(statement: Statement) -> bool:
    shuffles = isinstance(statement, Let) and isinstance(statement.value, Shuffle)
    return shuffles or isinstance(statement, Barrier | LoadMatrix | MatrixMultiply)
