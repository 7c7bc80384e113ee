"""Arrays as tensors hold them: NumPy has no bf16, so it is kept in f32 and rounded here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mapsto.ir.core import Array, Operation
from mapsto.ir.types import DType

__all__ = ["evaluated", "rounded"]


def rounded(array: Array, dtype: DType) -> Array:
    """The elements as values of the element type: those of bf16 are the f32 values whose lower
    half is zero, and rounding is to nearest, ties to even."""
    if dtype is not DType.BF16:
        return np.asarray(array)
    wide = np.asarray(array, np.float32)
    bits = np.ascontiguousarray(wide).view(np.uint32)
    upper = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(wide), np.float32("nan"), upper.view(np.float32).reshape(wide.shape))


def evaluated(op: Operation, operands: Sequence[Array]) -> list[Array]:
    """The results of an op without regions, each rounded once to its element type."""
    results = op.evaluate(*operands)
    return [rounded(r, value.dtype) for r, value in zip(results, op.results, strict=True)]
