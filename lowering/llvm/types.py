"""LLVM types, typed operands, fast-math flags and literal constants, as text.

An `LLVMType` is a scalar kind and a number of lanes; one lane is the scalar itself.  An `Operand`
is what an instruction may read: the name of a value or a literal, with its type.
"""

import enum
import functools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

_INTEGER_BITS = {"i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128}
_FLOAT_BITS = {"half": 16, "bfloat": 16, "float": 32, "double": 64}
_SUFFIXES = {"half": "f16", "bfloat": "i16", "float": "f32", "double": "f64", "ptr": "p0"}
_SPACES = {"ptr1": "ptr addrspace(1)", "ptr3": "ptr addrspace(3)"}
_TEXTS = _SPACES | {"bfloat": "i16"}
_BITS = _INTEGER_BITS | _FLOAT_BITS | dict.fromkeys(("ptr", *_SPACES), 64) | {"void": 0}


@dataclass(frozen=True, slots=True)
class LLVMType:
    """A scalar kind and a number of lanes.

    Kinds: `i1 i8 i16 i32 i64 i128 half bfloat float double ptr ptr1 ptr3 void`.  For LLVM, bfloat
    is an i16 (see `half_precision`); `ptr1` and `ptr3` point to global and shared memory of a GPU.
    """

    kind: str
    lanes: int = 1
    text: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in _BITS or self.lanes < 1:
            raise ValueError(f"no LLVM type `{self.kind}` with {self.lanes} lanes")
        kind = _TEXTS.get(self.kind, self.kind)
        text = kind if self.lanes == 1 else f"<{self.lanes} x {kind}>"
        object.__setattr__(self, "text", text)

    def __str__(self) -> str:
        return self.text

    @property
    def bits(self) -> int:
        """Width of one lane in bits (64 for a pointer)."""
        return _BITS[self.kind]

    @property
    def is_float(self) -> bool:
        return self.kind in _FLOAT_BITS

    @property
    def is_integer(self) -> bool:
        return self.kind in _INTEGER_BITS

    @property
    def suffix(self) -> str:
        """How names of overloaded intrinsics spell the type: `f32`, `v8f32`, `i64`, `p0`."""
        scalar = _SUFFIXES.get(self.kind, self.kind)
        return scalar if self.lanes == 1 else f"v{self.lanes}{scalar}"

    def vector(self, lanes: int) -> "LLVMType":
        """The same kind with another number of lanes."""
        return _interned(self.kind, lanes)

    def with_kind(self, kind: str) -> "LLVMType":
        """Another kind with the same number of lanes."""
        return _interned(kind, self.lanes)

    @property
    def scalar(self) -> "LLVMType":
        return _interned(self.kind, 1)

    @property
    def mask(self) -> "LLVMType":
        """The type of a comparison of two values of this type."""
        return _interned("i1", self.lanes)

    @property
    def integer(self) -> "LLVMType":
        """The integer type of the same width and lanes, for bit manipulation."""
        return _interned(f"i{self.bits}", self.lanes)


@functools.cache
def _interned(kind: str, lanes: int) -> LLVMType:
    return LLVMType(kind, lanes)


VOID = _interned("void", 1)
PTR, GLOBAL_PTR, SHARED_PTR = (_interned(kind, 1) for kind in ("ptr", *_SPACES))
I1, I8, I16, I32, I64, I128 = (_interned(kind, 1) for kind in _INTEGER_BITS)
HALF, BFLOAT, FLOAT, DOUBLE = (_interned(kind, 1) for kind in _FLOAT_BITS)


class FastMath(enum.Flag):
    """Freedom that an instruction's result may take; never any that assumes values are finite."""

    NONE = 0
    CONTRACT = enum.auto()
    REASSOC = enum.auto()
    NSZ = enum.auto()


_FLAG_NAMES = {FastMath.REASSOC: "reassoc ", FastMath.NSZ: "nsz ", FastMath.CONTRACT: "contract "}
FAST_MATH_TEXT = {
    flags: "".join(name for flag, name in _FLAG_NAMES.items() if flag in flags)
    for flags in (FastMath(bits) for bits in range(8))
}


class Operand(NamedTuple):
    """A value that an instruction reads: `text` without its type, and the type."""

    text: str
    type: LLVMType

    def __str__(self) -> str:
        return f"{self.type.text} {self.text}"


def constant(type: LLVMType, value: float | bool) -> Operand:
    """The literal `value`, the same in every lane; a float is rounded to the type."""
    literal = _literal(type, value)
    if type.lanes == 1:
        return Operand(literal, type)
    return Operand(f"splat ({type.scalar} {literal})", type)


def constant_vector(kind: LLVMType, values: Sequence[float | bool]) -> Operand:
    """A vector literal with one value a lane."""
    lanes = ", ".join(f"{kind} {_literal(kind, value)}" for value in values)
    return Operand(f"<{lanes}>", kind.vector(len(values)))


def zero(type: LLVMType) -> Operand:
    return Operand("zeroinitializer", type)


def undefined(type: LLVMType) -> Operand:
    """A value that may be anything: the start of a chain of insertions."""
    return Operand("poison", type)


NULL = Operand("null", PTR)


def _literal(type: LLVMType, value: float | bool) -> str:
    if type.is_float and value == 0:
        # Zeros of both signs are equal, and would be one key of the cache.
        return _zero_literal(type.kind, math.copysign(1.0, value) < 0)
    return _cached_literal(type, value)


@functools.cache
def _zero_literal(kind: str, negative: bool) -> str:
    return float_literal(kind, -0.0 if negative else 0.0)


@functools.lru_cache(maxsize=4096, typed=True)
def _cached_literal(type: LLVMType, value: float | bool) -> str:
    if type.kind == "i1":
        return "true" if value else "false"
    if type.is_integer:
        return str(int(value))
    if type.is_float:
        return float_literal(type.kind, float(value))
    raise ValueError(f"no literal of type {type}")


def float_literal(kind: str, value: float) -> str:
    """The exact spelling of `value` rounded to a floating-point kind, by its bits."""
    if kind == "half":
        return f"0xH{_bits_of_half(value):04X}"
    if kind == "bfloat":
        return str(_bits_of_bfloat(value))
    if kind == "float":
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def _bits_of_half(value: float) -> int:
    with np.errstate(over="ignore"):
        return int(np.float16(value).view(np.uint16))


def _bits_of_bfloat(value: float) -> int:
    if math.isnan(value):
        return 0x7FC0
    with np.errstate(over="ignore"):
        bits = int(np.float32(value).view(np.uint32))
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
