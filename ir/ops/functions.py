"""Elementwise functions of real numbers: powers, roots, exponentials, rounding, extrema."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Trait, Value
from mapsto.ir.ops.elementwise import (
    FLOATS,
    Add,
    Binary,
    Div,
    FloatUnary,
    Mul,
    Neg,
    Partial,
    Sub,
    Unary,
    reciprocal,
)
from mapsto.ir.ops.logic import Eq, Gt, Select
from mapsto.ir.types import DType

__all__ = [
    "Abs",
    "Ceil",
    "Cos",
    "Erf",
    "Exp",
    "Expm1",
    "Floor",
    "Log",
    "Log1p",
    "Max",
    "Min",
    "Mod",
    "Pow",
    "Round",
    "Rsqrt",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sqrt",
    "StopGradient",
    "Tanh",
]


class Abs(Unary):
    """|x|; its derivative at 0 is 0."""

    name = "abs"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.abs(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [build.emit(Sign, self.operands[0])]


class _Step(Unary):
    """A piecewise constant function: its derivative is zero."""

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [None]


class Sign(_Step):
    """-1, 0 or 1."""

    name = "sign"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.sign(operands[0]),)


class Floor(_Step):
    """The greatest integer not above x."""

    name = "floor"
    accepts = FLOATS

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.floor(operands[0]),)


class Ceil(_Step):
    """The least integer not below x."""

    name = "ceil"
    accepts = FLOATS

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.ceil(operands[0]),)


class Round(_Step):
    """The nearest integer, ties to even."""

    name = "round"
    accepts = FLOATS

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.rint(operands[0]),)


class StopGradient(_Step):
    """x itself, a constant to differentiation."""

    name = "stop_gradient"
    accepts = frozenset(DType)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (operands[0],)


class Exp(FloatUnary):
    """e to the x."""

    name = "exp"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.exp(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [result]


class Expm1(FloatUnary):
    """e to the x, less 1, accurate near 0."""

    name = "expm1"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.expm1(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [build.emit(Add, result, build.like(1, result))]


class Log(FloatUnary):
    """Natural logarithm."""

    name = "log"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.log(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [reciprocal(build, self.operands[0])]


class Log1p(FloatUnary):
    """Natural logarithm of 1 + x, accurate near 0."""

    name = "log1p"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.log1p(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        x = self.operands[0]
        return [reciprocal(build, build.emit(Add, x, build.like(1, x)))]


class Sqrt(FloatUnary):
    """Square root."""

    name = "sqrt"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.sqrt(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [build.emit(Div, build.like(0.5, result), result)]


class Rsqrt(FloatUnary):
    """1 / sqrt(x)."""

    name = "rsqrt"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x = operands[0]
        return ((1 / np.sqrt(x)).astype(x.dtype),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        slope = build.emit(Div, result, self.operands[0])
        return [build.emit(Mul, slope, build.like(-0.5, result))]


class Sin(FloatUnary):
    """Sine of an angle in radians."""

    name = "sin"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.sin(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [build.emit(Cos, self.operands[0])]


class Cos(FloatUnary):
    """Cosine of an angle in radians."""

    name = "cos"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.cos(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [build.emit(Neg, build.emit(Sin, self.operands[0]))]


class Tanh(FloatUnary):
    """Hyperbolic tangent."""

    name = "tanh"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.tanh(operands[0]),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        return [build.emit(Sub, build.like(1, result), build.emit(Mul, result, result))]


class Sigmoid(FloatUnary):
    """1 / (1 + exp(-x))."""

    name = "sigmoid"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x = operands[0]
        e = np.exp(-np.abs(x))
        return (np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        complement = build.emit(Sub, build.like(1, result), result)
        return [build.emit(Mul, result, complement)]


class Erf(FloatUnary):
    """The error function 2/sqrt(pi) times the integral of exp(-t^2) from 0 to x."""

    name = "erf"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x = operands[0]
        return (np.vectorize(math.erf, otypes=[np.float64])(x).astype(x.dtype),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        x = self.operands[0]
        gauss = build.emit(Exp, build.emit(Neg, build.emit(Mul, x, x)))
        return [build.emit(Mul, gauss, build.like(2 / math.sqrt(math.pi), x))]


class Mod(Binary):
    """x - floor(x / y) * y, with the sign of y; for integers 0 where y is 0."""

    name = "mod"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x, y = operands
        if np.issubdtype(x.dtype, np.floating):
            return (np.mod(x, y),)
        return (np.where(y == 0, 0, np.mod(x, np.where(y == 0, 1, y))).astype(x.dtype),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        quotient = build.emit(Floor, build.emit(Div, *self.operands))
        return [build.like(1, result), build.emit(Neg, quotient)]


class Pow(Binary):
    """x to the power y."""

    name = "pow"
    traits = Trait.ELEMENTWISE | Trait.EXPENSIVE
    accepts = FLOATS

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.power(*operands),)

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        x, y = self.operands
        one, zero = build.like(1, y), build.like(0, y)
        by_base = build.emit(Mul, y, build.emit(Pow, x, build.emit(Sub, y, one)))
        # x^y is 0 for all y > 0 where x is 0, so the slope by y there is 0 rather than 0 * -inf.
        positive = build.emit(Gt, x, zero)
        safe = build.emit(Select, positive, x, one)
        by_exponent = build.emit(Mul, result, build.emit(Log, safe))
        return [build.emit(Select, build.emit(Eq, y, zero), zero, by_base), by_exponent]


class _Extremum(Binary):
    """The greater or the lesser operand; nan where either is.  Ties share the derivative."""

    traits = Trait.ELEMENTWISE | Trait.COMMUTATIVE

    def partials(self, build: Builder, result: Value) -> Sequence[Partial]:
        one, half = build.like(1, result), build.like(0.5, result)
        x, y = self.operands
        tie = build.emit(Eq, x, y)
        zero = build.like(0, result)
        wins = build.emit(Select, build.emit(Eq, x, result), one, zero)
        by_x = build.emit(Select, tie, half, wins)
        return [by_x, build.emit(Sub, one, by_x)]


class Max(_Extremum):
    """The greater of x and y; nan where either is."""

    name = "max"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.maximum(*operands),)


class Min(_Extremum):
    """The lesser of x and y; nan where either is."""

    name = "min"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.minimum(*operands),)
