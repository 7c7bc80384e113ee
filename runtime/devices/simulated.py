"""A GPU that is simulated on the CPU: each of its threads is a coroutine.

It runs what any GPU gets but for the last step, LLVM's code generation, so it tests mapping,
indices, barriers and the exchange between threads.  New memory is filled with NaN (or -1): what a
kernel forgets to write is seen.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from mapsto.ir.core import Array
from mapsto.ir.types import DType
from mapsto.lowering.gpu.program import GpuProgram
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.arrays import aligned_empty
from mapsto.runtime.devices.device import (
    Command,
    Copy,
    DeviceKernel,
    Fill,
    Launch,
    times_by_the_clock,
)
from mapsto.runtime.devices.images import image_of
from mapsto.runtime.errors import DeviceError
from mapsto.runtime.jit import CompiledModule, load_object

__all__ = ["SimulatedDevice", "open_simulated"]

_FRESH = 0xFF
_ALIGNMENT = 256

_Entry = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, *(ctypes.c_int64,) * 3)


class SimulatedDevice:
    """Runs kernels on the CPU as a GPU would; its memory is the host's."""

    name = "gpusim"
    description = "a GPU simulated on the CPU, for tests"

    def __init__(self) -> None:
        self._memory: dict[int, Array] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<{self.name}: {self.description}>"

    @property
    def target(self) -> GpuTarget:
        """The simulated kind of GPU."""
        return GpuTarget.named("gpusim")

    def allocate(self, count: int) -> int:
        """The address of new memory, filled with bytes that no kernel should read."""
        memory = aligned_empty(DType.U8, (count + _ALIGNMENT,))
        memory.fill(_FRESH)
        address = memory.ctypes.data + -memory.ctypes.data % _ALIGNMENT
        self._memory[address] = memory
        return int(address)

    def free(self, address: int) -> None:
        """Gives memory back."""
        del self._memory[address]

    def write(self, address: int, array: Array) -> None:
        """Copies an array to the device."""
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def read(self, address: int, array: Array) -> None:
        """Copies to an array."""
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def load(self, program: GpuProgram) -> SimulatedProgram:
        """Compiles the program for the CPU."""
        return SimulatedProgram(program)

    def run(self, commands: Sequence[Command]) -> None:
        """Runs the commands, one after another."""
        with self._lock:
            for command in commands:
                _run(command)

    def record(self, commands: Sequence[Command]) -> Callable[[], None]:
        """The commands as they are."""
        kept = tuple(commands)
        return lambda: self.run(kept)

    def times(self, commands: Sequence[Command]) -> list[float]:
        """Runs the commands; the seconds of each."""
        return times_by_the_clock(self, commands)

    def synchronize(self) -> None:
        """Nothing: each command has ended when the next begins."""


class SimulatedProgram:
    """A program in the host's memory."""

    def __init__(self, program: GpuProgram) -> None:
        names = [kernel.name for kernel in program.launches]
        self._code = load_object(image_of(program), names) if names else None
        self.kernels: Mapping[str, DeviceKernel] = {
            kernel.name: DeviceKernel(kernel.name, _entry(self._code, kernel.name), kernel.block)
            for kernel in program.launches
        }


def _entry(code: CompiledModule | None, name: str) -> Callable[..., int]:
    assert code is not None
    entry: Callable[..., int] = _Entry(code.address(name))
    return entry


def _run(command: Command) -> None:
    match command:
        case Launch(kernel, grid, arguments):
            words = (ctypes.c_uint64 * max(1, len(arguments)))(*arguments)
            if kernel.handle(ctypes.addressof(words), *grid):
                raise DeviceError(
                    f"{kernel.name}: some threads of a block ended while others waited at a barrier"
                )
        case Copy(target, source, count):
            ctypes.memmove(target, source, count)
        case Fill(target, count):
            ctypes.memset(target, 0, count)


@lru_cache(maxsize=1)
def open_simulated() -> SimulatedDevice:
    """The simulated device of this process."""
    return SimulatedDevice()
