"""What a program computes once for all calls, from the bound arguments that are the same at each:
weights in the order in which products read them, and all that depends on constants alone."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from mapsto.ir.types import DType
from mapsto.runtime.arrays import Array, aligned_empty
from mapsto.runtime.jit import CompiledModule
from mapsto.runtime.signature import Signature

__all__ = ["prepared_memory"]


def prepared_memory(
    compiled: CompiledModule, entry_name: str, signature: Signature, bound: Sequence[Array]
) -> Array:
    """The memory that an entry reads beside its buffers, filled for these bound arrays; empty where
    it has nothing to prepare."""
    memory = aligned_empty(DType.U8, [signature.prepared_bytes])
    if not signature.prepared_bytes:
        return memory
    held = iter(bound)
    arguments = [next(held).ctypes.data if a.bound else None for a in signature.arguments]
    addresses = [*arguments, *[None] * len(signature.results), memory.ctypes.data]
    buffers = (ctypes.c_void_p * len(addresses))(*addresses)
    # What is prepared depends on no named size: any value will do.
    dims = (ctypes.c_int64 * max(1, len(signature.symbols)))()
    run = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)(compiled.address(f"{entry_name}.prepare"))
    run(buffers, dims, None)
    return memory
