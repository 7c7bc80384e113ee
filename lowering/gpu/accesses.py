"""Which memory the threads of a block touch, and which thread touches an element.

An `Access` may have an owner: a form of its index that tells the thread.  Two accesses of one form
touch the same element only in the same thread, so they never race:

- `thread + c` along some axis, or as the flat index of all axes, and what a loop from there in
  steps of the number of threads reads (the form is the index in its first round);
- everything in statements that one thread executes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mapsto.lowering.indices import (
    Index,
    atoms,
    flat_offset,
    folded,
    linear_parts,
    substitute_index,
    variable,
)
from mapsto.lowering.loop_walk import direct_expressions, direct_indices, subexpressions
from mapsto.lowering.loops import (
    Apply,
    Buffer,
    Constant,
    Expression,
    For,
    If,
    IndexValue,
    Load,
    Reduce,
    Space,
    Statement,
    Store,
)

__all__ = ["Access", "BlockMemory", "in_step", "mentions"]


@dataclass(frozen=True, slots=True)
class Access:
    """A read or write of a buffer; `constant`: of a write of a literal, the literal."""

    buffer: Buffer
    indices: tuple[Index, ...]
    writes: bool
    owners: frozenset[Hashable] = frozenset()
    constant: Constant | None = None

    def races(self, other: Access) -> bool:
        """Whether two threads may touch the same element by these, one of them writing."""
        if not (self.writes or other.writes) or not _overlap(self.buffer, other.buffer):
            return False
        if self.constant is not None and self.constant == other.constant:
            return False
        return self.buffer.shape != other.buffer.shape or not self.owners & other.owners


def _overlap(a: Buffer, b: Buffer) -> bool:
    return a.name == b.name or (a.may_alias and b.may_alias)


def mentions(name: str, statement: Statement) -> bool:
    """Whether the condition or the bounds of a statement have the name in them."""
    found = any(name in atoms(index) for index in direct_indices(statement))
    return found or any(
        isinstance(part, IndexValue) and name in atoms(part.index)
        for expression in direct_expressions(statement)
        for part in subexpressions(expression)
    )


def in_step(loop: For, thread: str, count: int) -> bool:
    """Whether a loop starts at the thread's number, or that and more, and goes on in steps of the
    number of threads."""
    parts = linear_parts(loop.start, thread)
    return loop.step == count and parts is not None and parts[0] == 1


@dataclass(frozen=True, slots=True)
class BlockMemory:
    """What threads of a block have in common: `thread` is the variable of their number, `stable`
    the names that are the same throughout the block, `written` those of buffers that are written.
    """

    thread: str
    count: int
    stable: frozenset[str]
    written: frozenset[str]
    rounds: Mapping[str, Index] = field(default_factory=dict)
    alone: bool = False

    def accesses(self, statement: Statement) -> Iterator[Access]:
        """Those of a statement and all inside."""
        yield from self.direct(statement)
        match statement:
            case For(variable=name, start=start, body=body):
                inside = self
                if in_step(statement, self.thread, self.count):
                    inside = replace(self, rounds={**self.rounds, name: start})
                for nested in body:
                    yield from inside.accesses(nested)
            case If(condition, then, otherwise):
                alone = replace(self, alone=self.alone or self._is_first(condition))
                for nested in then:
                    yield from alone.accesses(nested)
                for nested in otherwise:
                    yield from self.accesses(nested)

    def direct(self, statement: Statement) -> Iterator[Access]:
        """Those of a statement itself."""
        for expression in direct_expressions(statement):
            yield from self._reads(expression)
        for index in direct_indices(statement):
            yield from self._reads(IndexValue(index))
        if isinstance(statement, Store | Reduce) and statement.buffer.space is not Space.REGISTER:
            literal = statement.value if isinstance(statement.value, Constant) else None
            constant = literal if isinstance(statement, Store) else None
            owners = self._owners(statement.buffer, statement.indices)
            yield Access(statement.buffer, statement.indices, True, owners, constant)
            if isinstance(statement, Reduce):
                yield Access(statement.buffer, statement.indices, False, owners)

    def _reads(self, expression: Expression) -> Iterator[Access]:
        for part in subexpressions(expression):
            if isinstance(part, Load) and self._matters(part.buffer):
                owners = self._owners(part.buffer, part.indices)
                yield Access(part.buffer, part.indices, False, owners)

    def _matters(self, buffer: Buffer) -> bool:
        return buffer.space is not Space.REGISTER and (
            buffer.name in self.written or buffer.may_alias
        )

    def _is_first(self, condition: Expression) -> bool:
        """Whether only thread 0 has the condition."""
        match condition:
            case Apply("eq", (IndexValue(index), IndexValue(0))):
                return index == variable(self.thread)
        return False

    def _owners(self, buffer: Buffer, indices: tuple[Index, ...]) -> frozenset[Hashable]:
        if self.alone:
            return frozenset({"alone"})
        first = [substitute_index(index, self.rounds) for index in indices]
        flat = folded(flat_offset(first, buffer.shape))
        forms = {axis: index for axis, index in enumerate(first) if self._tells_thread(index)}
        if self._tells_thread(flat):
            forms[len(first)] = flat
        return frozenset(forms.items())

    def _tells_thread(self, index: Index) -> bool:
        """Whether an index is another one in each thread of a block."""
        parts = linear_parts(index, self.thread)
        varies = parts is not None and isinstance(parts[0], int) and parts[0] != 0
        return varies and all(isinstance(a, str) and self._is_stable(a) for a in atoms(index))

    def _is_stable(self, name: str) -> bool:
        return name == self.thread or name in self.stable or name.startswith("$")
