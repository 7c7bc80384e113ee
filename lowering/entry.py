"""The entry function of a compiled program: it does one step after another.

    define i32 @NAME(ptr %buffers, ptr %dims, ptr %arena)
    define i64 @NAME.arena_bytes(ptr %dims)

`buffers` are the pointers of the arguments, then of the results that alias no argument; `dims` the
values (i64) of the named sizes, sorted by name; `arena` is 64-byte aligned scratch memory of
`NAME.arena_bytes(dims)` bytes: first the tensors between the steps, then what a step needs inside.
It returns 0, or the code of a check that failed.

The regions of loops and branches are functions of the same kind.  Where the body of a loop needs
something that is the same for all steps, as packed weights, a function of the same parameters

    define void @NAME.prepare(ptr %buffers, ptr %dims, ptr %arena)

computes it ahead; its memory is one more pointer at the end of `buffers`.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.core import Operation, Value
from mapsto.ir.dims import Dim
from mapsto.lowering.apart import ApartWriter, Sizes
from mapsto.lowering.apart_rules import apart_rule
from mapsto.lowering.assertions import AssertionTable
from mapsto.lowering.buffers import Ahead, Arena, Argument, Literal, Place, Result
from mapsto.lowering.literals import literal_array
from mapsto.lowering.llvm.loop_scratch import scratch_sizes
from mapsto.lowering.llvm.types import I8, I32, I64, PTR, VOID, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter
from mapsto.lowering.lowered import (
    ApartCall,
    BodyPreparation,
    Call,
    KernelCall,
    LoweredFunction,
)
from mapsto.lowering.step_timing import StepTimer, TimedStep

__all__ = ["write_entry"]


def write_entry(
    module: ModuleWriter,
    lowered: LoweredFunction,
    assertions: AssertionTable,
    linkage: str = "",
    timer: StepTimer | None = None,
) -> None:
    """Writes the entry function and the function that tells the size of its arena; `assertions`
    receives those in it, and `timer` the steps, whose times they take."""
    name = lowered.entry.name
    parameters = [(PTR, "buffers"), (PTR, "dims"), (PTR, "arena")]
    f = module.function(name, parameters, I32, linkage)
    _EntryWriter(module, f, lowered, assertions, timer).write()
    if lowered.preparation:
        f = module.function(f"{name}.prepare", parameters, VOID, linkage)
        _EntryWriter(module, f, lowered, assertions, timer).write_preparation()
    size = module.function(f"{name}.arena_bytes", [(PTR, "dims")], I64, linkage)
    _write_arena_bytes(size, lowered)


def _write_arena_bytes(f: FunctionWriter, lowered: LoweredFunction) -> None:
    """The tensors between the steps and the most scratch memory that a step takes."""
    sizes = Sizes(f, f.parameters[0], lowered.entry.sizes)
    most = constant(I64, 0)
    seen: set[tuple[Dim, Dim]] = set()
    for call in lowered.calls:
        if isinstance(call, ApartCall):
            scratch = apart_rule(call.op).scratch_bytes(sizes, call.op, call.bodies)
            most = f.smax(most, scratch)
            continue
        needs = scratch_sizes(call.loops)
        if (needs.shared, needs.worker) in seen or (needs.shared, needs.worker) == (0, 0):
            continue
        seen.add((needs.shared, needs.worker))
        total = sizes.dim(needs.shared)
        if needs.worker != 0:
            f.declare("mapsto_worker_limit", I64, [])
            workers = f.call("mapsto_worker_limit", I64, [])
            total = f.add(total, f.mul(workers, sizes.dim(needs.worker)))
        most = f.smax(most, total)
    f.ret(f.add(sizes.dim(lowered.plan.arena_bytes), most))


class _EntryWriter:
    def __init__(
        self,
        module: ModuleWriter,
        f: FunctionWriter,
        lowered: LoweredFunction,
        assertions: AssertionTable,
        timer: StepTimer | None,
    ) -> None:
        self.module = module
        self.timer = timer
        self.assertions = assertions
        self.f = f
        self.lowered = lowered
        self.plan = lowered.plan
        self.buffers, dims, self.arena = f.parameters
        self.sizes = Sizes(f, dims, lowered.entry.sizes)
        self.pointers: dict[Place, Operand] = {}
        self.error: Operand | None = None

    def write(self) -> None:
        """Writes the steps, the copies at the end and the return."""
        # All addresses are computed first, where they dominate every step.
        used = [place for call in self.lowered.calls for place in call.places]
        used += [place for call in self.lowered.calls for place in call.ahead if place]
        for place in (*used, *(self.plan.place(value) for value, _ in self.plan.copies)):
            self._pointer(place)
        for _, argument in self.plan.copies:
            self._pointer(Argument(argument))
        scratch = self.f.getelementptr(I8, self.arena, self.sizes.dim(self.plan.arena_bytes))
        self._write_steps(self.lowered.calls, self.lowered.steps, scratch)
        for value, argument in self.plan.copies:
            target, source = (
                self._pointer(Argument(argument)),
                self._pointer(self.plan.place(value)),
            )
            self.f.memcpy(target, source, self.sizes.bytes(value))
        self.f.ret(constant(I32, 0))

    def write_preparation(self) -> None:
        """Writes what is done ahead of a loop.  It takes the same buffers, of which only those are
        there that stay the same."""
        for step in self.lowered.preparation:
            if isinstance(step, BodyPreparation):
                self._prepare_body(step)
            else:
                self._write_steps([step], [None], self.arena)
        self.f.ret()

    def _prepare_body(self, step: BodyPreparation) -> None:
        """Has a body do what it does ahead."""
        f, entry = self.f, step.body.entry
        last = len(entry.arguments) + len(entry.results)
        buffers = f.alloca(PTR, last + 1, 8)
        for number, place in (*step.arguments.items(), (last, step.target)):
            f.store(self._pointer(place), f.getelementptr(PTR, buffers, number))
        f.call(f"{entry.name}.prepare", VOID, [buffers, self.sizes.dims, self.arena])

    def _write_steps(
        self, calls: Sequence[Call], ops: Sequence[Operation | None], scratch: Operand
    ) -> None:
        time = self.timer.now(self.f) if self.timer else None
        for call, op in zip(calls, ops, strict=True):
            if isinstance(call, KernelCall):
                self._call(call, scratch)
            else:
                self._write_apart(call, scratch)
            if self.timer and time:
                step = TimedStep(self.lowered.entry.name, call, op)
                time = self.timer.add(self.f, time, step)

    def _pointer(self, place: Place) -> Operand:
        found = self.pointers.get(place)
        if found is None:
            found = self.pointers[place] = self._new_pointer(place)
        return found

    def _new_pointer(self, place: Place) -> Operand:
        f = self.f
        match place:
            case Argument(number):
                return f.load(PTR, f.getelementptr(PTR, self.buffers, number))
            case Result(number):
                number += len(self.lowered.entry.arguments)
                return f.load(PTR, f.getelementptr(PTR, self.buffers, number))
            case Arena(offset):
                return f.getelementptr(I8, self.arena, self.sizes.dim(offset))
            case Ahead(offset):
                number = len(self.lowered.entry.arguments) + len(self.lowered.entry.results)
                start = f.load(PTR, f.getelementptr(PTR, self.buffers, number))
                return f.getelementptr(I8, start, self.sizes.dim(offset))
            case Literal(value):
                return _literal(self.module, f"{f.name}.constant{len(self.pointers)}", value)

    def _call(self, call: KernelCall, scratch: Operand) -> None:
        pointers = [self._pointer(place) for place in call.places]
        if call.checked:
            pointers.append(self._error_code())
        pointers += map(self._pointer, call.ahead)
        sizes = [self.sizes.values[name] for name in call.loops.sizes]
        self.f.call(call.loops.name, VOID, [*pointers, *sizes, scratch])
        if call.checked:
            self._return_on_error()

    def _write_apart(self, call: ApartCall, scratch: Operand) -> None:
        pointers = tuple(self._pointer(place) for place in call.places)
        count = len(call.op.operands)
        operands, results = pointers[:count], pointers[count:]
        where = self.f, self.module, self.assertions, self.sizes
        ahead = tuple(self._pointer(place) if place else None for place in call.ahead)
        writer = ApartWriter(*where, call.op, call.bodies, operands, results, scratch, ahead)
        apart_rule(call.op).write(writer)

    def _error_code(self) -> Operand:
        if self.error is None:
            self.error = self.f.alloca(I32)
        self.f.store(constant(I32, 0), self.error)
        return self.error

    def _return_on_error(self) -> None:
        f = self.f
        assert self.error is not None
        code = f.load(I32, self.error)
        failed, fine = f.block("failed"), f.block("fine")
        f.branch_if(f.icmp("ne", code, constant(I32, 0)), failed, fine)
        f.begin(failed)
        f.ret(code)
        f.begin(fine)


def _literal(module: ModuleWriter, name: str, value: Value) -> Operand:
    """A constant array as data of the program."""
    array = literal_array(value)
    text = "".join(f"\\{byte:02X}" for byte in array.tobytes())
    data = f'internal constant [{array.nbytes} x i8] c"{text}", align 64'
    return module.add_global(name, data)
