"""Conversions of 16-bit floats by integer arithmetic, where the target has no instruction for them.

LLVM would call functions of the compiler's run-time library, lane by lane, which code in memory
cannot find.  bf16 is always converted here and LLVM sees only its bits, as an i16: x86's own
instruction flushes subnormals, and even a selection of two bf16 values, which LLVM may make of any
branch, calls such a function.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mapsto.lowering.llvm.types import LLVMType, Operand, constant

if TYPE_CHECKING:
    from mapsto.lowering.llvm.instructions import InstructionWriter

_LEAST_NORMAL_HALF = 0x38800000
_INFINITE_HALF = 0x7C00
_INFINITE_FLOAT = 0x7F800000


def round_to_bfloat(f: InstructionWriter, x: Operand) -> Operand:
    """f32 to bf16, to nearest even; a NaN stays one."""
    bits = f.bitcast(x, x.type.integer)
    rounded = _shift_right_to_even(f, bits, 16)
    quiet = f.or_(f.lshr(bits, constant(bits.type, 16)), constant(bits.type, 0x40))
    result = f.select(f.fcmp("uno", x, x), quiet, rounded)
    return f.trunc(result, x.type.with_kind("bfloat"))


def extend_bfloat(f: InstructionWriter, x: Operand, to: LLVMType) -> Operand:
    """bf16 to f32: its bits are the upper half."""
    wide = f.zext(x, to.integer)
    return f.bitcast(f.shl(wide, constant(wide.type, 16)), to)


def round_to_half(f: InstructionWriter, x: Operand) -> Operand:
    """f32 to f16, to nearest even, with subnormal results and overflow."""
    integer = x.type.integer
    bits = f.bitcast(x, integer)
    magnitude = f.and_(bits, constant(integer, 0x7FFFFFFF))
    rebased = f.sub(_shift_right_to_even(f, magnitude, 13), constant(integer, 112 << 10))
    finite = f.umin(rebased, constant(integer, _INFINITE_HALF))
    tiny = f.icmp("ult", magnitude, constant(integer, _LEAST_NORMAL_HALF))
    number = f.select(tiny, _subnormal_half(f, magnitude), finite)
    not_a_number = f.icmp("ugt", magnitude, constant(integer, _INFINITE_FLOAT))
    unsigned = f.select(not_a_number, constant(integer, 0x7E00), number)
    sign = f.and_(f.lshr(bits, constant(integer, 16)), constant(integer, 0x8000))
    short = f.trunc(f.or_(unsigned, sign), integer.with_kind("i16"))
    return f.bitcast(short, x.type.with_kind("half"))


def _subnormal_half(f: InstructionWriter, magnitude: Operand) -> Operand:
    """How many times 2**-24, to nearest even: the last bits of the sum with 1/2."""
    real = magnitude.type.with_kind("float")
    total = f.fadd(f.bitcast(magnitude, real), constant(real, 0.5))
    return f.sub(f.bitcast(total, magnitude.type), constant(magnitude.type, 0x3F000000))


def _shift_right_to_even(f: InstructionWriter, bits: Operand, count: int) -> Operand:
    type = bits.type
    odd = f.and_(f.lshr(bits, constant(type, count)), constant(type, 1))
    half = f.add(f.add(bits, constant(type, (1 << (count - 1)) - 1)), odd)
    return f.lshr(half, constant(type, count))


def extend_half(f: InstructionWriter, x: Operand, to: LLVMType) -> Operand:
    """f16 to f32, exactly: the bits in their new places, times the difference of the biases."""
    short = f.bitcast(x, x.type.integer)
    wide = f.zext(short, to.integer)
    sign = f.shl(f.and_(wide, constant(wide.type, 0x8000)), constant(wide.type, 16))
    magnitude = f.and_(wide, constant(wide.type, 0x7FFF))
    moved = f.shl(magnitude, constant(wide.type, 13))
    scaled = f.bitcast(f.fmul(f.bitcast(moved, to), constant(to, 2.0**112)), wide.type)
    special = f.icmp("uge", magnitude, constant(wide.type, _INFINITE_HALF))
    unsigned = f.select(special, f.or_(moved, constant(wide.type, _INFINITE_FLOAT)), scaled)
    return f.bitcast(f.or_(unsigned, sign), to)


def extension(
    kind: str, has_conversions: bool
) -> Callable[[InstructionWriter, Operand, LLVMType], Operand] | None:
    """How a 16-bit kind becomes f32 where no instruction of the target does that."""
    if kind == "bfloat":
        return extend_bfloat
    return extend_half if kind == "half" and not has_conversions else None
