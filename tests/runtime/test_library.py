"""C libraries, from outside: a C program against the header, and every artefact's form."""

import ctypes
import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from runtime_programs import (
    RELU_SCALE,
    RELU_SCALE_SIGNATURE,
    STEP,
    STEP_SIGNATURE,
    WINDOWS,
    windows_signature,
)
from safetensors.numpy import save_file

from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime import files, native
from mapsto.runtime.checkpoint import save_checkpoint
from mapsto.runtime.errors import ArtifactError, LinkerNotFound, error_message
from mapsto.runtime.header import header_text
from mapsto.runtime.library import Library, LibraryEntry, c_identifier
from mapsto.runtime.native import build_library, write_header

WEIGHTS = np.array([1.5, -2, 0.25, 3], np.float32)
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")

Build = Callable[[Library, str], Path]


def forward_library() -> Library:
    forward = LibraryEntry("forward", "forward", RELU_SCALE_SIGNATURE, "The product w * relu(x).")
    windows = LibraryEntry("windows", "windows", windows_signature())
    return Library("digits", RELU_SCALE + WINDOWS, (forward, windows), {"w": WEIGHTS})


def training_library() -> Library:
    step = LibraryEntry("step", "step", STEP_SIGNATURE, "One step; old is the loss.")
    forward = LibraryEntry("forward", "forward", RELU_SCALE_SIGNATURE)
    return Library("trainer", STEP + RELU_SCALE, (step, forward), {"w": WEIGHTS})


@pytest.fixture
def program(tmp_path: Path) -> Build:
    """Builds a library and a C program that uses it; the program's path."""

    def build(library: Library, source: str) -> Path:
        shared = tmp_path / f"lib{library.name}.so"
        build_library(library, shared, Machine.host())
        write_header(library, tmp_path / f"{library.name}.h")
        (tmp_path / "main.c").write_text(source)
        strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]
        files = [str(tmp_path / "main.c"), str(shared), "-o", str(tmp_path / "main")]
        command = [str(COMPILER), *strict, *files, f"-Wl,-rpath,{tmp_path}", "-lpthread"]
        subprocess.run(command, check=True)
        return tmp_path / "main"

    return build


FORWARD_MAIN = r"""
#define _POSIX_C_SOURCE 200809L
#include "digits.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float x[50 * 4 + 1], expected[50 * 4];
static int32_t failures;

static void *caller(void *unused) {
    float y[50 * 4];
    for (int i = 0; i < 2000; i++) {
        memset(y, 0, sizeof y);
        failures += digits_forward(50, x, 200, y, 200, NULL, 0) != 0;
        failures += memcmp(y, expected, sizeof y) != 0;
    }
    return unused;
}

#define SHOW(call) printf("%d\n", (int)(call))

int main(void) {
    static float y[200];
    int64_t bytes = digits_forward_workspace_bytes(50);
    char *workspace = malloc((size_t)bytes + 1);
    pthread_t threads[2];
    if (fread(x, sizeof(float), 200, stdin) != 200) return 1;

    SHOW(digits_forward(50, x, 200, expected, 200, workspace + 1, bytes));
    fwrite(expected, sizeof(float), 200, stderr);
    SHOW(digits_forward(50, NULL, 200, y, 200, NULL, 0));
    SHOW(digits_forward(50, x, 200, NULL, 200, NULL, 0));
    SHOW(digits_forward(0, x, 0, y, 0, NULL, 0));
    SHOW(digits_forward(-1, x, -4, y, -4, NULL, 0));
    SHOW(digits_forward(INT64_MAX, x, 200, y, 200, NULL, 0));
    SHOW(digits_forward(INT64_MIN, x, 200, y, 200, NULL, 0));
    SHOW(digits_forward(2147483648, x, 200, y, 200, NULL, 0));
    SHOW(digits_forward(49, x, 200, y, 200, NULL, 0));
    SHOW(digits_forward(50, x, 199, y, 200, NULL, 0));
    SHOW(digits_forward(50, x, 200, y, 201, NULL, 0));
    SHOW(digits_forward(50, x, 200, y, 200, workspace, bytes - 1));
    SHOW(digits_forward(50, x, 200, y, 200, workspace, -1));
    SHOW(digits_forward(50, (float *)((char *)x + 1), 200, y, 200, NULL, 0));
    SHOW(digits_forward_workspace_bytes(0));
    SHOW(digits_forward_workspace_bytes(2147483648));
    int64_t a[7] = {0}, k[3] = {0}, v[5], w[4];
    SHOW(digits_windows(7, 3, a, 7, k, 3, v, 5, w, 4, NULL, 0));
    SHOW(digits_windows(1, 3, a, 1, k, 3, v, 5, w, 4, NULL, 0));

    puts(digits_error_message(102));
    puts(digits_error_message(12345));
    for (int t = 0; t < 2; t++) pthread_create(&threads[t], NULL, caller, NULL);
    for (int t = 0; t < 2; t++) pthread_join(threads[t], NULL);
    digits_set_threads(1);
    caller(NULL);
    SHOW(failures);
    free(workspace);
    return 0;
}
"""


@needs_compiler
def test_a_c_program_gets_exact_results_and_error_codes(program: Build) -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    main = program(forward_library(), FORWARD_MAIN)
    done = subprocess.run([str(main)], input=x.tobytes(), capture_output=True, check=True)
    assert done.stderr == (np.maximum(x, 0) * WEIGHTS).tobytes()
    *numbers, known, unknown, failures = done.stdout.decode().split("\n")[:-1]
    null, dims, sizes, small, unaligned = 100, 101, 102, 103, 104
    codes = [0, null, null, *[dims] * 5, *[sizes] * 3, small, small, unaligned, -1, -1, 0, dims]
    assert list(map(int, numbers)) == codes
    assert (known, unknown) == (error_message(102), "unknown error")
    assert failures == "0"


TRAINING_MAIN = r"""
#include "trainer.h"
#include <stdio.h>

int main(void) {
    trainer_model *a, *b;
    float x[4] = {1, 1, 1, 1}, y[4], old = -1;
    int64_t elements = -1;
    if (trainer_create(NULL) != 100) return 1;
    if (trainer_create(&a) || trainer_create(&b)) return 2;
    for (int i = 0; i < 3; i++)
        if (trainer_step(a, x, 4, &old, 1, NULL, 0)) return 3;
    if (old != 3.5f) return 4;
    float *w = trainer_array(a, "w", &elements);
    if (!w || elements != 4 || w[0] != 4.5f || w[1] != 1.0f) return 5;
    if (trainer_array(a, "v", &elements) || elements) return 6;
    if (trainer_array(NULL, "w", &elements) || trainer_array(a, NULL, NULL)) return 7;
    if (trainer_forward(a, 1, x, 4, y, 4, NULL, 0) || y[0] != 4.5f) return 8;
    if (trainer_forward(b, 1, x, 4, y, 4, NULL, 0) || y[0] != 1.5f) return 9;
    if (trainer_step(NULL, x, 4, &old, 1, NULL, 0) != 100) return 10;
    x[0] = 0.0f / (x[1] - 1.0f);
    if (trainer_step(a, x, 4, &old, 1, NULL, 0) != 3 || w[0] != 4.5f) return 11;
    trainer_destroy(a);
    trainer_destroy(b);
    trainer_destroy(NULL);
    puts("good");
    return 0;
}
"""


@needs_compiler
def test_a_c_program_trains_with_handles(program: Build) -> None:
    done = subprocess.run([str(program(training_library(), TRAINING_MAIN))], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"good\n")


@needs_compiler
def test_weights_come_from_a_file(tmp_path: Path) -> None:
    model = loaded_model(tmp_path)
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, {"other": np.zeros(3), "w": WEIGHTS}, {"epoch": '"7"'})
    assert model(path) == (0, WEIGHTS.tolist())
    save_file({"w": WEIGHTS * 2, "v": np.zeros((2, 3), np.int8)}, path, {"a": "b"})
    assert model(path) == (0, (WEIGHTS * 2).tolist())


@needs_compiler
def test_bad_weight_files_give_an_error_code_and_no_model(tmp_path: Path) -> None:
    model = loaded_model(tmp_path)
    path = tmp_path / "w.safetensors"
    assert model(path) == (105, None)
    assert model(tmp_path) == (105, None)
    for bad in (WEIGHTS[:3], WEIGHTS.reshape(2, 2), WEIGHTS.view(np.int32), None):
        save_checkpoint(path, {"x": WEIGHTS} if bad is None else {"w": bad})
        assert model(path) == (107, None)
    save_checkpoint(path, {"w": WEIGHTS})
    good = path.read_bytes()
    entry = b'"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    for text in (
        b"{" + entry + b"," + entry + b"}",
        b"{" + entry + b"} x",
        b"{" + entry,
        b"{" + entry + b",}",
        b"[" + entry + b"]",
        b"{" + entry.replace(b"16", b"15") + b"}",
        b"{" + entry.replace(b"[0,16]", b"[4,20]") + b"}",
        b"{" + entry.replace(b"[0,16]", b"[99999999999999999999,16]") + b"}",
        b"{" + entry.replace(b"[4]", b"[" + b"4," * 40 + b"4]") + b"}",
        b'{"w',
        b'{"w\\',
        b"",
    ):
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
        assert model(path) == (106, None), text
    for size in range(len(good)):
        path.write_bytes(good[:size])
        assert model(path) == (106, None)
    path.write_bytes((2**63).to_bytes(8, "little") + good[8:])
    assert model(path) == (106, None)


@needs_compiler
def test_damaged_weight_files_do_no_harm(tmp_path: Path) -> None:
    model = loaded_model(tmp_path)
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, {"w": WEIGHTS, "v": np.zeros((2, 3))}, {"epoch": "7"})
    good, rng = path.read_bytes(), random.Random(0)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(200)] = rng.choice(b'"{}[],:\\0123456789 wv\xff')
        path.write_bytes(data)
        assert model(path)[0] in (0, 106, 107)


def loaded_model(folder: Path) -> Callable[[Path], tuple[int, list[float] | None]]:
    """Loads a weight file with a library made for that: the error code and the array w."""
    entry = LibraryEntry("forward", "forward", RELU_SCALE_SIGNATURE)
    library = Library("outside", RELU_SCALE, (entry,), external_weights=True)
    build_library(library, folder / "liboutside.so", Machine.host())
    native_library = ctypes.CDLL(str(folder / "liboutside.so"))
    native_library.outside_array.restype = ctypes.POINTER(ctypes.c_float)
    assert "outside_create" not in header_text(library)

    def load(path: Path) -> tuple[int, list[float] | None]:
        handle = ctypes.c_void_p(1)
        code = native_library.outside_load(str(path).encode(), ctypes.byref(handle))
        if not handle:
            return code, None
        values = native_library.outside_array(handle, b"w", None)[:4]
        native_library.outside_destroy(handle)
        return code, values

    return load


@needs_compiler
@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_the_library_needs_only_libc_and_exports_only_its_functions(tmp_path: Path) -> None:
    library = forward_library()
    build_library(library, tmp_path / "libdigits.so", Machine.host())
    dynamic = readelf("-d", tmp_path / "libdigits.so")
    needed = [line.split("[")[1].rstrip("]") for line in dynamic if "(NEEDED)" in line]
    assert set(needed) <= {"libc.so.6", "libm.so.6"}
    assert any("NODELETE" in line for line in dynamic)
    symbols = [line.split() for line in readelf("--dyn-syms", tmp_path / "libdigits.so")]
    exported = {s[7] for s in symbols if len(s) > 7 and s[4] == "GLOBAL" and s[6] != "UND"}
    assert exported == set(library.function_names)


def readelf(option: str, path: Path) -> list[str]:
    command = ["readelf", "-W", option, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@needs_compiler
def test_the_library_can_be_closed_while_its_workers_live(tmp_path: Path) -> None:
    build_library(forward_library(), tmp_path / "libdigits.so", Machine.host())
    script = """
import ctypes, sys, _ctypes
import numpy as np
library = ctypes.CDLL(sys.argv[1])
x, y = np.ones(400, np.float32), np.zeros(400, np.float32)
pointers = [ctypes.c_void_p(a.ctypes.data) for a in (x, y)]
size, count = ctypes.c_int64(100), ctypes.c_int64(400)
assert library.digits_forward(size, pointers[0], count, pointers[1], count, None, size) == 0
_ctypes.dlclose(library._handle)
"""
    path = str(tmp_path / "libdigits.so")
    assert subprocess.run([sys.executable, "-c", script, path]).returncode == 0


@needs_compiler
@pytest.mark.parametrize("language", ["c", "c++"])
def test_the_header_stands_alone(tmp_path: Path, language: str) -> None:
    if language == "c++" and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    write_header(training_library(), tmp_path / "trainer.h")
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", "-x", language]
    subprocess.run([str(COMPILER), *strict, str(tmp_path / "trainer.h")], check=True)


def test_the_header_says_what_is_needed() -> None:
    text = header_text(forward_library())
    assert (
        "int32_t digits_forward(int64_t n,\n"
        "        const float *x, int64_t x_elements, /* f32[n, 4] */\n"
        "        float *y, int64_t y_elements, /* f32[n, 4] */\n"
        "        void *workspace, int64_t workspace_bytes);\n"
    ) in text
    assert "/* The product w * relu(x).\n   Returns 0 or an error code. */" in text
    assert "     100  a required pointer is null\n" in text
    assert "trainer_model" in header_text(training_library())


@pytest.mark.parametrize(
    ("suffix", "start"), [(".o", b"\x7fELF"), (".s", b"\t.file"), (".ll", b"; ModuleID")]
)
def test_other_artefacts(tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / f"digits{suffix}"
    build_library(forward_library(), path, Machine.host())
    data = path.read_bytes()
    assert data.startswith(start)
    assert b"digits_forward" in data


def test_objects_for_other_machines(tmp_path: Path) -> None:
    for triple in ("aarch64-unknown-linux-gnu", "riscv64-unknown-linux-gnu"):
        build_library(forward_library(), tmp_path / "a.o", Machine.named("generic", triple))
    with pytest.raises(ValueError, match=r"one of \.so, \.o, \.s, \.ll"):
        build_library(forward_library(), tmp_path / "a.dll", Machine.host())


def test_without_a_linker_both_ways_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(native, "_zig", lambda: None)
    with pytest.raises(LinkerNotFound, match=r"gcc or clang.*pip install ziglang"):
        build_library(forward_library(), tmp_path / "a.so", Machine.host())
    assert not list(tmp_path.iterdir())


def test_zig_links_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(native, "_zig", lambda: "/there/zig")
    command = native._link_command(Path("a.o"), Path("a.so"), "liba.so", Machine.host())
    assert command[:3] == ["/there/zig", "ld.lld", "-shared"]
    assert any("libc" in word or "musl" in word for word in command)


def test_a_failing_linker_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "cc"
    fake.write_text("#!/bin/sh\necho 'out of ink' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    with pytest.raises(ArtifactError, match="linking failed\nout of ink"):
        build_library(forward_library(), tmp_path / "a.so", Machine.host())


def test_files_are_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digits.h"
    path.write_text("old")
    with pytest.raises(ArtifactError, match="cannot be written: No such file"):
        write_header(forward_library(), tmp_path / "no" / "digits.h")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        write_header(forward_library(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["digits.h"]
    assert path.read_text() == "old"


def test_names_become_c_identifiers() -> None:
    assert c_identifier("layers.0.w", set()) == "layers_0_w"
    assert c_identifier("int", set()) == "int_"
    assert c_identifier("2x", set()) == "a2x"
    assert c_identifier("_x", set()) == "a_x"
    assert c_identifier("größe", set()) == "gr__e"
    assert c_identifier("x", {"x", "x_"}) == "x__"
    assert c_identifier("workspace", set()) == "workspace_"
    with pytest.raises(ValueError, match="cannot be the name of a C library"):
        Library("my lib", "", ())


def test_arrays_must_be_there_and_fit() -> None:
    library = forward_library()
    for arrays in ({}, {"w": WEIGHTS[:3]}, {"w": WEIGHTS.astype(float)}):
        with pytest.raises(ValueError, match=r"w: f32\[4\]"):
            Library("digits", library.text, library.entries, arrays)
