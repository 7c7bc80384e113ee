"""Arguments and arrays: what a call accepts beside NumPy arrays of just the right type.

An array of the right element type is taken as it is (through the buffer protocol, the array
interface or DLPack, without a copy), or copied once if it is not contiguous and aligned.  Python
numbers and lists take the element type that is asked for, if it can hold them.  Arrays are never
cast silently.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mapsto.ir.dims import dim_value
from mapsto.ir.types import DType
from mapsto.runtime.errors import ArgumentError
from mapsto.runtime.signature import MAX_DIM, TensorSpec, plain_symbol

__all__ = ["Array", "aligned_empty", "as_array", "check_arrays", "convert_arguments"]

Array = npt.NDArray[Any]

_ALIGNMENT = 64


def aligned_empty(dtype: DType, shape: Sequence[int]) -> Array:
    """A new uninitialized C-contiguous array whose data begins at a multiple of 64 bytes."""
    size = math.prod(shape) * dtype.bytes
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    offset = -memory.ctypes.data % _ALIGNMENT
    return memory[offset : offset + size].view(dtype.numpy).reshape(shape)


def convert_arguments(specs: Sequence[TensorSpec], values: Sequence[object]) -> list[Array]:
    """The arguments of a call as dense arrays of the right types and agreeing shapes.

    Raises ArgumentError, which names what was expected and what was found.
    """
    if len(values) != len(specs):
        names = ", ".join(spec.name for spec in specs) or "none"
        raise ArgumentError(f"expected {len(specs)} arguments ({names}), found {len(values)}")
    arrays = [as_array(spec, value) for spec, value in zip(specs, values, strict=True)]
    check_arrays(specs, arrays)
    return arrays


def as_array(spec: TensorSpec, value: object) -> Array:
    """The value as a dense NumPy array of the element type; no copy where none is needed.

    Raises ArgumentError if it is no array, or one of another element type.
    """
    array = _as_numpy(spec, value)
    if DType.of(array.dtype) is not spec.dtype:
        raise ArgumentError(f"expected {spec}, found {_describe(array)}")
    dense = np.require(array, spec.dtype.numpy, ["C_CONTIGUOUS", "ALIGNED"])
    return np.asarray(dense).reshape(array.shape)


def check_arrays(specs: Sequence[TensorSpec], arrays: Sequence[Array]) -> dict[str, int]:
    """The values of the named sizes.  Raises ArgumentError if shapes do not fit the types."""
    sizes: dict[str, int] = {}
    origins: dict[str, str] = {}
    for spec, array in zip(specs, arrays, strict=True):
        _check_plain_dims(spec, array, sizes, origins)
    for spec, array in zip(specs, arrays, strict=True):
        _check_composite_dims(spec, array, sizes)
    return sizes


def _as_numpy(spec: TensorSpec, value: object) -> Array:
    if isinstance(value, (bool, int, float, list, tuple)):
        return _from_literal(spec, value)
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    try:
        return _from_foreign(value)
    except (TypeError, ValueError, RuntimeError, BufferError, AttributeError) as error:
        raise ArgumentError(f"expected {spec}, found {type(value).__name__}: {error}") from error


def _from_foreign(value: object) -> Array:
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    array = np.asarray(value)
    if array.dtype == object:
        raise TypeError("not an array")
    return array


def _from_literal(spec: TensorSpec, value: object) -> Array:
    """Python numbers and lists of them: integers fit any number type, floats floating types."""
    found = np.asarray(value)
    allowed = {"b": "b", "i": "iuf", "u": "iuf", "f": "f"}.get(found.dtype.kind, "")
    empty = found.size == 0
    if not empty and spec.dtype.numpy.kind not in allowed:
        raise ArgumentError(f"expected {spec}, found {_describe(found)}")
    try:
        return np.asarray(value, spec.dtype.numpy)
    except OverflowError as error:
        raise ArgumentError(f"expected {spec}: {error}") from error


def _check_plain_dims(
    spec: TensorSpec, array: Array, sizes: dict[str, int], origins: dict[str, str]
) -> None:
    if array.ndim != len(spec.shape):
        raise ArgumentError(f"expected {spec}, found {_describe(array)}")
    for dim, actual in zip(spec.shape, array.shape, strict=True):
        name = plain_symbol(dim)
        if isinstance(dim, int) and dim != actual:
            raise ArgumentError(f"expected {spec}, found {_describe(array)}")
        if name is None:
            continue
        if actual > MAX_DIM:
            raise ArgumentError(f"expected {spec} with {name} <= {MAX_DIM}, found {actual}")
        known = sizes.setdefault(name, actual)
        origin = origins.setdefault(name, spec.name)
        if known != actual:
            found = f"{_describe(array)}, where {name} = {actual}"
            raise ArgumentError(
                f"expected {spec} with {name} = {known} as in {origin}, found {found}"
            )


def _check_composite_dims(spec: TensorSpec, array: Array, sizes: dict[str, int]) -> None:
    for dim, actual in zip(spec.shape, array.shape, strict=True):
        if isinstance(dim, int) or plain_symbol(dim) is not None:
            continue
        try:
            wanted = dim_value(dim, sizes)
        except ZeroDivisionError as error:
            raise ArgumentError(f"expected {spec}: {dim} divides by zero") from error
        if wanted != actual:
            raise ArgumentError(f"expected {spec} with {dim} = {wanted}, found {_describe(array)}")


def _describe(array: Array) -> str:
    name = str(DType.of(array.dtype) or array.dtype)
    return f"{name}[{', '.join(map(str, array.shape))}]"
