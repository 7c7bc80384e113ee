"""The Python entry point through ctypes: slower, but it knows nothing of how objects are laid out.

It stands in for the generated one (`python_entry.py`) on interpreters that fail its self-test.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from mapsto.ir.dims import dim_value
from mapsto.runtime.arrays import Array, check_arrays, convert_arguments
from mapsto.runtime.jit import CompiledModule
from mapsto.runtime.outputs import check_outputs
from mapsto.runtime.signature import Signature

__all__ = ["ctypes_entry"]

_ALIGNMENT = 64


def ctypes_entry(
    compiled: CompiledModule,
    entry_name: str,
    signature: Signature,
    bound: list[Array],
    prepared: Array,
    on_error: Callable[[int], None],
    into: bool = False,
) -> Callable[..., Any]:
    """A function of the unbound arguments, and of arrays for the results behind them if `into`;
    `bound` may be changed between calls; `prepared` is read beside them.  `on_error` raises the
    exception for an error code.

    It converts its arguments itself, and returns NotImplemented where a result would have a
    negative dimension.
    """
    entry = _function(compiled.address(entry_name), ctypes.c_int32, 3)
    arena_bytes = _function(compiled.address(f"{entry_name}.arena_bytes"), ctypes.c_int64, 1)
    guard: AbstractContextManager[object] = nullcontext()
    if signature.exclusive:
        guard = threading.Lock()

    def call(*arguments: object) -> Any:
        count = len(signature.inputs) if into else len(arguments)
        arrays = convert_arguments(signature.inputs, arguments[:count])
        sizes = check_arrays(signature.inputs, arrays)
        results = _empty_results(signature, sizes)
        if results is None:
            return NotImplemented
        if into:
            results = check_outputs(signature, arrays, bound, arguments[count:])
        buffers = _pointers([*_in_order(signature, arrays, bound), *results, prepared])
        dims = (ctypes.c_int64 * len(signature.symbols))(*(sizes[n] for n in signature.symbols))
        arena = np.empty(arena_bytes(dims) + _ALIGNMENT, np.uint8)
        with guard:
            code = entry(buffers, dims, arena.ctypes.data + -arena.ctypes.data % _ALIGNMENT)
        if code:
            on_error(code)
        return results[0] if len(results) == 1 else tuple(results) or None

    return call


def _function(address: int, result: Any, pointers: int) -> Callable[..., int]:
    made: Callable[..., int] = ctypes.CFUNCTYPE(result, *[ctypes.c_void_p] * pointers)(address)
    return made


def _empty_results(signature: Signature, sizes: dict[str, int]) -> list[Array] | None:
    try:
        shapes = [[dim_value(dim, sizes) for dim in spec.shape] for spec in signature.results]
    except ZeroDivisionError:
        return None
    if any(dim < 0 for shape in shapes for dim in shape):
        return None
    return [
        np.empty(shape, spec.dtype.numpy)
        for shape, spec in zip(shapes, signature.results, strict=True)
    ]


def _in_order(signature: Signature, arrays: Sequence[Array], bound: Sequence[Array]) -> list[Array]:
    """All arguments in the order of the ABI."""
    passed, held = iter(arrays), iter(bound)
    return [next(held if argument.bound else passed) for argument in signature.arguments]


def _pointers(arrays: Sequence[Array]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
