"""What programs print: the code that writes it, and where it goes.

A library prints to the standard output of C.  In this process everything goes through `sys.stdout`,
so that it comes in order with what Python prints, and may be captured.
"""

from __future__ import annotations

import codecs
import ctypes
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

__all__ = ["PRINT_SYMBOLS", "print_library_text", "print_text", "writer_symbols"]

PRINT_SYMBOLS = (
    "mapsto_print_begin",
    "mapsto_print_end",
    "mapsto_print_tensor",
    "mapsto_print_text",
)
"""The functions that compiled programs may call."""

_Writer = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


@lru_cache(maxsize=1)
def print_text() -> str:
    """The code that writes text and tensors, as LLVM text; it calls `mapsto_write`."""
    return _read("print.ll")


def print_library_text() -> str:
    """`mapsto_write` for libraries, as LLVM text."""
    return _read("stdout.ll")


def writer_symbols() -> Mapping[str, int]:
    """The address of this process's `mapsto_write`."""
    return {"mapsto_write": ctypes.cast(_callback, ctypes.c_void_p).value or 0}


def _read(name: str) -> str:
    return files("mapsto.runtime").joinpath(name).read_text(encoding="utf-8")


_decoder = codecs.getincrementaldecoder("utf-8")("replace")
"""A message longer than the buffer may be divided inside a character."""


def _write(text: int, count: int) -> None:
    sys.stdout.write(_decoder.decode(ctypes.string_at(text, count)))


_callback = _Writer(_write)
