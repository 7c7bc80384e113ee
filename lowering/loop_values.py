"""What the interpreter of the loop IR has computed so far, and the meaning of expressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mapsto.ir.rounding import rounded
from mapsto.ir.types import DType
from mapsto.lowering.indices import Atom, Index, ValueOf, map_atoms
from mapsto.lowering.loops import (
    Apply,
    Buffer,
    Constant,
    Expression,
    IndexValue,
    Load,
    Ref,
)

__all__ = [
    "EVALUATIONS",
    "Array",
    "LoopError",
    "Observer",
    "State",
    "apply_operation",
    "evaluate",
    "index_value",
    "place_of",
    "read_element",
    "scalar",
    "write_element",
]

Array = np.ndarray[Any, np.dtype[Any]]


class LoopError(Exception):
    """A loop function did what it must not: the message names the buffer and the indices."""


class Observer(Protocol):
    """Is told of every access; it raises LoopError for one that must not be."""

    def reads(self, buffer: Buffer, place: tuple[int, ...]) -> None:
        """An element is read."""

    def writes(self, buffer: Buffer, place: tuple[int, ...], value: Any) -> None:
        """An element is written."""


@dataclass(slots=True)
class State:
    """What has been computed; a block's own names are dropped at its end."""

    sizes: dict[str, int]
    variables: dict[str, int] = field(default_factory=dict)
    lets: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    written: dict[str, Array] = field(default_factory=dict)
    observer: Observer | None = None


# ---- memory


def place_of(state: State, buffer: Buffer, indices: tuple[Index, ...]) -> tuple[int, ...]:
    """The place of an access; LoopError where it is outside of the buffer."""
    position = tuple(index_value(state, index) for index in indices)
    shape = state.arrays[buffer.name].shape
    inside = len(position) == len(shape) and all(
        0 <= number < extent for number, extent in zip(position, shape, strict=True)
    )
    if not inside:
        raise LoopError(f"`{buffer.name}`{list(shape)} is accessed at {list(position)}")
    return position


def read_element(state: State, buffer: Buffer, indices: tuple[Index, ...]) -> Any:
    """The element there; LoopError where nothing was written before."""
    position = place_of(state, buffer, indices)
    written = state.written.get(buffer.name)
    if written is not None and not written[position]:
        raise LoopError(f"`{buffer.name}` is read at {list(position)} before it is written")
    if state.observer is not None:
        state.observer.reads(buffer, position)
    return state.arrays[buffer.name][position]


def write_element(state: State, buffer: Buffer, indices: tuple[Index, ...], value: Any) -> None:
    """Writes an element."""
    position = place_of(state, buffer, indices)
    if state.observer is not None:
        state.observer.writes(buffer, position, value)
    state.arrays[buffer.name][position] = value
    if buffer.name in state.written:
        state.written[buffer.name][position] = True


# ---- expressions


def index_value(state: State, index: Index) -> int:
    """The number that an index is."""
    if isinstance(index, int):
        return index

    def value(atom: Atom) -> int | None:
        if isinstance(atom, ValueOf):
            return int(evaluate(state, atom.expression))
        if not isinstance(atom, str):
            return None
        return state.sizes[atom[1:]] if atom.startswith("$") else state.variables[atom]

    result = map_atoms(index, value)
    assert isinstance(result, int), "every atom has a value"
    return result


def evaluate(state: State, expression: Expression) -> Any:
    """The value of an expression, as a NumPy scalar."""
    match expression:
        case Constant(value, dtype):
            return scalar(dtype, value)
        case Ref(name):
            return state.lets[name]
        case IndexValue(index, dtype):
            return scalar(dtype, _wrapped(dtype, index_value(state, index)))
        case Load(buffer, indices, guard, otherwise):
            if guard is not None and not evaluate(state, guard):
                return scalar(buffer.dtype, otherwise)
            return read_element(state, buffer, indices)
        case Apply(op, operands, dtype):
            values = tuple(evaluate(state, operand) for operand in operands)
            if op == "cast":
                return _cast(values[0], operands[0].type, dtype)
            if op == "bitcast":
                return values[0].view(dtype.numpy)
            return apply_operation(op, operands[-1].type, values)
    raise TypeError(f"not a scalar expression: {expression!r}")


def scalar(dtype: DType, value: bool | int | float) -> Any:
    """A number as an element of the type."""
    return rounded(np.asarray(value).astype(dtype.numpy), dtype)[()]


def _wrapped(dtype: DType, value: int) -> int:
    """The low bits of an index, as the type holds them."""
    if not dtype.is_integer:
        return value
    low = value % (1 << dtype.bits)
    return low - (1 << dtype.bits) if dtype.is_signed and low >> (dtype.bits - 1) else low


def apply_operation(op: str, dtype: DType, operands: tuple[Any, ...]) -> Any:
    """The result of a scalar operation on operands of a type, rounded to it."""
    result = EVALUATIONS[op](*operands)
    return result if isinstance(result, np.bool_) else scalar(dtype, result)


def _cast(value: Any, source: DType, target: DType) -> Any:
    if target is DType.BOOL:
        return value != 0
    if source.is_float and target.is_integer:
        return scalar(target, _saturated(float(value), np.iinfo(target.numpy.name)))
    return scalar(target, value)


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
