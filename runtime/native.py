"""Native artefacts: object files, assembly, LLVM text, shared libraries with a header."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from pathlib import Path

from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.code_generation import Options, emit_assembly, emit_llvm, emit_object
from mapsto.runtime.errors import ArtifactError, LinkerNotFound
from mapsto.runtime.files import write_atomically
from mapsto.runtime.header import header_text
from mapsto.runtime.library import Library
from mapsto.runtime.library_code import library_text
from mapsto.runtime.printing import PRINT_SYMBOLS, print_library_text, print_text
from mapsto.runtime.thread_pool import pool_text

__all__ = ["ARTIFACT_SUFFIXES", "build_library", "write_header"]

ARTIFACT_SUFFIXES = (".so", ".o", ".s", ".ll")
"""What `build_library` can write."""

_LINK_FLAGS = (
    "-shared",
    "-Wl,--as-needed",
    "-Wl,--no-undefined",
    "-Wl,--gc-sections",
    "-Wl,-z,noexecstack",
    "-Wl,-z,nodelete",  # workers of the thread pool run in the library until the process ends
)


def build_library(library: Library, path: Path | str, machine: Machine) -> None:
    """Writes a library for a machine, atomically; the suffix of `path` says in which form.

    Raises ValueError for a suffix that is none of ARTIFACT_SUFFIXES, LinkerNotFound if a shared
    library is wanted and nothing can link it, and ArtifactError if linking or writing fails.
    """
    path = Path(path)
    emit = _EMITTERS.get(path.suffix)
    if emit is None:
        raise ValueError(f"{path}: the suffix should be one of {', '.join(ARTIFACT_SUFFIXES)}")
    texts = [library.text, library_text(library), pool_text(machine.triple)]
    if library.has_handle:
        texts.append(loader_text())
    if any(name in library.text for name in PRINT_SYMBOLS):
        texts += [print_text(), print_library_text()]
    options = Options(exports=frozenset(library.function_names))
    _write(path, emit(texts, machine, options, path.name))


@lru_cache
def loader_text() -> str:
    """The reader of safetensors files, as LLVM text."""
    folder = resources.files("mapsto.runtime")
    names = ("json_reader.ll", "safetensors_loader.ll")
    return "\n".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


def write_header(library: Library, path: Path | str) -> None:
    """Writes the library's C header, atomically.  Raises ArtifactError if it cannot be written."""
    _write(Path(path), header_text(library).encode())


def _write(path: Path, data: bytes) -> None:
    mode = 0o777 if path.suffix == ".so" else 0o666
    try:
        write_atomically(path, [data], mode)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be written: {error.strerror or error}") from error


def _shared_library(texts: list[str], machine: Machine, options: Options, name: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="mapsto-") as folder:
        source, target = Path(folder, "library.o"), Path(folder, "library.so")
        source.write_bytes(emit_object(texts, machine, options))
        _run(_link_command(source, target, name, machine))
        return target.read_bytes()


_EMITTERS: dict[str, Callable[[list[str], Machine, Options, str], bytes]] = {
    ".so": _shared_library,
    ".o": lambda texts, machine, options, _: emit_object(texts, machine, options),
    ".s": lambda texts, machine, options, _: emit_assembly(texts, machine, options).encode(),
    ".ll": lambda texts, machine, options, _: emit_llvm(texts, machine, options).encode(),
}


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ArtifactError(f"{command[0]}: cannot be run: {error.strerror or error}") from error
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise ArtifactError(f"{command[0]}: linking failed\n{last}")


def _link_command(source: Path, target: Path, name: str, machine: Machine) -> list[str]:
    files = ["-o", str(target), str(source)]
    compiler = _c_compiler()
    if compiler:
        return [*compiler, *_LINK_FLAGS, f"-Wl,-soname,{name}", *files, "-lpthread", "-lm"]
    zig = _zig()
    if zig is None:
        raise LinkerNotFound(
            "a shared library needs a linker: install a C compiler (gcc or clang, or name one in"
            " the environment variable CC), or `pip install ziglang`"
        )
    flags = ["-shared", "--as-needed", "--gc-sections", "-z", "nodelete", "-soname", name]
    here = machine.triple == Machine.host().triple
    return [zig, "ld.lld", *flags, *files, *(_loaded_c_libraries() if here else [])]


def _c_compiler() -> list[str]:
    """The command of the C compiler that is there: $CC, cc, gcc or clang."""
    named = shlex.split(os.environ.get("CC", ""))
    for command in (named, ["cc"], ["gcc"], ["clang"]):
        if command and shutil.which(command[0]):
            return command
    return []


def _zig() -> str | None:
    """The program of the `ziglang` package, if that is installed."""
    found = importlib.util.find_spec("ziglang")
    for folder in (found.submodule_search_locations or []) if found else []:
        program = Path(folder, "zig")
        if program.exists():
            return str(program)
    return None


def _loaded_c_libraries() -> list[str]:
    """The C and math libraries of this process, for a linker that does not know where they are."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return []
    found = re.findall(r"(/\S*/(?:libc|libm|ld-musl)[-.\w]*\.so[.\d]*)$", maps, re.MULTILINE)
    return sorted(set(found))
