"""Loops and branches: calls of the functions of their regions.

No tensor is copied from step to step.  Slices of sequences are read, and outputs written, where
they lie.  A value carried along is updated in place where the order of access in the body allows
it (the body's result aliases its argument); else it is exchanged: the step reads one buffer and
writes another, and the next step the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.bodies import alias_pairs
from mapsto.ir.core import Operation, Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.flow import Scan, While
from mapsto.lowering.apart import ApartWriter, Sizes
from mapsto.lowering.buffers import padded_bytes
from mapsto.lowering.llvm.types import I1, I8, I64, PTR, VOID, Operand, constant
from mapsto.lowering.lowered import LoweredFunction

__all__ = ["IfLowering", "RegionBuffers", "ScanLowering", "WhileLowering"]


class IfLowering:
    """The branches write the results, or update in place what they give instead of an argument."""

    def scratch_bytes(
        self, sizes: Sizes, op: Operation, bodies: Sequence[LoweredFunction]
    ) -> Operand:
        first, second = map(sizes.arena_bytes, bodies)
        return sizes.f.smax(first, second)

    def write(self, writer: ApartWriter) -> None:
        f = writer.f
        condition, *arguments = writer.operands
        # Both branches have the same aliases.
        aliases = dict(alias_pairs(writer.bodies[0].function))
        for result, argument in aliases.items():
            target = writer.results[result]
            writer.copy(target, arguments[argument], writer.op.results[result])
            arguments[argument] = target
        first, second, after = f.block("first"), f.block("second"), f.block("after")
        f.branch_if(_holds(writer, condition), first, second)
        for block, body in zip((first, second), writer.bodies, strict=True):
            f.begin(block)
            buffers = RegionBuffers(writer, body)
            buffers.pass_arguments(arguments)
            for number, pointer in enumerate(writer.results):
                if number not in aliases:
                    f.store(pointer, buffers.result(number))
            writer.run(body, buffers.pointer, writer.scratch)
            f.branch(after)
        f.begin(after)


class WhileLowering:
    """The condition writes a truth value, the body what is carried."""

    def scratch_bytes(
        self, sizes: Sizes, op: Operation, bodies: Sequence[LoweredFunction]
    ) -> Operand:
        condition, body = bodies
        kept = sizes.f.add(sizes.dim(condition.prepared_bytes), _kept_bytes(sizes, op, body))
        return sizes.f.add(kept, sizes.f.smax(*map(sizes.arena_bytes, bodies)))

    def write(self, writer: ApartWriter) -> None:
        f, op = writer.f, writer.op
        assert isinstance(op, While)
        condition, body = writer.bodies
        asked, buffers = RegionBuffers(writer, condition), RegionBuffers(writer, body)
        first = len(op.constants)
        for part in (asked, buffers):
            part.pass_arguments(writer.operands[:first])
        truth = f.alloca(I8)
        f.store(truth, asked.result(0))
        arena = buffers.prepare(asked.prepare(writer.scratch))
        carried = _Carried(writer, buffers, first, len(op.carried), arena)
        carried.begin(constant(I1, 1))
        ask, step, after = f.block("ask"), f.block("step"), f.block("after")
        f.branch(ask)
        f.begin(ask)
        for number in range(first, len(op.operands)):
            f.store(f.load(PTR, buffers.argument(number)), asked.argument(number))
        writer.run(condition, asked.pointer, carried.arena)
        f.branch_if(_holds(writer, truth), step, after)
        f.begin(step)
        writer.run(body, buffers.pointer, carried.arena)
        carried.exchange()
        f.branch(ask)
        f.begin(after)
        carried.finish()


class ScanLowering:
    """The body gets the addresses of the slices that it reads and of the outputs that it writes."""

    def scratch_bytes(
        self, sizes: Sizes, op: Operation, bodies: Sequence[LoweredFunction]
    ) -> Operand:
        (body,) = bodies
        return sizes.f.add(_kept_bytes(sizes, op, body), sizes.arena_bytes(body))

    def write(self, writer: ApartWriter) -> None:
        f, op = writer.f, writer.op
        assert isinstance(op, Scan)
        (body,) = writer.bodies
        buffers = RegionBuffers(writer, body)
        first = len(op.constants)
        buffers.pass_arguments(writer.operands[:first])
        arena = buffers.prepare(writer.scratch)
        carried = _Carried(writer, buffers, first, len(op.carried), arena)
        extent = writer.sizes.dim(op.extent)
        # So the last step writes what is exchanged to the results.
        is_odd = f.trunc(extent, I1)
        carried.begin(is_odd)
        moving = _moving(writer, op, buffers)
        strides = [writer.sizes.bytes(value) for _, _, value in moving]

        def step(number: Operand) -> None:
            position = number
            if op.is_reverse:
                position = f.sub(f.sub(extent, constant(I64, 1)), number)
            for (base, slot, _), stride in zip(moving, strides, strict=True):
                f.store(writer.past(base, f.mul(position, stride)), slot)
            writer.run(body, buffers.pointer, carried.arena)
            carried.exchange()

        f.loop(constant(I64, 0), extent, 1, step)
        carried.finish()


def _moving(
    writer: ApartWriter, op: Scan, buffers: RegionBuffers
) -> list[tuple[Operand, Operand, Value]]:
    """Of sequences and outputs: where they begin, where the pointer for a step is stored, and the
    slice or output of a step."""
    before = len(op.operands) - len(op.sequences)
    read = [
        (writer.operands[i], buffers.argument(i), op.body.arguments[i])
        for i in range(before, len(op.operands))
    ]
    written = [
        (writer.results[i], buffers.result(i), op.body.returned[i])
        for i in range(len(op.carried), len(op.results))
    ]
    return read + written


def _holds(writer: ApartWriter, truth: Operand) -> Operand:
    """Whether (i1) the truth value at an address holds."""
    return writer.f.icmp("ne", writer.f.load(I8, truth), constant(I8, 0))


def _kept_bytes(sizes: Sizes, op: Operation, body: LoweredFunction) -> Operand:
    """The memory that is in use from step to step: what the body has prepared, and the second
    buffers of values that are carried and not updated in place."""
    assert isinstance(op, Scan | While)
    total = sizes.dim(body.prepared_bytes)
    for number in body.exchanged(len(op.carried)):
        total = sizes.f.add(total, sizes.dim(_value_bytes(op.carried[number])))
    return total


def _value_bytes(value: Value) -> Dim:
    return padded_bytes(value.type.elements, value.dtype)


class RegionBuffers:
    """The array of pointers that a region's function gets: its arguments, then the results that
    alias no argument, then what it has prepared."""

    def __init__(self, writer: ApartWriter, body: LoweredFunction) -> None:
        self.writer = writer
        self.body = body
        arguments, results = len(body.entry.arguments), len(body.entry.results)
        self.prepared = arguments + results
        self.pointer = writer.f.alloca(PTR, max(2, self.prepared + 1), 8)
        self._slots = body.result_places

    def argument(self, number: int) -> Operand:
        """The address of the pointer to an argument."""
        return self.writer.f.getelementptr(PTR, self.pointer, number)

    def result(self, number: int) -> Operand:
        """The address of the pointer to a result that aliases no argument."""
        return self.writer.f.getelementptr(PTR, self.pointer, self._slots[number])

    def prepare(self, arena: Operand) -> Operand:
        """Does what the body has done ahead, for arguments that are passed already, if it is not
        done yet; gives the rest of the arena."""
        f, body = self.writer.f, self.body
        if not body.preparation:
            return arena
        done = self.writer.ahead[self.writer.bodies.index(body)]
        if done is not None:
            f.store(done, f.getelementptr(PTR, self.pointer, self.prepared))
            return arena
        f.store(arena, f.getelementptr(PTR, self.pointer, self.prepared))
        rest = self.writer.past(arena, self.writer.sizes.dim(body.prepared_bytes))
        arguments = [self.pointer, self.writer.sizes.dims, rest]
        f.call(f"{body.entry.name}.prepare", VOID, arguments)
        return rest

    def pass_arguments(self, pointers: Sequence[Operand]) -> None:
        """Stores the pointers of the first arguments."""
        for number, pointer in enumerate(pointers):
            self.writer.f.store(pointer, self.argument(number))


class _Carried:
    """The values that a loop carries: number i is the body's argument `first + i`, its result i and
    the op's result i."""

    def __init__(
        self, writer: ApartWriter, buffers: RegionBuffers, first: int, count: int, arena: Operand
    ) -> None:
        self.writer = writer
        self.buffers = buffers
        self.first = first
        self.count = count
        self.second: dict[int, Operand] = {}
        """The second buffers of those that are exchanged."""
        self.arena = arena
        """What is left of the scratch memory."""
        for number in buffers.body.exchanged(count):
            self.second[number] = self.arena
            size = writer.sizes.dim(_value_bytes(writer.op.results[number]))
            self.arena = writer.past(self.arena, size)

    def begin(self, to_results: Operand) -> None:
        """Has the first step read the initial values; what is exchanged it writes to the op's
        results if `to_results` (i1), else to the second buffers."""
        f = self.writer.f
        for number in range(self.count):
            initial = self.writer.operands[self.first + number]
            result = self.writer.results[number]
            if number in self.second:
                f.store(initial, self._read(number))
                target = f.select(to_results, result, self.second[number])
                f.store(target, self.buffers.result(number))
            else:
                self.writer.copy(result, initial, self.writer.op.results[number])
                f.store(result, self._read(number))

    def exchange(self) -> None:
        """Has the next step read what this one wrote."""
        f = self.writer.f
        for number, second in self.second.items():
            result = self.writer.results[number]
            written = f.load(PTR, self.buffers.result(number))
            f.store(written, self._read(number))
            other = f.select(f.icmp("eq", written, result), second, result)
            f.store(other, self.buffers.result(number))

    def finish(self) -> None:
        """Copies what is exchanged to the results, where the last step has not written it there, or
        there was none."""
        f = self.writer.f
        for number in self.second:
            result, last = self.writer.results[number], f.load(PTR, self._read(number))
            elsewhere, after = f.block("elsewhere"), f.block("after")
            f.branch_if(f.icmp("ne", last, result), elsewhere, after)
            f.begin(elsewhere)
            self.writer.copy(result, last, self.writer.op.results[number])
            f.branch(after)
            f.begin(after)

    def _read(self, number: int) -> Operand:
        return self.buffers.argument(self.first + number)
