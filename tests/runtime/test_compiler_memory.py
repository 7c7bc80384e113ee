"""What is given back after compiling."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import pytest

from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime import code_generation
from mapsto.runtime.code_generation import CodeGenerator, emit_object
from mapsto.runtime.compiler_memory import release_memory
from mapsto.runtime.jit import compile_module, compile_parts

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux alone")

TEXT = "define i64 @outer(i64 %x) {\n  %y = mul i64 %x, NUMBER\n  ret i64 %y\n}\n"


def resident_code() -> int:
    """The kilobytes of LLVM's machine code in memory."""
    parts = re.split(r"^(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    code = [part for part in parts if "libllvmlite" in part and " r-xp " in part]
    return sum(int(size) for part in code for size in re.findall(r"^Rss: +(\d+)", part, re.M))


def call(module) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(module.address("outer"))(6)


def test_code_of_the_compiler_goes_and_comes_back() -> None:
    first = emit_object(TEXT.replace("NUMBER", "7"), Machine.host())
    before = resident_code()
    release_memory()
    assert resident_code() < before / 4
    assert emit_object(TEXT.replace("NUMBER", "7"), Machine.host()) == first
    assert call(compile_module(TEXT.replace("NUMBER", "9"), Machine.host())) == 54


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
