"""The remainder of a large f64 modulo pi / 2, to more than double precision (Payne and Hanek).

x = M 2**e with an integer M of 53 bits.  Bits of 2 / pi that M 2**e turns into multiples of 4 do
not matter; the product of M with the 192 bits that follow, kept modulo 2**192, is x 2 / pi modulo
4, in integer arithmetic of one lane.
"""

import functools

from mapsto.lowering.llvm.types import DOUBLE, I64, I128, Operand, constant
from mapsto.lowering.llvm.vector_double import exact_product, fast_sum
from mapsto.lowering.llvm.vector_value import Vector
from mapsto.lowering.llvm.writer import FunctionWriter

_WORDS = 22
_EXPONENT_OFFSET = 1075
_LOW_HALF = 0xFFFFFFFF
_HALF_PI = (1.5707963267948966, 6.123233995736766e-17)


def reduce_large(x: Vector) -> tuple[Vector, Vector, Vector]:
    """r as a sum of two, and n modulo 4, of x = n pi / 2 + r for one finite f64 |x| >= 1024."""
    f = x.writer
    bits = x.bits()
    exponent = ((bits >> 52) & 0x7FF) - _EXPONENT_OFFSET
    significand = (bits & ((1 << 52) - 1)) | (1 << 52)
    upper, lower = _turns(f, significand, _window(f, exponent + 62))
    quadrant = (upper + (1 << 61)) >> 62
    fraction = (upper << 2) | (lower >> 62)
    high, low = _times_half_pi(f, fraction, lower << 2)
    negative = x.compare("olt", 0.0)
    n = negative.select(quadrant.constant(0) - quadrant, quadrant)
    return negative.select(-high, high), negative.select(-low, low), n


def _window(f: FunctionWriter, position: Vector) -> list[Vector]:
    """Three words of 2 / pi from a bit position of the table on."""
    table = f.module.add_global(
        "mapsto.two_over_pi", f"internal constant [{_WORDS} x i64] [{_two_over_pi()}], align 64"
    )
    first = position >> 6
    shift = (position & 63).operand
    words = [
        f.load(I64, f.getelementptr(I64, table, (first + number).operand)) for number in range(4)
    ]
    return [
        Vector(f, f.intrinsic("fshl", words[number], words[number + 1], shift))
        for number in range(3)
    ]


@functools.cache
def _two_over_pi() -> str:
    """64 zero bits, then the binary digits of 2 / pi, in words."""
    bits = 64 * (_WORDS - 1)
    digits = (2 << (2 * bits + 64)) // _pi_digits(bits + 64)
    words = [0] + [
        (digits >> (bits - 64 * (number + 1))) & (2**64 - 1) for number in range(_WORDS - 1)
    ]
    return ", ".join(f"i64 {word}" for word in words)


def _pi_digits(bits: int) -> int:
    """floor(pi * 2**bits), by Machin's formula."""
    guard = bits + 32
    one = 1 << guard
    return (4 * (4 * _arctangent_of_inverse(5, one) - _arctangent_of_inverse(239, one))) >> 32


def _arctangent_of_inverse(n: int, one: int) -> int:
    power = total = one // n
    sign, divisor = -1, 3
    while power:
        power //= n * n
        total += sign * (power // divisor)
        sign, divisor = -sign, divisor + 2
    return total


def _turns(f: FunctionWriter, significand: Vector, words: list[Vector]) -> tuple[Vector, Vector]:
    """The upper 128 of 192 bits of the significand times the words, modulo 2**192."""
    lowest = _multiply_high(f, significand, words[2])
    middle = significand * words[1]
    lower = middle + lowest
    carry = Vector(f, f.zext(lower.compare("ult", middle).operand, I64))
    upper = significand * words[0] + _multiply_high(f, significand, words[1]) + carry
    return upper, lower


def _multiply_high(f: FunctionWriter, a: Vector, b: Vector) -> Vector:
    """The upper half of the 128-bit product of two unsigned words."""
    if not f.module.has_wide_integers:
        return _multiply_high_in_halves(a, b)
    wide = I128
    product = f.mul(f.zext(a.operand, wide), f.zext(b.operand, wide))
    return Vector(f, f.trunc(f.lshr(product, constant(wide, 64)), I64))


def _multiply_high_in_halves(a: Vector, b: Vector) -> Vector:
    """The same, from products of half words."""
    low_a, high_a, low_b, high_b = a & _LOW_HALF, a >> 32, b & _LOW_HALF, b >> 32
    crosses = low_a * high_b, high_a * low_b
    carry = low_a * low_b >> 32
    for cross in crosses:
        carry = carry + (cross & _LOW_HALF)
    return high_a * high_b + (crosses[0] >> 32) + (crosses[1] >> 32) + (carry >> 32)


def _times_half_pi(f: FunctionWriter, upper: Vector, lower: Vector) -> tuple[Vector, Vector]:
    """(upper, lower) / 2**128, as a signed fraction, times pi / 2 as a sum of two."""
    low_half = upper & _LOW_HALF
    parts = (
        _to_double(f.sitofp, upper - low_half, -64),
        _to_double(f.uitofp, low_half, -64),
        _to_double(f.uitofp, lower, -128),
    )
    fraction = fast_sum(*fast_sum(parts[0], parts[1]))
    rest = fraction.low + parts[2]
    fraction = fast_sum(fraction.high, rest)
    product = exact_product(fraction.high, fraction.high.constant(_HALF_PI[0]))
    low = fraction.high * _HALF_PI[1] + fraction.low * _HALF_PI[0] + product.low
    return fast_sum(product.high, low)


def _to_double(conversion: object, word: Vector, exponent: int) -> Vector:
    assert callable(conversion)
    operand: Operand = conversion(word.operand, DOUBLE)
    return Vector(word.writer, operand) * 2.0**exponent
