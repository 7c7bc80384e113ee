"""Runs loop functions through the interpreter and as native code, and compares."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os

import numpy as np

from mapsto.ir.dims import dim_value
from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm.loop_emitter import emit_loop_function
from mapsto.lowering.llvm.loop_scratch import scratch_sizes
from mapsto.lowering.llvm.types import I64, PTR
from mapsto.lowering.llvm.writer import ModuleWriter
from mapsto.lowering.loop_interpreter import interpret
from mapsto.lowering.loop_verifier import verify_loops
from mapsto.lowering.loops import LoopFunction
from mapsto.runtime.jit import compile_module

WORKERS = 3

PARALLEL_FOR = f"""
define internal void @mapsto_parallel_for(ptr %task, ptr %closure, i64 %count) {{
entry:
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %loop, label %done
loop:
  %i = phi i64 [%count, %entry], [%index, %loop]
  %index = sub i64 %i, 1
  %worker = urem i64 %index, {WORKERS}
  call void %task(ptr %closure, i64 %index, i64 %worker)
  %more = icmp sgt i64 %index, 0
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""
"""A pool of one thread that poses as several workers and runs the tasks backwards."""


@functools.cache
def machines() -> tuple[Machine, ...]:
    """The widths of vectors that this machine has, and the least that is supported."""
    host = Machine.host()
    widths = [bits for bits in (512, 256, 128) if bits <= host.vector_bits]
    baseline = [Machine.baseline()] if "x86_64" in host.triple else []
    return (*(host.with_vector_bits(bits) for bits in widths), *baseline)


def module_text(function: LoopFunction, machine: Machine) -> str:
    """LLVM text with the kernel and `entry(buffers, sizes, scratch)`, which calls it."""
    module = ModuleWriter.for_machine(machine)
    emit_loop_function(module, function, machine)
    f = module.function("entry", [(PTR, "buffers"), (PTR, "sizes"), (PTR, "scratch")])
    buffers, sizes, scratch = f.parameters
    pointers = [
        f.load(PTR, f.getelementptr(PTR, buffers, number))
        for number in range(len(function.buffers))
    ]
    numbers = [
        f.load(I64, f.getelementptr(I64, sizes, number)) for number in range(len(function.sizes))
    ]
    f.call(function.name, f.result, [*pointers, *numbers, scratch])
    f.ret()
    text = str(module)
    lines = [line for line in text.splitlines() if "declare void @mapsto_parallel_for" not in line]
    return "\n".join(lines) + PARALLEL_FOR


def run_native(
    function: LoopFunction,
    arrays: dict[str, np.ndarray],
    sizes: dict[str, int],
    machine: Machine,
) -> None:
    """Compile the kernel and run it on the arrays, in place."""
    compiled = compile_module(module_text(function, machine), machine)
    entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
        compiled.address("entry")
    )
    needs = scratch_sizes(function)
    total = dim_value(needs.shared, sizes) + WORKERS * dim_value(needs.worker, sizes)
    scratch = np.full(total + 64, 0xA5, np.uint8)
    start = -scratch.ctypes.data % 64
    pointers = (ctypes.c_void_p * max(1, len(function.buffers)))(
        *(arrays[buffer.name].ctypes.data for buffer in function.buffers)
    )
    numbers = (ctypes.c_int64 * max(1, len(function.sizes)))(
        *(sizes[name] for name in function.sizes)
    )
    entry(pointers, numbers, scratch.ctypes.data + start)


class GuardedArrays:
    """Copies of arrays that end right before inaccessible memory, or begin right after it: reading
    past one faults."""

    PAGE = 4096

    def __init__(self, arrays: dict[str, np.ndarray], at_end: bool = True) -> None:
        self.at_end = at_end
        self.arrays: dict[str, np.ndarray] = {}
        self._mappings = []
        for name, array in arrays.items():
            self.arrays[name] = self._guarded(array)

    def _guarded(self, array: np.ndarray) -> np.ndarray:
        pages = -(-max(1, array.nbytes) // self.PAGE)
        memory = mmap.mmap(-1, (pages + 1) * self.PAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        if os.name == "posix":
            forbidden = address + (pages * self.PAGE if self.at_end else 0)
            ctypes.CDLL(None).mprotect(ctypes.c_void_p(forbidden), self.PAGE, 0)
        self._mappings.append(memory)
        offset = pages * self.PAGE - array.nbytes if self.at_end else self.PAGE
        copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
        copy[...] = array
        return copy


def check(
    function: LoopFunction,
    arrays: dict[str, np.ndarray],
    sizes: dict[str, int] | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    on: tuple[Machine, ...] | None = None,
) -> dict[str, np.ndarray]:
    """Compare native code at every width with the interpreter; returns the expected arrays."""
    sizes = sizes or {}
    verify_loops(function)
    expected = {name: array.copy() for name, array in arrays.items()}
    interpret(function, expected, sizes)
    elements = sum(array.size for array in arrays.values())
    for number, machine in enumerate(on or machines()):
        guarded = GuardedArrays(arrays, at_end=(number + elements) % 2 == 0)
        run_native(function, guarded.arrays, sizes, machine)
        for name, array in expected.items():
            message = f"{name} at {machine.vector_bits} bits on {machine.cpu}"
            actual = guarded.arrays[name]
            if array.dtype.kind == "f":
                np.testing.assert_allclose(actual, array, rtol=rtol, atol=atol, err_msg=message)
            else:
                np.testing.assert_array_equal(actual, array, err_msg=message)
    return expected


def random_array(
    generator: np.random.Generator, dtype: DType, shape: tuple[int, ...]
) -> np.ndarray:
    """Values of a type: small floats, integers that fit a byte, both truth values."""
    if dtype.is_float:
        return generator.normal(size=shape).astype(dtype.numpy)
    if dtype is DType.BOOL:
        return generator.integers(0, 2, shape).astype(bool)
    low = -100 if dtype.is_signed else 0
    return generator.integers(low, 100, shape).astype(dtype.numpy)
