"""Addresses and layouts inside CPython and NumPy that generated code relies on, and their check."""

from __future__ import annotations

import ctypes
import struct
from functools import lru_cache
from typing import Any

import numpy as np

from mapsto.ir.types import DType
from mapsto.runtime.python_entry import PythonLayout

__all__ = ["layout_is_known", "numpy_symbols"]

_NEW_FROM_DESCRIPTOR = 94
"""The place of PyArray_NewFromDescr in NumPy's table of C functions; fixed by its stable ABI."""

_PYTHON_FUNCTIONS = (
    "PyCapsule_GetPointer",
    "PyEval_RestoreThread",
    "PyEval_SaveThread",
    "PyLong_FromLong",
    "PyObject_CallOneArg",
    "PyTuple_New",
    "PyTuple_SetItem",
    "Py_DecRef",
    "Py_IncRef",
)


@lru_cache(maxsize=1)
def numpy_symbols() -> dict[str, int]:
    """Addresses of the functions and objects that Python entry points name."""
    symbols = {name: _address(getattr(ctypes.pythonapi, name)) for name in _PYTHON_FUNCTIONS}
    symbols["python.None"] = id(None)
    symbols["python.NotImplemented"] = id(NotImplemented)
    symbols["numpy.ndarray"] = id(np.ndarray)
    symbols["numpy.PyArray_NewFromDescr"] = _array_function(_NEW_FROM_DESCRIPTOR)
    symbols |= {f"numpy.{dtype}": id(dtype.numpy) for dtype in DType if dtype is not DType.BF16}
    return symbols


@lru_cache(maxsize=1)
def layout_is_known() -> bool:
    """Whether arrays of this interpreter have their fields where generated code reads them."""
    if struct.calcsize("P") != 8 or not hasattr(ctypes, "pythonapi"):
        return False
    plain = np.zeros((3, 5, 7), np.float32)
    return _fields_match(plain) and _fields_match(plain[:, ::2]) and _can_allocate()


def _fields_match(array: np.ndarray[Any, Any]) -> bool:
    layout = PythonLayout(object.__basicsize__)
    size = object.__basicsize__ + 56
    if np.ndarray.__basicsize__ < size:
        return False
    head = ctypes.string_at(id(array), size)
    type_, data, dims_address, descriptor = (
        struct.unpack_from("q", head, offset)[0]
        for offset in (layout.type, layout.data, layout.dims, layout.descriptor)
    )
    rank, flags = (
        struct.unpack_from("i", head, offset)[0] for offset in (layout.rank, layout.flags)
    )
    if (type_, data) != (id(np.ndarray), array.ctypes.data):
        return False
    if (rank, descriptor) != (array.ndim, id(array.dtype)):
        return False
    dims = struct.unpack("3q", ctypes.string_at(dims_address, 24))
    flagged = (bool(flags & 1), bool(flags & 0x100))
    return dims == array.shape and flagged == (array.flags.c_contiguous, array.flags.aligned)


def _can_allocate() -> bool:
    """Makes an array through the C table, and compares."""
    prototype = ctypes.PYFUNCTYPE(
        ctypes.py_object, ctypes.py_object, ctypes.py_object, ctypes.c_int, *[ctypes.c_void_p] * 3,
        ctypes.c_int, ctypes.c_void_p,
    )  # fmt: skip
    descriptor = np.dtype(np.float64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(descriptor))
    dims = (ctypes.c_int64 * 2)(2, 3)
    new = prototype(_array_function(_NEW_FROM_DESCRIPTOR))
    array = new(np.ndarray, descriptor, 2, ctypes.addressof(dims), None, None, 0, None)
    return bool(array.shape == (2, 3) and array.dtype is descriptor)


def _array_function(index: int) -> int:
    """The address of a function in NumPy's C API table."""
    umath = getattr(np, "_core", None) or np.core
    capsule = umath.multiarray._ARRAY_API
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    pointer.restype = ctypes.c_void_p
    table = ctypes.cast(pointer(capsule, None), ctypes.POINTER(ctypes.c_void_p))
    return int(table[index] or 0)


def _address(function: object) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)  # type: ignore[arg-type]
