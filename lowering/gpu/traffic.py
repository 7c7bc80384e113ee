"""What the threads of a kernel do, counted from its loops: multiply-adds, and bytes they move.

It is the static half of a roofline: how many bytes cross from global memory, and from shared
memory, for each multiply-add of the schedule, before any machine runs it.  Every access counts,
also where threads read the same place (which a cache or a broadcast serves) and where a guard keeps
some from it, in tiles that stick out of the result.  Loops whose bounds depend on others are
counted as in the first iteration of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mapsto.lowering.indices import Atom, Composite, Index, map_atoms
from mapsto.lowering.loop_walk import direct_expressions, subexpressions
from mapsto.lowering.loops import (
    Apply,
    AsyncCopy,
    Buffer,
    Expression,
    For,
    If,
    Load,
    LoadMatrix,
    LoopFunction,
    MatrixMultiply,
    Reduce,
    Space,
    Statement,
    Store,
    is_product,
)

__all__ = ["Traffic", "traffic"]

_WARP = 32


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of all threads together: multiply-adds, and bytes read and written."""

    multiply_adds: int = 0
    global_read: int = 0
    global_written: int = 0
    shared_read: int = 0
    shared_written: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.multiply_adds + other.multiply_adds,
            self.global_read + other.global_read,
            self.global_written + other.global_written,
            self.shared_read + other.shared_read,
            self.shared_written + other.shared_written,
        )

    def times(self, count: int) -> Traffic:
        """Of so many iterations."""
        return Traffic(
            count * self.multiply_adds,
            count * self.global_read,
            count * self.global_written,
            count * self.shared_read,
            count * self.shared_written,
        )

    @property
    def global_bytes_each(self) -> float:
        """Bytes from and to global memory for each multiply-add."""
        return (self.global_read + self.global_written) / max(1, self.multiply_adds)

    @property
    def shared_bytes_each(self) -> float:
        """Bytes from and to shared memory for each multiply-add."""
        return (self.shared_read + self.shared_written) / max(1, self.multiply_adds)


def traffic(function: LoopFunction, sizes: Mapping[str, int]) -> Traffic:
    """What one launch of a mapped kernel moves and computes, for these sizes."""
    return _block(function.body, {f"${name}": value for name, value in sizes.items()})


def _block(body: Iterable[Statement], bindings: Mapping[str, int]) -> Traffic:
    return sum((_statement(statement, bindings) for statement in body), Traffic())


def _statement(statement: Statement, bindings: Mapping[str, int]) -> Traffic:
    match statement:
        case For():
            return _loop(statement, bindings)
        case If():
            inside = _expressions(statement) + _block(statement.then, bindings)
            return inside + _block(statement.otherwise, bindings)
        case LoadMatrix():
            # Each thread gets four times two elements.
            return _read(statement.source, 8)
        case MatrixMultiply():
            m, n, k = statement.shape
            return Traffic(multiply_adds=m * n * k // _WARP)
        case AsyncCopy():
            copied = _read(statement.source.buffer, statement.count)
            return copied + _written(statement.buffer, statement.count)
        case Reduce():
            return _reduction(statement)
        case Store():
            return _expressions(statement) + _written(statement.buffer, 1)
    return _expressions(statement)


def _loop(loop: For, bindings: Mapping[str, int]) -> Traffic:
    start, stop = _value(loop.start, bindings), _value(loop.stop, bindings)
    trips = max(0, -(-(stop - start) // loop.step))
    return _block(loop.body, {**bindings, loop.variable: start}).times(trips)


def _value(index: Index, bindings: Mapping[str, int]) -> int:
    def value(atom: Atom) -> int | None:
        if isinstance(atom, Composite):
            return None
        return bindings.get(atom, 0) if isinstance(atom, str) else 0

    result = map_atoms(index, value)
    return result if isinstance(result, int) else 0


def _reduction(statement: Reduce) -> Traffic:
    """A sum of products is a multiply-add each."""
    fused = statement.op == "add" and is_product(statement.value)
    total = _expressions(statement) + Traffic(multiply_adds=int(fused))
    if statement.buffer.space is Space.REGISTER:
        return total
    return total + _read(statement.buffer, 1) + _written(statement.buffer, 1)


def _expressions(statement: Statement) -> Traffic:
    parts = (p for e in direct_expressions(statement) for p in subexpressions(e))
    return sum((_expression(part) for part in parts), Traffic())


def _expression(expression: Expression) -> Traffic:
    if isinstance(expression, Load):
        return _read(expression.buffer, 1)
    if isinstance(expression, Apply) and expression.op == "fma":
        return Traffic(multiply_adds=1)
    return Traffic()


def _read(buffer: Buffer, count: int) -> Traffic:
    size = count * buffer.dtype.bytes
    if buffer.space is Space.SHARED:
        return Traffic(shared_read=size)
    return Traffic() if buffer.space is Space.REGISTER else Traffic(global_read=size)


def _written(buffer: Buffer, count: int) -> Traffic:
    size = count * buffer.dtype.bytes
    if buffer.space is Space.SHARED:
        return Traffic(shared_written=size)
    return Traffic() if buffer.space is Space.REGISTER else Traffic(global_written=size)
