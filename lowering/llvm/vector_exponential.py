"""exp, expm1, sigmoid, tanh and erf of vectors of f32 or f64.

exp: x = n log(2) + r with |r| <= log(2) / 2, the multiple taken off in two parts of which n times
the first is exact; a polynomial in r; then a scaling by 2**n in two steps, so that a subnormal result
is rounded once and overflow is inf.  n is read from the bits of x / log(2) plus a number so large
that its last bit is worth 1.
"""

from typing import NamedTuple

from mapsto.lowering.llvm import vector_avx512, vector_coefficients
from mapsto.lowering.llvm.vector_coefficients import Coefficients
from mapsto.lowering.llvm.vector_value import Vector, polynomial

_LOG2_E = 1.4426950408889634


class _Format(NamedTuple):
    """What depends on the width: where the exponent starts, and the bounds of the functions.

    `exp_range` holds all arguments whose exp is neither 0 nor inf, `expm1_low` is where expm1 has
    become -1, `tanh_high` where tanh(x / 2) has become 1.
    """

    coefficients: Coefficients
    significand_bits: int
    bias: int
    ln2_high: float
    ln2_low: float
    exp_range: tuple[float, float]
    expm1_low: float
    tanh_high: float

    @property
    def rounder(self) -> float:
        """Added to a small number, leaves its nearest integer in the last bits of the sum."""
        return 1.5 * 2.0**self.significand_bits


_F32 = _Format(
    coefficients=vector_coefficients.F32,
    significand_bits=23,
    bias=127,
    ln2_high=0.693359375,
    ln2_low=-2.1219444005469057e-4,
    exp_range=(-104.0, 89.0),
    expm1_low=-18.0,
    tanh_high=18.1,
)
_F64 = _Format(
    coefficients=vector_coefficients.F64,
    significand_bits=52,
    bias=1023,
    ln2_high=0.6931471803691238,
    ln2_low=1.9082149292705877e-10,
    exp_range=(-745.5, 710.0),
    expm1_low=-38.0,
    tanh_high=38.2,
)


def _format(x: Vector) -> _Format:
    return _F64 if x.is_double else _F32


def _reduce(x: Vector, bias: int) -> tuple[Vector, Vector, Vector]:
    """r and n, and the bits of a number whose last ones are n + bias, for x = n log(2) + r."""
    form = _format(x)
    rounder = form.rounder + bias
    shifted = x.times_plus(_LOG2_E, rounder)
    n = shifted - rounder
    r = n.times_plus(-form.ln2_low, n.times_plus(-form.ln2_high, x))
    return r, n, shifted.bits()


def _expm1_of_remainder(r: Vector) -> Vector:
    square = r * r
    return polynomial(r, _format(r).coefficients.EXP, square).times_plus(square, r)


def exp(x: Vector) -> Vector:
    """e**x."""
    form = _format(x)
    low, high = form.exp_range
    r, n, bits = _reduce(x.at_most(high).at_least(low), 2 * form.bias)
    result = _expm1_of_remainder(r) + 1.0
    if vector_avx512.fills_register(x):
        return vector_avx512.scale(result, n)
    half = bits >> 1
    first = (half << form.significand_bits).as_float()
    second = ((bits - half) << form.significand_bits).as_float()
    return result * first * second


def expm1(x: Vector) -> Vector:
    """e**x - 1, accurate near 0."""
    form = _format(x)
    x_bounded = x.at_most(form.exp_range[1]).at_least(form.expm1_low)
    r, _, bits = _reduce(x_bounded, form.bias - 1)
    half_power = (bits << form.significand_bits).as_float()
    half = _expm1_of_remainder(r).times_plus(half_power, half_power - 0.5)
    return (half + half).with_sign_of(x)


def sigmoid(x: Vector) -> Vector:
    """1 / (1 + e**-x), accurate relative to the result on both sides."""
    decay = exp(-abs(x))
    numerator = x.compare("oge", 0.0).select(x.constant(1.0), decay)
    return numerator / (decay + 1.0)


def tanh(x: Vector) -> Vector:
    """The hyperbolic tangent: a polynomial up to 1, then 1 - 2 / (e**(2 x) + 1)."""
    form = _format(x)
    magnitude = abs(x)
    r, _, bits = _reduce((magnitude + magnitude).at_most(form.tanh_high), form.bias)
    power = (bits << form.significand_bits).as_float()
    denominator = (_expm1_of_remainder(r) + 1.0).times_plus(power, 1.0)
    outer = 1.0 - 2.0 / denominator
    square = x * x
    inner = (polynomial(square, form.coefficients.TANH) * square).times_plus(x, x)
    return magnitude.compare("olt", 1.0).select(inner, outer.with_sign_of(x))


def erf(x: Vector) -> Vector:
    """The error function: a polynomial near 0, then 1 minus a power of a polynomial."""
    table = _format(x).coefficients
    magnitude = abs(x)
    square = x * x
    inner = polynomial(square, table.ERF).times_plus(x, x)
    slope = 2.0 / (table.ERF_END - table.ERF_SPLIT)
    offset = -(table.ERF_END + table.ERF_SPLIT) / (table.ERF_END - table.ERF_SPLIT)
    t = magnitude.at_most(table.ERF_END).times_plus(slope, offset)
    power = polynomial(t, table.ERF_TAIL)
    for _ in range(table.ERF_ROOT.bit_length() - 2):
        power = power * power
    outer = (-power).times_plus(power, 1.0)
    return magnitude.compare("olt", table.ERF_SPLIT).select(inner, outer.with_sign_of(x))
