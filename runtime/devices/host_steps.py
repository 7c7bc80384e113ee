"""Loops, branches and effects as the host does them around the kernels of a device.

Buffers are those of `lowering/control_flow.py`: slices of sequences are read, and outputs written,
where they lie; what is carried is updated in place, or exchanged between two buffers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from mapsto.ir.array_text import message_text
from mapsto.ir.bodies import alias_pairs
from mapsto.ir.core import Array, Value
from mapsto.ir.errors import AssertionFailed
from mapsto.ir.ops.effects import Assert, Print
from mapsto.ir.ops.flow import If, Scan, While
from mapsto.ir.types import DType
from mapsto.lowering.lowered import ApartCall, LoweredFunction
from mapsto.runtime.devices.walk import HOST_RULES, HostStep, Walk, padded

__all__: list[str] = []


class _Buffers:
    """The addresses that a region's function gets: its arguments, then the results that alias no
    argument."""

    def __init__(self, body: LoweredFunction) -> None:
        arguments, results = len(body.entry.arguments), len(body.entry.results)
        self.addresses = [0] * (arguments + results)
        self.results = body.result_places
        """Where the address of a result that aliases no argument stands."""

    def pass_arguments(self, addresses: Sequence[int]) -> None:
        """Stores the addresses of the first arguments."""
        self.addresses[: len(addresses)] = addresses


class _Carried:
    """The values that a loop carries: number i is the body's argument `first + i`, its result i and
    the op's result i."""

    def __init__(
        self, walk: Walk, step: HostStep, body: LoweredFunction, buffers: _Buffers, first: int
    ) -> None:
        self.walk = walk
        self.step = step
        self.buffers = buffers
        self.first = first
        self.values = step.op.results[: _carried(step.op)]
        self.arena = step.scratch
        """What is left of the scratch memory behind the second buffers."""
        self.second: dict[int, int] = {}
        for number in body.exchanged(len(self.values)):
            self.second[number] = self.arena
            self.arena += padded(walk.bytes(self.values[number]))

    def begin(self, to_results: bool) -> None:
        """Has the first step read the initial values; what is exchanged it writes to the op's
        results if `to_results`, else to the second buffers."""
        addresses = self.buffers.addresses
        for number, value in enumerate(self.values):
            initial, result = self.step.operands[self.first + number], self.step.results[number]
            if number in self.second:
                addresses[self.first + number] = initial
                target = result if to_results else self.second[number]
                addresses[self.buffers.results[number]] = target
            else:
                self.walk.copy(result, initial, value)
                addresses[self.first + number] = result

    def exchange(self) -> None:
        """Has the next step read what this one wrote."""
        addresses = self.buffers.addresses
        for number, second in self.second.items():
            result, place = self.step.results[number], self.buffers.results[number]
            written = addresses[place]
            addresses[self.first + number] = written
            addresses[place] = second if written == result else result

    def finish(self) -> None:
        """Copies what is exchanged to the results, where the last step has not written it there, or
        there was none."""
        for number in self.second:
            last = self.buffers.addresses[self.first + number]
            self.walk.copy(self.step.results[number], last, self.values[number])


class _ScanRule:
    """The body gets the addresses of the slices that it reads and of the outputs that it writes."""

    def scratch_bytes(self, walk: Walk, call: ApartCall) -> int:
        (body,) = call.bodies
        return _second_bytes(walk, call, body) + walk.arena_bytes(body)

    def run(self, walk: Walk, step: HostStep) -> None:
        op, (body,) = step.op, step.bodies
        assert isinstance(op, Scan)
        buffers, first = _Buffers(body), len(op.constants)
        buffers.pass_arguments(step.operands[:first])
        carried = _Carried(walk, step, body, buffers, first)
        extent = walk.dim(op.extent)
        # So the last step writes what is exchanged to the results.
        carried.begin(to_results=extent % 2 == 1)
        moving = _moving(walk, step, buffers)
        for number in range(extent):
            position = extent - 1 - number if op.is_reverse else number
            for slot, base, stride in moving:
                buffers.addresses[slot] = base + position * stride
            walk.run(body, buffers.addresses, carried.arena)
            carried.exchange()
        carried.finish()


class _WhileRule:
    """The host asks for the condition before each step."""

    def scratch_bytes(self, walk: Walk, call: ApartCall) -> int:
        _, body = call.bodies
        most = max(map(walk.arena_bytes, call.bodies))
        return _second_bytes(walk, call, body) + _TRUTH_BYTES + most

    def run(self, walk: Walk, step: HostStep) -> None:
        op, (condition, body) = step.op, step.bodies
        assert isinstance(op, While)
        asked, buffers, first = _Buffers(condition), _Buffers(body), len(op.constants)
        for part in (asked, buffers):
            part.pass_arguments(step.operands[:first])
        carried = _Carried(walk, step, body, buffers, first)
        carried.begin(to_results=True)
        truth, arena = carried.arena, carried.arena + _TRUTH_BYTES
        asked.addresses[asked.results[0]] = truth
        while True:
            count = len(op.operands)
            asked.addresses[first:count] = buffers.addresses[first:count]
            walk.run(condition, asked.addresses, arena)
            if not walk.read(truth, condition.function.results[0]):
                break
            walk.run(body, buffers.addresses, arena)
            carried.exchange()
        carried.finish()


class _IfRule:
    """The host asks which branch is taken; it writes the results, or updates in place what it gives
    instead of an argument."""

    def scratch_bytes(self, walk: Walk, call: ApartCall) -> int:
        return max(map(walk.arena_bytes, call.bodies))

    def run(self, walk: Walk, step: HostStep) -> None:
        op = step.op
        assert isinstance(op, If)
        condition, *arguments = step.operands
        body = step.bodies[0 if walk.read(condition, op.condition) else 1]
        aliases = dict(alias_pairs(body.function))
        for result, argument in aliases.items():
            target = step.results[result]
            walk.copy(target, arguments[argument], op.results[result])
            arguments[argument] = target
        buffers = _Buffers(body)
        buffers.pass_arguments(arguments)
        for number, address in enumerate(step.results):
            if number not in aliases:
                buffers.addresses[buffers.results[number]] = address
        walk.run(body, buffers.addresses, step.scratch)


class _PrintRule:
    """Fetches the tensors and writes the line to `sys.stdout`."""

    def scratch_bytes(self, walk: Walk, call: ApartCall) -> int:
        return 0

    def run(self, walk: Walk, step: HostStep) -> None:
        op = step.op
        assert isinstance(op, Print)
        pairs = zip(step.operands, op.operands, strict=True)
        arrays = [_widened(walk.read(address, value), value) for address, value in pairs]
        text = message_text(op.text, arrays, [value.dtype for value in op.operands])
        sys.stdout.write(text)


class _AssertRule:
    """Fetches the condition."""

    def scratch_bytes(self, walk: Walk, call: ApartCall) -> int:
        return 0

    def run(self, walk: Walk, step: HostStep) -> None:
        op = step.op
        assert isinstance(op, Assert)
        if not walk.read(step.operands[0], op.operands[0]):
            raise AssertionFailed(op.message, op.location)


_TRUTH_BYTES = padded(1)
"""The place of a truth value."""

HOST_RULES.update(
    {
        Assert: _AssertRule(),
        If: _IfRule(),
        Print: _PrintRule(),
        Scan: _ScanRule(),
        While: _WhileRule(),
    }
)


def _moving(walk: Walk, step: HostStep, buffers: _Buffers) -> list[tuple[int, int, int]]:
    """Of sequences and outputs: where the address for a step stands, where the whole begins, and
    how many bytes a step is further than the one before."""
    op = step.op
    assert isinstance(op, Scan)
    before = len(op.operands) - len(op.sequences)
    read = [
        (i, step.operands[i], walk.bytes(op.body.arguments[i]))
        for i in range(before, len(op.operands))
    ]
    written = [
        (buffers.results[i], step.results[i], walk.bytes(op.body.returned[i]))
        for i in range(len(op.carried), len(op.results))
    ]
    return read + written


def _carried(op: object) -> int:
    assert isinstance(op, Scan | While)
    return len(op.carried)


def _second_bytes(walk: Walk, call: ApartCall, body: LoweredFunction) -> int:
    """The second buffers of values that are carried and not updated in place."""
    numbers = body.exchanged(_carried(call.op))
    return sum(padded(walk.bytes(call.op.results[number])) for number in numbers)


def _widened(array: Array, value: Value) -> Array:
    """Elements of bf16, which NumPy has not, as f32."""
    if value.dtype is not DType.BF16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)
