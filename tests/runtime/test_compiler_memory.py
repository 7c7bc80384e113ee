"""What is given back after compiling."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import pytest

from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime import code_generation
from mapsto.runtime.code_generation import CodeGenerator
from mapsto.runtime.compiler_memory import release_memory
from mapsto.runtime.jit import compile_parts

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux alone")

TEXT = "define i64 @outer(i64 %x) {\n  %y = mul i64 %x, NUMBER\n  ret i64 %y\n}\n"


def resident() -> int:
    """The kilobytes of the process's own memory, of no file."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1])


def call(module) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(module.address("outer"))(6)


def test_the_heap_that_nothing_uses_goes() -> None:
    """A large part of it lies below something that stays."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        pytest.skip("the C library keeps what it has")
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(1 << 16) for _ in range(640)]
    for block in blocks:
        ctypes.memset(block, 1, 1 << 16)
    for block in blocks[:-1]:
        libc.free(block)
    before = resident()
    release_memory()
    assert before - resident() > 20_000
    libc.free(blocks[-1])


def test_a_generator_tidies_once_it_has_done_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[None] = []
    monkeypatch.setattr(code_generation, "release_memory", lambda: released.append(None))
    monkeypatch.setattr(code_generation, "_compiled", code_generation._Compiled())
    monkeypatch.setattr(code_generation, "_TIDIED_LENGTH", len(TEXT) * 2)
    for number, times in ((21, 0), (22, 1), (23, 1)):
        with CodeGenerator(Machine.host()) as generator:
            text = TEXT.replace("NUMBER", f"{number:06}")
            assert call(compile_parts([text], generator)) == 6 * number
        assert len(released) == times
