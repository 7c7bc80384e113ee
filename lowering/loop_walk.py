"""Walking the loop IR: the statements, expressions and indices that a block contains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mapsto.ir.dims import symbols
from mapsto.lowering.indices import Index, ValueOf, atoms
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
    Ref,
    Shuffle,
    Statement,
    Store,
)

__all__ = [
    "Names",
    "direct_buffers",
    "direct_expressions",
    "direct_indices",
    "expressions",
    "free_names",
    "indices_of",
    "statements",
    "stored_buffers",
    "subexpressions",
]


def statements(body: Iterable[Statement]) -> Iterator[Statement]:
    """Every statement of a block, nested ones included, in order."""
    for statement in body:
        yield statement
        if isinstance(statement, For):
            yield from statements(statement.body)
        elif isinstance(statement, If):
            yield from statements(statement.then)
            yield from statements(statement.otherwise)


def direct_expressions(statement: Statement) -> tuple[Expression, ...]:
    """The expressions that a statement itself holds, those inside its indices excluded."""
    match statement:
        case Store() | Reduce():
            return (statement.value, *((statement.guard,) if statement.guard else ()))
        case Let():
            return (statement.value,)
        case If():
            return (statement.condition,)
        case AsyncCopy():
            return (statement.source,)
    return ()


def direct_buffers(statement: Statement) -> tuple[Buffer, ...]:
    """The buffers that a statement itself accesses, those of its expressions excluded; it writes
    the first."""
    match statement:
        case Store() | Reduce() | Prefetch() | AsyncCopy():
            return (statement.buffer,)
        case LoadMatrix():
            return (statement.buffer, statement.source)
        case MatrixMultiply(sums, _, left, _, right, _):
            return (sums, left, right)
    return ()


def direct_indices(statement: Statement) -> tuple[Index, ...]:
    """The indices that a statement itself holds."""
    match statement:
        case Store() | Reduce() | Prefetch() | AsyncCopy():
            return statement.indices
        case LoadMatrix():
            return (*statement.indices, *statement.source_indices)
        case MatrixMultiply(_, at, _, left_at, _, right_at):
            return (*at, *left_at, *right_at)
        case For():
            return (statement.start, statement.stop)
    return ()


def subexpressions(expression: Expression) -> Iterator[Expression]:
    """The expression and everything inside, those inside indices included."""
    yield expression
    match expression:
        case Apply():
            for operand in expression.operands:
                yield from subexpressions(operand)
        case Load():
            for index in expression.indices:
                yield from _inside_index(index)
            if expression.guard is not None:
                yield from subexpressions(expression.guard)
        case Shuffle(value):
            yield from subexpressions(value)
        case IndexValue():
            yield from _inside_index(expression.index)


def _inside_index(index: Index) -> Iterator[Expression]:
    for atom in atoms(index):
        if isinstance(atom, ValueOf):
            yield from subexpressions(atom.expression)


def expressions(body: Iterable[Statement]) -> Iterator[Expression]:
    """Every expression in a block."""
    for statement in statements(body):
        for expression in direct_expressions(statement):
            yield from subexpressions(expression)
        for index in direct_indices(statement):
            yield from _inside_index(index)


def indices_of(body: Sequence[Statement]) -> Iterator[Index]:
    """Every index in a block."""
    for statement in statements(body):
        yield from direct_indices(statement)
    for expression in expressions(body):
        match expression:
            case Load(indices=indices):
                yield from indices
            case IndexValue(index):
                yield index


@dataclass(frozen=True, slots=True)
class Names:
    """What a block uses: `indices` are loop variables and (`$`-prefixed) sizes, in order of use."""

    buffers: tuple[Buffer, ...]
    indices: tuple[str, ...]
    lets: tuple[str, ...]


def free_names(body: tuple[Statement, ...]) -> Names:
    """The names that a block uses and does not define."""
    buffers: dict[str, Buffer] = {}
    indices: dict[str, None] = {}
    lets: dict[str, None] = {}
    for statement in statements(body):
        for buffer in direct_buffers(statement):
            _use_buffer(buffer, buffers, indices)
        for index in direct_indices(statement):
            _use_index(index, indices)
    for expression in expressions(body):
        if isinstance(expression, Ref):
            lets[expression.name] = None
        elif isinstance(expression, IndexValue):
            _use_index(expression.index, indices)
        elif isinstance(expression, Load):
            _use_buffer(expression.buffer, buffers, indices)
            for index in expression.indices:
                _use_index(index, indices)
    bound = _bound_names(body)
    return Names(
        tuple(buffer for name, buffer in buffers.items() if name not in bound),
        tuple(name for name in indices if name not in bound),
        tuple(name for name in lets if name not in bound),
    )


def _use_buffer(buffer: Buffer, buffers: dict[str, Buffer], indices: dict[str, None]) -> None:
    buffers[buffer.name] = buffer
    for extent in buffer.shape[1:]:
        if not isinstance(extent, int):
            indices.update(dict.fromkeys(f"${name}" for name in sorted(symbols(extent))))


def _use_index(index: Index, indices: dict[str, None]) -> None:
    for atom in atoms(index):
        if isinstance(atom, str):
            indices[atom] = None


def _bound_names(body: tuple[Statement, ...]) -> frozenset[str]:
    names: set[str] = set()
    for statement in statements(body):
        if isinstance(statement, For):
            names.add(statement.variable)
        elif isinstance(statement, Let):
            names.add(statement.name)
        elif isinstance(statement, Allocate):
            names.add(statement.buffer.name)
    return frozenset(names)


def stored_buffers(body: Iterable[Statement]) -> frozenset[str]:
    """The names of the buffers that a block writes."""
    return frozenset(
        direct_buffers(statement)[0].name
        for statement in statements(body)
        if not isinstance(statement, Prefetch) and direct_buffers(statement)
    )
