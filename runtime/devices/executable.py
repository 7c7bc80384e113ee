"""A program that a device has loaded: its kernels, its constants, its error word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mapsto.ir.core import Value
from mapsto.ir.dims import dim_value
from mapsto.lowering.buffers import Literal
from mapsto.lowering.gpu.program import GpuProgram
from mapsto.lowering.literals import literal_array
from mapsto.lowering.lowered import KernelCall, LoweredFunction
from mapsto.runtime.devices.device import Command, Device, DeviceKernel, Fill, Launch
from mapsto.runtime.devices.memory import Block, Pool
from mapsto.runtime.errors import ExecutionError

__all__ = [
    "Executable",
    "is_checked",
    "launches_of",
    "literals_of",
    "scratch_bytes_of",
]

_ERROR_BYTES = 4


class Executable:
    """A program on a device.  Raises DeviceError where the device does not take it."""

    def __init__(self, program: GpuProgram, pool: Pool) -> None:
        self.program = program
        self.pool = pool
        self._loaded = pool.device.load(program)
        self._literals: dict[Value, Block] = {}
        self._checked = any(map(is_checked, program.functions.values()))
        self._error = pool.allocate(_ERROR_BYTES)
        for lowered in program.functions.values():
            for value in literals_of(lowered):
                self._literals[value] = self._upload(value)
        self.device.run([Fill(self._error.address, _ERROR_BYTES)])

    @property
    def device(self) -> Device:
        """Where it is."""
        return self.pool.device

    def launches(
        self, call: KernelCall, pointers: Sequence[int], sizes: Mapping[str, int], scratch: int
    ) -> Sequence[Command]:
        """The launches of a kernel on these buffers."""
        words = [*pointers, self._error.address] if call.checked else pointers
        return launches_of(self.program, self._loaded.kernels, call, words, sizes, scratch)

    def scratch_bytes(self, call: KernelCall, sizes: Mapping[str, int]) -> int:
        """The memory that a kernel needs beside its buffers."""
        return scratch_bytes_of(self.program, call, sizes)

    def literal(self, value: Value) -> int:
        """The address of a constant array."""
        return self._literals[value].address

    def raise_errors(self) -> None:
        """Waits for the device; raises ExecutionError where a kernel has found something wrong."""
        if not self._checked:
            return
        word = np.zeros(1, np.int32)
        self.device.read(self._error.address, word)
        if word[0]:
            self.device.run([Fill(self._error.address, _ERROR_BYTES)])
            raise ExecutionError(int(word[0]))

    def _upload(self, value: Value) -> Block:
        array = literal_array(value)
        block = self.pool.allocate(array.nbytes)
        self.device.write(block.address, array)
        return block


def launches_of(
    program: GpuProgram,
    loaded: Mapping[str, DeviceKernel],
    call: KernelCall,
    pointers: Sequence[int],
    sizes: Mapping[str, int],
    scratch: int,
) -> list[Launch]:
    """The launches of a kernel of the plan, but for those with nothing to do; `pointers` are those
    of its buffers, with that of the error word behind them where it is checked."""
    words = (*pointers, *(sizes[name] for name in call.loops.sizes))
    launches = []
    for kernel in program.kernels[call.loops.name]:
        grid = kernel.grid_for(sizes)
        more = (scratch,) if kernel.scratch_bytes != 0 else ()
        if 0 not in grid:
            launches.append(Launch(loaded[kernel.name], grid, (*words, *more)))
    return launches


def scratch_bytes_of(program: GpuProgram, call: KernelCall, sizes: Mapping[str, int]) -> int:
    """The memory that the launches of a kernel need beside its buffers."""
    kernels = program.kernels[call.loops.name]
    return max((dim_value(kernel.scratch_bytes, sizes) for kernel in kernels), default=0)


def literals_of(lowered: LoweredFunction) -> list[Value]:
    """The constant arrays of a function and of its regions."""
    return list(dict.fromkeys(_literals(lowered)))


def _literals(lowered: LoweredFunction) -> Iterator[Value]:
    """The constants of a function and of its regions."""
    yield from (p.value for call in lowered.calls for p in call.places if isinstance(p, Literal))
    copied = (lowered.plan.place(value) for value, _ in lowered.plan.copies)
    yield from (place.value for place in copied if isinstance(place, Literal))
    for body in lowered.bodies:
        yield from _literals(body)


def is_checked(lowered: LoweredFunction) -> bool:
    """Whether a kernel may set an error code."""
    return any(call.checked for call in lowered.kernel_calls) or any(
        map(is_checked, lowered.bodies)
    )
