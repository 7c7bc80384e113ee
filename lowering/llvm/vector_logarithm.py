"""log, log1p and rsqrt of vectors of f32 or f64.

log: x = 2**k m with m in [0.75, 1.5), so that f = m - 1 is exact and no result near 0 is a
difference; log(m) is a polynomial in f, and k log(2) is added in two parts of which the first is
exact.
"""

from typing import NamedTuple

from mapsto.lowering.llvm import vector_avx512, vector_coefficients
from mapsto.lowering.llvm.vector_coefficients import Coefficients
from mapsto.lowering.llvm.vector_value import Vector, polynomial

LN2_HIGH_F64 = 0.6931471803691238
LN2_LOW_F64 = 1.9082149292705877e-10
"""log(2) as a sum; the first part has 32 bits."""
_INFINITY = float("inf")
_NAN = float("nan")


class _Format(NamedTuple):
    """What depends on the width; log(2) is the sum of `ln2_high`, with few bits, and `ln2_low`."""

    coefficients: Coefficients
    significand_bits: int
    bias: int
    ln2_high: float
    ln2_low: float
    least_normal: float


_F32 = _Format(
    coefficients=vector_coefficients.F32,
    significand_bits=23,
    bias=127,
    ln2_high=0.693145751953125,
    ln2_low=1.428606765330187e-06,
    least_normal=2.0**-126,
)
_F64 = _Format(
    coefficients=vector_coefficients.F64,
    significand_bits=52,
    bias=1023,
    ln2_high=LN2_HIGH_F64,
    ln2_low=LN2_LOW_F64,
    least_normal=2.0**-1022,
)


def _format(x: Vector) -> _Format:
    return _F64 if x.is_double else _F32


def log(x: Vector) -> Vector:
    """The natural logarithm."""
    if vector_avx512.fills_register(x):
        m = vector_avx512.significand(x)
        k = vector_avx512.exponent(x) - vector_avx512.exponent(m)
        return _log_of_parts(k, m - 1.0)
    k, m = split(x)
    return special_logarithm(x, _log_of_parts(k, m - 1.0))


def split(x: Vector) -> tuple[Vector, Vector]:
    """k, as a float, and m of x = 2**k m with m in [0.75, 1.5), for finite x above 0."""
    form = _format(x)
    tiny = x.compare("olt", form.least_normal)
    shift = float(form.significand_bits + 1)
    normal = tiny.select(x * 2.0**shift, x)
    power, k = _split_exponent(normal)
    m = (normal.bits() - power).as_float()
    return k - tiny.select(x.constant(shift), 0.0), m


def log1p(x: Vector) -> Vector:
    """log(1 + x), accurate near 0: what 1 + x loses in rounding is added to the significand."""
    form = _format(x)
    above_one = x.compare("ogt", 1.0)
    larger = above_one.select(x, 1.0)
    smaller = above_one.select(x.constant(1.0), x)
    total = larger + smaller
    lost = smaller - (total - larger)
    power, k = _split_exponent(total)
    two = x.bits().constant((form.bias + 1) << form.significand_bits)
    twice_inverse = (two - power).as_float()
    twice_rest = (total.bits() - power).as_float().times_plus(2.0, -2.0)
    f = lost.times_plus(twice_inverse, twice_rest) * 0.5
    result = special_logarithm(total, _log_of_parts(k, f))
    return result.with_sign_of(x)


def rsqrt(x: Vector) -> Vector:
    """1 / sqrt(x); inf at 0.

    What rounding lost in the root and in the quotient is found exactly with fused multiply-adds
    and put back to first order; without those, f32 is computed in f64.
    """
    if not x.writer.has_fma:
        wide = x if x.is_double else x.convert(x.type.with_kind("double"))
        quotient = 1.0 / wide.sqrt()
        return quotient if x.is_double else quotient.convert(x.type)
    shift = 2.0 ** (_format(x).significand_bits + 1)
    tiny = x.compare("olt", _format(x).least_normal * shift * shift)
    scaled = tiny.select(x * (shift * shift), x)
    result = _refined_rsqrt(scaled)
    return tiny.select(result * shift, result)


def _refined_rsqrt(x: Vector) -> Vector:
    root = x.sqrt()
    result = 1.0 / root
    lost_in_root = (-root).times_plus(root, x) * result
    lost_in_quotient = (-root).times_plus(result, 1.0)
    relative = (lost_in_root * -0.5).times_plus(result, lost_in_quotient)
    better = result.times_plus(relative, result)
    return better.compare("ord", better).select(better, result)


def _split_exponent(x: Vector) -> tuple[Vector, Vector]:
    """k of x = 2**k m as the bits that 2**k adds to those of m, and as a float."""
    form = _format(x)
    bits = x.bits()
    below_three_quarters = (form.bias << form.significand_bits) - (1 << (form.significand_bits - 1))
    moved = bits - below_three_quarters
    power = moved & -(1 << form.significand_bits)
    if not x.is_double:
        shifted = x.writer.ashr(power.operand, power.constant(form.significand_bits).operand)
        return power, Vector(x.writer, x.writer.sitofp(shifted, x.type))
    # No conversion from i64 below AVX-512: put the biased k into the last bits of 2**52.
    one = form.bias << form.significand_bits
    biased = (power + one) >> form.significand_bits
    large = 2.0**form.significand_bits
    number = (biased | x.constant(large).bits()).as_float()
    return power, number - (large + form.bias)


def _log_of_parts(k: Vector, f: Vector) -> Vector:
    """k log(2) + log(1 + f)."""
    form = _format(f)
    square = f * f
    rest = polynomial(f, form.coefficients.LOG, square).times_plus(f, -0.5)
    low = rest.times_plus(square, k * form.ln2_low)
    return k.times_plus(form.ln2_high, low + f)


def special_logarithm(x: Vector, result: Vector) -> Vector:
    """`result`, but of special x: -inf at 0, inf at inf, NaN below 0 and at NaN."""
    at_or_below_zero = x.compare("oeq", 0.0).select(x.constant(-_INFINITY), _NAN)
    finite = x.compare("ogt", 0.0).select(result, at_or_below_zero)
    return x.compare("olt", _INFINITY).select(finite, x)
