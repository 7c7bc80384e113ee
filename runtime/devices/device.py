"""What a device can do.  Addresses are numbers; all work of a device is done in order.

Work is described by commands, so that a device may record a list of them once and do it again
without the host (a CUDA graph).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mapsto.ir.core import Array
from mapsto.lowering.gpu.program import GpuProgram
from mapsto.lowering.gpu.target import GpuTarget

__all__ = [
    "Command",
    "Copy",
    "Device",
    "DeviceKernel",
    "Fill",
    "Launch",
    "LoadedProgram",
    "times_by_the_clock",
]

Extent = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceKernel:
    """A kernel that a device has loaded: what the device calls it, and the shape of its blocks.

    `dynamic_bytes` of shared memory are to be provided by a launch; of its arguments the first
    `pointers` are addresses, the next `sizes` numbers, and what follows is an address.
    """

    name: str
    handle: Any
    block: Extent
    dynamic_bytes: int = 0
    pointers: int = 0
    sizes: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """Runs a kernel on a grid of blocks; each argument is a word of 64 bits."""

    kernel: DeviceKernel
    grid: Extent
    arguments: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """Copies bytes from an address of the device to another."""

    target: int
    source: int
    count: int


@dataclass(frozen=True, slots=True)
class Fill:
    """Sets bytes to zero."""

    target: int
    count: int


Command = Launch | Copy | Fill


class LoadedProgram(Protocol):
    """A program on a device; it stays there as long as the object lives."""

    @property
    def kernels(self) -> Mapping[str, DeviceKernel]:
        """Its kernels by name."""


class Device(Protocol):
    """A device.  Everything may raise DeviceError."""

    @property
    def name(self) -> str:
        """How it is asked for, such as `cuda:0`."""

    @property
    def description(self) -> str:
        """The product, for people."""

    @property
    def target(self) -> GpuTarget:
        """What programs for it are compiled for."""

    def allocate(self, count: int) -> int:
        """The address of new memory, at a multiple of 256 bytes."""

    def free(self, address: int) -> None:
        """Gives memory back, once nothing on the device uses it any more."""

    def write(self, address: int, array: Array) -> None:
        """Copies a dense array to the device; it may change again afterwards."""

    def read(self, address: int, array: Array) -> None:
        """Waits for the work so far and copies to a dense array."""

    def load(self, program: GpuProgram) -> LoadedProgram:
        """Compiles a program for the device's target, and loads it."""

    def run(self, commands: Sequence[Command]) -> None:
        """Starts the commands, in order."""

    def record(self, commands: Sequence[Command]) -> Callable[[], None]:
        """A function that starts the commands, in order, with less work each time."""

    def times(self, commands: Sequence[Command]) -> list[float]:
        """Does the commands, in order; the seconds that each of them took."""

    def synchronize(self) -> None:
        """Waits for the work so far."""


def times_by_the_clock(device: Device, commands: Sequence[Command]) -> list[float]:
    """What `times` gives for a device that has no clock of its own: the host waits for each."""
    found: list[float] = []
    device.synchronize()
    for command in commands:
        start = time.perf_counter()
        device.run([command])
        device.synchronize()
        found.append(time.perf_counter() - start)
    return found
