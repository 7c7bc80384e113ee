"""Checks that a loop function is well formed.  The rules, each with a test:

1. Buffers, loop variables and `Let` names are defined before use, and not defined again while one
   of the name is in scope (blocks side by side may reuse names).
2. Sizes that occur in shapes and indices are parameters of the function.
3. An access has as many indices as its buffer has dimensions; indices from values are integers.
4. A stored or reduced value has the type of its buffer, a guard or condition is a bool, a reduction
   is by one of `REDUCTIONS`, and a `Ref` has the type of its `Let`.
5. A loop's step is positive, and 1 in vector and parallel loops; an unrolled loop has a static
   extent.
6. Vector loops do not nest; a parallel loop is inside no vector or parallel loop.
7. Readonly buffers are not written.  Declared buffers are not argument buffers, and the function's
   buffers are; registers have a static shape; vector loops declare only registers.
8. Registers declared outside a parallel loop are not used in it.
9. What threads do together stands in a thread loop and in no vector loop: barriers, copies to
   shared memory (of elements of one type), and matrices, which are loaded from shared memory and
   multiplied in registers, with operands of one 16-bit float type and sums in f32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from mapsto.ir.dims import symbols
from mapsto.ir.types import DType
from mapsto.lowering.indices import Index, ValueOf, atoms
from mapsto.lowering.loop_printer import expression_text
from mapsto.lowering.loop_walk import direct_expressions, direct_indices, subexpressions
from mapsto.lowering.loops import (
    Allocate,
    AsyncCopy,
    Barrier,
    Buffer,
    CommitCopies,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoadMatrix,
    LoopFunction,
    LoopKind,
    MatrixMultiply,
    Prefetch,
    Reduce,
    Ref,
    Space,
    Statement,
    Store,
    WaitCopies,
)
from mapsto.lowering.scalar_operations import REDUCTIONS

__all__ = ["InvalidLoop", "verify_loops"]

_LOADED_TYPES = (DType.F16, DType.BF16)
_MATRIX_TYPES = (*_LOADED_TYPES, DType.F32)


class InvalidLoop(Exception):
    """A loop function breaks a rule; the message names the rule's subject."""


@dataclass(frozen=True, slots=True)
class _Names:
    """What is in scope, and the loops around."""

    buffers: dict[str, Buffer]
    indices: frozenset[str]
    lets: dict[str, DType]
    in_vector: bool = False
    in_parallel: bool = False
    in_thread: bool = False


def verify_loops(function: LoopFunction) -> None:
    """Raise InvalidLoop if the function breaks one of the rules above."""
    names = _Names({}, frozenset(f"${name}" for name in function.sizes), {})
    for buffer in function.buffers:
        if buffer.space is not Space.ARGUMENT:
            _fail(f"the function takes `{buffer.name}`, which is in {buffer.space.value} space")
        names = _declare(names, buffer)
    _check_block(names, function.body)


def _fail(message: str) -> None:
    raise InvalidLoop(message)


def _check_block(names: _Names, body: Iterable[Statement]) -> None:
    for statement in body:
        names = _check(names, statement)


def _check(names: _Names, statement: Statement) -> _Names:
    """Check a statement; returns the names in scope after it."""
    for index in direct_indices(statement):
        _check_index(names, index)
    for expression in direct_expressions(statement):
        _check_expression(names, expression)
    match statement:
        case Let(name, value):
            _check_new(names, name)
            return replace(names, lets={**names.lets, name: value.type})
        case Allocate(buffer):
            return _check_allocation(names, buffer)
        case Store() | Reduce():
            _check_write(names, statement)
        case Prefetch(buffer, indices):
            _check_access(names, buffer, indices)
        case Barrier() | AsyncCopy() | CommitCopies() | WaitCopies():
            _check_together(names, statement)
        case LoadMatrix() | MatrixMultiply():
            _check_together(names, statement)
            _check_matrices(names, statement)
        case If(condition, then, otherwise):
            _check_bool(condition)
            _check_block(names, then)
            _check_block(names, otherwise)
        case For():
            _check_loop(names, statement)
    return names


# ---- declarations


def _check_new(names: _Names, name: str) -> None:
    if name in names.buffers or name in names.lets or name in names.indices:
        _fail(f"`{name}` is defined again")


def _declare(names: _Names, buffer: Buffer) -> _Names:
    _check_new(names, buffer.name)
    for extent in buffer.shape:
        for name in symbols(extent):
            if f"${name}" not in names.indices:
                _fail(f"the shape of `{buffer.name}` uses size `{name}`, which is not a parameter")
    return replace(names, buffers={**names.buffers, buffer.name: buffer})


def _check_allocation(names: _Names, buffer: Buffer) -> _Names:
    if buffer.space is Space.ARGUMENT:
        _fail(f"`{buffer.name}` is declared, but is in argument space")
    if buffer.space is Space.REGISTER and any(not isinstance(dim, int) for dim in buffer.shape):
        _fail(f"register `{buffer.name}` has no static shape")
    if buffer.space is Space.LOCAL and names.in_vector:
        _fail(f"local buffer `{buffer.name}` is declared in a vector loop")
    return _declare(names, buffer)


# ---- accesses


def _check_write(names: _Names, statement: Store | Reduce) -> None:
    buffer = statement.buffer
    _check_access(names, buffer, statement.indices)
    if buffer.readonly:
        _fail(f"`{buffer.name}` is readonly, but is written")
    if statement.value.type is not buffer.dtype:
        _fail(f"`{buffer.name}` holds {buffer.dtype}, not {statement.value.type}")
    if statement.guard is not None:
        _check_bool(statement.guard)
    if isinstance(statement, Reduce) and statement.op not in REDUCTIONS:
        _fail(f"`{statement.op}` is not a reduction")


def _check_access(names: _Names, buffer: Buffer, indices: tuple[Index, ...]) -> None:
    if names.buffers.get(buffer.name) != buffer:
        _fail(f"buffer `{buffer.name}` is not declared here")
    if len(indices) != len(buffer.shape):
        _fail(f"`{buffer.name}` has {len(buffer.shape)} dimensions, not {len(indices)}")


def _check_together(names: _Names, statement: Statement) -> None:
    if not names.in_thread or names.in_vector:
        _fail(f"`{type(statement).__name__}` is not done by the threads of a block")
    if isinstance(statement, AsyncCopy):
        buffer, source = statement.buffer, statement.source
        _check_access(names, buffer, statement.indices)
        if buffer.space is not Space.SHARED or source.type is not buffer.dtype:
            _fail(f"`{source.buffer.name}` cannot be copied to `{buffer.name}` as it is")


def _check_matrices(names: _Names, statement: LoadMatrix | MatrixMultiply) -> None:
    match statement:
        case LoadMatrix(buffer, indices, source, source_indices):
            accesses = [(buffer, indices), (source, source_indices)]
            spaces, operands = [Space.REGISTER, Space.SHARED], (buffer, source)
        case MatrixMultiply(sums, indices, left, left_at, right, right_at):
            accesses = [(sums, indices), (left, left_at), (right, right_at)]
            spaces, operands = [Space.REGISTER] * 3, (left, right)
            if sums.dtype is not DType.F32:
                _fail(f"`{sums.name}` holds {sums.dtype}, not f32")
    for (buffer, indices), space in zip(accesses, spaces, strict=True):
        _check_access(names, buffer, indices)
        if buffer.space is not space:
            _fail(f"`{buffer.name}` is not in {space.value} space")
    types = _LOADED_TYPES if isinstance(statement, LoadMatrix) else _MATRIX_TYPES
    if operands[0].dtype is not operands[1].dtype or operands[0].dtype not in types:
        names_of = " and ".join(f"`{operand.name}`" for operand in operands)
        _fail(f"{names_of} are not both {' or '.join(map(str, types))}")


def _check_bool(condition: Expression) -> None:
    if condition.type is not DType.BOOL:
        _fail(f"the condition `{expression_text(condition)}` is not a bool")


def _check_expression(names: _Names, expression: Expression) -> None:
    for part in subexpressions(expression):
        if isinstance(part, Ref) and names.lets.get(part.name) is not part.dtype:
            _fail(f"`{part.name}` is not a {part.dtype} that is bound here")
        elif isinstance(part, IndexValue):
            _check_index(names, part.index)
        elif isinstance(part, Load):
            _check_access(names, part.buffer, part.indices)
            for index in part.indices:
                _check_index(names, index)
            if part.guard is not None:
                _check_bool(part.guard)


def _check_index(names: _Names, index: Index) -> None:
    for atom in atoms(index):
        if isinstance(atom, str) and atom not in names.indices:
            _fail(f"`{atom}` is not a loop variable or size that is known here")
        if isinstance(atom, ValueOf):
            _check_expression(names, atom.expression)
            if not atom.expression.type.is_integer:
                _fail(f"the index `{atom}` is not an integer")


# ---- loops


def _check_loop(names: _Names, loop: For) -> None:
    vector, parallel = loop.kind is LoopKind.VECTOR, loop.kind is LoopKind.PARALLEL
    _check_new(names, loop.variable)
    if loop.step < 1 or (loop.step != 1 and (vector or parallel)):
        _fail(f"the {loop.kind.value} loop `{loop.variable}` has step {loop.step}")
    if loop.kind is LoopKind.UNROLL and not isinstance(loop.stop - loop.start, int):
        _fail(f"the unrolled loop `{loop.variable}` has no static extent")
    if names.in_vector and (vector or parallel):
        _fail(f"the {loop.kind.value} loop `{loop.variable}` is inside a vector loop")
    if names.in_parallel and parallel:
        _fail(f"the parallel loop `{loop.variable}` is inside another one")
    inside = replace(
        names,
        indices=names.indices | {loop.variable},
        buffers=dict(_usable(names)) if parallel else names.buffers,
        in_vector=names.in_vector or vector,
        in_parallel=names.in_parallel or parallel,
        in_thread=names.in_thread or loop.kind is LoopKind.THREAD,
    )
    _check_block(inside, loop.body)


def _usable(names: _Names) -> Iterator[tuple[str, Buffer]]:
    """The buffers that a parallel loop may use."""
    for name, buffer in names.buffers.items():
        if buffer.space is not Space.REGISTER:
            yield name, buffer
