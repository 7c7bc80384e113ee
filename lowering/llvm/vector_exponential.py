"""exp, expm1, sigmoid, tanh and erf of vectors of f32 or f64.

exp: x = n log(2) + r with |r| <= log(2) / 2, the multiple taken off in two parts of which n times
the first is exact; a polynomial in r; then a scaling by 2**n in two steps, so that a subnormal
result is rounded once and overflow is inf.  n is read from the bits of x / log(2) plus a number so
large that its last bit is worth 1.
"""

from typing import NamedTuple

from mapsto.lowering.llvm import vector_avx512, vector_coefficients
from mapsto.lowering.llvm.vector_coefficients import ERF_SPLIT, Coefficients
from mapsto.lowering.llvm.vector_value import Vector, polynomial

_LOG2_E = 1.4426950408889634


class _Format(NamedTuple):
    """What depends on the width: where the exponent starts, and the bounds of the functions.

    `exp_range` holds all arguments whose exp is neither 0 nor inf, `expm1_low` is where expm1 has
    become -1, `tanh_high` where tanh(x / 2) has become 1.  `sigmoid_range` is where sigmoid is
    neither 0 nor 1; e**-x times 2**-`sigmoid_shift` is finite and not 0 there.
    """

    coefficients: Coefficients
    significand_bits: int
    bias: int
    ln2_high: float
    ln2_low: float
    exp_range: tuple[float, float]
    expm1_low: float
    tanh_high: float
    sigmoid_range: tuple[float, float]
    sigmoid_shift: int

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
    sigmoid_range=(-104.0, 30.0),
    sigmoid_shift=24,
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
    sigmoid_range=(-745.5, 60.0),
    sigmoid_shift=54,
)


def _format(x: Vector) -> _Format:
    return _F64 if x.type.bits == 64 else _F32


class _Reduced(NamedTuple):
    """x = n log(2) + r, where r is `high` rounded after adding `low`.

    `bits` are those of a number whose last ones are n + bias.
    """

    r: Vector
    high: Vector
    low: Vector
    n: Vector
    bits: Vector


def _reduce(x: Vector, bias: int) -> _Reduced:
    form = _format(x)
    rounder = form.rounder + bias
    shifted = x.times_plus(_LOG2_E, rounder)
    n = shifted - rounder
    high = n.times_plus(-form.ln2_high, x)
    low = n * -form.ln2_low
    return _Reduced(high + low, high, low, n, shifted.bits())


def _expm1_of_remainder(reduced: _Reduced) -> tuple[Vector, Vector]:
    """e**r - 1 as a sum of the remainder's high part, which is exact, and the rest."""
    r = reduced.r
    square = r * r
    rest = polynomial(r, _format(r).coefficients.EXP, square).times_plus(square, reduced.low)
    return reduced.high, rest


def _power_of_two(bits: Vector) -> Vector:
    """2**n from bits that end in n plus the exponent's bias."""
    return (bits << _format(bits).significand_bits).as_float()


def exp(x: Vector) -> Vector:
    """e**x."""
    reduced = _reduce_for_exp(x)
    high, rest = _expm1_of_remainder(reduced)
    return _scale(high + rest + 1.0, reduced)


def exp_of_sum(x: Vector, small: Vector) -> Vector:
    """e**(x + small), for |small| below about a unit in the last place of x."""
    reduced = _reduce_for_exp(x)
    low = reduced.low + small
    reduced = reduced._replace(r=reduced.high + low, low=low)
    high, rest = _expm1_of_remainder(reduced)
    return _scale(high + rest + 1.0, reduced)


def _reduce_for_exp(x: Vector) -> _Reduced:
    form = _format(x)
    low, high = form.exp_range
    return _reduce(x.at_most(high).at_least(low), 2 * form.bias)


def _scale(x: Vector, reduced: _Reduced) -> Vector:
    """x * 2**n in two steps; the bits end in n plus twice the exponent's bias."""
    if vector_avx512.fills_register(x):
        return vector_avx512.scale(x, reduced.n)
    half = reduced.bits >> 1
    return x * _power_of_two(half) * _power_of_two(reduced.bits - half)


def expm1(x: Vector) -> Vector:
    """e**x - 1, accurate near 0."""
    form = _format(x)
    bounded = x.at_most(form.exp_range[1]).at_least(form.expm1_low)
    reduced = _reduce(bounded, form.bias - 1)
    half_power = _power_of_two(reduced.bits)
    high, rest = _expm1_of_remainder(reduced)
    half = rest.times_plus(half_power, high.times_plus(half_power, half_power - 0.5))
    return (half + half).with_sign_of(x)


def sigmoid(x: Vector) -> Vector:
    """1 / (1 + e**-x), accurate relative to the result on both sides.

    Both terms are scaled by a power of two with which e**-x is finite where the result is
    subnormal, so that one division rounds it.
    """
    form = _format(x)
    low, high = form.sigmoid_range
    decay, bits = _short_exp(-x.at_most(high).at_least(low), form.bias - form.sigmoid_shift)
    one = 2.0**-form.sigmoid_shift
    return one / decay.times_plus(_power_of_two(bits), one)


def _short_exp(x: Vector, bias: int) -> tuple[Vector, Vector]:
    """e**x as a number near 1 and bits that end in the exponent of a power of two plus a bias.  The
    remainder is rounded, which costs a quarter of a unit in the last place and saves instructions.
    """
    form = _format(x)
    shifted = x.times_plus(_LOG2_E, form.rounder + bias)
    n = shifted - (form.rounder + bias)
    r = n.times_plus(-form.ln2_low, n.times_plus(-form.ln2_high, x))
    square = r * r
    rest = polynomial(r, form.coefficients.EXP, square)
    return rest.times_plus(square, r) + 1.0, shifted.bits()


def tanh(x: Vector) -> Vector:
    """The hyperbolic tangent: a polynomial up to 1, then 1 - 2 / (e**(2 x) + 1)."""
    form = _format(x)
    magnitude = abs(x)
    bounded = (magnitude + magnitude).at_most(form.tanh_high)
    growth, bits = _short_exp(bounded, form.bias - 1)
    denominator = growth.times_plus(_power_of_two(bits), 0.5)
    outer = 1.0 - 1.0 / denominator
    square = x * x
    inner = (polynomial(square, form.coefficients.TANH) * square).times_plus(x, x)
    sign = x.bits() ^ magnitude.bits()
    result = magnitude.compare("olt", 1.0).select(inner, outer)
    return (result.bits() | sign).as_float()


def erf(x: Vector) -> Vector:
    """The error function: a polynomial near 0, then 1 minus the square of a polynomial."""
    table = _format(x).coefficients
    magnitude = abs(x)
    square = x * x
    inner = polynomial(square, table.ERF).times_plus(x, x)
    root = polynomial(magnitude.at_most(table.ERF_END) - ERF_SPLIT, table.ERF_TAIL)
    outer = (-root).times_plus(root, 1.0)
    return magnitude.compare("olt", ERF_SPLIT).select(inner, outer.with_sign_of(x))
