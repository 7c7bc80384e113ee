"""LLVM text to machine code: in memory for this process, or as an object file or assembly.

Measured on 1,500 lines of vector code as our emitters write it: the default pass list costs 8 ms
and code generation 40 ms, while LLVM's O1, O2 and O3 cost 65 to 75 ms and gain nothing on loops
that are already vectorized, tiled and unrolled.  Linking through ORC with JITLink takes 0.3 ms
(MCJIT: 1 ms).

Objects are kept on disk by text and target, so that another process need not compile them again.

LLVM ends the process on code that it cannot select for a target (an unknown intrinsic, inline
assembly without a parser).  The verifier does not find such code, so emitters keep to instructions
and intrinsics that the target tables list.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import llvmlite
from llvmlite import binding

from mapsto.ir.disk_cache import compiled, key_of
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.printing import PRINT_SYMBOLS, print_text, writer_symbols
from mapsto.runtime.thread_pool import POOL_SYMBOLS, pool_text

__all__ = [
    "CompiledModule",
    "Optimization",
    "Options",
    "compile_module",
    "emit_assembly",
    "emit_llvm",
    "emit_object",
    "load_object",
    "pool_address",
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

_CACHE_SIZE = 256
_Value = TypeVar("_Value")


class CompiledModule:
    """Machine code in memory.  It is unloaded when the last reference to the object goes."""

    def __init__(self, object_bytes: bytes, tracker: Any) -> None:
        self.object_bytes = object_bytes
        self._tracker = tracker

    def address(self, name: str) -> int:
        """The address of an exported function.  Raises KeyError if there is none of this name."""
        return int(self._tracker[name])


def compile_module(
    text: str,
    machine: Machine,
    optimization: Optimization = "lean",
    symbols: Mapping[str, int] | None = None,
) -> CompiledModule:
    """Machine code for LLVM text, from memory if the same text was compiled before.

    `symbols` are addresses for declared functions and globals; the thread pool, printing, libc and
    libm need none.  Raises RuntimeError if the text is not valid LLVM IR or names an unknown
    symbol.
    """
    key = _key(text, machine, optimization, symbols or {})
    with _lock:
        module = _cache.get(key)
        if module is None:
            module = _load(text, machine, optimization, symbols or {})
            _cache[key] = module
        _cache.move_to_end(key)
        while len(_cache) > _CACHE_SIZE:
            _cache.popitem(last=False)
    return module


def load_object(content: bytes, exported: Sequence[str]) -> CompiledModule:
    """An object file of this machine, which needs nothing but libc and libm, in memory."""
    with _lock:
        return _link(_ObjectCode(content, exported, ()), {})


def emit_object(texts: Texts, machine: Machine, options: Options = DEFAULT_OPTIONS) -> bytes:
    """A relocatable object file.  Raises RuntimeError if a text is not valid LLVM IR."""
    module = _prepare(texts, machine, options)
    return bytes(_target_machine(machine, options.optimization).emit_object(module))


def emit_assembly(texts: Texts, machine: Machine, options: Options = DEFAULT_OPTIONS) -> str:
    """The target's assembly.  Raises RuntimeError if a text is not valid LLVM IR."""
    module = _prepare(texts, machine, options)
    return str(_target_machine(machine, options.optimization).emit_assembly(module))


def emit_llvm(texts: Texts, machine: Machine, options: Options = DEFAULT_OPTIONS) -> str:
    """The LLVM text after the passes, with its target.  Raises RuntimeError if it is not valid."""
    return str(_prepare(texts, machine, options))


def pool_address(name: str) -> int:
    """The address of a function of the thread pool that all compiled code of the process shares."""
    with _lock:
        return _pool().address(name)


_lock = threading.RLock()
_cache: OrderedDict[str, CompiledModule] = OrderedDict()
_library_numbers = itertools.count()


def _key(
    text: str, machine: Machine, optimization: Optimization, symbols: Mapping[str, int]
) -> str:
    return key_of(_target_text(machine, optimization), repr(sorted(symbols.items())), text)


def _target_text(machine: Machine, optimization: Optimization) -> str:
    return repr((machine.triple, machine.cpu, machine.features, optimization))


def _load(
    text: str, machine: Machine, optimization: Optimization, symbols: Mapping[str, int]
) -> CompiledModule:
    code = _object_code(text, machine, optimization)
    needed = frozenset(code.needed)
    known = {name: pool_address(name) for name in needed.intersection(POOL_SYMBOLS)}
    known |= {name: _printer().address(name) for name in needed.intersection(PRINT_SYMBOLS)}
    return _link(code, {**known, **symbols})


@dataclass(frozen=True, slots=True)
class _ObjectCode:
    """An object file, the functions in it that have an address, and those that it calls."""

    content: bytes
    exported: Sequence[str]
    needed: Sequence[str]

    def to_bytes(self) -> bytes:
        """A line with the names, and the object file."""
        names = json.dumps({"exported": self.exported, "needed": self.needed})
        return names.encode() + b"\n" + self.content

    @staticmethod
    def from_bytes(data: bytes) -> _ObjectCode:
        """What `to_bytes` gave."""
        names, _, content = data.partition(b"\n")
        return _ObjectCode(content, **json.loads(names))


def _object_code(text: str, machine: Machine, optimization: Optimization) -> _ObjectCode:
    """The object file of a text, from disk if it was compiled before."""
    cache = compiled()
    key = key_of(_own_version(), _target_text(machine, optimization), text)
    kept = cache.load(key)
    if kept is not None:
        return _ObjectCode.from_bytes(kept)
    module = _prepare(text, machine, Options(optimization))
    needed = [f.name for f in module.functions if f.is_declaration]
    content = bytes(_target_machine(machine, optimization).emit_object(module))
    exported = [f.name for f in module.functions if _is_exported(f)]
    code = _ObjectCode(content, exported, needed)
    cache.save(key, code.to_bytes())
    return code


@lru_cache(maxsize=1)
def _own_version() -> str:
    return key_of("object", llvmlite.__version__, Path(__file__).read_bytes())


def _link(code: _ObjectCode, symbols: Mapping[str, int]) -> CompiledModule:
    library = binding.JITLibraryBuilder().add_object_img(code.content).add_current_process()
    for name, address in symbols.items():
        library.import_symbol(name, address)
    for name in code.exported:
        library.export_symbol(name)
    tracker = library.link(_linker(), f"mapsto.{next(_library_numbers)}")
    return CompiledModule(code.content, tracker)


def _is_exported(function: Any) -> bool:
    return not function.is_declaration and function.linkage.name == "external"


@lru_cache(maxsize=1)
def _linker() -> Any:
    """The in-memory linker of the process."""
    return _immortal(
        binding.create_lljit_compiler(_target_machine(Machine.host()), use_jit_link=True)
    )


@lru_cache(maxsize=1)
def _pool() -> CompiledModule:
    machine = Machine.host()
    return _immortal(_load(pool_text(machine.triple), machine, "none", {}))


@lru_cache(maxsize=1)
def _printer() -> CompiledModule:
    return _immortal(_load(print_text(), Machine.host(), "none", writer_symbols()))


def _immortal(value: _Value) -> _Value:
    """Keeps an object to the process's end: until then threads of the pool run in its code."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    return value


def _prepare(texts: Texts, machine: Machine, options: Options) -> Any:
    """The verified and optimized module."""
    target = _target_machine(machine)
    first, *others = [texts] if isinstance(texts, str) else texts
    module = _parse(first, machine, target)
    for text in others:
        module.link_in(_parse(text, machine, target))
    if options.exports is not None:
        _internalize(module, options.exports)
    module.verify()
    _optimize(module, target, options.optimization)
    return module


def _parse(text: str, machine: Machine, target: Any) -> Any:
    module = binding.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(target.target_data)
    return module


def _internalize(module: Any, exports: frozenset[str]) -> None:
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in exports:
            value.linkage = "internal"


@lru_cache
def _target_machine(machine: Machine, optimization: Optimization = "lean") -> Any:
    return machine.target_machine(opt=0 if optimization == "none" else 2, jit=False)


def _optimize(module: Any, target: Any, optimization: Optimization) -> None:
    if optimization == "none":
        return
    level = 2 if optimization == "lean" else int(optimization[1])
    tuning = binding.create_pipeline_tuning_options(speed_level=level)
    if optimization == "lean":
        tuning.loop_vectorization = tuning.slp_vectorization = False
    builder = binding.create_pass_builder(target, tuning)
    passes = _lean_passes() if optimization == "lean" else builder.getModulePassManager()
    passes.run(module, builder)


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
