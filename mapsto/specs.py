"""Types of arguments in Python: `f32["n", 64]` is a tensor of n rows of 64 numbers."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.dims import Dim, as_dim
from mapsto.ir.types import DType, TensorType

__all__ = [
    "ElementType",
    "bf16",
    "bool_",
    "f16",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "u8",
    "u32",
]

Extent = int | str | None | Dim


@dataclass(frozen=True, slots=True)
class ElementType:
    """An element type that is given a shape by indexing.

    An extent is a number, the name of a size that a caller chooses at each call, or None for a size
    without a name.  `f32[()]` is the type of a scalar.
    """

    dtype: DType

    def __getitem__(self, extents: Extent | tuple[Extent, ...]) -> TensorType:
        given = extents if isinstance(extents, tuple) else (extents,)
        shape = tuple(_dim(extent, position) for position, extent in enumerate(given))
        return TensorType(self.dtype, shape)

    def __str__(self) -> str:
        return str(self.dtype)


def _dim(extent: Extent, position: int) -> Dim:
    if extent is None:
        return as_dim("n" if position == 0 else f"n{position}")
    if isinstance(extent, str) and not extent.isidentifier():
        raise ValueError(f"{extent!r} is not a name for a size")
    if isinstance(extent, int) and extent < 0:
        raise ValueError(f"the extent {extent} is negative")
    return as_dim(extent)


bool_ = ElementType(DType.BOOL)
i8 = ElementType(DType.I8)
i16 = ElementType(DType.I16)
i32 = ElementType(DType.I32)
i64 = ElementType(DType.I64)
u8 = ElementType(DType.U8)
u32 = ElementType(DType.U32)
f16 = ElementType(DType.F16)
bf16 = ElementType(DType.BF16)
f32 = ElementType(DType.F32)
f64 = ElementType(DType.F64)
