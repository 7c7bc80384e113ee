"""A device that takes the time of what another one does, command by command."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mapsto.ir.core import Array
from mapsto.lowering.gpu.program import GpuProgram
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.devices.device import Command, Device, LoadedProgram

__all__ = ["TimedDevice"]


class TimedDevice:
    """Has another device do everything.

    While `is_timing`, commands are run one by one, and `times` of each are kept; else they are run
    and recorded as they would be without.
    """

    def __init__(self, device: Device) -> None:
        self.inner = device
        self.is_timing = False
        self.taken: list[tuple[Command, float]] = []
        """The commands since the list was cleared, and the seconds of each."""

    @property
    def name(self) -> str:
        """That of the device."""
        return self.inner.name

    @property
    def description(self) -> str:
        """That of the device."""
        return self.inner.description

    @property
    def target(self) -> GpuTarget:
        """That of the device."""
        return self.inner.target

    def allocate(self, count: int) -> int:
        """New memory of the device."""
        return self.inner.allocate(count)

    def free(self, address: int) -> None:
        """Gives memory back."""
        self.inner.free(address)

    def write(self, address: int, array: Array) -> None:
        """Copies an array to the device."""
        self.inner.write(address, array)

    def read(self, address: int, array: Array) -> None:
        """Copies to an array."""
        self.inner.read(address, array)

    def load(self, program: GpuProgram) -> LoadedProgram:
        """Loads a program there."""
        return self.inner.load(program)

    def run(self, commands: Sequence[Command]) -> None:
        """Runs the commands, and takes their times if it is asked to."""
        if not self.is_timing:
            self.inner.run(commands)
            return
        self.taken += zip(commands, self.inner.times(commands), strict=True)

    def record(self, commands: Sequence[Command]) -> Callable[[], None]:
        """A function that does so again."""
        replay = self.inner.record(commands)
        return lambda: self.run(commands) if self.is_timing else replay()

    def times(self, commands: Sequence[Command]) -> list[float]:
        """Those of the device."""
        return self.inner.times(commands)

    def synchronize(self) -> None:
        """Waits for the device."""
        self.inner.synchronize()
