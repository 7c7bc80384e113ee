"""The registers that threads reduce into, each having a partial result of its own meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from mapsto.lowering.indices import atoms
from mapsto.lowering.loop_walk import expressions, statements
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    If,
    Load,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
    constant,
)
from mapsto.lowering.scalar_operations import identity

__all__ = ["Partial", "Total", "find_totals", "into"]


@dataclass(frozen=True, slots=True)
class Total:
    """A register that threads reduce into, and the operation."""

    buffer: Buffer
    op: str


@dataclass(frozen=True, slots=True)
class Partial:
    """A thread's part of a total."""

    total: Total
    buffer: Buffer

    @property
    def places(self) -> Iterator[tuple[int, ...]]:
        """The indices of all elements."""
        return product(*(range(dim) for dim in self.buffer.shape if isinstance(dim, int)))

    def declaration(self) -> Iterator[Statement]:
        """The statements that make it nothing at first."""
        yield Allocate(self.buffer)
        start = constant(identity(self.total.op, self.buffer.dtype), self.buffer.dtype)
        for place in self.places:
            yield Store(self.buffer, place, start)


def find_totals(loop: For, parts: frozenset[str]) -> list[Total]:
    """The registers from outside that a loop does nothing with but reduce into them, by one
    operation, in vector loops, at places that are known once loops are laid out; `parts` are those
    that are partial results already.

    Raises ValueError where a vector loop writes a register otherwise.
    """
    inside = {s.buffer.name for s in statements(loop.body) if isinstance(s, Allocate)}
    loops = [loop, *(s for s in statements(loop.body) if isinstance(s, For))]
    variables = {each.variable for each in loops if each.kind is not LoopKind.UNROLL}
    read = {e.buffer.name for e in expressions(loop.body) if isinstance(e, Load)}
    found: dict[str, Total | None] = {}
    for write, in_vector in _register_writes((loop,), False):
        name = write.buffer.name
        if name in inside or name in parts:
            continue
        total = Total(write.buffer, write.op) if isinstance(write, Reduce) and in_vector else None
        varies = any(v in atoms(index) for index in write.indices for v in variables)
        plain = not varies and name not in read and found.setdefault(name, total) == total
        found[name] = total if plain else None
        if found[name] is None and loop.kind is LoopKind.VECTOR:
            raise ValueError(
                f"the vector loop over `{loop.variable}` writes the register `{name}`: "
                "threads can only reduce into it, by one operation"
            )
    return [total for total in found.values() if total is not None]


def _register_writes(
    body: Iterable[Statement], in_vector: bool
) -> Iterator[tuple[Store | Reduce, bool]]:
    """The writes of registers, and whether a vector loop is around them."""
    for statement in body:
        match statement:
            case Store() | Reduce() if statement.buffer.space is Space.REGISTER:
                yield statement, in_vector
            case For(kind=kind, body=inner):
                yield from _register_writes(inner, in_vector or kind is LoopKind.VECTOR)
            case If(then=then, otherwise=otherwise):
                yield from _register_writes((*then, *otherwise), in_vector)


def into(partials: Sequence[Partial], body: Iterable[Statement]) -> tuple[Statement, ...]:
    """The statements with reductions into partial results."""
    targets = {partial.total.buffer.name: partial.buffer for partial in partials}

    def redirected(statement: Statement) -> Statement:
        match statement:
            case Reduce() if statement.buffer.name in targets:
                return replace(statement, buffer=targets[statement.buffer.name])
            case For():
                return replace(statement, body=tuple(map(redirected, statement.body)))
            case If(condition, then, otherwise):
                return If(
                    condition, tuple(map(redirected, then)), tuple(map(redirected, otherwise))
                )
        return statement

    return tuple(map(redirected, body))
