"""A device that interprets PTX: what runs on a GPU of NVIDIA's runs here, with all checks.

Each launch sees nothing but the buffers of its kernel, far from one another, so that an access that
leaves a buffer is found even where the next one lies behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import ptx

from mapsto.ir.dims import dim_value, product
from mapsto.lowering.gpu.program import GpuKernel, GpuProgram, assemble
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.devices.device import Command, Copy, DeviceKernel, Fill, Launch

Array = np.ndarray
Change = Callable[[str], str]

_ALIGNMENT = 256
_ERROR_BYTES = 4


class PtxDevice:
    """`change` makes other PTX of what was compiled: a defect, in tests of the tests."""

    def __init__(self, architecture: int, change: Change = str) -> None:
        self.name = f"ptx:{architecture}"
        self.description = "an interpreter of PTX"
        self.target = GpuTarget.named(f"nvptx64-sm_{architecture}")
        self.change = change
        self.launched: list[PtxKernel] = []
        self._memory = np.zeros(0, np.uint8)
        self._written = np.zeros(0, bool)

    def allocate(self, count: int) -> int:
        """The address of new memory, which nothing has written; it is never used twice."""
        address = max(len(self._memory), _ALIGNMENT)
        end = -(-(address + count) // _ALIGNMENT) * _ALIGNMENT
        fresh = np.full(end - len(self._memory), 0xCB, np.uint8)
        self._memory = np.concatenate([self._memory, fresh])
        self._written = np.concatenate([self._written, np.zeros(len(fresh), bool)])
        return address

    def free(self, address: int) -> None:
        """Nothing: memory is kept."""

    def write(self, address: int, array: Array) -> None:
        """Copies an array to the device."""
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._memory[address : address + len(data)] = data
        self._written[address : address + len(data)] = True

    def read(self, address: int, array: Array) -> None:
        """Copies to an array; ptx.Uninitialized if nothing has written it."""
        end = address + array.nbytes
        if not self._written[address:end].all():
            raise ptx.Uninitialized(f"the result at {address} was never written")
        array.reshape(-1).view(np.uint8)[:] = self._memory[address:end]

    def load(self, program: GpuProgram) -> PtxProgram:
        """Compiles the program and decodes its kernels."""
        return PtxProgram(program, self.change)

    def run(self, commands: Sequence[Command]) -> None:
        """Runs the commands."""
        for command in commands:
            match command:
                case Launch():
                    self._launch(command)
                case Copy(target, source, count):
                    for memory in (self._memory, self._written):
                        memory[target : target + count] = memory[source : source + count].copy()
                case Fill(target, count):
                    self.write(target, np.zeros(count, np.uint8))

    def record(self, commands: Sequence[Command]) -> Callable[[], None]:
        """The commands as they are."""
        kept = tuple(commands)
        return lambda: self.run(kept)

    def synchronize(self) -> None:
        """Nothing: each command has ended when the next begins."""

    def _launch(self, launch: Launch) -> None:
        kernel: PtxKernel = launch.kernel.handle
        self.launched.append(kernel)
        ranges = _merged(kernel.ranges(launch.arguments))
        memory = ptx.GlobalMemory()
        moved = []
        for start, size in ranges:
            inside = slice(start, start + size)
            name = f"{kernel.gpu.name}: device memory from {start} on"
            moved.append(memory.allocate(self._memory[inside], name, self._written[inside]))
        words = [
            _moved(word, ranges, moved) if is_pointer else word
            for word, is_pointer in zip(launch.arguments, kernel.pointers, strict=True)
        ]
        dynamic = kernel.gpu.dynamic_bytes
        ptx.launch(kernel.code, launch.grid, launch.kernel.block, words, memory, dynamic)
        for (start, size), address in zip(ranges, moved, strict=True):
            data, written = memory.contents(address)
            self._memory[start : start + size] = data
            self._written[start : start + size] = written


class PtxProgram:
    """The kernels of a program by name."""

    def __init__(self, program: GpuProgram, change: Change) -> None:
        text = change(assemble(program).decode()) if program.launches else ""
        parsed = ptx.parse(text) if text else None
        self.kernels: Mapping[str, DeviceKernel] = {
            kernel.name: DeviceKernel(
                kernel.name, PtxKernel(kernel, ptx.prepare(parsed, kernel.name)), kernel.block
            )
            for kernel in program.launches
        }


class PtxKernel:
    """A decoded kernel, and what its words are: pointers (`pointers`) or sizes."""

    def __init__(self, gpu: GpuKernel, code: ptx.Launchable) -> None:
        self.gpu = gpu
        self.code = code
        scratch = [True] * (gpu.scratch_bytes != 0)
        sizes = [False] * len(gpu.loops.sizes)
        self.buffers = len(code.kernel.parameters) - len(sizes) - len(scratch)
        self.pointers = [*[True] * self.buffers, *sizes, *scratch]

    def ranges(self, words: Sequence[int]) -> list[tuple[int, int]]:
        """The address and the size of each buffer that the kernel is given."""
        sizes = dict(zip(self.gpu.loops.sizes, words[self.buffers :], strict=False))
        found = [
            (address, dim_value(product(buffer.shape), sizes) * buffer.dtype.bytes)
            for address, buffer in zip(words, self.gpu.parameters, strict=False)
        ]
        if self.buffers > len(self.gpu.parameters):
            found.append((words[self.buffers - 1], _ERROR_BYTES))
        if self.gpu.scratch_bytes != 0:
            found.append((words[-1], dim_value(self.gpu.scratch_bytes, sizes)))
        return [(address, size) for address, size in found if size]


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges without those that overlap: buffers that are one and the same, or in one another."""
    merged: list[tuple[int, int]] = []
    for start, size in sorted(set(ranges)):
        if merged and start < sum(merged[-1]):
            first, length = merged.pop()
            start, size = first, max(first + length, start + size) - first
        merged.append((start, size))
    return merged


def _moved(word: int, ranges: list[tuple[int, int]], moved: list[int]) -> int:
    """Where an address of the device is in the memory of the launch; buffers of no elements are
    nowhere."""
    for (start, size), address in zip(ranges, moved, strict=True):
        if start <= word < start + size:
            return address + word - start
    return 0


@cache
def open_ptx(architecture: int) -> PtxDevice:
    """The interpreter as a device; programs are compiled for the architecture."""
    return PtxDevice(architecture)
