"""The entry function of a compiled program: it calls the kernels one after another.

    define i32 @NAME(ptr %buffers, ptr %dims, ptr %arena)
    define i64 @NAME.arena_bytes(ptr %dims)

`buffers` are the pointers of the arguments, then of the results that alias no argument; `dims` the
values (i64) of the named sizes, sorted by name; `arena` is 64-byte aligned scratch memory of
`NAME.arena_bytes(dims)` bytes: first the tensors between kernels, then what kernels need inside.
It returns 0, or the code of a check that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mapsto.ir.core import Array, Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.shaping import Constant
from mapsto.ir.types import DType
from mapsto.lowering.buffers import Arena, Argument, BufferPlan, Literal, Place, Result
from mapsto.lowering.llvm.loop_emitter import emit_dim
from mapsto.lowering.llvm.loop_scratch import scratch_sizes
from mapsto.lowering.llvm.types import I8, I32, I64, PTR, VOID, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter
from mapsto.lowering.loops import LoopFunction

__all__ = ["KernelCall", "write_entry"]


@dataclass(frozen=True, slots=True)
class KernelCall:
    """A kernel and where its operands and results are; `checked`: it may set an error code."""

    loops: LoopFunction
    places: tuple[Place, ...]
    checked: bool


def write_entry(
    module: ModuleWriter,
    name: str,
    sizes: Sequence[str],
    plan: BufferPlan,
    calls: Sequence[KernelCall],
) -> None:
    """Writes the entry function and the function that tells the size of its arena."""
    numbers = [place.number for place in plan.places.values() if isinstance(place, Argument)]
    arguments = 1 + max(numbers, default=-1)
    f = module.function(name, [(PTR, "buffers"), (PTR, "dims"), (PTR, "arena")], I32)
    entry = _EntryWriter(module, f, sizes, plan, arguments)
    entry.write(calls)
    size = module.function(f"{name}.arena_bytes", [(PTR, "dims")], I64)
    _write_arena_bytes(module, size, sizes, plan, calls)


def _load_sizes(f: FunctionWriter, dims: Operand, sizes: Sequence[str]) -> dict[str, Operand]:
    return {
        name: f.load(I64, f.getelementptr(I64, dims, number)) for number, name in enumerate(sizes)
    }


def _write_arena_bytes(
    module: ModuleWriter,
    f: FunctionWriter,
    sizes: Sequence[str],
    plan: BufferPlan,
    calls: Sequence[KernelCall],
) -> None:
    """The tensors between kernels and the most scratch memory that a kernel takes."""
    values = _load_sizes(f, f.parameters[0], sizes)
    most = constant(I64, 0)
    seen: set[tuple[Dim, Dim]] = set()
    for call in calls:
        needs = scratch_sizes(call.loops)
        if (needs.shared, needs.worker) in seen or (needs.shared, needs.worker) == (0, 0):
            continue
        seen.add((needs.shared, needs.worker))
        total = emit_dim(f, needs.shared, values)
        if needs.worker != 0:
            module.declare("mapsto_worker_limit", I64, [])
            workers = f.call("mapsto_worker_limit", I64, [])
            assert workers is not None
            total = f.add(total, f.mul(workers, emit_dim(f, needs.worker, values)))
        most = f.smax(most, total)
    f.ret(f.add(emit_dim(f, plan.arena_bytes, values), most))


class _EntryWriter:
    def __init__(
        self,
        module: ModuleWriter,
        f: FunctionWriter,
        sizes: Sequence[str],
        plan: BufferPlan,
        arguments: int,
    ) -> None:
        self.module = module
        self.f = f
        self.plan = plan
        self.arguments = arguments
        self.buffers, dims, self.arena = f.parameters
        self.sizes = _load_sizes(f, dims, sizes)
        self.pointers: dict[Place, Operand] = {}
        self.error: Operand | None = None

    def write(self, calls: Sequence[KernelCall]) -> None:
        """Calls the kernels, makes the copies at the end and returns."""
        # All addresses are computed first, where they dominate every call.
        used = [place for call in calls for place in call.places]
        for place in (*used, *(self.plan.place(value) for value, _ in self.plan.copies)):
            self._pointer(place)
        scratch = self.f.getelementptr(I8, self.arena, self._dim(self.plan.arena_bytes))
        for call in calls:
            self._call(call, scratch)
        for value, argument in self.plan.copies:
            self._copy(value, argument)
        self.f.ret(constant(I32, 0))

    def _dim(self, dim: Dim) -> Operand:
        return emit_dim(self.f, dim, self.sizes)

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
                return f.load(PTR, f.getelementptr(PTR, self.buffers, self.arguments + number))
            case Arena(offset):
                return f.getelementptr(I8, self.arena, self._dim(offset))
            case Literal(value):
                return _literal(self.module, f"{f.name}.constant{len(self.pointers)}", value)

    def _call(self, call: KernelCall, scratch: Operand) -> None:
        pointers = [self._pointer(place) for place in call.places]
        if call.checked:
            pointers.append(self._error_code())
        sizes = [self.sizes[name] for name in call.loops.sizes]
        self.f.call(call.loops.name, VOID, [*pointers, *sizes, scratch])
        if call.checked:
            self._return_on_error()

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

    def _copy(self, value: Value, argument: int) -> None:
        size = self._dim(value.type.elements * value.dtype.bytes)
        self.f.memcpy(
            self._pointer(Argument(argument)), self._pointer(self.plan.place(value)), size
        )


def _literal(module: ModuleWriter, name: str, value: Value) -> Operand:
    """A constant array as data of the program."""
    op = value.owner
    assert isinstance(op, Constant)
    array = op.evaluate()[0]
    if value.dtype is DType.BF16:
        array = _bfloat_bits(array)
    text = "".join(f"\\{byte:02X}" for byte in array.tobytes())
    data = f'internal constant [{array.nbytes} x i8] c"{text}", align 64'
    return module.add_global(name, data)


def _bfloat_bits(array: Array) -> Array:
    """The bits of f32 values rounded to bf16, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype(np.uint16)
