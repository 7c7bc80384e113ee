"""The host's part of a program: one step after another becomes commands for the device.

The plan is that of the CPU's entry function (`lowering/entry.py`): the same steps, the same places.
Loops over sequences are walked here, with the addresses of each step's slices.  Only where the host
has to know a value (`while`, `if`, `print`, `assert`) does it wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mapsto.ir.core import Array, Operation, Value
from mapsto.ir.dims import Dim, dim_value
from mapsto.ir.errors import MissingLowering
from mapsto.ir.ops.flow import Scan
from mapsto.ir.types import DType
from mapsto.lowering.buffers import Arena, Argument, Literal, Place, Result
from mapsto.lowering.gpu.program import SCRATCH_ALIGNMENT
from mapsto.lowering.lowered import ApartCall, KernelCall, LoweredFunction
from mapsto.runtime.devices.device import Command, Copy, Device

__all__ = ["HOST_RULES", "HostStep", "LaunchWriter", "Walk", "needs_host", "padded"]


class LaunchWriter(Protocol):
    """What is known of a program's kernels."""

    @property
    def device(self) -> Device:
        """Where they are."""

    def launches(
        self, call: KernelCall, pointers: Sequence[int], sizes: Mapping[str, int], scratch: int
    ) -> Sequence[Command]:
        """The launches of a kernel on these buffers."""

    def scratch_bytes(self, call: KernelCall, sizes: Mapping[str, int]) -> int:
        """The memory that a kernel needs beside its buffers."""

    def literal(self, value: Value) -> int:
        """The address of a constant array."""

    def raise_errors(self) -> None:
        """Raises the exception of what a kernel so far has found wrong."""


@dataclass(frozen=True, slots=True, eq=False)
class HostStep:
    """An op that is lowered on its own, at the addresses of its operands and results."""

    op: Operation
    bodies: tuple[LoweredFunction, ...]
    operands: tuple[int, ...]
    results: tuple[int, ...]
    scratch: int


class HostRule(Protocol):
    """How the host does an op."""

    def scratch_bytes(self, walk: Walk, call: ApartCall) -> int:
        """The memory that the op needs beside its operands and results."""

    def run(self, walk: Walk, step: HostStep) -> None:
        """Does the op."""


HOST_RULES: dict[type[Operation], HostRule] = {}
"""By op; `host_steps.py` fills it."""


class Walk:
    """Goes through functions for given values of the named sizes.

    Commands gather in `commands` until `flush` has the device run them.
    """

    def __init__(self, writer: LaunchWriter, sizes: Mapping[str, int]) -> None:
        self.writer = writer
        self.sizes = sizes
        self.commands: list[Command] = []
        self._arena_bytes: dict[LoweredFunction, int] = {}

    @property
    def device(self) -> Device:
        """The device that the commands are for."""
        return self.writer.device

    def dim(self, dim: Dim) -> int:
        """The value of a dimension."""
        return dim_value(dim, self.sizes)

    def bytes(self, value: Value) -> int:
        """The size of a tensor."""
        return self.dim(value.type.elements) * value.dtype.bytes

    def arena_bytes(self, lowered: LoweredFunction) -> int:
        """The tensors between a function's steps and the most that a step needs inside."""
        found = self._arena_bytes.get(lowered)
        if found is None:
            most = max(map(self._scratch_bytes, lowered.calls), default=0)
            own = self.dim(lowered.plan.arena_bytes)
            found = self._arena_bytes[lowered] = padded(own) + padded(most)
        return found

    def run(self, lowered: LoweredFunction, buffers: Sequence[int], arena: int) -> None:
        """A function on the addresses of its arguments and of the results that alias none."""
        assert not lowered.preparation, "nothing is packed ahead for a device"
        scratch = arena + padded(self.dim(lowered.plan.arena_bytes))
        place = self._places(lowered, buffers, arena)
        for call in lowered.calls:
            pointers = tuple(map(place, call.places))
            if isinstance(call, KernelCall):
                self.commands += self.writer.launches(call, pointers, self.sizes, scratch)
            else:
                count = len(call.op.operands)
                operands, results = pointers[:count], pointers[count:]
                step = HostStep(call.op, call.bodies, operands, results, scratch)
                self._rule(call.op).run(self, step)
        for value, argument in lowered.plan.copies:
            self.copy(buffers[argument], place(lowered.plan.place(value)), value)

    def copy(self, target: int, source: int, value: Value) -> None:
        """Copies a tensor, unless it is there."""
        count = self.bytes(value)
        if target != source and count:
            self.commands.append(Copy(target, source, count))

    def flush(self) -> None:
        """Has the device run the commands so far."""
        self.device.run(self.commands)
        self.commands = []

    def read(self, address: int, value: Value) -> Array:
        """A tensor, once all commands before are done; raises the exception of what they have found
        wrong."""
        self.flush()
        shape = tuple(map(self.dim, value.shape))
        array = np.empty(shape, np.uint16 if value.dtype is DType.BF16 else value.dtype.numpy)
        self.device.read(address, array)
        self.writer.raise_errors()
        return array

    def _scratch_bytes(self, call: KernelCall | ApartCall) -> int:
        if isinstance(call, KernelCall):
            return self.writer.scratch_bytes(call, self.sizes)
        return self._rule(call.op).scratch_bytes(self, call)

    def _rule(self, op: Operation) -> HostRule:
        rule = HOST_RULES.get(type(op))
        if rule is None:
            raise MissingLowering(op, self.device.name)
        return rule

    def _places(
        self, lowered: LoweredFunction, buffers: Sequence[int], arena: int
    ) -> Callable[[Place], int]:
        """The address of each place."""
        arguments = len(lowered.entry.arguments)

        def address(place: Place) -> int:
            match place:
                case Argument(number):
                    return buffers[number]
                case Result(number):
                    return buffers[arguments + number]
                case Arena(offset):
                    return arena + self.dim(offset)
                case Literal(value):
                    return self.writer.literal(value)
            raise AssertionError(f"{place} on a device")

        return address


def padded(count: int) -> int:
    """Bytes rounded up, so that what comes behind is aligned as scratch memory has to be."""
    return -(-count // SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT


def needs_host(lowered: LoweredFunction) -> bool:
    """Whether the host has to know values while the function runs."""
    apart = [call for call in lowered.calls if isinstance(call, ApartCall)]
    return any(not isinstance(call.op, Scan) or any(map(needs_host, call.bodies)) for call in apart)
