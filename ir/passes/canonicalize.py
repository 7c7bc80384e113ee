"""Canonical forms: algebraic identities that hold for every operand.

Floating-point laws hold up to the sign of a zero; nan and infinities are kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mapsto.ir.core import Module, Operation, Trait, Value
from mapsto.ir.ops.elementwise import Add, Div, Mul, Neg, Sub
from mapsto.ir.ops.functions import Pow, Sqrt
from mapsto.ir.ops.logic import And, Cast, Not, Or, Select
from mapsto.ir.ops.shaping import Broadcast, Concat, Constant, Pad, Reshape, Slice, Transpose
from mapsto.ir.passes.base import Pass
from mapsto.ir.passes.fold import FOLDING
from mapsto.ir.rewriting import Pattern, Rewriter, rewrite, rewrite_module
from mapsto.ir.types import DType

__all__ = ["RULES", "Canonicalize"]

LARGEST_POWER = 4
LARGEST_EXPONENT = 64
LARGEST_EXPONENT_F16 = 14
"""Powers of two up to which the inverse is a normal number too."""


def _splat(value: Value) -> float | None:
    op = value.defining_op
    return op.splat if isinstance(op, Constant) else None


# ---- arithmetic


@rewrite
def add_zero(op: Add, rewriter: Rewriter) -> Value | None:
    """x + 0 = x"""
    x, y = op.operands
    if _splat(y) == 0:
        return x
    return y if _splat(x) == 0 else None


@rewrite
def subtract_zero(op: Sub, rewriter: Rewriter) -> Value | None:
    """x - 0 = x"""
    return op.operands[0] if _splat(op.operands[1]) == 0 else None


@rewrite
def subtract_from_zero(op: Sub, rewriter: Rewriter) -> Value | None:
    """0 - x = -x"""
    return rewriter.emit(Neg, op.operands[1]) if _splat(op.operands[0]) == 0 else None


@rewrite
def multiply_one(op: Mul, rewriter: Rewriter) -> Value | None:
    """x * 1 = x"""
    x, y = op.operands
    if _splat(y) == 1:
        return x
    return y if _splat(x) == 1 else None


@rewrite
def multiply_minus_one(op: Mul, rewriter: Rewriter) -> Value | None:
    """x * -1 = -x"""
    x, y = op.operands
    if _splat(y) == -1:
        return rewriter.emit(Neg, x)
    return rewriter.emit(Neg, y) if _splat(x) == -1 else None


@rewrite
def divide_one(op: Div, rewriter: Rewriter) -> Value | None:
    """x / 1 = x"""
    return op.operands[0] if _splat(op.operands[1]) == 1 else None


@rewrite
def divide_power_of_two(op: Div, rewriter: Rewriter) -> Value | None:
    """x / 2^k = x * 2^-k, which is exact"""
    x, y = op.operands
    number = _splat(y)
    if number is None or not y.dtype.is_float:
        return None
    mantissa, exponent = math.frexp(abs(number))
    largest = LARGEST_EXPONENT_F16 if y.dtype is DType.F16 else LARGEST_EXPONENT
    if mantissa != 0.5 or abs(exponent - 1) > largest:
        return None
    return rewriter.emit(Mul, x, rewriter.constant_like(1 / number, y))


@rewrite
def multiply_reciprocal(op: Mul, rewriter: Rewriter) -> Value | None:
    """x * (1 / y) = x / y, one rounding fewer, where nothing else needs 1 / y"""
    for x, y in (op.operands, op.operands[::-1]):
        inner = y.defining_op
        if not isinstance(inner, Div) or not x.dtype.is_float or not rewriter.used_once(y):
            continue
        if _splat(inner.operands[0]) == 1:
            return rewriter.emit(Div, x, inner.operands[1])
    return None


@rewrite
def multiply_integer_zero(op: Mul, rewriter: Rewriter) -> Value | None:
    """x * 0 = 0 for integers"""
    if op.result.dtype.is_float or 0 not in map(_splat, op.operands):
        return None
    return rewriter.constant_like(0, op.result)


@rewrite
def integer_difference_of_same(op: Sub, rewriter: Rewriter) -> Value | None:
    """x - x = 0 for integers"""
    x, y = op.operands
    return None if x is not y or x.dtype.is_float else rewriter.constant_like(0, x)


@rewrite
def double_negation(op: Neg, rewriter: Rewriter) -> Value | None:
    """-(-x) = x"""
    inner = op.operands[0].defining_op
    return inner.operands[0] if isinstance(inner, Neg) else None


@rewrite
def negated_difference(op: Neg, rewriter: Rewriter) -> Value | None:
    """-(x - y) = y - x"""
    inner = op.operands[0].defining_op
    if not isinstance(inner, Sub) or not rewriter.used_once(op.operands[0]):
        return None
    return rewriter.emit(Sub, inner.operands[1], inner.operands[0])


@rewrite
def add_negative(op: Add, rewriter: Rewriter) -> Value | None:
    """x + (-y) = x - y"""
    for x, y in (op.operands, op.operands[::-1]):
        inner = y.defining_op
        if isinstance(inner, Neg):
            return rewriter.emit(Sub, x, inner.operands[0])
    return None


@rewrite
def subtract_negative(op: Sub, rewriter: Rewriter) -> Value | None:
    """x - (-y) = x + y"""
    inner = op.operands[1].defining_op
    return rewriter.emit(Add, op.operands[0], inner.operands[0]) if isinstance(inner, Neg) else None


@rewrite
def negative_factor(op: Mul, rewriter: Rewriter) -> Value | None:
    """(-x) * c = x * (-c) for a number c"""
    for x, y in (op.operands, op.operands[::-1]):
        inner, number = x.defining_op, _splat(y)
        if isinstance(inner, Neg) and number is not None and y.dtype.is_float:
            return rewriter.emit(Mul, inner.operands[0], rewriter.constant_like(-number, y))
    return None


@rewrite
def small_power(op: Pow, rewriter: Rewriter) -> Value | None:
    """x^0 = 1, x^1 = x, x^2 = x * x, ..., x^-1 = 1 / x"""
    x, y = op.operands
    number = _splat(y)
    if number is None or not abs(number) <= LARGEST_POWER or number != int(number):
        return None
    one = rewriter.constant_like(1, x)
    if number == 0:
        return one
    power = x
    for _ in range(int(abs(number)) - 1):
        power = rewriter.emit(Mul, power, x)
    return power if number > 0 else rewriter.emit(Div, one, power)


@rewrite
def square_root(op: Pow, rewriter: Rewriter) -> Value | None:
    """x^0.5 = sqrt(x), but for x = -inf"""
    return rewriter.emit(Sqrt, op.operands[0]) if _splat(op.operands[1]) == 0.5 else None


# ---- truth values and casts


@rewrite
def select_known(op: Select, rewriter: Rewriter) -> Value | None:
    """select(true, x, y) = x; select(false, x, y) = y; select(c, x, x) = x"""
    condition, x, y = op.operands
    if x is y:
        return x
    known = _splat(condition)
    return None if known is None else (x if known else y)


@rewrite
def select_negated(op: Select, rewriter: Rewriter) -> Value | None:
    """select(not c, x, y) = select(c, y, x)"""
    condition, x, y = op.operands
    inner = condition.defining_op
    return rewriter.emit(Select, inner.operands[0], y, x) if isinstance(inner, Not) else None


@rewrite
def conjunction_with_known(op: And, rewriter: Rewriter) -> Value | None:
    """x and true = x; x and false = false; x and x = x"""
    return _connected(op, neutral=True)


@rewrite
def disjunction_with_known(op: Or, rewriter: Rewriter) -> Value | None:
    """x or false = x; x or true = true; x or x = x"""
    return _connected(op, neutral=False)


def _connected(op: And | Or, neutral: bool) -> Value | None:
    x, y = op.operands
    if x is y:
        return x
    for known, other in ((x, y), (y, x)):
        value = _splat(known)
        if value is not None:
            return other if bool(value) is neutral else known
    return None


@rewrite
def double_not(op: Not, rewriter: Rewriter) -> Value | None:
    """not (not x) = x"""
    inner = op.operands[0].defining_op
    return inner.operands[0] if isinstance(inner, Not) else None


@rewrite
def cast_to_same(op: Cast, rewriter: Rewriter) -> Value | None:
    """A cast to the element type that a value has is the value."""
    return op.operands[0] if op.operands[0].dtype is op.dtype else None


# ---- shapes


@rewrite
def same_shape(op: Operation, rewriter: Rewriter) -> Value | None:
    """A reshape, broadcast, slice or pad to the shape that a tensor has is the tensor."""
    if not isinstance(op, Reshape | Broadcast | Slice | Pad):
        return None
    if op.operands[0].type != op.result.type:
        return None
    is_reversal = isinstance(op, Slice) and any(step < 0 for step in op.steps)
    return None if is_reversal else op.operands[0]


@rewrite
def reshape_of_reshape(op: Reshape, rewriter: Rewriter) -> Value | None:
    """reshape(reshape(x)) = reshape(x)"""
    inner = op.operands[0].defining_op
    if not isinstance(inner, Reshape):
        return None
    return rewriter.emit(Reshape, inner.operands[0], shape=op.shape)


@rewrite
def identity_transpose(op: Transpose, rewriter: Rewriter) -> Value | None:
    """A transpose that leaves every axis where it is, is its operand."""
    identity = op.permutation == tuple(range(len(op.permutation)))
    return op.operands[0] if identity else None


@rewrite
def transpose_of_transpose(op: Transpose, rewriter: Rewriter) -> Value | None:
    """Two transposes are one, by the composed permutation."""
    inner = op.operands[0].defining_op
    if not isinstance(inner, Transpose):
        return None
    permutation = tuple(inner.permutation[p] for p in op.permutation)
    return rewriter.emit(Transpose, inner.operands[0], permutation=permutation)


@rewrite
def broadcast_of_broadcast(op: Broadcast, rewriter: Rewriter) -> Value | None:
    """Two broadcasts are one, by the composed axes."""
    inner = op.operands[0].defining_op
    if not isinstance(inner, Broadcast):
        return None
    dims = tuple(op.dims[d] for d in inner.dims)
    return rewriter.emit(Broadcast, inner.operands[0], shape=op.shape, dims=dims)


@rewrite
def single_concat(op: Concat, rewriter: Rewriter) -> Value | None:
    """The concatenation of one tensor is the tensor."""
    return op.operands[0] if len(op.operands) == 1 else None


@rewrite
def elementwise_of_broadcasts(op: Operation, rewriter: Rewriter) -> Value | None:
    """f(broadcast(x), broadcast(y)) = broadcast(f(x, y)) where both repeat along the same axes

    A tensor of one number counts as broadcast along any axes.
    """
    if not op.has(Trait.ELEMENTWISE) or op.regions:
        return None
    found = [o.owner for o in op.operands if isinstance(o.owner, Broadcast)]
    shapes = {(broadcast.dims, broadcast.operands[0].shape) for broadcast in found}
    if len(shapes) != 1:
        return None
    (dims, small) = shapes.pop()
    narrowed = [_narrowed(operand, small, rewriter) for operand in op.operands]
    operands = [value for value in narrowed if value is not None]
    if len(operands) != len(op.operands):
        return None
    inner = type(op)(operands, op.attributes, (), op.location)
    result = rewriter.build.append(inner).result
    return rewriter.emit(Broadcast, result, shape=op.result.shape, dims=dims)


def _narrowed(value: Value, shape: object, rewriter: Rewriter) -> Value | None:
    """What is repeated to make the value; None where it is not made by repetition."""
    source, number = value.defining_op, _splat(value)
    if isinstance(source, Broadcast):
        return source.operands[0]
    if number is None or not isinstance(shape, tuple):
        return None
    return rewriter.build.constant(number, value.dtype, shape)


RULES: tuple[Pattern, ...] = (
    add_zero,
    subtract_zero,
    subtract_from_zero,
    multiply_one,
    multiply_minus_one,
    divide_one,
    divide_power_of_two,
    multiply_reciprocal,
    multiply_integer_zero,
    integer_difference_of_same,
    double_negation,
    negated_difference,
    add_negative,
    subtract_negative,
    negative_factor,
    small_power,
    square_root,
    select_known,
    select_negated,
    conjunction_with_known,
    disjunction_with_known,
    double_not,
    cast_to_same,
    same_shape,
    reshape_of_reshape,
    identity_transpose,
    transpose_of_transpose,
    broadcast_of_broadcast,
    single_concat,
    elementwise_of_broadcasts,
)


@dataclass(frozen=True)
class Canonicalize(Pass):
    """Brings operations to canonical forms and folds constants, until nothing changes.

        %1 = mul %x, 1.0
        %2 = neg %1             =>      %4 = sub %y, %x
        %3 = add %y, %2

    The laws are the docstrings of the rules in this file.
    """

    name = "canonicalize"

    def run(self, module: Module) -> Module:
        return rewrite_module(module, (*FOLDING, *RULES))
