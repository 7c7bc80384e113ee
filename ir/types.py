"""Element types and tensor types.

A tensor type is an element type and a shape: `f32[n, 64]`.  A scalar has rank 0: `f32[]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mapsto.ir.dims import Dim, product, substitute, symbols

__all__ = ["DType", "TensorType", "scalar"]


class DType(Enum):
    """An element type; the value is its name in the language."""

    BOOL = "bool"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U32 = "u32"
    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"
    F64 = "f64"

    def __str__(self) -> str:
        return self.value

    @property
    def bits(self) -> int:
        """Width in memory, in bits; a bool occupies one byte."""
        return 8 if self is DType.BOOL else int(self.value.lstrip("bfiu"))

    @property
    def bytes(self) -> int:
        """Width in memory, in bytes."""
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        """Whether values are floating-point numbers, and so differentiable."""
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        """Whether values are integers (bool is not)."""
        return not self.is_float and self is not DType.BOOL

    @property
    def is_signed(self) -> bool:
        """Whether values can be negative."""
        return self.is_float or self.value.startswith("i")

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """The NumPy element type.  bf16 has none: the reference keeps it in f32, rounded."""
        return np.dtype(_NUMPY[self])

    @staticmethod
    def of(dtype: np.dtype[np.generic]) -> DType | None:
        """The element type of a NumPy dtype, or None where the language has no such type."""
        return _FROM_NUMPY.get(np.dtype(dtype).newbyteorder("="))


_FLOATS = frozenset({DType.F16, DType.BF16, DType.F32, DType.F64})
_NUMPY = {
    DType.BOOL: "bool",
    DType.I8: "int8",
    DType.I16: "int16",
    DType.I32: "int32",
    DType.I64: "int64",
    DType.U8: "uint8",
    DType.U32: "uint32",
    DType.F16: "float16",
    DType.BF16: "float32",
    DType.F32: "float32",
    DType.F64: "float64",
}
_FROM_NUMPY = {np.dtype(name): dtype for dtype, name in _NUMPY.items() if dtype is not DType.BF16}


@dataclass(frozen=True, slots=True)
class TensorType:
    """An element type and a shape."""

    dtype: DType
    shape: tuple[Dim, ...] = ()

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def elements(self) -> Dim:
        """The number of elements."""
        return product(self.shape)

    @property
    def symbols(self) -> frozenset[str]:
        """The named sizes in the shape."""
        return frozenset().union(*map(symbols, self.shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape with another element type."""
        return TensorType(dtype, self.shape)

    def with_shape(self, shape: tuple[Dim, ...]) -> TensorType:
        """The same element type with another shape."""
        return TensorType(self.dtype, shape)

    def substitute(self, sizes: Mapping[str, Dim]) -> TensorType:
        """The type with named sizes replaced."""
        return TensorType(self.dtype, tuple(substitute(dim, sizes) for dim in self.shape))


def scalar(dtype: DType) -> TensorType:
    """The type of a single value."""
    return TensorType(dtype, ())
