"""Floating-point operations as PTX defines them: rounded once, in the direction that is asked for.

Where NumPy has no operation that rounds once, it is computed in f64 *rounded to odd*: when a
result is inexact, its last bit is made 1.  Such a number is on the right side of every boundary
of a format with at least two bits less, so rounding it again gives what rounding the exact
result gives (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums: proved
algorithms using rounding to odd", 2008).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from ptx.errors import UnknownInstruction
from ptx.types import TYPES, Type

Array = np.ndarray

_SMALLEST_NORMAL = {"f16": 2.0**-14, "bf16": 2.0**-126, "f32": 2.0**-126, "f64": 2.0**-1022}


def add_odd(a: Array, b: Array) -> Array:
    """The sum of f64 numbers, rounded to odd."""
    total = a + b
    part = total - a
    return _to_odd(total, (a - (total - part)) + (b - part))


def _to_odd(rounded: Array, error: Array) -> Array:
    """`rounded + error`, of which `rounded` is the nearest number, rounded to odd."""
    rounded = np.asarray(rounded, np.float64)
    bits = rounded.view(np.int64)
    wrong = (error != 0) & ((bits & 1) == 0) & np.isfinite(rounded)
    if not wrong.any():
        return rounded
    outward = (error > 0) == (rounded > 0)
    return np.where(wrong, bits + np.where(outward, 1, -1), bits).view(np.float64)


def _f32_to_odd(x: Array) -> Array:
    """f64 to f32, rounded to odd."""
    near = x.astype(np.float32)
    beyond = np.abs(near.astype(np.float64)) > np.abs(x)
    toward_zero = np.where(beyond, np.nextafter(near, np.float32(0)), near)
    bits = toward_zero.view(np.uint32) | (toward_zero.astype(np.float64) != x)
    return np.where(np.isnan(x), near, bits.astype(np.uint32).view(np.float32))


def bf16_bits(x: Array) -> Array:
    """f64 to the bits of the nearest bf16."""
    bits = _f32_to_odd(np.asarray(x, np.float64)).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), nearest).astype(np.uint16)


def tf32_bits(x: Array) -> Array:
    """f32 to the bits of the nearest tf32, halves away from zero (`cvt.rna`)."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), rounded, bits)


def widen(x: Array, kind: Type) -> Array:
    """Numbers as registers hold them, as f64; exact."""
    if kind.name == "bf16":
        return (x.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)
    if kind.name == "tf32":
        return (x & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    return np.asarray(x, np.float64)


def narrow(x: Array, kind: Type, rounding: str = "rn") -> Array:
    """f64 numbers, exact or rounded to odd, to how registers hold them."""
    x = np.asarray(x, np.float64)
    if kind.name == "f64":
        return x
    if kind.name == "bf16":
        return bf16_bits(x) if rounding == "rn" else _directed_bf16(x, rounding)
    near = x.astype(kind.dtype)
    return near if rounding == "rn" else _directed(near, x, rounding)


def _directed(near: Array, exact: Array, rounding: str) -> Array:
    """The neighbour of the nearest number that lies in the direction."""
    wide = near.astype(np.float64)
    infinity = near.dtype.type(np.inf)
    if rounding == "rz":
        return np.where(np.abs(wide) > np.abs(exact), np.nextafter(near, near.dtype.type(0)), near)
    if rounding == "rm":
        return np.where(wide > exact, np.nextafter(near, -infinity), near)
    if rounding == "rp":
        return np.where(wide < exact, np.nextafter(near, infinity), near)
    raise UnknownInstruction(f"rounding .{rounding}")


def _directed_bf16(x: Array, rounding: str) -> Array:
    if rounding != "rz":
        raise UnknownInstruction(f"rounding .{rounding} to bf16")
    return (_directed(x.astype(np.float32), x, "rz").view(np.uint32) >> np.uint32(16)).astype("u2")


def flush(x: Array, kind: Type) -> Array:
    """`.ftz`: subnormal numbers become zeros of their sign."""
    if kind.name == "bf16":
        return np.where((x & np.uint16(0x7F80)) == 0, x & np.uint16(0x8000), x)
    small = np.abs(x) < kind.dtype.type(_SMALLEST_NORMAL[kind.name])
    return np.where(small, np.copysign(kind.dtype.type(0), x), x)


def saturate(x: Array, kind: Type) -> Array:
    """`.sat`: to [0, 1], NaN to 0."""
    wide = widen(x, kind)
    return narrow(np.where(wide > 0, np.minimum(wide, 1.0), 0.0), kind)


Binary = Callable[[Array, Array], Array]


def arithmetic(op: str, kind: Type, rounding: str) -> Binary:
    """add, sub, mul or div of two numbers of a type."""
    native: dict[str, Binary] = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": np.divide,
    }
    if rounding == "rn" and kind.name in ("f32", "f64"):
        return native[op]
    if kind.name == "f64" or op == "div":
        raise UnknownInstruction(f"{op}.{rounding}.{kind.name}")
    exact: dict[str, Binary] = {
        "add": add_odd,
        "sub": lambda a, b: add_odd(a, -b),
        "mul": np.multiply,
    }
    return lambda a, b: narrow(exact[op](widen(a, kind), widen(b, kind)), kind, rounding)


def fma(a: Array, b: Array, c: Array, kind: Type, rounding: str = "rn") -> Array:
    """`a * b + c`, rounded once."""
    if kind.name == "f64":
        if rounding != "rn":
            raise UnknownInstruction(f"fma.{rounding}.f64")
        return _fma_f64(*np.broadcast_arrays(a, b, c))
    product, addend = widen(a, kind) * widen(b, kind), widen(c, kind)
    if kind.name == "f32" and rounding == "rn":
        return _rounded_sum_f32(*np.broadcast_arrays(product, addend))
    return narrow(add_odd(product, addend), kind, rounding)


def _rounded_sum_f32(a: Array, b: Array) -> Array:
    """The sum of f64 numbers as f32.  Rounding twice is wrong only where the first result is half
    way between two f32, or below the normal ones."""
    total = a + b
    result = total.astype(np.float32)
    half_way = (total.view(np.int64) & 0x1FFFFFFF) == 0x10000000
    doubtful = half_way | (np.abs(total) < _SMALLEST_NORMAL["f32"])
    if doubtful.any():
        result[doubtful] = add_odd(a[doubtful], b[doubtful]).astype(np.float32)
    return result


def _split(x: Array) -> tuple[Array, Array]:
    """Two halves of 26 bits (Veltkamp)."""
    scaled = x * 134217729.0
    high = scaled - (scaled - x)
    return high, x - high


def _fma_f64(a: Array, b: Array, c: Array) -> Array:
    """The product as a sum of two numbers (Dekker), added without a second rounding; where the
    exponents are near the ends of the range, by fractions."""
    product = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    low = a2 * b2 - (((product - a1 * b1) - a2 * b1) - a1 * b2)
    t = c + low
    part = t - c
    t_error = (c - (t - part)) + (low - part)
    v = product + t
    part = v - product
    v_error = (product - (v - part)) + (t - part)
    result = v + add_odd(t_error, v_error)
    special = ~np.isfinite(result)
    result = np.where(special, product + c, result)
    return _repair_extremes(result, a, b, c)


def _repair_extremes(result: Array, a: Array, b: Array, c: Array) -> Array:
    size = np.abs(a) * np.abs(b)
    largest = np.maximum(np.maximum(np.abs(a), np.abs(b)), np.maximum(np.abs(c), size))
    small = (size < 2.0**-900) & (a != 0) & (b != 0)
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    extreme = finite & (small | (largest > 2.0**900))
    if extreme.any():
        result = np.array(result)
        for i in np.ndindex(result.shape):
            if extreme[i]:
                result[i] = _by_fractions(a[i], b[i], c[i])
    return result


def _by_fractions(a: float, b: float, c: float) -> float:
    exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
    if exact == 0:
        return float(a) * float(b) + float(c)
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


def _smaller(a: Array, b: Array) -> Array:
    """min of numbers, -0 below +0; a NaN only if both are."""
    less = (a < b) | ((a == b) & np.signbit(a)) | np.isnan(b)
    return np.where(less, a, b)


def _with_nans(result: Array, a: Array, b: Array) -> Array:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, result)


def minimum(a: Array, b: Array, kind: Type, propagate: bool) -> Array:
    """`min`; `propagate`: a NaN is the result if one operand is."""
    a, b = widen(a, kind), widen(b, kind)
    return narrow(_with_nans(_smaller(a, b), a, b) if propagate else _smaller(a, b), kind)


def maximum(a: Array, b: Array, kind: Type, propagate: bool) -> Array:
    """`max`, as `minimum`."""
    a, b = widen(a, kind), widen(b, kind)
    return narrow(_with_nans(-_smaller(-a, -b), a, b) if propagate else -_smaller(-a, -b), kind)


def sign_bit_xor(x: Array, kind: Type) -> Array:
    """`neg`, which changes the sign of NaNs too."""
    bits = np.asarray(x).view(f"u{kind.size}")
    return (bits ^ bits.dtype.type(1 << (kind.bits - 1))).view(kind.dtype)


def sign_bit_clear(x: Array, kind: Type) -> Array:
    """`abs`."""
    bits = np.asarray(x).view(f"u{kind.size}")
    return (bits & bits.dtype.type((1 << (kind.bits - 1)) - 1)).view(kind.dtype)


def _reciprocal_root(x: Array) -> Array:
    return 1.0 / np.sqrt(x)


UNARY: dict[str, Callable[[Array], Array]] = {
    "ex2": np.exp2,
    "lg2": np.log2,
    "sin": np.sin,
    "cos": np.cos,
    "tanh": np.tanh,
    "rsqrt": _reciprocal_root,
    "rcp": np.reciprocal,
    "sqrt": np.sqrt,
}
"""In f64.  What PTX calls approximate is computed to the last bit: the interpreter says nothing
about the errors of the hardware's tables."""

ELEMENT = {"f16x2": TYPES["f16"], "bf16x2": TYPES["bf16"], "f32x2": TYPES["f32"]}
"""What packed types hold."""


def unpack(x: Array, kind: Type) -> list[Array]:
    """The numbers of a packed type, the lower first."""
    element = ELEMENT[kind.name]
    mask = x.dtype.type((1 << element.bits) - 1)
    parts = [x & mask, x >> x.dtype.type(element.bits)]
    return [part.astype(f"u{element.size}").view(element.dtype) for part in parts]


def pack(parts: list[Array], kind: Type) -> Array:
    """The opposite of `unpack`."""
    element = ELEMENT[kind.name]
    low, high = (np.asarray(part).view(f"u{element.size}").astype(kind.dtype) for part in parts)
    return low | (high << kind.dtype.type(element.bits))
