"""The LLVM modules that a program is written to.

A program that is compiled for this process is in parts, so that LLVM can work on some while the
rest is being written: kernels, a few in each, and last the entry functions, which call them.
"""

from __future__ import annotations

from collections.abc import Callable

from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm.loop_emitter import emit_loop_function
from mapsto.lowering.llvm.types import VOID
from mapsto.lowering.llvm.writer import ModuleWriter
from mapsto.lowering.loops import LoopFunction

__all__ = ["ProgramParts"]

_LEAST_LINES = 600
"""Of a part with kernels: compiling takes 1 ms a part and 40 ms for 1000 lines."""


class ProgramParts:
    """The modules: one, unless `finished` is there to be told the text of each that is complete."""

    def __init__(self, machine: Machine, finished: Callable[[str], object] | None = None) -> None:
        self.machine = machine
        self.entries = ModuleWriter.for_machine(machine)
        """The module of the entry functions."""
        self._finished = finished
        self._kernels = self._new_module()
        self._written: set[str] = set()
        self._texts: list[str] = []

    def write_kernel(self, loops: LoopFunction) -> None:
        """Writes a kernel, unless that was done before."""
        if loops.name in self._written:
            return
        self._written.add(loops.name)
        if self._kernels is self.entries:
            emit_loop_function(self.entries, loops, self.machine)
            return
        kernel = emit_loop_function(self._kernels, loops, self.machine, linkage="hidden")
        self.entries.declare(loops.name, VOID, [p.type for p in kernel.parameters])
        if self._kernels.lines >= _LEAST_LINES:
            self._finish(self._kernels)
            self._kernels = self._new_module()

    def finish(self) -> tuple[str, ...]:
        """The texts of all parts."""
        if self._kernels is not self.entries and self._kernels.lines:
            self._finish(self._kernels)
        self._finish(self.entries)
        return tuple(self._texts)

    def _new_module(self) -> ModuleWriter:
        return self.entries if self._finished is None else ModuleWriter.for_machine(self.machine)

    def _finish(self, module: ModuleWriter) -> None:
        self._texts.append(str(module))
        if self._finished is not None:
            self._finished(self._texts[-1])
