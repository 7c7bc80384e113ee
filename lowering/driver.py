"""From a module of tensor IR to the LLVM text of a compiled program.

`lower(module, "f", machine)` runs the last stages on a function whose differentiation requests and
calls are expanded: fusion into kernels, buffer assignment, kernels to loops, loops to LLVM, and the
entry function that calls the kernels (`entry`).  Kernels that are the same are written once.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from mapsto.ir.core import Function, Module
from mapsto.ir.fusion import alias_pairs, fuse_function
from mapsto.ir.kernel_key import kernel_key
from mapsto.ir.levels import FUSED, check_level
from mapsto.ir.ops.control import Kernel
from mapsto.ir.passes.fuse import is_fused
from mapsto.ir.types import TensorType
from mapsto.lowering.buffers import BufferPlan, assign_buffers
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.entry import KernelCall, write_entry
from mapsto.lowering.kernels import has_errors, lower_kernel
from mapsto.lowering.llvm.loop_emitter import emit_loop_function
from mapsto.lowering.llvm.writer import ModuleWriter
from mapsto.lowering.loops import LoopFunction

__all__ = [
    "Compiled",
    "EntryPoint",
    "KernelTable",
    "LoweredFunction",
    "emit",
    "lower",
    "lower_function",
]


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """The interface of an entry function, in the order of its buffers.

    `arguments` are names and types; `results` the types of the results that alias no argument;
    `sizes` the named sizes in the order of its `dims` array.
    """

    name: str
    arguments: tuple[tuple[str, TensorType], ...]
    results: tuple[TensorType, ...]
    sizes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LoweredFunction:
    """A function as kernels in memory: the fused function, where its tensors are, and the calls."""

    function: Function
    entry: EntryPoint
    plan: BufferPlan
    calls: tuple[KernelCall, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """LLVM text with entry functions, and what it was made from."""

    text: str
    functions: Mapping[str, LoweredFunction]
    kernels: tuple[LoopFunction, ...]

    def entry(self, name: str) -> EntryPoint:
        """The interface of an entry function."""
        return self.functions[name].entry


def lower(module: Module, names: str | Sequence[str], machine: Machine) -> Compiled:
    """LLVM text in which the named functions of the module are entry functions.

    Raises VerifyError where an op should have been expanded by a pass before, MissingLowering for
    ops that have no lowering.
    """
    chosen = [names] if isinstance(names, str) else list(names)
    kernels = KernelTable(machine)
    lowered = {name: lower_function(module[name], kernels) for name in chosen}
    return Compiled(emit(lowered, machine), lowered, tuple(kernels.written.values()))


class KernelTable:
    """The kernels of a program, each lowered once for all places where it is called."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.written: dict[LoopFunction, LoopFunction] = {}
        self._lowered: dict[Hashable, LoopFunction] = {}

    def loops(self, op: Kernel, shared: frozenset[str], owner: str) -> LoopFunction:
        """The loops of a kernel; a new one is named after the function that it is first in."""
        key = kernel_key(op), shared
        found = self._lowered.get(key)
        if found is None:
            lowered = lower_kernel(op, "", self.machine, shared)
            name = f"{owner}.kernel{len(self.written)}"
            found = self.written.setdefault(lowered, replace(lowered, name=name))
            self._lowered[key] = found
        return found


def lower_function(function: Function, kernels: KernelTable) -> LoweredFunction:
    """Kernels, buffers and loops of a function."""
    fused = function if is_fused(function) else fuse_function(function)
    check_level(fused, FUSED)
    plan = assign_buffers(fused)
    ops = [op for op in fused.block.operations if isinstance(op, Kernel)]
    calls = tuple(_call(op, plan, function.name, kernels) for op in ops)
    return LoweredFunction(fused, entry_point(fused), plan, calls)


def entry_point(function: Function) -> EntryPoint:
    """The interface of a function."""
    updated = {result for result, _ in alias_pairs(function)}
    results = [v.type for i, v in enumerate(function.results) if i not in updated]
    named = [(a.hint or f"x{i}", a.type) for i, a in enumerate(function.arguments)]
    sizes = frozenset().union(*(type_.symbols for _, type_ in named))
    return EntryPoint(function.name, tuple(named), tuple(results), tuple(sorted(sizes)))


def _call(op: Kernel, plan: BufferPlan, owner: str, kernels: KernelTable) -> KernelCall:
    loops = kernels.loops(op, _shared_names(op, plan), owner)
    places = [plan.place(value) for value in (*op.operands, *op.results)]
    return KernelCall(loops, tuple(places), has_errors(op.regions[0].block))


def _shared_names(op: Kernel, plan: BufferPlan) -> frozenset[str]:
    """The names of a kernel's buffers that are the memory of one of its results as well."""
    operands = [(f"x{i}", plan.place(value)) for i, value in enumerate(op.operands)]
    results = [(f"y{i}", plan.place(value)) for i, value in enumerate(op.results)]
    pairs = [(x, y) for x, read in operands for y, written in results if read == written]
    return frozenset(name for pair in pairs for name in pair)


def emit(functions: Mapping[str, LoweredFunction], machine: Machine) -> str:
    """The LLVM text of functions that are lowered already."""
    module = ModuleWriter.for_machine(machine)
    for lowered in functions.values():
        for call in lowered.calls:
            if not module.has_function(call.loops.name):
                emit_loop_function(module, call.loops, machine)
        write_entry(module, lowered.entry.name, lowered.entry.sizes, lowered.plan, lowered.calls)
    return str(module)
