"""Truth values: comparisons, connectives, selection; and conversion between element types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Trait, Value
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.ops.elementwise import Binary, Elementwise, Unary
from mapsto.ir.types import DType, TensorType

__all__ = [
    "And",
    "Cast",
    "Compare",
    "Eq",
    "Ge",
    "Gt",
    "Le",
    "Logical",
    "Lt",
    "Ne",
    "Not",
    "Or",
    "Select",
]


class Not(Unary):
    """Logical negation."""

    name = "not"
    accepts = frozenset({DType.BOOL})
    not_differentiable = "its result is a truth value"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.logical_not(operands[0]),)


class Logical(Binary):
    """A truth function of two truth values."""

    traits = Trait.ELEMENTWISE | Trait.COMMUTATIVE
    accepts = frozenset({DType.BOOL})
    not_differentiable = "its result is a truth value"


class And(Logical):
    """Both."""

    name = "and"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.logical_and(*operands),)


class Or(Logical):
    """Either or both."""

    name = "or"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.logical_or(*operands),)


class Compare(Binary):
    """A comparison, giving truth values; false where an operand is nan (`ne`: true)."""

    accepts = frozenset(DType)
    not_differentiable = "its result is a truth value"
    function: ClassVar[np.ufunc]

    def result_type(self, operand: TensorType) -> TensorType:
        return operand.with_dtype(DType.BOOL)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (type(self).function(*operands),)


class Eq(Compare):
    """x == y."""

    name = "eq"
    traits = Trait.ELEMENTWISE | Trait.COMMUTATIVE
    function = np.equal


class Ne(Compare):
    """x != y."""

    name = "ne"
    traits = Trait.ELEMENTWISE | Trait.COMMUTATIVE
    function = np.not_equal


class Lt(Compare):
    """x < y."""

    name = "lt"
    function = np.less


class Le(Compare):
    """x <= y."""

    name = "le"
    function = np.less_equal


class Gt(Compare):
    """x > y."""

    name = "gt"
    function = np.greater


class Ge(Compare):
    """x >= y."""

    name = "ge"
    function = np.greater_equal


class Select(Elementwise):
    """x where the condition holds, else y; the other's value does not matter there."""

    name = "select"
    arity = 3

    def infer(self) -> tuple[TensorType, ...]:
        condition, x, y = (operand.type for operand in self.operands)
        if condition != x.with_dtype(DType.BOOL) or x != y:
            raise TypeRuleError(f"select of {condition}, {x} and {y}")
        return (x,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.where(*operands),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        _, x, y = tangents
        if x is None and y is None:
            return [None]
        zero = build.like(0, results[0])
        return [build.emit(Select, self.operands[0], x or zero, y or zero)]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        condition, zero = self.operands[0], build.like(0, cotangent)
        x = build.emit(Select, condition, cotangent, zero) if linear[1] else None
        return [None, x, build.emit(Select, condition, zero, cotangent) if linear[2] else None]


class Cast(Unary):
    """The value in another element type.

    From floating point to integer it rounds toward zero, saturates, and takes nan to 0; to bool it
    is `x != 0`.
    """

    name = "cast"
    attribute_types = {"dtype": DType}
    accepts = frozenset(DType)

    def result_type(self, operand: TensorType) -> TensorType:
        return operand.with_dtype(self.dtype)

    @property
    def dtype(self) -> DType:
        """The element type of the result."""
        dtype = self.attributes["dtype"]
        assert isinstance(dtype, DType)
        return dtype

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x = operands[0]
        if self.dtype.is_integer and np.issubdtype(x.dtype, np.floating):
            return (_saturated(x, self.dtype),)
        return (x.astype(self.dtype.numpy),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        if tangents[0] is None or not self.dtype.is_float:
            return [None]
        return [build.emit(Cast, tangents[0], dtype=self.dtype)]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        return [build.emit(Cast, cotangent, dtype=self.operands[0].dtype)]


def _saturated(x: Array, dtype: DType) -> Array:
    info: Any = np.iinfo(dtype.numpy)
    whole = np.nan_to_num(np.trunc(x.astype(np.float64)), nan=0.0)
    clipped = np.clip(whole, float(info.min), float(info.max))
    # float(info.max) may round up past the range (i64), where astype would wrap.
    limited = np.where(clipped >= float(info.max), info.max, clipped.astype(dtype.numpy))
    result: Array = limited.astype(dtype.numpy)
    return result
