"""LLVM text to machine code: objects for this process, object files, assembly.

Measured on 1,500 lines of vector code as our emitters write it: the default pass list costs 8 ms
and code generation 40 ms, while LLVM's O1, O2 and O3 cost 65 to 75 ms and gain nothing on loops
that are already vectorized, tiled and unrolled.

Objects are kept on disk by text and target, so that another process need not compile them again.
Every module is in an LLVM context of its own: several threads may compile at once, and nothing of a
module outlives it.

LLVM ends the process on code that it cannot select for a target (an unknown intrinsic, inline
assembly without a parser).  The verifier does not find such code, so emitters keep to instructions
and intrinsics that the target tables list.
"""

from __future__ import annotations

import ctypes
import json
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import llvmlite
from llvmlite import binding
from llvmlite.binding import ffi

from mapsto.ir.disk_cache import compiled, key_of
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.compiler_memory import release_memory

__all__ = [
    "CodeGenerator",
    "ObjectCode",
    "Optimization",
    "Options",
    "emit_assembly",
    "emit_llvm",
    "emit_object",
    "object_code",
    "target_machine",
    "target_text",
]

Optimization = Literal["none", "lean", "O1", "O2", "O3"]
"""Passes before code generation: `lean` for code that our emitters wrote, `O1`.. for any other.

`none` is for code where compiling costs more than it gains: 10 times faster to generate."""

Texts = str | Sequence[str]
"""LLVM text of a module, or of several that are linked into one."""


@dataclass(frozen=True)
class Options:
    """How artefacts are made: the passes, and the only functions that stay visible (None: all)."""

    optimization: Optimization = "lean"
    exports: frozenset[str] | None = None


DEFAULT_OPTIONS = Options()
"""The passes for our own code; every function stays visible."""


def emit_object(texts: Texts, machine: Machine, options: Options = DEFAULT_OPTIONS) -> bytes:
    """A relocatable object file.  Raises RuntimeError if a text is not valid LLVM IR."""
    module = _prepare(texts, machine, options)
    return _machine_code(module, machine, options.optimization, is_object=True)


def emit_assembly(texts: Texts, machine: Machine, options: Options = DEFAULT_OPTIONS) -> str:
    """The target's assembly.  Raises RuntimeError if a text is not valid LLVM IR."""
    module = _prepare(texts, machine, options)
    return _machine_code(module, machine, options.optimization, is_object=False).decode()


def emit_llvm(texts: Texts, machine: Machine, options: Options = DEFAULT_OPTIONS) -> str:
    """The LLVM text after the passes, with its target.  Raises RuntimeError if it is not valid."""
    return str(_prepare(texts, machine, options))


# ---- objects for this process


@dataclass(frozen=True, slots=True)
class ObjectCode:
    """An object file, the functions in it that have an address, and those that it calls."""

    content: bytes
    exported: Sequence[str]
    needed: Sequence[str]

    def to_bytes(self) -> bytes:
        """A line with the names, and the object file."""
        names = json.dumps({"exported": self.exported, "needed": self.needed})
        return names.encode() + b"\n" + self.content

    @staticmethod
    def from_bytes(data: bytes) -> ObjectCode:
        """What `to_bytes` gave."""
        names, _, content = data.partition(b"\n")
        return ObjectCode(content, **json.loads(names))


def object_code(text: str, machine: Machine, optimization: Optimization = "lean") -> ObjectCode:
    """The object file of a text, from disk if it was compiled before.  Raises RuntimeError if the
    text is not valid LLVM IR."""
    kept = compiled()
    key = key_of(_own_version(), target_text(machine, optimization), text)
    found = kept.load(key)
    if found is not None:
        return ObjectCode.from_bytes(found)
    content = emit_object(text, machine, Options(optimization))
    code = ObjectCode(content, _EXPORTED.findall(text), _DECLARED.findall(text))
    kept.save(key, code.to_bytes())
    return code


_EXPORTED = re.compile(r"^define (?!internal|hidden|private)[^@]*@([\w.$-]+)\(", re.MULTILINE)
_DECLARED = re.compile(r"^declare [^@]*@([\w.$-]+)\(", re.MULTILINE)


def target_text(machine: Machine, optimization: Optimization) -> str:
    """What of a machine decides the code."""
    return repr((machine.triple, machine.cpu, machine.features, optimization))


@lru_cache(maxsize=1)
def _own_version() -> str:
    return key_of("object", llvmlite.__version__, Path(__file__).read_bytes())


class CodeGenerator:
    """Compiles the parts of a program on threads of its own: LLVM works on what is written while
    the rest is being written.

        with CodeGenerator(machine) as generator:
            generator.start(text)
            ..
            code, *more = generator.codes([text, ..])
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._pool: ThreadPoolExecutor | None = None
        self._started: dict[str, Future[ObjectCode]] = {}

    def __enter__(self) -> CodeGenerator:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            _tidy_after(sum(map(len, self._started)))

    def start(self, text: str) -> None:
        """Begins with a text, unless that was done before."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.machine.cores, "mapsto-code")
        if text not in self._started:
            self._started[text] = self._submitted(self._pool, text)

    def _submitted(self, pool: ThreadPoolExecutor, text: str) -> Future[ObjectCode]:
        try:
            return pool.submit(object_code, text, self.machine)
        except RuntimeError:
            # The main thread has ended: no other one begins, but those that are there go on.
            done: Future[ObjectCode] = Future()
            done.set_result(object_code(text, self.machine))
            return done

    def codes(self, texts: Sequence[str]) -> list[ObjectCode]:
        """The objects of texts, once they are there.  Raises RuntimeError as `object_code` does."""
        for text in texts:
            self.start(text)
        return [self._started[text].result() for text in texts]


def _tidy_after(length: int) -> None:
    """Gives memory back once so much text was compiled that the time for it does not matter."""
    _compiled.length += length
    if _compiled.length >= _TIDIED_LENGTH:
        _compiled.length = 0
        release_memory()


@dataclass(slots=True)
class _Compiled:
    length: int = 0
    """Of the texts that were compiled since memory was given back."""


_compiled = _Compiled()
_TIDIED_LENGTH = 20_000


# ---- LLVM


def _prepare(texts: Texts, machine: Machine, options: Options) -> Any:
    """The verified and optimized module."""
    target = target_machine(machine)
    first, *others = [texts] if isinstance(texts, str) else texts
    context = binding.create_context()
    module = _parse(first, machine, target, context)
    for text in others:
        module.link_in(_parse(text, machine, target, context))
    if options.exports is not None:
        _internalize(module, options.exports)
    module.verify()
    _optimize(module, target, options.optimization)
    return module


def _parse(text: str, machine: Machine, target: Any, context: Any) -> Any:
    module = binding.parse_assembly(text, context)
    module.triple = machine.triple
    module.data_layout = str(target.target_data)
    return module


def _internalize(module: Any, exports: frozenset[str]) -> None:
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in exports:
            value.linkage = "internal"


def target_machine(machine: Machine, optimization: Optimization = "lean") -> Any:
    """LLVM's code generator for a machine: one for each thread, as it keeps notes."""
    found: dict[tuple[Machine, int], Any] = _of_thread.__dict__.setdefault("machines", {})
    level = 0 if optimization == "none" else 2
    if (machine, level) not in found:
        found[machine, level] = machine.target_machine(opt=level, jit=False)
    return found[machine, level]


_of_thread = threading.local()


def _optimize(module: Any, target: Any, optimization: Optimization) -> None:
    if optimization == "none":
        return
    level = 2 if optimization == "lean" else int(optimization[1])
    tuning = binding.create_pipeline_tuning_options(speed_level=level)
    if optimization == "lean":
        tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = binding.create_pass_builder(target, tuning)
    passes = _lean_passes() if optimization == "lean" else builder.getModulePassManager()
    _without_lock("LLVMPY_RunNewModulePassManager")(passes, module, builder)


def _lean_passes() -> Any:
    """Inline what must be, put local arrays into registers, and remove what is computed twice."""
    manager = binding.create_new_module_pass_manager()
    steps: tuple[Callable[[], None], ...] = (
        manager.add_always_inliner_pass,
        manager.add_sroa_pass,
        manager.add_instruction_combine_pass,
        manager.add_simplify_cfg_pass,
        manager.add_loop_rotate_pass,
        manager.add_dead_code_elimination_pass,
        manager.add_global_dead_code_eliminate_pass,
    )
    for step in steps:
        step()
    return manager


def _machine_code(
    module: Any, machine: Machine, optimization: Optimization, is_object: bool
) -> bytes:
    emit = _without_lock("LLVMPY_TargetMachineEmitToMemory")
    with ffi.OutputString() as error:
        buffer = emit(target_machine(machine, optimization), module, int(is_object), error)
        if not buffer:
            raise RuntimeError(str(error))
    try:
        size = ffi.lib.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


@cache
def _without_lock(name: str) -> Callable[..., Any]:
    """A function of llvmlite's library without the lock around all of them, which lets one thread
    at a time in.  LLVM itself does not ask for that where contexts and machines are not shared."""
    locked = getattr(ffi.lib, name)
    function = getattr(ctypes.CDLL(ffi.lib._name), name)
    function.argtypes, function.restype = locked.argtypes, locked.restype
    return function  # type: ignore[no-any-return]
