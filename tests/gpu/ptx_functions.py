"""Runs functions of the IR as the PTX that they are compiled to, with all checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import ptx
from harness import compare, random_arguments
from mapped_harness import Mapped

from mapsto import ir
from mapsto.ir.core import Function, Module
from mapsto.ir.dims import dim_value
from mapsto.ir.types import DType
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.gpu.program import assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.loops import Buffer
from mapsto.lowering.lowered import KernelCall

Array = np.ndarray
Change = Callable[[str], str]


class Interpreted(Mapped):
    """A function without control flow.  `change` makes other PTX of what was compiled: a defect, in
    tests of the tests."""

    def __init__(
        self, function: Function, target: str = "nvptx64-sm_80", change: Change = str
    ) -> None:
        self.function = function
        self.target = GpuTarget.named(target)
        self.program = lower_gpu(Module.of(function), function.name, self.target)
        self.lowered = self.program.functions[function.name]
        self.text = change(assemble(self.program).decode()) if self.program.launches else ""
        parsed = ptx.parse(self.text) if self.text else None
        self.codes = {
            kernel.name: ptx.prepare(parsed, kernel.name) for kernel in self.program.launches
        }

    def run_call(
        self, call: KernelCall, arrays: Mapping[str, Array], sizes: Mapping[str, int]
    ) -> None:
        """Runs the launches of a kernel in a memory of their own, where only `arrays` are."""
        memory = ptx.GlobalMemory()
        buffers = call.loops.buffers
        places: dict[tuple[int, int], int] = {}
        for buffer in buffers:
            array = arrays[buffer.name]
            key = array.ctypes.data, array.nbytes
            places.setdefault(key, memory.allocate(_bits(array, buffer.dtype), buffer.name))
        pointers = [places[a.ctypes.data, a.nbytes] for a in (arrays[b.name] for b in buffers)]
        words = [*pointers, *(sizes[name] for name in call.loops.sizes)]
        kernels = self.program.kernels[call.loops.name]
        run_kernels(kernels, self.codes, words, sizes, memory)
        for buffer, address in zip(buffers, pointers, strict=True):
            if not buffer.readonly:
                _take_back(arrays[buffer.name], buffer, memory.contents(address)[0])


def run_kernels(
    kernels: Sequence[GpuKernel],
    codes: Mapping[str, ptx.Launchable],
    words: Sequence[int],
    sizes: Mapping[str, int],
    memory: ptx.GlobalMemory,
) -> None:
    """Launches kernels one after another, with scratch memory that they have in common."""
    needed = kernels[0].scratch_bytes if kernels else 0
    scratch = [memory.allocate(dim_value(needed, sizes), "scratch")] if needed != 0 else []
    for kernel in kernels:
        grid = kernel.grid_for(sizes)
        if 0 not in grid:
            code, dynamic = codes[kernel.name], kernel.dynamic_bytes
            ptx.launch(code, grid, kernel.block, [*words, *scratch], memory, dynamic)


def _bits(array: Array, dtype: DType) -> Array:
    """An array as it is in memory: bf16 are numbers of f32 here."""
    if dtype is not DType.BF16:
        return np.ascontiguousarray(array)
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _take_back(array: Array, buffer: Buffer, raw: Array) -> None:
    if buffer.dtype is DType.BF16:
        wide = raw.view(np.uint16).astype(np.uint32) << np.uint32(16)
        array[...] = wide.view(np.float32).reshape(array.shape)
    else:
        array[...] = raw.view(array.dtype).reshape(array.shape)


def check(
    function: Function,
    arguments: Sequence[Array] | None = None,
    sizes: Mapping[str, int] | None = None,
    target: str = "nvptx64-sm_80",
    tolerance: float | None = None,
    change: Change = str,
) -> Interpreted:
    """Compares what is compiled for a target with the reference evaluator."""
    given = random_arguments(function, sizes=sizes) if arguments is None else list(arguments)
    expected = ir.evaluate(Module.of(function), function.name, given)
    interpreted = Interpreted(function, target, change)
    compare(interpreted, given, expected, tolerance)
    return interpreted
