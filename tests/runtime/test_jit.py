"""Text to machine code: the cache, errors, artefacts, and the life of code in memory."""

import ctypes
import gc
import subprocess
import sys
from dataclasses import replace

import pytest

from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.code_generation import (
    CodeGenerator,
    Options,
    emit_assembly,
    emit_llvm,
    emit_object,
)
from mapsto.runtime.jit import compile_module, compile_parts

TEXT = """
define internal i64 @inner(i64 %x) alwaysinline {
  %slot = alloca [2 x i64]
  store i64 %x, ptr %slot
  %y = load i64, ptr %slot
  %z = mul i64 %y, NUMBER
  ret i64 %z
}

define i64 @outer(i64 %x) {
  %y = call i64 @inner(i64 %x)
  ret i64 %y
}
"""


def text(number: int) -> str:
    return TEXT.replace("NUMBER", str(number))


def outer(source: str, optimization: str = "lean") -> int:
    module = compile_module(source, Machine.host(), optimization)  # type: ignore[arg-type]
    return int(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(module.address("outer"))(14))


@pytest.mark.parametrize("optimization", ["none", "lean", "O1", "O2", "O3"])
def test_every_optimization_computes_the_same(optimization: str) -> None:
    assert outer(text(3), optimization) == 42


def test_same_text_is_compiled_once() -> None:
    machine = Machine.host()
    first = compile_module(text(5), machine)
    assert compile_module(text(5), machine) is first
    assert compile_module(text(6), machine) is not first
    assert compile_module(text(5), machine, "none") is not first
    assert (
        compile_module(
            text(5), replace(machine, features=f"{machine.features},-popcnt".lstrip(","))
        )
        is not first
    )


def test_code_of_many_modules_stays_apart() -> None:
    modules = [compile_module(text(k), Machine.host()) for k in range(300)]
    gc.collect()
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    assert [function(m.address("outer"))(1) for m in modules] == list(range(300))


def test_internal_functions_have_no_address() -> None:
    with pytest.raises(KeyError):
        compile_module(text(3), Machine.host()).address("inner")


@pytest.mark.parametrize(
    "bad",
    [
        "define i64 @f( {",
        "define i64 @f() {\n  ret i32 0\n}",
        "define i64 @f(i1 %c) {\n  br i1 %c, label %a, label %b\na:\n  %x = add i64 1, 1\n"
        "  br label %b\nb:\n  ret i64 %x\n}",
        "declare i64 @no_such_function_anywhere()\ndefine i64 @f() {\n"
        "  %x = call i64 @no_such_function_anywhere()\n  ret i64 %x\n}",
    ],
)
def test_bad_text_raises(bad: str) -> None:
    with pytest.raises(RuntimeError):
        compile_module(bad, Machine.host())


def test_symbols_can_be_given() -> None:
    source = (
        "@answer = external global i64\ndefine i64 @outer(i64 %x) {\n"
        "  %y = load i64, ptr @answer\n  ret i64 %y\n}"
    )
    value = ctypes.c_int64(99)
    module = compile_module(source, Machine.host(), symbols={"answer": ctypes.addressof(value)})
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(module.address("outer"))(0) == 99


def test_artefacts_of_several_texts_export_only_what_is_asked() -> None:
    machine = Machine.host()
    texts = [text(3), "define i64 @other() {\n  ret i64 1\n}"]
    options = Options(exports=frozenset({"outer"}))
    llvm = emit_llvm(texts, machine, options)
    assert "define i64 @outer" in llvm
    assert "other" not in llvm
    assert "alloca" not in llvm
    assert "outer:" in emit_assembly(texts, machine, options)
    assert emit_object(texts, machine, options)[:4] == b"\x7fELF"


def test_object_bytes_are_reproducible() -> None:
    assert emit_object(text(3), Machine.host()) == emit_object(text(3), Machine.host())


HALVES = (
    "define hidden i64 @half(i64 %x) noinline {\n  %y = mul i64 %x, NUMBER\n  ret i64 %y\n}",
    "declare i64 @half(i64)\ndefine i64 @outer(i64 %x) {\n  %y = call i64 @half(i64 %x)\n"
    "  ret i64 %y\n}",
)


def test_parts_call_one_another_and_keep_their_hidden_functions_apart() -> None:
    programs = [[part.replace("NUMBER", str(n)) for part in HALVES] for n in (3, 5)]
    with CodeGenerator(Machine.host()) as generator:
        generator.start(programs[0][0])
        modules = [compile_parts(parts, generator) for parts in programs]
        assert compile_parts(programs[0], generator) is modules[0]
    function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    assert [function(module.address("outer"))(14) for module in modules] == [42, 70]
    with pytest.raises(KeyError):
        modules[0].address("half")


def test_a_bad_part_raises_where_the_code_is_asked_for() -> None:
    with CodeGenerator(Machine.host()) as generator:
        generator.start("define i64 @f( {")
        with pytest.raises(RuntimeError):
            compile_parts(["define i64 @f( {"], generator)


LATE = """
import atexit, sys
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.code_generation import CodeGenerator

def compile_late():
    with CodeGenerator(Machine.host()) as generator:
        (code,) = generator.codes([sys.argv[1]])
    print(*code.exported)

atexit.register(compile_late)
"""


def test_what_runs_at_the_end_of_the_process_can_compile() -> None:
    """No thread begins any more then."""
    command = [sys.executable, "-c", LATE, text(5)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["outer"], done.stderr
