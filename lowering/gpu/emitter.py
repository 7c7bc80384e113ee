"""Mapped kernels to LLVM text, for every device alike: what differs is behind `DeviceCode`.

The statements of a thread are those of a CPU's scalar code; loops over blocks and threads become
the numbers that the device gives.
"""

from __future__ import annotations

import math

from mapsto.ir.dims import Dim
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.gpu.device_code import CalledDevice, DeviceCode
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.gpu.short_indices import has_short_indices
from mapsto.lowering.gpu.simulated import simulated_device, write_launcher
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.together import TogetherEmitter
from mapsto.lowering.gpu.vector_access import buffer_alignment
from mapsto.lowering.indices import Index, from_dim
from mapsto.lowering.llvm.loop_indices import is_literal
from mapsto.lowering.llvm.loop_scope import Fact, Place, Scope
from mapsto.lowering.llvm.types import I8, I32, I64, LLVMType, Operand, constant
from mapsto.lowering.llvm.writer import ModuleWriter
from mapsto.lowering.loop_walk import stored_buffers
from mapsto.lowering.loops import (
    Buffer,
    For,
    LoopKind,
    Prefetch,
    Reduce,
    Shuffle,
    Space,
)

__all__ = ["emit_kernel", "new_module"]


def new_module(target: GpuTarget) -> ModuleWriter:
    """An empty module for a target."""
    machine, dialect = target.machine, target.dialect
    return ModuleWriter(
        machine.triple, machine.has_fma, has_wide_integers=dialect.has_wide_integers
    )


def emit_kernel(module: ModuleWriter, kernel: GpuKernel, target: GpuTarget) -> None:
    """Write a kernel into the module of a target."""
    simulated = target.is_simulated
    device: DeviceCode
    if simulated:
        device = simulated_device(module, kernel, target.warp)
    else:
        device = CalledDevice(module, kernel, target)
    emitter = _ThreadEmitter(device, kernel, target.machine)
    emitter.run_block(emitter.scope(), kernel.loops.body)
    device.end()
    if simulated:
        write_launcher(module, kernel)


class _ThreadEmitter(TogetherEmitter):
    """Emits what a thread does."""

    has_zeros = False

    def __init__(self, device: DeviceCode, kernel: GpuKernel, machine: Machine) -> None:
        super().__init__(device.f, machine)
        self.device, self.kernel = device, kernel
        self.stored = stored_buffers(kernel.loops.body)
        self.index_type = I32 if has_short_indices(kernel) else I64

    def scope(self) -> Scope:
        """The scope at the start: buffers and sizes."""
        scope = Scope({}, {}, {})
        for name, value in zip(self.kernel.loops.sizes, self.device.sizes, strict=True):
            scope = self.bind(scope, f"${name}", value, Fact(nonnegative=True))
        for buffer, pointer in zip(self.kernel.parameters, self.device.pointers, strict=True):
            scope = scope.with_place(_placed(buffer, pointer))
        in_scratch = self.kernel.loops.buffers[len(self.kernel.parameters) :]
        for buffer, offset in zip(in_scratch, self.kernel.scratch, strict=True):
            assert self.device.scratch is not None, "it has a size"
            before = constant(I64, offset) if isinstance(offset, int) else None
            bytes_before = before or self._dim(scope, offset)
            pointer = self.f.getelementptr(I8, self.device.scratch, bytes_before)
            scope = scope.with_place(_placed(buffer, pointer))
        return scope

    def _dim(self, scope: Scope, dim: Dim) -> Operand:
        return self.index_operand(scope, self.resolve(scope, from_dim(dim)))

    # ---- blocks and threads

    def grid_loop(self, scope: Scope, loop: For) -> None:
        kind = "block" if loop.kind is LoopKind.BLOCK else "thread"
        axis = _depth(loop) - 1
        number = self._index(self.device.number(kind, axis))
        start = self.resolve(scope, loop.start)
        if start != 0:
            number = self.f.add(number, self.index_operand(scope, start), "nsw")
        if isinstance(start, int) and isinstance(loop.stop, int):
            scope = scope.with_range(loop.variable, start, loop.stop - 1)
        fact = Fact(nonnegative=self.is_nonnegative(start))
        self.run_block(self.bind(scope, loop.variable, number, fact), loop.body)

    def _index(self, number: Operand) -> Operand:
        """A number that is not negative as an index."""
        difference = self.index_type.bits - number.type.bits
        if difference == 0:
            return number
        return (self.f.zext if difference > 0 else self.f.trunc)(number, self.index_type)

    def _element_address(self, element: LLVMType, base: Operand, index: Operand) -> Operand:
        if not is_literal(index):
            index = self._convert(index, I64)
        return super()._element_address(element, base, index)

    def parallel_loop(self, scope: Scope, loop: For) -> None:
        raise ValueError(f"parallel loop `{loop.variable}` in a kernel for GPUs")

    def loop_metadata(self) -> str:
        """None: the device's own compiler unrolls as it sees fit."""
        return ""

    def barrier(self) -> None:
        self.device.barrier()

    def shuffle(self, scope: Scope, expression: Shuffle) -> Operand:
        return self.device.shuffle(expression, self.evaluate(scope, expression.value))

    # ---- memory

    def allocate(self, scope: Scope, buffer: Buffer) -> Scope:
        if buffer.space is not Space.SHARED:
            return super().allocate(scope, buffer)
        return scope.with_place(_placed(buffer, self.device.shared(buffer)))

    def padded(self, buffer: Buffer, extent: int) -> int:
        """Rows of registers have no room for vectors."""
        return extent

    def prefetch(self, scope: Scope, statement: Prefetch) -> None:
        """Nothing: other threads run while one waits for memory."""

    def pointer_instead(self, place: Place, needed: Operand, pointer: Operand) -> Operand:
        """The start of the buffer, which is as well aligned, where the access is not wanted."""
        return self.f.select(needed, pointer, place.pointer)

    def load_uniform(
        self, scope: Scope, place: Place, first: Index, guard: Operand | None, otherwise: Operand
    ) -> Operand:
        if guard is None or place.is_register:
            return super().load_uniform(scope, place, first, guard, otherwise)
        if place.buffer.name in self.stored or not _has_elements(place.buffer):
            return self._load_if(scope, place, first, guard, otherwise)
        offset = self.f.select(
            guard, self.index_operand(scope, first), constant(self.index_type, 0)
        )
        pointer = self._element_address(self._type(place, 1), place.pointer, offset)
        value = self.read(place, pointer, 1, place.buffer.dtype.bytes)
        return self.f.select(guard, value, otherwise)

    def _load_if(
        self, scope: Scope, place: Place, first: Index, guard: Operand, otherwise: Operand
    ) -> Operand:
        """A load behind a branch: others may be writing the first element."""
        then, after = self.f.block("load"), self.f.block("after")
        pointer = self.address(scope, place, first)
        before = self.f.current
        self.f.branch_if(guard, then, after)
        self.f.begin(then)
        value = self.read(place, pointer, 1, self.alignment(place, first))
        loaded = self.f.current
        self.f.branch(after)
        self.f.begin(after)
        return self.f.phi(value.type, (value, loaded), (otherwise, before)).value

    def reduce(self, scope: Scope, statement: Reduce) -> None:
        if statement.atomic:
            raise ValueError(f"atomic reduction into `{statement.buffer.name}`")
        super().reduce(scope, statement)


def _placed(buffer: Buffer, pointer: Operand) -> Place:
    return Place(buffer, pointer, buffer.shape, buffer_alignment(buffer))


def _has_elements(buffer: Buffer) -> bool:
    return math.prod(d if isinstance(d, int) else 0 for d in buffer.shape) > 0


def _depth(loop: For) -> int:
    """How many loops of its kind are one inside the other, the outermost being this one."""
    inner = [s for s in loop.body if isinstance(s, For) and s.kind is loop.kind]
    return 1 + (_depth(inner[0]) if inner else 0)
