"""Scalar functions applied to each element of tensors of one shape, and the four operations.

Each op gives its reference evaluation and its partial derivatives; forward and reverse mode follow
from those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Operation, Trait, Value
from mapsto.ir.errors import MissingDerivative, TypeRuleError
from mapsto.ir.types import DType, TensorType

__all__ = [
    "FLOATS",
    "NUMERIC",
    "Add",
    "Binary",
    "Div",
    "Elementwise",
    "FloatUnary",
    "Mul",
    "Neg",
    "Partial",
    "Sub",
    "Unary",
    "reciprocal",
]

Partial = Value | None
FLOATS = frozenset(dtype for dtype in DType if dtype.is_float)
NUMERIC = frozenset(DType) - {DType.BOOL}


class Elementwise(Operation):
    """Operands of one shape; the result has that shape."""

    traits = Trait.ELEMENTWISE
    accepts: ClassVar[frozenset[DType]] = NUMERIC
    """Which element types the op takes."""

    def infer(self) -> tuple[TensorType, ...]:
        first = self.operands[0].type
        for operand in self.operands[1:]:
            if operand.type != first:
                raise TypeRuleError(f"{self.name} of {first} and {operand.type}")
        if first.dtype not in self.accepts:
            raise TypeRuleError(f"{self.name} is not defined on {first.dtype}")
        return (self.result_type(first),)

    def result_type(self, operand: TensorType) -> TensorType:
        """The type of the result for operands of this type."""
        return operand

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        """The derivative by each operand; None where it is zero everywhere."""
        raise MissingDerivative(self)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        total: Value | None = None
        partials = self.partials(build, results[0])
        for partial, tangent in zip(partials, tangents, strict=True):
            if partial is None or tangent is None:
                continue
            term = build.emit(Mul, tangent, partial)
            total = term if total is None else build.emit(Add, total, term)
        return [total]


class Unary(Elementwise):
    """One operand."""

    arity = 1


class FloatUnary(Unary):
    """A transcendental function of one floating-point operand."""

    traits = Trait.ELEMENTWISE | Trait.EXPENSIVE
    accepts = FLOATS


class Binary(Elementwise):
    """Two operands of one type."""

    arity = 2


class Neg(Unary):
    """-x."""

    name = "neg"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.negative(operands[0]),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return [None if tangents[0] is None else build.emit(Neg, tangents[0])]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        return [build.emit(Neg, cotangent)]


class Add(Binary):
    """x + y."""

    name = "add"
    traits = Trait.ELEMENTWISE | Trait.COMMUTATIVE

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.add(*operands),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        x, y = tangents
        if x is None or y is None:
            return [x or y]
        return [build.emit(Add, x, y)]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        return [cotangent if is_linear else None for is_linear in linear]


class Sub(Binary):
    """x - y."""

    name = "sub"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.subtract(*operands),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        x, y = tangents
        if y is None:
            return [x]
        return [build.emit(Neg, y) if x is None else build.emit(Sub, x, y)]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        first = cotangent if linear[0] else None
        return [first, build.emit(Neg, cotangent) if linear[1] else None]


class Mul(Binary):
    """x * y."""

    name = "mul"
    traits = Trait.ELEMENTWISE | Trait.COMMUTATIVE

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.multiply(*operands),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [self.operands[1], self.operands[0]]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        x, y = self.operands
        if linear[0]:
            return [build.emit(Mul, cotangent, y), None]
        return [None, build.emit(Mul, cotangent, x)]


class Div(Binary):
    """x / y; for integers rounded down, and 0 where y is 0."""

    name = "div"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x, y = operands
        if np.issubdtype(x.dtype, np.floating):
            return (np.divide(x, y),)
        return (np.where(y == 0, 0, np.floor_divide(x, np.where(y == 0, 1, y))).astype(x.dtype),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        y = self.operands[1]
        return [reciprocal(build, y), build.emit(Neg, build.emit(Div, result, y))]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        return [build.emit(Div, cotangent, self.operands[1]), None]


def reciprocal(build: Builder, x: Value) -> Value:
    """1 / x."""
    return build.emit(Div, build.like(1, x), x)
