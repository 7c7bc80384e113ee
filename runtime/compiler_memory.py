"""Gives memory back that a process has of compiling only.

LLVM leaves holes in the heap, and some 60 MB of its own code resident, which programs that run do
not need.  Its code is mapped from a file, and comes back page by page where it is executed again.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from pathlib import Path

from llvmlite.binding import ffi

__all__ = ["release_memory"]

_MAPPINGS = Path("/proc/self/maps")


def release_memory() -> None:
    """Gives back free parts of the heap and the pages of LLVM's code, on Linux: takes 1 ms,
    and the next compilation 2 more."""
    if not sys.platform.startswith("linux"):
        return
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    for start, end in _code_ranges():
        libc.madvise(start, end - start, mmap.MADV_DONTNEED)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


@cache
def _code_ranges() -> tuple[tuple[int, int], ...]:
    """Where LLVM's machine code is: pages that nothing writes, so that the file has all of them."""
    found = []
    for line in _MAPPINGS.read_text(encoding="utf-8", errors="replace").splitlines():
        place, permissions, *_, path = line.split(maxsplit=5)
        if permissions == "r-xp" and path == ffi.lib._name:
            start, end = place.split("-")
            found.append((int(start, 16), int(end, 16)))
    return tuple(found)
