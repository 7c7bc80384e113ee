"""Conversions between f32 and the 16-bit floats, without calls into a runtime library.

LLVM has instructions for them, but where the machine has none it calls compiler-rt, which generated
code cannot count on.  bf16 is the upper half of an f32.  f16 is converted by the machine where it
has fused multiply-add (such x86 and ARM machines convert f16 as well), else by the integer method
of F. Giesen, "Float->half variants", 2012.  Rounding is to nearest, ties to even.
"""

from __future__ import annotations

from mapsto.ir.types import DType
from mapsto.lowering.llvm.types import FLOAT, HALF, I32, LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter

__all__ = ["is_half", "narrow", "widen"]

_INFINITY = 0x7F800000
_QUIET_BIT = 0x00400000


def is_half(dtype: DType) -> bool:
    """Whether the type is one that is computed in f32 and rounded."""
    return dtype in (DType.F16, DType.BF16)


def widen(f: FunctionWriter, x: Operand, dtype: DType) -> Operand:
    """The f32 of equal value."""
    target = FLOAT.vector(x.type.lanes)
    if dtype is DType.F16 and f.has_fma:
        return f.fpext(x, target)
    bits = f.zext(f.bitcast(x, x.type.integer), I32.vector(x.type.lanes))
    if dtype is DType.BF16:
        return f.bitcast(f.shl(bits, constant(bits.type, 16)), target)
    return _from_half_bits(f, bits, target)


def narrow(f: FunctionWriter, x: Operand, dtype: DType) -> Operand:
    """The nearest value of a 16-bit type."""
    if dtype is DType.F16 and f.has_fma:
        return f.fptrunc(x, HALF.vector(x.type.lanes))
    bits = f.bitcast(x, x.type.integer)
    low = _to_bf16_bits(f, x, bits) if dtype is DType.BF16 else _to_half_bits(f, x, bits)
    short = f.trunc(low, low.type.with_kind("i16"))
    return f.bitcast(short, short.type.with_kind("bfloat" if dtype is DType.BF16 else "half"))


def _to_bf16_bits(f: FunctionWriter, x: Operand, bits: Operand) -> Operand:
    type = bits.type
    upper = f.lshr(bits, constant(type, 16))
    odd = f.and_(upper, constant(type, 1))
    rounded = f.lshr(f.add(f.add(bits, constant(type, 0x7FFF)), odd), constant(type, 16))
    quiet = f.or_(upper, constant(type, _QUIET_BIT >> 16))
    return f.select(f.fcmp("uno", x, x), quiet, rounded)


def _from_half_bits(f: FunctionWriter, bits: Operand, target: LLVMType) -> Operand:
    """The exponent is moved to its place; multiplying by 2^112 corrects its bias, also for
    subnormal numbers.  Infinity and NaN get the greatest exponent."""
    type = bits.type
    magnitude = f.and_(bits, constant(type, 0x7FFF))
    moved = f.shl(magnitude, constant(type, 13))
    scaled = f.fmul(f.bitcast(moved, target), constant(target, 2.0**112))
    special = f.icmp("sge", magnitude, constant(type, 0x7C00))
    infinite = f.or_(moved, constant(type, _INFINITY))
    value = f.select(special, infinite, f.bitcast(scaled, type))
    sign = f.shl(f.and_(bits, constant(type, 0x8000)), constant(type, 16))
    return f.bitcast(f.or_(value, sign), target)


def _to_half_bits(f: FunctionWriter, x: Operand, bits: Operand) -> Operand:
    type = bits.type
    magnitude = f.and_(bits, constant(type, 0x7FFFFFFF))
    sign = f.and_(f.lshr(bits, constant(type, 16)), constant(type, 0x8000))
    odd = f.and_(f.lshr(magnitude, constant(type, 13)), constant(type, 1))
    rebiased = f.add(f.add(magnitude, constant(type, 0xFFF - (112 << 23))), odd)
    normal = f.lshr(rebiased, constant(type, 13))
    tiny = f.fadd(f.bitcast(magnitude, x.type), constant(x.type, 0.5))
    subnormal = f.sub(f.bitcast(tiny, type), constant(type, 0x3F000000))
    small = f.icmp("slt", magnitude, constant(type, 113 << 23))
    large = f.icmp("sge", magnitude, constant(type, 143 << 23))
    finite = f.select(small, subnormal, normal)
    nan = f.fcmp("uno", x, x)
    special = f.select(nan, constant(type, 0x7E00), constant(type, 0x7C00))
    return f.or_(sign, f.select(large, special, finite))
