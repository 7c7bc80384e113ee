"""Constant arrays of a program as they are in memory."""

from __future__ import annotations

import numpy as np

from mapsto.ir.core import Array, Value
from mapsto.ir.ops.shaping import Constant
from mapsto.ir.rounding import evaluated
from mapsto.ir.types import DType

__all__ = ["literal_array"]


def literal_array(value: Value) -> Array:
    """The elements of a constant, dense and in order; those of bf16 as their bits."""
    op = value.owner
    assert isinstance(op, Constant)
    (array,) = evaluated(op, ())
    if value.dtype is DType.BF16:
        array = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
    return np.require(array, requirements=["C", "A"])
