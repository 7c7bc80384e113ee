"""The fork-join pool of compiled programs, as LLVM text for a target.

`thread_pool.ll` explains the protocol.  Work is dealt to threads by index, never by their number:
what a program computes does not depend on how many run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

__all__ = ["MAX_WORKERS", "POOL_SYMBOLS", "pool_text"]

MAX_WORKERS = 256
"""Worker numbers are below this everywhere; `mapsto_worker_limit()` is the bound of a machine."""

POOL_SYMBOLS = (
    "mapsto_parallel_for",
    "mapsto_set_threads",
    "mapsto_threads",
    "mapsto_worker_limit",
)
"""The functions that compiled programs may call."""


@dataclass(frozen=True)
class _Architecture:
    """What differs among Linux machines: the futex system call and the hint in a spinning loop."""

    futex: int
    relax: str
    declaration: str = ""


_ARCHITECTURES = {
    "x86_64": _Architecture(
        202, "call void @llvm.x86.sse2.pause()", "declare void @llvm.x86.sse2.pause()"
    ),
    "aarch64": _Architecture(
        98, "call void @llvm.aarch64.hint(i32 1)", "declare void @llvm.aarch64.hint(i32)"
    ),
    "riscv64": _Architecture(98, 'fence syncscope("singlethread") seq_cst'),
}


@lru_cache
def pool_text(triple: str) -> str:
    """The pool's LLVM text: threads on 64-bit Linux, else a pool that runs every task in order."""
    architecture = _ARCHITECTURES.get(triple.split("-")[0])
    if architecture is None or "linux" not in triple:
        return _read("sequential_pool.ll")
    prologue = (
        f"@mapsto.futex = internal constant i64 {architecture.futex}\n"
        f"{architecture.declaration}\n"
        "define internal void @mapsto.relax() alwaysinline {\n"
        f"  {architecture.relax}\n"
        "  ret void\n"
        "}\n"
    )
    return prologue + _read("thread_settings.ll") + _read("thread_pool.ll")


def _read(name: str) -> str:
    return files("mapsto.runtime").joinpath(name).read_text(encoding="utf-8")
