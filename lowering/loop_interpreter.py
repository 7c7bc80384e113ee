"""The meaning of the loop IR: an interpreter over NumPy arrays, one iteration after the other.

It is slow and strict: an access outside a buffer, or a read of a local or register element before
it was written, raises `LoopError`.  Vector and parallel loops run in order: a reduction may differ
from generated code in its last bits.  The threads of a block run by turns (`loop_threads.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mapsto.ir.dims import dim_value
from mapsto.lowering.loop_threads import run_threads
from mapsto.lowering.loop_values import (
    EVALUATIONS,
    Array,
    LoopError,
    State,
    apply_operation,
    evaluate,
    index_value,
    read_element,
    write_element,
)
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    If,
    Let,
    LoopFunction,
    LoopKind,
    Reduce,
    Statement,
    Store,
)

__all__ = ["EVALUATIONS", "LoopError", "interpret"]


def interpret(
    function: LoopFunction, arrays: Mapping[str, Array], sizes: Mapping[str, int]
) -> None:
    """Run a kernel on arrays, by buffer name, which are updated in place.

    Raises LoopError on an access out of bounds or a read of an undefined element, ValueError if an
    array does not have the shape and type of its buffer.
    """
    state = State(dict(sizes))
    for buffer in function.buffers:
        shape = tuple(dim_value(dim, sizes) for dim in buffer.shape)
        array = arrays[buffer.name]
        if array.shape != shape or array.dtype != buffer.dtype.numpy:
            raise ValueError(f"`{buffer.name}` is {buffer.dtype}{list(shape)}, not {array.dtype}")
        state.arrays[buffer.name] = array
    with np.errstate(all="ignore"):
        _run_block(state, function.body)


# ---- statements


def _run_block(state: State, body: tuple[Statement, ...]) -> None:
    for statement in body:
        _run(state, statement)


def _run(state: State, statement: Statement) -> None:
    match statement:
        case Let(name, value):
            state.lets[name] = evaluate(state, value)
        case Allocate(buffer):
            _allocate(state, buffer)
        case Store(buffer, indices, value, guard):
            if guard is None or evaluate(state, guard):
                write_element(state, buffer, indices, evaluate(state, value))
        case Reduce(guard=guard):
            if guard is None or evaluate(state, guard):
                _reduce(state, statement)
        case If(condition, then, otherwise):
            _run_block(state, then if evaluate(state, condition) else otherwise)
        case For(kind=LoopKind.THREAD):
            run_threads(state, statement, _run)
        case For(variable, start, stop):
            for number in range(
                index_value(state, start), index_value(state, stop), statement.step
            ):
                state.variables[variable] = number
                _run_block(state, statement.body)


def _reduce(state: State, statement: Reduce) -> None:
    buffer, indices, value = statement.buffer, statement.indices, evaluate(state, statement.value)
    observer = state.observer
    if statement.atomic:
        # Others may do the same meanwhile.
        state.observer = None
    operands = read_element(state, buffer, indices), value
    write_element(state, buffer, indices, apply_operation(statement.op, buffer.dtype, operands))
    state.observer = observer


def _allocate(state: State, buffer: Buffer) -> None:
    shape = tuple(dim_value(dim, state.sizes) for dim in buffer.shape)
    state.arrays[buffer.name] = np.zeros(shape, buffer.dtype.numpy)
    state.written[buffer.name] = np.zeros(shape, bool)
