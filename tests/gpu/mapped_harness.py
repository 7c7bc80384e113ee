"""Runs the kernels of a function, mapped to blocks and threads, in the interpreter of loops."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from harness import compare, random_arguments
from llvmlite import binding
from loop_harness import GuardedArrays

from mapsto import ir
from mapsto.ir.core import Function, Module, Value
from mapsto.ir.dims import dim_value, product
from mapsto.ir.evaluator import infer_sizes
from mapsto.ir.rounding import evaluated
from mapsto.ir.types import DType
from mapsto.lowering.buffers import Arena, Argument, Literal, Place, Result
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import KernelTable, lower_function
from mapsto.lowering.gpu.assembly import assemble_text
from mapsto.lowering.gpu.dialect import check_intrinsics
from mapsto.lowering.gpu.emitter import emit_kernel, new_module
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.gpu.mapping import map_kernel
from mapsto.lowering.gpu.scheduling import gpu_scheduling
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.loop_interpreter import interpret
from mapsto.lowering.loop_verifier import verify_loops
from mapsto.lowering.loops import Buffer, LoopFunction
from mapsto.lowering.lowered import KernelCall

__all__ = ["Mapped", "Simulated", "check", "run_launches"]


def run_launches(
    kernels: Sequence[GpuKernel], arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]
) -> None:
    """Run the launches of a kernel on arrays by buffer name, with scratch memory of their own."""
    memory = dict(arrays)
    for kernel in kernels:
        verify_loops(kernel.loops)
        for buffer in kernel.loops.buffers[len(kernel.parameters) :]:
            shape = tuple(dim_value(dim, sizes) for dim in buffer.shape)
            memory.setdefault(buffer.name, np.zeros(shape, buffer.dtype.numpy))
        interpret(kernel.loops, memory, sizes)


Arrays = dict[str, np.ndarray]


class Mapped:
    """A function without control flow, whose kernels run in the interpreter.

    It is called as native code is (`harness.Native`).
    """

    def __init__(self, function: Function, target: str) -> None:
        self.target = GpuTarget.named(target)
        table = KernelTable(gpu_scheduling(self.target))
        self.lowered = lower_function(function, table)
        self.function = self.lowered.function
        self.kernels: dict[LoopFunction, tuple[GpuKernel, ...]] = {
            loops: map_kernel(loops, self.target) for loops in table.written.values()
        }

    def __call__(self, arguments: Sequence[np.ndarray]) -> list[np.ndarray] | int:
        plan, entry = self.lowered.plan, self.lowered.entry
        sizes = infer_sizes(self.function, arguments)
        results = [
            np.zeros([dim_value(d, sizes) for d in type_.shape], type_.dtype.numpy)
            for type_ in entry.results
        ]
        # Twice as large as planned: bf16 is kept in arrays of f32.
        arena = np.zeros(2 * dim_value(plan.arena_bytes, sizes), np.uint8)
        memory = _Memory(arguments, results, arena, sizes)
        for call in self.lowered.calls:
            assert isinstance(call, KernelCall), "these have tests of their own"
            error = np.zeros(1, np.int32)
            names = call.loops.buffers
            arrays = [memory.view(p, b) for p, b in zip(call.places, names, strict=False)]
            arrays += [error] if call.checked else []
            named = {b.name: array for b, array in zip(names, arrays, strict=True)}
            self.run_call(call, named, sizes)
            if error[0]:
                return int(error[0])
        for value, argument in plan.copies:
            buffer = Buffer("copied", value.dtype, value.shape)
            arguments[argument][...] = memory.view(plan.place(value), buffer)
        return results

    def run_call(
        self, call: KernelCall, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]
    ) -> None:
        """Runs the launches of a kernel on arrays by buffer name."""
        run_launches(self.kernels[call.loops], arrays, sizes)


class Simulated(Mapped):
    """A function without control flow, whose kernels run on the simulated device."""

    def __init__(self, function: Function) -> None:
        super().__init__(function, "gpusim")
        target = self.target
        writer = new_module(target)
        for kernel in self.launches:
            emit_kernel(writer, kernel, target)
        check_intrinsics(str(writer), target.dialect)
        self._library = _link(assemble_text(str(writer), target), self.launches)

    @property
    def launches(self) -> list[GpuKernel]:
        return [kernel for each in self.kernels.values() for kernel in each]

    def run_call(
        self, call: KernelCall, arrays: Mapping[str, np.ndarray], sizes: Mapping[str, int]
    ) -> None:
        """Runs the launches of a kernel; bf16 is in 16 bits there."""
        loops = call.loops
        bits = {b.name: b for b in loops.buffers if b.dtype is DType.BF16}
        memory = {n: _short(array) if n in bits else array for n, array in arrays.items()}
        kernels = self.kernels[loops]
        scratch = np.full(dim_value(kernels[0].scratch_bytes, sizes) + 256, 0xA5, np.uint8)
        start = scratch.ctypes.data + -scratch.ctypes.data % 256
        guarded = GuardedArrays(memory)
        for kernel in kernels:
            values = [guarded.arrays[b.name].ctypes.data for b in kernel.parameters]
            values += [sizes[name] for name in kernel.loops.sizes]
            values += [start] if kernel.scratch_bytes != 0 else []
            function = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *[ctypes.c_int64] * 3)
            run = function(self._library[kernel.name])
            slots = (ctypes.c_int64 * max(1, len(values)))(*values)
            assert run(ctypes.addressof(slots), *kernel.grid_for(sizes)) == 0
        for name, array in arrays.items():
            found = guarded.arrays[name]
            array[...] = (found.astype(np.uint32) << 16).view(np.float32) if name in bits else found


def _short(array: np.ndarray) -> np.ndarray:
    return (array.view(np.uint32) >> 16).astype(np.uint16)


@functools.cache
def _linker() -> object:
    machine = Machine.host().target_machine()
    return binding.create_lljit_compiler(machine, use_jit_link=True)


def _link(code: bytes, kernels: Sequence[GpuKernel]) -> object:
    library = binding.JITLibraryBuilder().add_object_img(code).add_current_process()
    for kernel in kernels:
        library.export_symbol(kernel.name)
    return library.link(_linker(), f"simulated.{next(_numbers)}")


_numbers = itertools.count()


class _Memory:
    """The arrays behind places."""

    def __init__(
        self,
        arguments: Sequence[np.ndarray],
        results: Sequence[np.ndarray],
        arena: np.ndarray,
        sizes: Mapping[str, int],
    ) -> None:
        self.arguments, self.results, self.arena = arguments, results, arena
        self.sizes = sizes
        self.literals: dict[Value, np.ndarray] = {}

    def view(self, place: Place, buffer: Buffer) -> np.ndarray:
        """The array at a place in the shape of a buffer."""
        shape = tuple(dim_value(dim, self.sizes) for dim in buffer.shape)
        match place:
            case Argument(number):
                return self.arguments[number].reshape(shape)
            case Result(number):
                return self.results[number].reshape(shape)
            case Arena(offset):
                start = 2 * dim_value(offset, self.sizes)
                size = dim_value(product(shape), self.sizes) * buffer.dtype.numpy.itemsize
                return self.arena[start : start + size].view(buffer.dtype.numpy).reshape(shape)
            case Literal(value):
                (array,) = evaluated(value.owner, ())
                return np.array(array).reshape(shape)
        raise AssertionError(place)


def check(
    function: Function,
    arguments: Sequence[np.ndarray] | None = None,
    sizes: Mapping[str, int] | None = None,
    tolerance: float | None = None,
    interpreted: bool = False,
) -> Mapped:
    """Compares mapped kernels, on the simulated device or interpreted, with the evaluator."""
    given = random_arguments(function, sizes=sizes) if arguments is None else list(arguments)
    expected = ir.evaluate(Module.of(function), function.name, given)
    mapped = Mapped(function, "gpusim") if interpreted else Simulated(function)
    compare(mapped, given, expected, tolerance)
    return mapped
