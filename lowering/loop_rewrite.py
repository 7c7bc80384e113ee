"""Rebuilding statements of the loop IR with other indices and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from mapsto.lowering.index_facts import simplify_index
from mapsto.lowering.indices import Atom, Index, ValueOf, atom_index, map_atoms
from mapsto.lowering.loops import (
    Allocate,
    Apply,
    AsyncCopy,
    Buffer,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoadMatrix,
    MatrixMultiply,
    Prefetch,
    Reduce,
    Shuffle,
    Statement,
    Store,
)

__all__ = ["Access", "Rewriter"]

Access = tuple[Buffer, tuple[Index, ...]]
"""A buffer and where in it."""


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Puts indices in place of loop variables, and accesses in place of those of some buffers.

    `variables` are by name; `buffers` give, by a buffer's name, the new access from the new indices
    of an old one; of variables in `ranges` the least and the greatest value are known, and what
    this decides in indices is decided.  Names that are bound inside must not be among them.
    """

    variables: Mapping[str, Index] = field(default_factory=dict)
    buffers: Mapping[str, Callable[[tuple[Index, ...]], Access]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def block(self, body: Iterable[Statement]) -> tuple[Statement, ...]:
        """The statements, rebuilt, without declarations of the buffers that are replaced."""
        kept = (s for s in body if not (isinstance(s, Allocate) and s.buffer.name in self.buffers))
        return tuple(map(self.statement, kept))

    def statement(self, statement: Statement) -> Statement:
        """A statement, rebuilt."""
        match statement:
            case Store() | Reduce():
                buffer, indices = self._access(statement.buffer, statement.indices)
                value, guard = self.expression(statement.value), self._guard(statement.guard)
                return replace(statement, buffer=buffer, indices=indices, value=value, guard=guard)
            case Let(name, value):
                return Let(name, self.expression(value))
            case If(condition, then, otherwise):
                return If(self.expression(condition), self.block(then), self.block(otherwise))
            case Prefetch():
                access = self._access(statement.buffer, statement.indices)
                return Prefetch(*access, statement.writes)
            case AsyncCopy(source=source):
                buffer, indices = self._access(statement.buffer, statement.indices)
                load = self.expression(source)
                assert isinstance(load, Load), "as it was"
                return replace(statement, buffer=buffer, indices=indices, source=load)
            case LoadMatrix() | MatrixMultiply():
                return self._matrices(statement)
            case For(start=start, stop=stop, body=body):
                start, stop = self.index(start), self.index(stop)
                return replace(statement, start=start, stop=stop, body=self.block(body))
        return statement

    def _matrices(self, statement: LoadMatrix | MatrixMultiply) -> Statement:
        if isinstance(statement, LoadMatrix):
            target = self._access(statement.buffer, statement.indices)
            source = self._access(statement.source, statement.source_indices)
            return LoadMatrix(*target, *source, statement.transposed)
        sums = self._access(statement.sums, statement.sums_indices)
        left = self._access(statement.left, statement.left_indices)
        right = self._access(statement.right, statement.right_indices)
        return MatrixMultiply(*sums, *left, *right, statement.shape)

    def expression(self, expression: Expression) -> Expression:
        """An expression, rebuilt."""
        match expression:
            case Load(buffer, indices, guard, otherwise):
                return Load(*self._access(buffer, indices), self._guard(guard), otherwise)
            case IndexValue(index, dtype):
                return IndexValue(self.index(index), dtype)
            case Apply(op, operands, dtype):
                return Apply(op, tuple(map(self.expression, operands)), dtype)
            case Shuffle(value):
                return replace(expression, value=self.expression(value))
        return expression

    def index(self, index: Index) -> Index:
        """An index, rebuilt."""

        def atom(old: Atom) -> Index | None:
            if isinstance(old, ValueOf):
                return atom_index(ValueOf(self.expression(old.expression)))
            return self.variables.get(old) if isinstance(old, str) else None

        mapped = map_atoms(index, atom)
        return simplify_index(mapped, self.ranges) if self.ranges else mapped

    def _guard(self, guard: Expression | None) -> Expression | None:
        return None if guard is None else self.expression(guard)

    def _access(self, buffer: Buffer, indices: tuple[Index, ...]) -> Access:
        placed = tuple(map(self.index, indices))
        found = self.buffers.get(buffer.name)
        return (buffer, placed) if found is None else found(placed)
