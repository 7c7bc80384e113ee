"""How many threads compiled code in this process uses.  Results do not depend on it."""

from __future__ import annotations

import ctypes

from mapsto.runtime.jit import pool_address

__all__ = ["set_threads", "threads"]


def set_threads(count: int) -> None:
    """Sets the number of threads, the caller's included; 1 makes everything sequential.

    A number above what the process allows (its processors, at least 8, or MAPSTO_NUM_THREADS if
    that is more) counts as that.  Raises ValueError if it is not positive.
    """
    if count < 1:
        raise ValueError(f"expected a positive number of threads, found {count}")
    address = pool_address("mapsto_set_threads")
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)(min(count, 2**31))


def threads() -> int:
    """The number of threads: as set, else MAPSTO_NUM_THREADS, else one a processor."""
    return int(ctypes.CFUNCTYPE(ctypes.c_int64)(pool_address("mapsto_threads"))())
