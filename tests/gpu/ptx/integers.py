"""Integer and bit operations of PTX on NumPy arrays."""

from __future__ import annotations

from functools import reduce

import numpy as np

from ptx.types import Type

Array = np.ndarray

_WIDER = {16: 32, 32: 64}


def _letter(kind: Type) -> str:
    return "i" if kind.is_signed else "u"


def multiply_wide(a: Array, b: Array, kind: Type) -> Array:
    """The whole product of two numbers of 16 or 32 bits."""
    wide = np.dtype(f"{_letter(kind)}{_WIDER[kind.bits] // 8}")
    return a.astype(wide) * b.astype(wide)


def multiply_high(a: Array, b: Array, kind: Type) -> Array:
    """The upper half of the product."""
    if kind.bits < 64:
        shift = kind.bits
        return (multiply_wide(a, b, kind) >> shift).astype(kind.dtype)
    high = _high_of_64(a.view(np.uint64), b.view(np.uint64))
    if kind.is_signed:
        high = high - np.where(a < 0, b, 0).view(np.uint64) - np.where(b < 0, a, 0).view(np.uint64)
    return high.view(kind.dtype)


def _high_of_64(a: Array, b: Array) -> Array:
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    a0, a1, b0, b1 = a & mask, a >> half, b & mask, b >> half
    middle = a1 * b0 + ((a0 * b0) >> half)
    middle2 = a0 * b1 + (middle & mask)
    return a1 * b1 + (middle >> half) + (middle2 >> half)


def divide(a: Array, b: Array) -> Array:
    """Truncated, as in C; `b` is not zero.  The least number over -1 wraps."""
    if a.dtype.kind == "u":
        return a // b
    quotient = np.where(b == -1, 0, a // np.where(b == -1, 1, b))
    towards_zero = quotient + ((quotient < 0) & (quotient * b != a))
    return np.where(b == -1, -a, towards_zero).astype(a.dtype)


def remainder(a: Array, b: Array) -> Array:
    """What `divide` leaves; of the sign of `a`."""
    return (a - divide(a, b) * b).astype(a.dtype)


def shift_left(a: Array, amount: Array, bits: int) -> Array:
    """Amounts of `bits` and more leave nothing."""
    safe = np.minimum(amount, bits - 1).astype(a.dtype)
    return np.where(amount >= bits, a.dtype.type(0), a << safe)


def shift_right(a: Array, amount: Array, bits: int) -> Array:
    """Of signed numbers arithmetic; amounts of `bits` and more leave the sign."""
    safe = np.minimum(amount, bits - 1).astype(a.dtype)
    if a.dtype.kind == "i":
        return a >> safe
    return np.where(amount >= bits, a.dtype.type(0), a >> safe)


def funnel_shift(low: Array, high: Array, amount: Array, left: bool, wrap: bool) -> Array:
    """`shf`: 32 bits of the pair, shifted."""
    amount = (amount & np.uint32(31) if wrap else np.minimum(amount, 32)).astype(np.uint64)
    pair = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
    shifted = (pair << amount) >> np.uint64(32) if left else pair >> amount
    return shifted.astype(np.uint32)


def count_ones(a: Array) -> Array:
    """`popc`."""
    return np.bitwise_count(a).astype(np.uint32)


def leading_zeros(a: Array, bits: int) -> Array:
    """`clz`."""
    return np.uint32(bits) - _length(a, bits)


def _length(a: Array, bits: int) -> Array:
    """The number of bits up to the highest one."""
    filled = a
    for shift in (1, 2, 4, 8, 16, 32):
        if shift < bits:
            filled = filled | (filled >> a.dtype.type(shift))
    return count_ones(filled)


def highest_bit(a: Array, kind: Type, as_shift: bool) -> Array:
    """`bfind`: the position of the highest bit that differs from the sign; all ones if none."""
    magnitude = np.where(a < 0, ~a, a) if kind.is_signed else a
    length = _length(magnitude.view(f"u{kind.size}"), kind.bits)
    found = np.uint32(kind.bits) - length if as_shift else length - np.uint32(1)
    return np.where(length == 0, np.uint32(0xFFFFFFFF), found)


def reverse_bits(a: Array, bits: int) -> Array:
    """`brev`."""
    one = a.dtype.type(1)
    picked = (((a >> a.dtype.type(i)) & one) << a.dtype.type(bits - 1 - i) for i in range(bits))
    return reduce(np.bitwise_or, picked)


def extract_bits(a: Array, start: Array, length: Array, kind: Type) -> Array:
    """`bfe`: a field, extended by its sign if the type has one."""
    start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
    mask = _ones(length, kind.bits, np.dtype(f"u{kind.size}"))
    field = shift_right(a, start, kind.bits).view(mask.dtype) & mask
    if not kind.is_signed:
        return field
    last = np.minimum(start.astype(np.int64) + length - 1, kind.bits - 1)
    sign = shift_right(a, np.maximum(last, 0), kind.bits) & 1
    extended = np.where((sign == 1) & (length > 0), field | ~mask, field)
    return extended.view(kind.dtype)


def _ones(length: Array, bits: int, dtype: np.dtype) -> Array:
    return ~shift_left(np.full(np.shape(length), ~dtype.type(0), dtype), length, bits)


def insert_bits(a: Array, into: Array, start: Array, length: Array, bits: int) -> Array:
    """`bfi`: the low bits of `a` in the place of a field."""
    start, length = start & np.uint32(0xFF), length & np.uint32(0xFF)
    mask = shift_left(_ones(length, bits, into.dtype), start, bits)
    return (into & ~mask) | (shift_left(a, start, bits) & mask)


def look_up(a: Array, b: Array, c: Array, table: int) -> Array:
    """`lop3`: any function of three bits, by its table of values."""
    result = np.zeros_like(a)
    for i in range(8):
        if table >> i & 1:
            term = (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
            result = result | term
    return result


def permute_bytes(a: Array, b: Array, selector: Array) -> Array:
    """`prmt`: four bytes of eight, or copies of their signs."""
    pair = a.astype(np.uint64) | (b.astype(np.uint64) << np.uint64(32))
    result = np.zeros(np.broadcast(a, b, selector).shape, np.uint32)
    for i in range(4):
        nibble = (selector >> np.uint32(4 * i)) & np.uint32(0xF)
        byte = (pair >> (np.uint64(8) * (nibble & np.uint32(7)))) & np.uint64(0xFF)
        sign = np.where(byte & np.uint64(0x80), np.uint64(0xFF), np.uint64(0))
        chosen = np.where(nibble & np.uint32(8), sign, byte).astype(np.uint32)
        result = result | (chosen << np.uint32(8 * i))
    return result


def dot_bytes(a: Array, b: Array, c: Array, a_signed: bool, b_signed: bool) -> Array:
    """`dp4a`: `c` plus the products of four pairs of bytes."""
    total = c.astype(np.int64)
    for i in range(4):
        left, right = (
            ((x >> np.uint32(8 * i)) & np.uint32(0xFF)).astype(np.uint8).view("i1" if s else "u1")
            for x, s in ((a, a_signed), (b, b_signed))
        )
        total = total + left.astype(np.int64) * right.astype(np.int64)
    return (total & 0xFFFFFFFF).astype(np.uint32)
