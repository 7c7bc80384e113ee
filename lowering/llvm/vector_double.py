"""Sums of two numbers that stand for one of twice the precision.

`high + low` with |low| at most half a unit in the last place of `high`.  The methods are those of
Dekker and Knuth; each result names what it loses, if anything.
"""

from typing import NamedTuple

from mapsto.lowering.llvm.vector_value import Vector

_SPLITTERS = {24: 2.0**12 + 1, 53: 2.0**27 + 1}


class Double(NamedTuple):
    """The number high + low."""

    high: Vector
    low: Vector


def fast_sum(larger: Vector, smaller: Vector) -> Double:
    """larger + smaller, exactly, if |larger| >= |smaller| or larger is 0."""
    high = larger + smaller
    return Double(high, smaller - (high - larger))


def exact_sum(a: Vector, b: Vector) -> Double:
    """a + b, exactly."""
    high = a + b
    part = high - a
    return Double(high, (a - (high - part)) + (b - part))


def exact_product(a: Vector, b: Vector) -> Double:
    """a * b, exactly unless the low part underflows (or, without FMA, a part overflows)."""
    high = a * b
    if a.writer.has_fma:
        return Double(high, a.times_plus(b, -high))
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    low = ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low
    return Double(high, low)


def _split(a: Vector) -> tuple[Vector, Vector]:
    """A number as a sum of two of half as many bits."""
    scaled = a * _SPLITTERS[53 if a.is_double else 24]
    high = scaled - (scaled - a)
    return high, a - high


def add(a: Double, b: Double) -> Double:
    """a + b to nearly twice the precision, unless they cancel."""
    total = exact_sum(a.high, b.high)
    return fast_sum(total.high, total.low + (a.low + b.low))


def multiply(a: Double, b: Double) -> Double:
    """a * b to nearly twice the precision."""
    product = exact_product(a.high, b.high)
    cross = a.low.times_plus(b.high, a.high * b.low)
    return fast_sum(product.high, product.low + cross)


def divide(a: Double, b: Double) -> Double:
    """a / b to nearly twice the precision."""
    quotient = a.high / b.high
    back = exact_product(quotient, b.high)
    rest = ((a.high - back.high) - back.low) + a.low - quotient * b.low
    return fast_sum(quotient, rest / b.high)
