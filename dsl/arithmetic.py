"""Operators: on numbers known during elaboration, on indices, and on tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

from mapsto import ir
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.evaluation import scalar_or_tensor
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.matmul import matrix_product
from mapsto.dsl.operators import BinaryOperator as Op
from mapsto.dsl.source import Span
from mapsto.dsl.structures import mapped, over_trees
from mapsto.dsl.tensors import as_access, as_tensor, common_dtype, describe, elementwise, is_static
from mapsto.dsl.values import (
    Access,
    ElementType,
    Formula,
    Group,
    Nothing,
    Number,
    ParameterTree,
    Position,
    Product,
    Tensor,
    Text,
    Truth,
    Value,
)

__all__ = ["binary", "decide", "logical_not", "negate"]

_MAXIMUM_NUMBER = 2**63
_MAXIMUM_UNROLLED_POWER = 4

_ELEMENTWISE: dict[Op, type[ir.Operation]] = {
    Op.ADD: ir.Add,
    Op.SUBTRACT: ir.Sub,
    Op.MULTIPLY: ir.Mul,
    Op.DIVIDE: ir.Div,
    Op.REMAINDER: ir.Mod,
    Op.EQUAL: ir.Eq,
    Op.NOT_EQUAL: ir.Ne,
    Op.LESS: ir.Lt,
    Op.LESS_EQUAL: ir.Le,
    Op.GREATER: ir.Gt,
    Op.GREATER_EQUAL: ir.Ge,
    Op.AND: ir.And,
    Op.OR: ir.Or,
}
_LOGICAL = frozenset({Op.AND, Op.OR})


def _joined(operator: Op, left: Value, right: Value) -> Group | None:
    """One list after another: `[first] + others`."""
    if operator is not Op.ADD or not (isinstance(left, Group) and isinstance(right, Group)):
        return None
    return Group(left.items + right.items, True) if left.is_list and right.is_list else None


def binary(frame: Frame, span: Span, operator: Op, left: Value, right: Value) -> Value:
    """The value of `left operator right`."""
    if operator in _EQUALITY:
        same = _is_same(left, right)
        if same is not None:
            return Truth(same is (operator is Op.EQUAL))
    if isinstance(left, ParameterTree) or isinstance(right, ParameterTree):
        return over_trees(
            frame, span, (left, right), lambda _, pair: binary(frame, span, operator, *pair)
        )
    joined = _joined(operator, left, right)
    if joined is not None:
        return joined
    for operand in (left, right):
        if not isinstance(operand, Tensor | Product | Position | Number | Formula | Truth):
            help = Help.STACK if isinstance(operand, Group) and operand.is_list else None
            found = describe(operand)
            fail(Kind.BAD_OPERAND, span, help=help, operator=operator.value, found=found)
    if isinstance(left, Truth) and isinstance(right, Truth):
        return _truths(span, operator, left.value, right.value)
    if isinstance(left, Number) and isinstance(right, Number):
        return _numbers(span, operator, left, right)
    if isinstance(left, Number | Formula) and isinstance(right, Number | Formula):
        return _formula(span, operator, left, right)
    affine = _affine(operator, left, right)
    if affine is not None:
        return affine
    if operator is Op.MATRIX_MULTIPLY:
        return matrix_product(frame, span, left, right)
    if operator is Op.POWER:
        return _power(frame, span, left, right)
    if operator is Op.MULTIPLY:
        product = _product(frame, span, left, right)
        if product is not None:
            return product
    _check_truth(frame, span, operator, left, right)
    return elementwise(frame, span, _ELEMENTWISE[operator], [left, right])


_EQUALITY = frozenset({Op.EQUAL, Op.NOT_EQUAL})


def _is_same(left: Value, right: Value) -> bool | None:
    """Whether two values that only elaboration knows are the same; None for others."""
    if isinstance(left, Nothing) or isinstance(right, Nothing):
        return left == right
    if isinstance(left, ElementType) and isinstance(right, ElementType):
        return left == right
    has_text = isinstance(left, Text) or isinstance(right, Text)
    comparable = all(isinstance(value, Text | Number | Truth | Group) for value in (left, right))
    return left == right if has_text and comparable else None


def _check_truth(frame: Frame, span: Span, operator: Op, left: Value, right: Value) -> None:
    """Connectives take truth values, arithmetic does not."""
    dtype = common_dtype(frame, span, [left, right])
    is_truth = dtype is ir.DType.BOOL
    if operator in _LOGICAL and not is_truth:
        fail(Kind.NOT_A_TRUTH_VALUE, span, found=dtype, operator=operator.value)
    arithmetic = issubclass(_ELEMENTWISE[operator], ir.Binary) and operator not in _LOGICAL
    if is_truth and arithmetic and not issubclass(_ELEMENTWISE[operator], ir.Compare):
        fail(Kind.DTYPE_NOT_ACCEPTED, span, operation=operator.value, dtype=dtype)


def _truths(span: Span, operator: Op, left: bool, right: bool) -> Truth:
    match operator:
        case Op.AND:
            return Truth(left and right)
        case Op.OR:
            return Truth(left or right)
        case Op.EQUAL:
            return Truth(left == right)
        case Op.NOT_EQUAL:
            return Truth(left != right)
    return fail(Kind.DTYPE_NOT_ACCEPTED, span, operation=operator.value, dtype=ir.DType.BOOL)


def _formula(span: Span, operator: Op, left: Number | Formula, right: Number | Formula) -> Value:
    """Arithmetic of real numbers of which one depends on symbolic sizes."""
    if operator not in _FLOATS:
        fail(Kind.SYMBOLIC_NUMBER, span, value=span.text)
    return Formula(ir.Pow if operator is Op.POWER else _ELEMENTWISE[operator], (left, right))


def _numbers(span: Span, operator: Op, first: Number, second: Number) -> Value:
    """Arithmetic during elaboration: whole numbers stay whole, a float makes the result one."""
    left, right = first.value, second.value
    if operator in _COMPARISONS:
        return Truth(_compare(span, operator, left, right))
    if operator in _LOGICAL or operator is Op.MATRIX_MULTIPLY:
        fail(Kind.BAD_OPERAND, span, operator=operator.value, found=f"the number {left}")
    if isinstance(left, float) or isinstance(right, float):
        if isinstance(left, ir.DimExpression) or isinstance(right, ir.DimExpression):
            return _formula(span, operator, first, second)
        return Number(_floats(span, operator, as_float(span, left), as_float(span, right)))
    return Number(_limited(span, _wholes(span, operator, left, right)))


def as_float(span: Span, value: ir.Dim | float) -> float:
    """A number as a float; a symbolic one has no value yet."""
    if isinstance(value, ir.DimExpression):
        fail(Kind.SYMBOLIC_NUMBER, span, value=value)
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _floats(span: Span, operator: Op, left: float, right: float) -> float:
    try:
        result = _FLOATS[operator](left, right)
    except ZeroDivisionError:
        fail(Kind.DIVISION_BY_ZERO, span)
    except OverflowError:
        result = math.inf
    if isinstance(result, complex):
        return math.nan
    return result


_FLOATS: dict[Op, Callable[[float, float], float | complex]] = {
    Op.ADD: lambda a, b: a + b,
    Op.SUBTRACT: lambda a, b: a - b,
    Op.MULTIPLY: lambda a, b: a * b,
    Op.DIVIDE: lambda a, b: a / b,
    Op.REMAINDER: lambda a, b: a % b,
    Op.POWER: lambda a, b: a**b,
}


def _wholes(span: Span, operator: Op, left: ir.Dim, right: ir.Dim) -> ir.Dim:
    match operator:
        case Op.ADD:
            return left + right
        case Op.SUBTRACT:
            return left - right
        case Op.MULTIPLY:
            return left * right
        case Op.POWER:
            return _whole_power(span, left, right)
    if right == 0:
        fail(Kind.DIVISION_BY_ZERO, span)
    quotient = ir.floor_div(left, right)
    return quotient if operator is Op.DIVIDE else left - quotient * right


def _whole_power(span: Span, base: ir.Dim, exponent: ir.Dim) -> ir.Dim:
    if not isinstance(exponent, int) or not 0 <= exponent <= 64:
        fail(Kind.BAD_EXPONENT, span, value=exponent)
    result: ir.Dim = 1
    for _ in range(exponent):
        result = _limited(span, result * base)
    return result


def _limited(span: Span, value: ir.Dim) -> ir.Dim:
    if isinstance(value, int) and not -_MAXIMUM_NUMBER <= value < _MAXIMUM_NUMBER:
        fail(Kind.NUMBER_OVERFLOWS, span)
    if isinstance(value, ir.DimExpression) and len(value.terms) > 64:
        fail(Kind.NUMBER_OVERFLOWS, span)
    return value


_COMPARISONS: dict[Op, Callable[[float, float], bool]] = {
    Op.EQUAL: lambda a, b: a == b,
    Op.NOT_EQUAL: lambda a, b: a != b,
    Op.LESS: lambda a, b: a < b,
    Op.LESS_EQUAL: lambda a, b: a <= b,
    Op.GREATER: lambda a, b: a > b,
    Op.GREATER_EQUAL: lambda a, b: a >= b,
}


def _compare(span: Span, operator: Op, left: ir.Dim | float, right: ir.Dim | float) -> bool:
    """Compares numbers; symbolic ones where their difference is a known number."""
    if isinstance(left, ir.DimExpression) or isinstance(right, ir.DimExpression):
        wholes = not isinstance(left, float) and not isinstance(right, float)
        difference = left - right if wholes else left  # type: ignore[operator]
        if isinstance(difference, ir.DimExpression):
            fail(Kind.SYMBOLIC_NUMBER, span, value=difference)
        left, right = difference, 0
    return _COMPARISONS[operator](left, right)


def _affine(operator: Op, left: Value, right: Value) -> Value | None:
    """Arithmetic of indices that stays affine; None for other operands."""
    a, b = _as_position(left), _as_position(right)
    if a is None or b is None:
        return None
    if operator is Op.ADD:
        return a.plus(b)
    if operator is Op.SUBTRACT:
        return a.plus(b.times(-1))
    if operator is Op.MULTIPLY and not b.terms:
        return a.times(b.constant)
    if operator is Op.MULTIPLY and not a.terms:
        return b.times(a.constant)
    return None


def _as_position(value: Value) -> Position | None:
    if isinstance(value, Position):
        return value
    if isinstance(value, Number) and not isinstance(value.value, float):
        return Position((), value.value)
    return None


def _product(frame: Frame, span: Span, left: Value, right: Value) -> Product | None:
    """A lazy product of scalars that depend on indices; None where operands are no such."""
    if not scalar_or_tensor(left) or not scalar_or_tensor(right):
        return None
    dtype = common_dtype(frame, span, [left, right])
    factors = (*_factors(left), *_factors(right))
    scalar = all(not isinstance(v, Tensor) or not v.shape for v in (left, right))
    indexed = any(factor.variables for factor in factors)
    if not scalar or not indexed or dtype is ir.DType.BOOL:
        return None
    return Product(factors)


def _factors(value: Value) -> tuple[Access, ...]:
    if isinstance(value, Product):
        return value.factors
    if isinstance(value, Tensor) and not value.shape:
        return (as_access(value),)
    return ()


def _power(frame: Frame, span: Span, base: Value, exponent: Value) -> Value:
    """A power; small whole exponents are multiplied out, which is exact for integers too."""
    if isinstance(exponent, Number) and scalar_or_tensor(base):
        tensor = as_tensor(frame, span, base)
        value = exponent.value
        if value == 0.5 and tensor.dtype.is_float:
            return elementwise(frame, span, ir.Sqrt, [tensor])
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if whole and 1 <= int(value) <= _MAXIMUM_UNROLLED_POWER:  # type: ignore[arg-type]
            return _unrolled_power(frame, span, tensor, int(value))  # type: ignore[arg-type]
        base = tensor
    dtype = common_dtype(frame, span, [base, exponent])
    if not dtype.is_float:
        fail(Kind.DTYPE_NOT_ACCEPTED, span, operation="^", dtype=dtype)
    return elementwise(frame, span, ir.Pow, [base, exponent])


def _unrolled_power(frame: Frame, span: Span, base: Tensor, exponent: int) -> Tensor:
    if exponent == 1:
        return base
    half = _unrolled_power(frame, span, base, exponent // 2)
    square = elementwise(frame, span, ir.Mul, [half, half])
    return elementwise(frame, span, ir.Mul, [square, base]) if exponent % 2 else square


def negate(frame: Frame, span: Span, value: Value) -> Value:
    """`-value`."""
    match value:
        case Number():
            return Number(-value.value)
        case Position():
            return value.times(-1)
        case Tensor() | Product():
            return elementwise(frame, span, ir.Neg, [value])
        case Formula():
            return Formula(ir.Neg, (value,))
        case ParameterTree():
            return mapped(lambda leaf: negate(frame, span, leaf), value)
    return fail(Kind.BAD_OPERAND, span, operator="-", found=describe(value))


def logical_not(frame: Frame, span: Span, value: Value) -> Value:
    """`not value`."""
    if isinstance(value, Truth):
        return Truth(not value.value)
    if not scalar_or_tensor(value):
        fail(Kind.NOT_A_TRUTH_VALUE, span, found=describe(value), operator="not")
    tensor = as_tensor(frame, span, value)
    if tensor.dtype is not ir.DType.BOOL:
        fail(Kind.NOT_A_TRUTH_VALUE, span, found=tensor.dtype, operator="not")
    return elementwise(frame, span, ir.Not, [tensor])


def decide(frame: Frame, span: Span, condition: Value, name: str = "if") -> bool | Tensor:
    """A condition of what has this name: known during elaboration, or a tensor of truth values."""
    if isinstance(condition, Truth):
        return condition.value
    if not scalar_or_tensor(condition) or is_static(condition):
        fail(Kind.NOT_A_TRUTH_VALUE, span, found=describe(condition), operator=name)
    tensor = as_tensor(frame, span, condition)
    if tensor.dtype is not ir.DType.BOOL:
        fail(Kind.NOT_A_TRUTH_VALUE, span, found=tensor.type, operator=name)
    return tensor
