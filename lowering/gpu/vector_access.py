"""Whether neighbouring elements can be read or written together: found from the code for one.

The accesses of a vector are those of `first + e` for `e` in `0..width`, where `first` is a multiple
of the width.  They are one access where the address moves by one element with `e` (or stays, in a
load), starts at a multiple of the vector's bytes, and the guard is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import gcd

from mapsto.ir.dims import Dim, product
from mapsto.lowering.index_facts import index_multiple
from mapsto.lowering.indices import (
    Atom,
    Composite,
    Index,
    atoms,
    flat_offset,
    linear_parts,
    substitute_index,
)
from mapsto.lowering.loop_walk import expressions, subexpressions
from mapsto.lowering.loops import (
    Apply,
    Buffer,
    Expression,
    IndexValue,
    Let,
    Load,
    Reduce,
    Space,
    Statement,
    Store,
)

__all__ = ["LARGEST_ACCESS", "buffer_alignment", "is_one_access", "vector_statements", "with_lane"]

LARGEST_ACCESS = 16
"""Bytes that a thread reads or writes in one access."""

_UNIFORM = frozenset({"lt", "ge"})
"""Comparisons `multiple + e op multiple` that hold for all `e` or for none."""


def buffer_alignment(buffer: Buffer) -> int:
    """The alignment of a buffer in bytes.

    Device memory is allocated in units that are aligned to more than the largest access, and what a
    step of a loop reads or writes of a sequence lies a multiple of its own size behind.
    """
    if buffer.alignment:
        return buffer.alignment
    return max(
        buffer.dtype.bytes,
        gcd(LARGEST_ACCESS, _multiple(product(buffer.shape)) * buffer.dtype.bytes),
    )


def _multiple(dim: Dim) -> int:
    """A number that divides the dimension (0 for 0)."""
    return dim if isinstance(dim, int) else gcd(*(c for _, c in dim.terms))


def with_lane(expression: Expression, lane: str, width: int) -> Expression | None:
    """The expression with the same guard in all lanes, or None where it is not one access."""
    match expression:
        case Load():
            return _vector_load(expression, lane, width)
        case Apply(op, operands, dtype):
            parts = [with_lane(operand, lane, width) for operand in operands]
            known = tuple(part for part in parts if part is not None)
            return Apply(op, known, dtype) if len(known) == len(parts) else None
    return expression


def vector_statements(
    body: Sequence[Statement], lane: str, width: int
) -> tuple[Statement, ...] | None:
    """Bindings and stores with the same guards in all lanes, or None where not all accesses of
    them are one access."""
    parts = [_vector_statement(statement, lane, width) for statement in body]
    known = tuple(part for part in parts if part is not None)
    return known if len(known) == len(parts) else None


def is_one_access(body: Sequence[Statement], lane: str, width: int) -> bool:
    """Whether every access to memory in statements of one block is one access, without guards."""
    accesses = [(e.buffer, e.indices, e.guard) for e in expressions(body) if isinstance(e, Load)]
    for statement in body:
        if isinstance(statement, Store | Reduce) and statement.buffer.space is not Space.REGISTER:
            accesses.append((statement.buffer, statement.indices, statement.guard))
    slopes = [_slope(buffer, indices, lane, width) for buffer, indices, _ in accesses]
    return None not in slopes and not any(guard for _, _, guard in accesses)


def _vector_statement(statement: Statement, lane: str, width: int) -> Statement | None:
    if not isinstance(statement, Let | Store):
        return None
    value = with_lane(statement.value, lane, width)
    if value is None:
        return None
    if isinstance(statement, Let):
        return replace(statement, value=value)
    slope = _slope(statement.buffer, statement.indices, lane, width)
    guard = None if statement.guard is None else _uniform(statement.guard, lane, width)
    if slope != 1 or (guard is None) != (statement.guard is None):
        return None
    return replace(statement, value=value, guard=guard)


def _vector_load(load: Load, lane: str, width: int) -> Load | None:
    if _slope(load.buffer, load.indices, lane, width) is None:
        return None
    if load.guard is None:
        return load
    guard = _uniform(load.guard, lane, width)
    return None if guard is None else Load(load.buffer, load.indices, guard, load.otherwise)


def _slope(buffer: Buffer, indices: Sequence[Index], lane: str, width: int) -> int | None:
    """By how much the address moves with the lane: 1 where it is one access, 0; None otherwise."""
    if any(_has_values(index) for index in indices):
        return None
    parts = linear_parts(flat_offset(indices, buffer.shape), lane)
    if parts is None or parts[0] not in (0, 1):
        return None
    if parts[0] == 0 or buffer.space is Space.REGISTER:
        return 1 if parts[0] == 1 else 0
    aligned = buffer_alignment(buffer) % (width * buffer.dtype.bytes) == 0
    return 1 if aligned and index_multiple(parts[1]) % width == 0 else None


def _has_values(index: Index) -> bool:
    """Whether the index depends on computed values."""
    return any(not isinstance(atom, str | Composite) for atom in atoms(index))


def _uniform(guard: Expression, lane: str, width: int) -> Expression | None:
    """The guard without the lane, where it is the same in all lanes."""
    match guard:
        case Apply("and", (left, right), dtype):
            first, second = _uniform(left, lane, width), _uniform(right, lane, width)
            return None if first is None or second is None else Apply("and", (first, second), dtype)
        case Apply(op, (IndexValue(left_index), IndexValue(right_index)), dtype) if op in _UNIFORM:
            parts = linear_parts(left_index - right_index, lane)
            if parts is None or parts[0] not in (0, 1):
                return None
            if parts[0] == 1 and index_multiple(parts[1]) % width != 0:
                return None
            at_first = (substitute_index(index, {lane: 0}) for index in (left_index, right_index))
            return Apply(op, tuple(map(IndexValue, at_first)), dtype)
    return None if _varies(guard, lane) else guard


def _varies(expression: Expression, lane: str) -> bool:
    return any(lane in _names(part) for part in subexpressions(expression))


def _names(expression: Expression) -> set[Atom]:
    match expression:
        case IndexValue(index):
            return set(atoms(index))
        case Load(_, indices):
            return {atom for index in indices for atom in atoms(index)}
    return set()
