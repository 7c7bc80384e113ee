"""Arithmetic on LLVM values in ordinary notation: `x * x + 1.0` writes the instructions.

A `Vector` is an operand and the writer that it belongs to.  Operators follow its element type (`+`
is `fadd` or `add`); a Python number beside a vector is a constant of the same type.  `>>` shifts in
zeros.
"""

from collections.abc import Sequence

from mapsto.lowering.llvm.types import LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter

Scalar = float | int


class Vector:
    """A value of any number of lanes, one included, with operators that append to its writer."""

    __slots__ = ("operand", "writer")

    def __init__(self, writer: FunctionWriter, operand: Operand) -> None:
        self.writer = writer
        self.operand = operand

    @property
    def type(self) -> LLVMType:
        return self.operand.type

    @property
    def is_double(self) -> bool:
        return self.type.kind == "double"

    def constant(self, value: Scalar) -> "Vector":
        """A constant of this vector's type."""
        return Vector(self.writer, constant(self.type, value))

    def _other(self, other: "Vector | Scalar") -> Operand:
        return other.operand if isinstance(other, Vector) else constant(self.type, other)

    def _wrap(self, operand: Operand) -> "Vector":
        return Vector(self.writer, operand)

    def __add__(self, other: "Vector | Scalar") -> "Vector":
        method = self.writer.fadd if self.type.is_float else self.writer.add
        return self._wrap(method(self.operand, self._other(other)))

    __radd__ = __add__

    def __sub__(self, other: "Vector | Scalar") -> "Vector":
        method = self.writer.fsub if self.type.is_float else self.writer.sub
        return self._wrap(method(self.operand, self._other(other)))

    def __rsub__(self, other: Scalar) -> "Vector":
        return self.constant(other) - self

    def __mul__(self, other: "Vector | Scalar") -> "Vector":
        method = self.writer.fmul if self.type.is_float else self.writer.mul
        return self._wrap(method(self.operand, self._other(other)))

    __rmul__ = __mul__

    def __truediv__(self, other: "Vector | Scalar") -> "Vector":
        return self._wrap(self.writer.fdiv(self.operand, self._other(other)))

    def __rtruediv__(self, other: Scalar) -> "Vector":
        return self.constant(other) / self

    def __neg__(self) -> "Vector":
        return self._wrap(self.writer.fneg(self.operand))

    def __abs__(self) -> "Vector":
        return self._wrap(self.writer.fabs(self.operand))

    def __and__(self, other: "Vector | Scalar") -> "Vector":
        return self._wrap(self.writer.and_(self.operand, self._other(other)))

    def __or__(self, other: "Vector | Scalar") -> "Vector":
        return self._wrap(self.writer.or_(self.operand, self._other(other)))

    def __xor__(self, other: "Vector | Scalar") -> "Vector":
        return self._wrap(self.writer.xor(self.operand, self._other(other)))

    def __lshift__(self, other: "Vector | Scalar") -> "Vector":
        return self._wrap(self.writer.shl(self.operand, self._other(other)))

    def __rshift__(self, other: "Vector | Scalar") -> "Vector":
        return self._wrap(self.writer.lshr(self.operand, self._other(other)))

    def times_plus(self, factor: "Vector | Scalar", term: "Vector | Scalar") -> "Vector":
        """`self * factor + term`, rounded once where the target has the instruction."""
        operands = (self.operand, self._other(factor), self._other(term))
        return self._wrap(self.writer.fma(*operands))

    def sqrt(self) -> "Vector":
        return self._wrap(self.writer.sqrt(self.operand))

    def with_sign_of(self, other: "Vector") -> "Vector":
        return self._wrap(self.writer.copysign(self.operand, other.operand))

    def bits(self) -> "Vector":
        """The same bits as an integer."""
        return self._wrap(self.writer.bitcast(self.operand, self.type.integer))

    def as_float(self) -> "Vector":
        """The bits of an integer as the float of the same width."""
        kind = {16: "half", 32: "float", 64: "double"}[self.type.bits]
        return self._wrap(self.writer.bitcast(self.operand, self.type.with_kind(kind)))

    def compare(self, predicate: str, other: "Vector | Scalar") -> "Vector":
        """A mask; `predicate` as in LLVM, with its `o`, `u` or `s` ("olt", "slt")."""
        method = self.writer.fcmp if self.type.is_float else self.writer.icmp
        return self._wrap(method(predicate, self.operand, self._other(other)))

    def select(self, then: "Vector", otherwise: "Vector | Scalar") -> "Vector":
        """On a mask: `then` where it is set, else `otherwise`."""
        second = then._other(otherwise)
        return self._wrap(self.writer.select(self.operand, then.operand, second))

    def at_most(self, bound: Scalar) -> "Vector":
        """The smaller of this and a constant; NaN stays NaN.  One instruction on x86."""
        limit = self.constant(bound)
        return limit.compare("olt", self).select(limit, self)

    def at_least(self, bound: Scalar) -> "Vector":
        """The larger of this and a constant; NaN stays NaN.  One instruction on x86."""
        limit = self.constant(bound)
        return limit.compare("ogt", self).select(limit, self)

    def convert(self, to: LLVMType) -> "Vector":
        """Between float types of different width."""
        method = self.writer.fpext if to.bits > self.type.bits else self.writer.fptrunc
        return self._wrap(method(self.operand, to))


def polynomial(t: Vector, coefficients: Sequence[float], square: Vector | None = None) -> Vector:
    """The polynomial in `t`, the constant term first.

    Even and odd powers are summed apart by Horner's rule: one multiplication more than a single
    chain (none where the caller has `square`, t * t), and half the latency.  The two lowest terms
    are added last, on their own: that keeps the rounding errors of a single chain.
    """
    if len(coefficients) <= 4:
        return _horner(t, coefficients)
    squared = t * t if square is None else square
    odd = _horner(squared, coefficients[2::2])
    high = _horner(squared, coefficients[3::2]).times_plus(t, odd)
    return high.times_plus(t, coefficients[1]).times_plus(t, coefficients[0])


def _horner(t: Vector, coefficients: Sequence[float]) -> Vector:
    total = t.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        total = total.times_plus(t, coefficient)
    return total
