"""The meaning of the loop IR: an interpreter over NumPy arrays, one iteration after the other.

It is slow and strict: an access outside a buffer, or a read of a local or register element before
it was written, raises `LoopError`.  Vector and parallel loops run in order: a reduction may differ
from generated code in its last bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mapsto.ir.dims import dim_value
from mapsto.ir.rounding import rounded
from mapsto.ir.types import DType
from mapsto.lowering.indices import Atom, Index, ValueOf, map_atoms
from mapsto.lowering.loops import (
    Allocate,
    Apply,
    Buffer,
    Constant,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoopFunction,
    Reduce,
    Ref,
    Statement,
    Store,
)

__all__ = ["EVALUATIONS", "LoopError", "interpret"]

Array = np.ndarray[Any, np.dtype[Any]]


class LoopError(Exception):
    """A loop function did what it must not: the message names the buffer and the indices."""


def interpret(
    function: LoopFunction, arrays: Mapping[str, Array], sizes: Mapping[str, int]
) -> None:
    """Run a kernel on arrays, by buffer name, which are updated in place.

    Raises LoopError on an access out of bounds or a read of an undefined element, ValueError if an
    array does not have the shape and type of its buffer.
    """
    state = _State(dict(sizes))
    for buffer in function.buffers:
        shape = tuple(dim_value(dim, sizes) for dim in buffer.shape)
        array = arrays[buffer.name]
        if array.shape != shape or array.dtype != buffer.dtype.numpy:
            raise ValueError(f"`{buffer.name}` is {buffer.dtype}{list(shape)}, not {array.dtype}")
        state.arrays[buffer.name] = array
    with np.errstate(all="ignore"):
        _run_block(state, function.body)


@dataclass(slots=True)
class _State:
    """What has been computed; a block's own names are dropped at its end."""

    sizes: dict[str, int]
    variables: dict[str, int] = field(default_factory=dict)
    lets: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    written: dict[str, Array] = field(default_factory=dict)


# ---- statements


def _run_block(state: _State, body: tuple[Statement, ...]) -> None:
    for statement in body:
        _run(state, statement)


def _run(state: _State, statement: Statement) -> None:
    match statement:
        case Let(name, value):
            state.lets[name] = _evaluate(state, value)
        case Allocate(buffer):
            _allocate(state, buffer)
        case Store(buffer, indices, value, guard):
            if guard is None or _evaluate(state, guard):
                _write(state, buffer, indices, _evaluate(state, value))
        case Reduce(op, buffer, indices, value, guard):
            if guard is None or _evaluate(state, guard):
                operands = _read(state, buffer, indices), _evaluate(state, value)
                _write(state, buffer, indices, _apply(op, buffer.dtype, operands))
        case If(condition, then, otherwise):
            _run_block(state, then if _evaluate(state, condition) else otherwise)
        case For(variable, start, stop):
            for number in range(_index(state, start), _index(state, stop), statement.step):
                state.variables[variable] = number
                _run_block(state, statement.body)


def _allocate(state: _State, buffer: Buffer) -> None:
    shape = tuple(dim_value(dim, state.sizes) for dim in buffer.shape)
    state.arrays[buffer.name] = np.zeros(shape, buffer.dtype.numpy)
    state.written[buffer.name] = np.zeros(shape, bool)


def _position(state: _State, buffer: Buffer, indices: tuple[Index, ...]) -> tuple[int, ...]:
    position = tuple(_index(state, index) for index in indices)
    shape = state.arrays[buffer.name].shape
    inside = len(position) == len(shape) and all(
        0 <= number < extent for number, extent in zip(position, shape, strict=True)
    )
    if not inside:
        raise LoopError(f"`{buffer.name}`{list(shape)} is accessed at {list(position)}")
    return position


def _read(state: _State, buffer: Buffer, indices: tuple[Index, ...]) -> Any:
    position = _position(state, buffer, indices)
    written = state.written.get(buffer.name)
    if written is not None and not written[position]:
        raise LoopError(f"`{buffer.name}` is read at {list(position)} before it is written")
    return state.arrays[buffer.name][position]


def _write(state: _State, buffer: Buffer, indices: tuple[Index, ...], value: Any) -> None:
    position = _position(state, buffer, indices)
    state.arrays[buffer.name][position] = value
    if buffer.name in state.written:
        state.written[buffer.name][position] = True


# ---- expressions


def _index(state: _State, index: Index) -> int:
    if isinstance(index, int):
        return index

    def value(atom: Atom) -> int | None:
        if isinstance(atom, ValueOf):
            return int(_evaluate(state, atom.expression))
        if not isinstance(atom, str):
            return None
        return state.sizes[atom[1:]] if atom.startswith("$") else state.variables[atom]

    result = map_atoms(index, value)
    assert isinstance(result, int), "every atom has a value"
    return result


def _evaluate(state: _State, expression: Expression) -> Any:
    match expression:
        case Constant(value, dtype):
            return _scalar(dtype, value)
        case Ref(name):
            return state.lets[name]
        case IndexValue(index, dtype):
            return _scalar(dtype, _wrapped(dtype, _index(state, index)))
        case Load(buffer, indices, guard, otherwise):
            if guard is not None and not _evaluate(state, guard):
                return _scalar(buffer.dtype, otherwise)
            return _read(state, buffer, indices)
        case Apply(op, operands, dtype):
            values = tuple(_evaluate(state, operand) for operand in operands)
            if op == "cast":
                return _cast(values[0], operands[0].type, dtype)
            if op == "bitcast":
                return values[0].view(dtype.numpy)
            return _apply(op, operands[-1].type, values)
    raise TypeError(f"not a scalar expression: {expression!r}")


def _scalar(dtype: DType, value: bool | int | float) -> Any:
    return rounded(np.asarray(value).astype(dtype.numpy), dtype)[()]


def _wrapped(dtype: DType, value: int) -> int:
    """The low bits of an index, as the type holds them."""
    if not dtype.is_integer:
        return value
    low = value % (1 << dtype.bits)
    return low - (1 << dtype.bits) if dtype.is_signed and low >> (dtype.bits - 1) else low


def _apply(op: str, dtype: DType, operands: tuple[Any, ...]) -> Any:
    result = EVALUATIONS[op](*operands)
    return result if isinstance(result, np.bool_) else _scalar(dtype, result)


def _cast(value: Any, source: DType, target: DType) -> Any:
    if target is DType.BOOL:
        return value != 0
    if source.is_float and target.is_integer:
        return _scalar(target, _saturated(float(value), np.iinfo(target.numpy.name)))
    return _scalar(target, value)


def _saturated(value: float, info: np.iinfo[Any]) -> int:
    if math.isnan(value):
        return 0
    if math.isinf(value):
        return int(info.min if value < 0 else info.max)
    return max(int(info.min), min(int(info.max), math.trunc(value)))


def _sigmoid(x: Any) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e))


def _div(a: Any, b: Any) -> Any:
    if isinstance(a, np.floating):
        return a / b
    return a // b if b != 0 else 0


def _mod(a: Any, b: Any) -> Any:
    return np.mod(a, b) if isinstance(a, np.floating) or b != 0 else 0


def _shift(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, b: function(a, b & type(b)(8 * b.itemsize - 1))


def _mul_high(a: Any, b: Any) -> Any:
    return type(a)((int(a) * int(b)) >> (8 * a.itemsize))


EVALUATIONS: Mapping[str, Callable[..., Any]] = {
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "not": np.invert,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "erf": lambda x: math.erf(x),
    "sigmoid": _sigmoid,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _div,
    "mod": _mod,
    "pow": np.power,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shift_left": _shift(np.left_shift),
    "shift_right": _shift(np.right_shift),
    "mul_high": _mul_high,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "fma": lambda a, b, c: np.float64(a) * np.float64(b) + np.float64(c),
    "select": lambda condition, a, b: a if condition else b,
}
"""The operations on NumPy scalars; casts are apart because they need both types."""
