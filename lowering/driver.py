"""From a module of tensor IR to the LLVM text of a compiled program.

`lower(module, "f", machine)` runs the last stages on a function whose differentiation requests and
calls are expanded: fusion into kernels, buffer assignment, kernels to loops, loops to LLVM, and the
entry function that does the steps (`entry`).  Kernels that are the same are written once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from mapsto.ir.bodies import alias_pairs, body_functions, constant_arguments
from mapsto.ir.core import Function, Module, Operation
from mapsto.ir.dims import Dim, dim_value, product
from mapsto.ir.fusion import buffer_of, fuse_function
from mapsto.ir.kernel_key import kernel_key
from mapsto.ir.levels import FUSED, check_level
from mapsto.ir.ops.control import Kernel
from mapsto.ir.ops.flow import If
from mapsto.ir.ops.partition import Partition
from mapsto.ir.passes.fuse import is_fused
from mapsto.lowering.assertions import Assertion, AssertionTable
from mapsto.lowering.buffers import (
    Ahead,
    BufferPlan,
    Place,
    assign_buffers,
    is_step,
    padded_bytes,
)
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.schedule_choice import Choose
from mapsto.lowering.cpu.scheduling import cpu_scheduling
from mapsto.lowering.entry import write_entry
from mapsto.lowering.kernels import LoweredKernel, has_errors, lower_kernel
from mapsto.lowering.loops import LoopFunction
from mapsto.lowering.lowered import (
    ApartCall,
    BodyPreparation,
    Call,
    EntryPoint,
    KernelCall,
    LoweredFunction,
)
from mapsto.lowering.partition import serial
from mapsto.lowering.program_parts import ProgramParts
from mapsto.lowering.scheduling import Scheduling
from mapsto.lowering.sharing import PairSharing
from mapsto.lowering.step_timing import StepTimer, TimedStep

__all__ = [
    "Compiled",
    "EntryPoint",
    "KernelTable",
    "LoweredFunction",
    "emit",
    "lower",
    "lower_function",
]


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """LLVM text with entry functions, in parts that call one another, and what it was made from;
    `assertions` are those that may fail, by the error code that an entry returns then; `steps` are
    those that are timed."""

    texts: tuple[str, ...]
    functions: Mapping[str, LoweredFunction]
    kernels: tuple[LoopFunction, ...]
    assertions: Mapping[int, Assertion] = field(default_factory=dict)
    steps: tuple[TimedStep, ...] = ()

    @property
    def text(self) -> str:
        """The text of a program in one part."""
        (text,) = self.texts
        return text

    def entry(self, name: str) -> EntryPoint:
        """The interface of an entry function."""
        return self.functions[name].entry

    def prepared_bytes(self, name: str) -> int:
        """The memory that an entry function has prepared before it is called."""
        return dim_value(self.functions[name].prepared_bytes, {})


def lower(
    module: Module,
    names: str | Sequence[str],
    machine: Machine,
    timed: bool = False,
    choose: Choose | None = None,
    finished: Callable[[str], object] | None = None,
) -> Compiled:
    """LLVM text in which the named functions of the module are entry functions; where it is `timed`
    they measure their steps.  `choose` decides on the schedules of contractions (None: the cost
    model).  The text is in one part, unless `finished` is there to be told each as soon as it is
    written.

    Raises VerifyError where an op should have been expanded by a pass before, MissingLowering for
    ops that have no lowering.
    """
    chosen = [names] if isinstance(names, str) else list(names)
    parts = ProgramParts(machine, finished)
    # LLVM can begin with a kernel before the next one is lowered.
    kernels = KernelTable(cpu_scheduling(machine, choose), parts.write_kernel if finished else None)
    lowered = {name: lower_function(module[name], kernels) for name in chosen}
    assertions = AssertionTable()
    timer = StepTimer(parts.entries) if timed else None
    emit(parts, lowered, assertions, timer)
    loops, steps = tuple(kernels.written.values()), tuple(timer.steps) if timer else ()
    return Compiled(parts.finish(), lowered, loops, assertions.by_code, steps)


class KernelTable:
    """The kernels of a program, each lowered once for all places where it is called; `tell` gets
    the loops of each as soon as they are there."""

    def __init__(
        self, scheduling: Scheduling, tell: Callable[[LoopFunction], None] | None = None
    ) -> None:
        self.scheduling = scheduling
        self._tell = tell
        self.written: dict[LoopFunction, LoopFunction] = {}
        self.uses: list[tuple[Kernel, frozenset[str]]] = []
        """The kernels, each as it is first met, with the names of its invariant operands."""
        self._lowered: dict[Hashable, LoweredKernel] = {}

    def find(
        self,
        op: Kernel,
        shared: frozenset[str],
        invariant: frozenset[str],
        owner: str,
        is_serial: bool = False,
    ) -> LoweredKernel:
        """The loops of a kernel, for one thread if it `is_serial`; new ones are named after the
        function that they are first in."""
        key = kernel_key(op), shared, invariant, is_serial
        found = self._lowered.get(key)
        if found is None:
            self.uses.append((op, invariant))
            lowered = lower_kernel(op, self.scheduling, shared, invariant)
            ahead = tuple(self._named(loops, f"{owner}.ahead") for loops in lowered.ahead)
            loops = serial(lowered.loops) if is_serial else lowered.loops
            found = LoweredKernel(self._named(loops, f"{owner}.kernel"), ahead)
            self._lowered[key] = found
        return found

    def _named(self, loops: LoopFunction, prefix: str) -> LoopFunction:
        named = replace(loops, name=f"{prefix}{len(self.written)}")
        found = self.written.setdefault(loops, named)
        if found is named and self._tell is not None:
            self._tell(named)
        return found


def lower_function(function: Function, kernels: KernelTable) -> LoweredFunction:
    """Kernels, buffers and loops of a function."""
    scheduling = kernels.scheduling
    takes = None if scheduling.weighted is None else scheduling.weighted.takes
    fused = function if is_fused(function) else fuse_function(scheduling.arrange(function), takes)
    check_level(fused, FUSED)
    return _Lowering(fused, entry_point(fused), kernels).run()


def entry_point(function: Function, sizes: tuple[str, ...] | None = None) -> EntryPoint:
    """The interface of a function; its named sizes are those of its arguments unless given."""
    updated = {result for result, _ in alias_pairs(function)}
    results = [v.type for i, v in enumerate(function.results) if i not in updated]
    named = [(a.hint or f"x{i}", a.type) for i, a in enumerate(function.arguments)]
    if sizes is None:
        sizes = tuple(sorted(frozenset().union(*(type_.symbols for _, type_ in named))))
    return EntryPoint(function.name, tuple(named), tuple(results), sizes)


class _Lowering:
    """Lowers one function, after the regions of its ops."""

    def __init__(
        self,
        function: Function,
        entry: EntryPoint,
        kernels: KernelTable,
        is_serial: bool = False,
    ) -> None:
        self.function = function
        self.is_serial = is_serial
        self.entry = entry
        self.kernels = kernels
        self.repeated = False
        self.preparation: list[KernelCall | BodyPreparation] = []
        self.prepared_bytes: Dim = 0
        self.steps = [op for op in function.block.operations if is_step(op)]
        self.bodies = {
            op: self._lower_bodies(op, number)
            for number, op in enumerate(op for op in self.steps if not isinstance(op, Kernel))
        }

    def run(self) -> LoweredFunction:
        """The function with its aliases as they are: the caller relies on them."""
        return self._with_plan(self.function, self._plan(self.function))

    def run_repeated(self) -> LoweredFunction:
        """The function of a region; results that cannot be written to their arguments while these
        are read alias them no longer."""
        self.repeated = True
        plan = self._plan(self.function)
        if not plan.copies:
            return self._with_plan(self.function, plan)
        copied = {argument for _, argument in plan.copies}
        kept = tuple(pair for pair in alias_pairs(self.function) if pair[1] not in copied)
        attributes = {**self.function.attributes, "aliases": kept}
        function = replace(self.function, attributes=attributes)
        self.entry = entry_point(function, self.entry.sizes)
        return self._with_plan(function, self._plan(function))

    def _lower_bodies(self, op: Operation, number: int) -> tuple[LoweredFunction, ...]:
        prefix = f"{self.function.name}.{op.name}{number}."
        bodies = body_functions(op, prefix)
        sizes = self.entry.sizes
        is_serial = self.is_serial or isinstance(op, Partition)
        lowerings = [
            _Lowering(body, entry_point(body, sizes), self.kernels, is_serial) for body in bodies
        ]
        # Branches agree on what they update in place; the body of a loop decides for itself.
        agree = isinstance(op, If)
        return tuple(each.run() if agree else each.run_repeated() for each in lowerings)

    def _plan(self, function: Function) -> BufferPlan:
        in_place = {op: _in_place(op, body) for op, body in self.bodies.items()}
        return assign_buffers(function, self.kernels.scheduling.division, in_place)

    def _with_plan(self, function: Function, plan: BufferPlan) -> LoweredFunction:
        calls = tuple(self._call(op, plan) for op in self.steps)
        return LoweredFunction(
            function, self.entry, plan, calls, tuple(self.preparation), self.prepared_bytes
        )

    def _call(self, op: Operation, plan: BufferPlan) -> Call:
        places = tuple(plan.place(value) for value in (*op.operands, *op.results))
        if not isinstance(op, Kernel):
            bodies = self.bodies[op]
            prepared = tuple(self._prepare_body(op, body, plan) for body in bodies)
            return ApartCall(op, places, bodies, prepared)
        kernel = self._kernel(op, _shared_names(op, plan))
        ahead = tuple(self._prepare(loops, places) for loops in kernel.ahead)
        return KernelCall(kernel.loops, places, has_errors(op.regions[0].block), ahead)

    def _prepare_body(self, op: Operation, body: LoweredFunction, plan: BufferPlan) -> Ahead | None:
        """Plans the preparation of a body ahead of this function, where it is the same each time
        that this runs; gives the place of its result."""
        read = {number: op.operands[number] for number in body.prepared_from}
        is_same = constant_arguments(self.function).issuperset(map(buffer_of, read.values()))
        is_known = self.repeated or not body.prepares_by_size
        if not (body.preparation and is_same and is_known):
            return None
        target = Ahead(self.prepared_bytes)
        self.prepared_bytes += body.prepared_bytes
        arguments = {number: plan.place(value) for number, value in read.items()}
        self.preparation.append(BodyPreparation(body, arguments, target))
        return target

    def _kernel(self, op: Kernel, shared: frozenset[str]) -> LoweredKernel:
        name = self.function.name
        invariant = self._invariant_names(op)
        kernel = self.kernels.find(op, shared, invariant, name, self.is_serial)
        if self.repeated or not any(loops.sizes for loops in kernel.ahead):
            return kernel
        # What a program prepares is there before a call tells any size.
        return self.kernels.find(op, shared, frozenset(), name, self.is_serial)

    def _invariant_names(self, op: Kernel) -> frozenset[str]:
        """The names of a kernel's operands that all steps, or calls, have in common."""
        same = constant_arguments(self.function)
        bases = enumerate(map(buffer_of, op.operands))
        return frozenset(f"x{i}" for i, base in bases if base in same)

    def _prepare(self, loops: LoopFunction, places: Sequence[Place]) -> Ahead:
        """Plans the call, ahead of a loop, of what prepares a kernel with operands at these places;
        gives the place of its result."""
        *read, written = loops.buffers
        target = Ahead(self.prepared_bytes)
        self.prepared_bytes += padded_bytes(product(written.shape), written.dtype)
        operands = [places[int(buffer.name[1:])] for buffer in read]
        self.preparation.append(KernelCall(loops, (*operands, target)))
        return target


def _in_place(op: Operation, bodies: Sequence[LoweredFunction]) -> PairSharing:
    """The operands of an op over which it may write results: its bodies have them alias.

    The arguments of a region are the last operands of the op.
    """
    pairs: set[tuple[int, int]] = set()
    for body in bodies:
        before = len(op.operands) - len(body.function.arguments)
        pairs.update((before + argument, r) for r, argument in alias_pairs(body.function))
    return PairSharing(frozenset(pairs))


def _shared_names(op: Kernel, plan: BufferPlan) -> frozenset[str]:
    """The names of a kernel's buffers that are the memory of one of its results as well."""
    operands = [(f"x{i}", plan.place(value)) for i, value in enumerate(op.operands)]
    results = [(f"y{i}", plan.place(value)) for i, value in enumerate(op.results)]
    pairs = [(x, y) for x, read in operands for y, written in results if read == written]
    return frozenset(name for pair in pairs for name in pair)


def emit(
    parts: ProgramParts,
    functions: Mapping[str, LoweredFunction],
    assertions: AssertionTable,
    timer: StepTimer | None = None,
) -> None:
    """Writes functions that are lowered already; `assertions` receives those in them, and `timer`
    their steps."""
    for lowered in functions.values():
        for body, clock in _bodies(lowered, timer):
            _emit_kernels(parts, body)
            write_entry(parts.entries, body, assertions, "internal", clock)
        _emit_kernels(parts, lowered)
        write_entry(parts.entries, lowered, assertions, timer=timer)
    if timer is not None:
        timer.finish()


def _bodies(
    lowered: LoweredFunction, timer: StepTimer | None
) -> Iterator[tuple[LoweredFunction, StepTimer | None]]:
    """The functions of all regions, those inside others first, with what takes the times of their
    steps: nothing does where several threads are in one function."""
    for call in lowered.calls:
        if isinstance(call, ApartCall):
            clock = None if isinstance(call.op, Partition) else timer
            for body in call.bodies:
                yield from _bodies(body, clock)
                yield body, clock


def _emit_kernels(parts: ProgramParts, lowered: LoweredFunction) -> None:
    packings = [call for call in lowered.preparation if isinstance(call, KernelCall)]
    for call in (*packings, *lowered.kernel_calls):
        parts.write_kernel(call.loops)
