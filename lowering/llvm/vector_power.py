"""pow of vectors of f32 or f64, with the special values of C.

|x|**y = exp(y log|x|), the logarithm to more than the precision of the result: in f64 for f32, and
for f64 as a sum of two numbers, by the series of the inverse hyperbolic tangent whose first two
terms are computed to twice the precision.
"""

from mapsto.lowering.llvm import vector_coefficients
from mapsto.lowering.llvm.vector_double import (
    Double,
    add,
    divide,
    exact_product,
    exact_sum,
    fast_sum,
    multiply,
)
from mapsto.lowering.llvm.vector_exponential import exp, exp_of_sum
from mapsto.lowering.llvm.vector_logarithm import (
    LN2_HIGH_F64,
    LN2_LOW_F64,
    log,
    special_logarithm,
    split,
)
from mapsto.lowering.llvm.vector_value import Vector, polynomial

_INFINITY = float("inf")
_NAN = float("nan")
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def power(x: Vector, y: Vector) -> Vector:
    """x**y; NaN for x below 0 and y not an integer."""
    magnitude = _positive_power(abs(x), y) if x.is_double else _positive_power_f32(abs(x), y)
    return _with_sign_and_special_values(x, y, magnitude)


def _positive_power_f32(x: Vector, y: Vector) -> Vector:
    wide = x.type.with_kind("double")
    logarithm = log(x.convert(wide))
    exponent = y.convert(wide) * logarithm
    return exp(_zero_where_one(x, exponent)).convert(x.type)


def _zero_where_one(x: Vector, exponent: Vector) -> Vector:
    """1**y is 1 for infinite y too."""
    return x.compare("oeq", 1.0).select(exponent.constant(0.0), exponent)


def _positive_power(x: Vector, y: Vector) -> Vector:
    logarithm = _precise_logarithm(x)
    product = exact_product(y, logarithm.high)
    low = y.times_plus(logarithm.low, product.low)
    high = _zero_where_one(x, y * special_logarithm(x, logarithm.high))
    small = abs(product.high).compare("olt", 1000.0)
    return exp_of_sum(high, small.select(low, 0.0))


def _precise_logarithm(x: Vector) -> Double:
    """log(x) for finite x above 0, to about 66 bits."""
    k, m = split(x)
    f = m - 1.0
    s = divide(Double(f, f.constant(0.0)), exact_sum(f.constant(2.0), f))
    square = multiply(s, s)
    third = Double(f.constant(_TWO_THIRDS[0]), f.constant(_TWO_THIRDS[1]))
    cubic = multiply(multiply(square, s), third)
    rest = polynomial(square.high, vector_coefficients.F64.LOG_RATIO) * (
        square.high * square.high * s.high
    )
    twice = Double(s.high + s.high, s.low + s.low)
    fraction = add(twice, Double(cubic.high, cubic.low + rest))
    multiple = fast_sum(k * LN2_HIGH_F64, k * LN2_LOW_F64)
    return add(multiple, fraction)


def _with_sign_and_special_values(x: Vector, y: Vector, magnitude: Vector) -> Vector:
    """The result from |x|**y: its sign, and where it is 1 or NaN whatever the other argument."""
    integral = _floor(y).compare("oeq", y)
    half = y * 0.5
    even = _floor(half).compare("oeq", half)
    is_odd = even.select(integral.constant(False), integral)
    flip = is_odd.select(x, x.constant(1.0))
    signed = magnitude.with_sign_of(flip)
    negative = x.compare("olt", 0.0).select(x.compare("ogt", -_INFINITY), False)
    undefined = negative.select(integral ^ True, False)
    defined = undefined.select(x.constant(_NAN), signed)
    one = y.compare("oeq", 0.0) | x.compare("oeq", 1.0)
    return one.select(x.constant(1.0), defined)


def _floor(x: Vector) -> Vector:
    return Vector(x.writer, x.writer.floor(x.operand))
