"""`cvt`: between all types, with its rounding modes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptx.errors import UnknownInstruction
from ptx.floats import ELEMENT, add_odd, flush, narrow, pack, saturate, tf32_bits, widen
from ptx.types import Type

Array = np.ndarray
Function = Callable[..., Array]

_TO_INTEGER: dict[str, Function] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}


def converter(
    result: Type, kind: Type, rounding: str | None, ftz: bool, sat: bool, relu: bool
) -> Function:
    """The function of a `cvt`; UnknownInstruction for combinations without a meaning here."""
    if result.packed == 2:
        return _to_packed(result, kind, rounding, relu)
    if result.name == "tf32":
        if rounding != "rna" or kind.name != "f32":
            raise UnknownInstruction(f"cvt.{rounding}.tf32.{kind.name}")
        return tf32_bits
    if relu:
        raise UnknownInstruction("cvt with .relu to one number")
    if result.is_float and kind.is_float:
        return _between_floats(result, kind, rounding, ftz, sat)
    if result.is_float:
        return lambda x: narrow(_integer_to_odd(x), result, rounding or "rn")
    if kind.is_float:
        return _to_integers(result, kind, rounding, ftz)
    return _clamped(result) if sat else lambda x: x.astype(result.dtype)


def _to_packed(result: Type, kind: Type, rounding: str | None, relu: bool) -> Function:
    """Two numbers to a pair; the first becomes the upper one."""
    element = ELEMENT[result.name]
    if kind.name != "f32":
        raise UnknownInstruction(f"cvt.{result.name}.{kind.name}")

    def number(x: Array) -> Array:
        wide = widen(x, kind)
        return narrow(np.where(wide < 0, 0.0, wide) if relu else wide, element, rounding or "rn")

    def convert(upper: Array, lower: Array) -> Array:
        return pack([number(lower), number(upper)], result)

    return convert


def _between_floats(
    result: Type, kind: Type, rounding: str | None, ftz: bool, sat: bool
) -> Function:
    def convert(x: Array) -> Array:
        if ftz and kind.name == "f32":
            x = flush(x, kind)
        wide = widen(x, kind)
        if rounding in _TO_INTEGER:
            wide = _TO_INTEGER[rounding](wide)
            value = narrow(wide, result)
        else:
            value = narrow(wide, result, rounding or "rn")
        if ftz and result.name == "f32":
            value = flush(value, result)
        return saturate(value, result) if sat else value

    return convert


def _integer_to_odd(x: Array) -> Array:
    """Integers as f64, rounded to odd if they have more than 53 bits."""
    if x.dtype.itemsize < 8:
        return x.astype(np.float64)
    high, low = x >> x.dtype.type(32), x & x.dtype.type(0xFFFFFFFF)
    return add_odd(high.astype(np.float64) * 2.0**32, low.astype(np.float64))


def _to_integers(result: Type, kind: Type, rounding: str | None, ftz: bool) -> Function:
    """Rounded, then clamped to the range; NaN becomes 0, or in 64 bits the upper half's first."""
    if rounding not in _TO_INTEGER:
        raise UnknownInstruction(f"cvt to an integer with rounding {rounding}")
    limits = np.iinfo(result.dtype)
    wide_case = kind.bits == 64 or result.bits == 64
    missing = np.array(1 << (result.bits - 1)).astype(result.dtype) if wide_case else 0

    def convert(x: Array) -> Array:
        x = flush(x, kind) if ftz else x
        wide = _TO_INTEGER[rounding](widen(x, kind))
        over, under = wide >= float(limits.max) + 1, wide < float(limits.min)
        safe = np.where(over | under | np.isnan(wide), 0.0, wide).astype(result.dtype)
        clamped = np.where(over, limits.max, np.where(under, limits.min, safe))
        return np.where(np.isnan(wide), missing, clamped).astype(result.dtype)

    return convert


def _clamped(result: Type) -> Function:
    limits = np.iinfo(result.dtype)

    def convert(x: Array) -> Array:
        low = max(int(limits.min), int(np.iinfo(x.dtype).min))
        high = min(int(limits.max), int(np.iinfo(x.dtype).max))
        return np.clip(x, x.dtype.type(low), x.dtype.type(high)).astype(result.dtype)

    return convert
