"""The scalar operations of the loop IR: name, number of operands, operand and result types.

One row an operation.  `lowering/loop_interpreter.py` gives each its meaning (NumPy), each target
its instructions; a test walks this table against both.

Integers wrap around.  Integer `div` and `mod` round down (Python's `//` and `%`), and dividing by
zero gives 0; the `mod` of floats is Python's too.  Shift amounts are taken modulo the width;
`shift_right` keeps the sign of signed types; `mul_high` takes types of up to 32 bits.  A cast from
float to integer rounds towards zero, saturates, and takes NaN to 0.  `round` takes halves to even;
`sign`, `min` and `max` propagate NaN.  `and`, `or`, `xor` and `not` are logical on bool and bitwise
on integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mapsto.ir.types import DType

__all__ = [
    "OPERATIONS",
    "REDUCTIONS",
    "REDUCTION_OPERATIONS",
    "Kind",
    "ScalarOperation",
    "check_operands",
    "identity",
]


class Kind(Enum):
    """Which element types an operand may have."""

    ANY = "any type"
    NUMBER = "a number"
    FLOAT = "a float"
    INTEGER = "an integer"
    BITS = "an integer or bool"

    def accepts(self, dtype: DType) -> bool:
        """Whether an operand of this kind may have the type."""
        is_bool = dtype is DType.BOOL
        return {
            Kind.ANY: True,
            Kind.NUMBER: not is_bool,
            Kind.FLOAT: dtype.is_float,
            Kind.INTEGER: dtype.is_integer,
            Kind.BITS: is_bool or dtype.is_integer,
        }[self]


@dataclass(frozen=True, slots=True)
class ScalarOperation:
    """One scalar operation; `flops` is a rough cost for summaries."""

    arity: int
    operands: Kind
    compares: bool = False
    flops: int = 1


_MATH = ScalarOperation(1, Kind.FLOAT, flops=20)
_FLOAT = ScalarOperation(1, Kind.FLOAT)
_ROOT = ScalarOperation(1, Kind.FLOAT, flops=10)
_NUMBER = ScalarOperation(1, Kind.NUMBER)
_ARITHMETIC = ScalarOperation(2, Kind.NUMBER)
_COMPARISON = ScalarOperation(2, Kind.ANY, compares=True)
_BITWISE = ScalarOperation(2, Kind.BITS)
_INTEGER = ScalarOperation(2, Kind.INTEGER)

OPERATIONS: Mapping[str, ScalarOperation] = {
    "neg": _NUMBER,
    "abs": _NUMBER,
    "sign": _NUMBER,
    "not": ScalarOperation(1, Kind.BITS),
    "floor": _FLOAT,
    "ceil": _FLOAT,
    "round": _FLOAT,
    "sqrt": _ROOT,
    "rsqrt": _ROOT,
    "exp": _MATH,
    "expm1": _MATH,
    "log": _MATH,
    "log1p": _MATH,
    "sin": _MATH,
    "cos": _MATH,
    "tanh": _MATH,
    "erf": _MATH,
    "sigmoid": _MATH,
    "add": _ARITHMETIC,
    "sub": _ARITHMETIC,
    "mul": _ARITHMETIC,
    "div": ScalarOperation(2, Kind.NUMBER, flops=5),
    "mod": ScalarOperation(2, Kind.NUMBER, flops=10),
    "pow": ScalarOperation(2, Kind.FLOAT, flops=60),
    "min": _ARITHMETIC,
    "max": _ARITHMETIC,
    "and": _BITWISE,
    "or": _BITWISE,
    "xor": _BITWISE,
    "shift_left": _INTEGER,
    "shift_right": _INTEGER,
    "mul_high": _INTEGER,
    "eq": _COMPARISON,
    "ne": _COMPARISON,
    "lt": _COMPARISON,
    "le": _COMPARISON,
    "gt": _COMPARISON,
    "ge": _COMPARISON,
    "fma": ScalarOperation(3, Kind.FLOAT, flops=2),
    "select": ScalarOperation(3, Kind.ANY),
    "cast": ScalarOperation(1, Kind.ANY),
    "bitcast": ScalarOperation(1, Kind.NUMBER, flops=0),
}


def check_operands(op: str, dtypes: tuple[DType, ...]) -> None:
    """Raise TypeError unless the operation takes operands of these types."""
    row = OPERATIONS.get(op)
    if row is None:
        raise TypeError(f"unknown scalar operation `{op}`")
    if len(dtypes) != row.arity:
        raise TypeError(f"`{op}` takes {row.arity} operands, not {len(dtypes)}")
    values = dtypes
    if op == "select":
        values = dtypes[1:]
        if dtypes[0] is not DType.BOOL:
            raise TypeError(f"the condition of `select` is a bool, not {dtypes[0]}")
    if len(set(values)) != 1:
        raise TypeError(f"`{op}` takes operands of one type, not {', '.join(map(str, values))}")
    if not row.operands.accepts(values[0]) or (op == "mul_high" and values[0].bits > 32):
        raise TypeError(f"`{op}` takes {row.operands.value}, not {values[0]}")


REDUCTIONS = frozenset({"add", "mul", "min", "max", "and", "or"})
"""The operations that `Reduce` takes: associative, with an identity."""

REDUCTION_OPERATIONS = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}
"""The operation that combines two elements, by the kind of reduction in the tensor IR."""


def identity(op: str, dtype: DType) -> bool | int | float:
    """The value that changes nothing when a reduction combines it: 0 for `add` (-0.0 for floats,
    which keeps the sign of zeros), 1 for `mul`, the greatest value for `min`, and so on."""
    if op in ("and", "or"):
        constant_zero = False if dtype is DType.BOOL else 0
        every = True if dtype is DType.BOOL else -1 if dtype.is_signed else 2**dtype.bits - 1
        return every if op == "and" else constant_zero
    if op in ("add", "mul"):
        one = 1 if op == "mul" else 0
        return (float(one) or -0.0) if dtype.is_float else one
    return _bound(dtype, greatest=op == "min")


def _bound(dtype: DType, greatest: bool) -> bool | int | float:
    if dtype is DType.BOOL:
        return greatest
    if dtype.is_float:
        return math.inf if greatest else -math.inf
    info = np.iinfo(dtype.numpy.name)
    return int(info.max if greatest else info.min)
