"""The types that instructions name, and how registers hold them.

Registers hold bits: unsigned integers of 16, 32 or 64 bits, or booleans.  An instruction views them
as the `dtype` of its type; bf16, tf32 and packed pairs stay bits and are taken apart by the
operations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ptx.errors import InvalidProgram


@dataclass(frozen=True)
class Type:
    """`kind`: unsigned, signed, bits, float, predicate; `packed`: how many numbers it holds."""

    name: str
    bits: int
    kind: str
    dtype: np.dtype
    packed: int = 1

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_signed(self) -> bool:
        return self.kind == "signed"

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self.bits // 8


def _types() -> dict[str, Type]:
    result = {}
    for bits in (8, 16, 32, 64):
        for letter, kind in (("u", "unsigned"), ("s", "signed"), ("b", "bits")):
            dtype = np.dtype(f"{'i' if letter == 's' else 'u'}{bits // 8}")
            result[f"{letter}{bits}"] = Type(f"{letter}{bits}", bits, kind, dtype)
    for bits in (16, 32, 64):
        result[f"f{bits}"] = Type(f"f{bits}", bits, "float", np.dtype(f"f{bits // 8}"))
    result["bf16"] = Type("bf16", 16, "float", np.dtype("u2"))
    result["tf32"] = Type("tf32", 32, "float", np.dtype("u4"))
    result["f16x2"] = Type("f16x2", 32, "float", np.dtype("u4"), packed=2)
    result["bf16x2"] = Type("bf16x2", 32, "float", np.dtype("u4"), packed=2)
    result["f32x2"] = Type("f32x2", 64, "float", np.dtype("u8"), packed=2)
    for letter in "us":
        result[f"{letter}16x2"] = Type(f"{letter}16x2", 32, "packed", np.dtype("u4"), packed=2)
    result["pred"] = Type("pred", 1, "predicate", np.dtype(bool))
    return result


TYPES = _types()


def type_named(name: str) -> Type:
    """InvalidProgram for a name that is none."""
    if name not in TYPES:
        raise InvalidProgram(f"no type: .{name}")
    return TYPES[name]


def unsigned(bits: int) -> np.dtype:
    """The dtype that holds bits."""
    return np.dtype(bool) if bits == 1 else np.dtype(f"u{bits // 8}")
