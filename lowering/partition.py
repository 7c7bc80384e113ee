"""Parts on threads: one parallel region, each step of which is run by one thread.

The task of a step calls the function of the region on the part's addresses; the kernels in it have
no parallel loops (`serial`).  Each worker has an arena of its own, so what one kernel leaves for
the next stays in the caches of a core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mapsto.ir.core import Operation, Value
from mapsto.ir.ops.partition import Partition
from mapsto.lowering.apart import ApartWriter, Sizes
from mapsto.lowering.control_flow import RegionBuffers
from mapsto.lowering.llvm.loop_emitter import PARALLEL_FOR
from mapsto.lowering.llvm.types import I8, I32, I64, PTR, VOID, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter
from mapsto.lowering.loops import For, If, LoopFunction, LoopKind, Statement
from mapsto.lowering.lowered import LoweredFunction

__all__ = ["PartitionLowering", "serial"]


def serial(function: LoopFunction) -> LoopFunction:
    """The same loops for one thread."""
    return replace(function, body=tuple(map(_serial_statement, function.body)))


def _serial_statement(statement: Statement) -> Statement:
    match statement:
        case For(kind=kind, body=body):
            kind = LoopKind.SERIAL if kind is LoopKind.PARALLEL else kind
            return replace(statement, kind=kind, body=tuple(map(_serial_statement, body)))
        case If(condition, then, otherwise):
            branches = (tuple(map(_serial_statement, branch)) for branch in (then, otherwise))
            return If(condition, *branches)
    return statement


class PartitionLowering:
    """The body runs as a task, on addresses in the operands and results."""

    def scratch_bytes(
        self, sizes: Sizes, op: Operation, bodies: Sequence[LoweredFunction]
    ) -> Operand:
        (body,) = bodies
        f = sizes.f
        f.declare("mapsto_worker_limit", I64, [])
        workers = f.call("mapsto_worker_limit", I64, [])
        arenas = f.mul(workers, sizes.arena_bytes(body))
        return f.add(sizes.dim(body.prepared_bytes), arenas)

    def write(self, writer: ApartWriter) -> None:
        f, op = writer.f, writer.op
        assert isinstance(op, Partition)
        (body,) = writer.bodies
        buffers = RegionBuffers(writer, body)
        buffers.pass_arguments(writer.operands)
        for number, pointer in enumerate(writer.results):
            f.store(pointer, buffers.result(number))
        arena = buffers.prepare(writer.scratch)
        failure = f.alloca(I64)
        f.store(constant(I64, _FINE), failure)
        stride = writer.sizes.arena_bytes(body)
        closure = f.alloca(I64, 5)
        values = (buffers.pointer, writer.sizes.dims, arena, stride, failure)
        for number, value in enumerate(values):
            f.store(value, f.getelementptr(I64, closure, number))
        task = _Task(op, body, _moves(op, buffers))
        task.write(writer.module.function(task.name, _PARAMETERS, linkage="internal"))
        f.declare(PARALLEL_FOR, VOID, [PTR, PTR, I64])
        steps = constant(I64, op.steps)
        f.call(PARALLEL_FOR, VOID, [Operand(f"@{task.name}", PTR), closure, steps])
        first = f.load(I64, failure)
        writer.fail_if(f.icmp("ne", first, constant(I64, _FINE)), f.trunc(first, I32))


_FINE = -1
"""Where no step failed; else the number of the first that did, and in the lower half its code."""
_PARAMETERS = [(PTR, "closure"), (I64, "step"), (I64, "worker")]


@dataclass(frozen=True, slots=True)
class _Move:
    """A pointer that is another one in each so many steps: its slot, and the bytes of a piece."""

    slot: int
    steps: int
    bytes: int


def _moves(op: Partition, buffers: RegionBuffers) -> list[_Move]:
    """The pointers of the body's buffers that move from step to step."""
    moves = [
        _Move(number, op.steps // pieces, _bytes(op.body.arguments[number]))
        for number in range(len(op.operands))
        if (pieces := op.pieces(number)) > 1
    ]
    places = buffers.body.result_places
    return moves + [_Move(places[i], 1, _bytes(v)) for i, v in enumerate(op.body.returned)]


def _bytes(value: Value) -> int:
    size = value.type.elements * value.dtype.bytes
    assert isinstance(size, int), "parts have known sizes"
    return size


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """The function that runs a step."""

    op: Partition
    body: LoweredFunction
    moves: Sequence[_Move]

    @property
    def name(self) -> str:
        """The name of the function."""
        return f"{self.body.entry.name}.step"

    def write(self, f: FunctionWriter) -> None:
        """Writes the function: a worker's own array of pointers, the call, what it returns."""
        closure, step, worker = f.parameters
        types = (PTR, PTR, PTR, I64, PTR)
        base, dims, arenas, stride, failure = (
            f.load(type, f.getelementptr(I64, closure, number)) for number, type in enumerate(types)
        )
        pointers = self._pointers(f, base, step)
        arena = f.getelementptr(I8, arenas, f.mul(worker, stride))
        code = f.call(self.body.entry.name, I32, [pointers, dims, arena])
        failed, done = f.block("failed"), f.block("done")
        f.branch_if(f.icmp("ne", code, constant(I32, 0)), failed, done)
        f.begin(failed)
        report = f.or_(f.shl(step, constant(I64, 32)), f.zext(code, I64))
        f.emit_void(f"atomicrmw umin {failure}, {report} monotonic")
        f.branch(done)
        f.begin(done)
        f.ret()

    def _pointers(self, f: FunctionWriter, base: Operand, step: Operand) -> Operand:
        """The array of pointers that the body gets at a step."""
        entry = self.body.entry
        count = len(entry.arguments) + len(entry.results) + bool(self.body.preparation)
        moves = {move.slot: move for move in self.moves}
        pointers = f.alloca(PTR, max(2, count), 8)
        for slot in range(count):
            pointer = f.load(PTR, f.getelementptr(PTR, base, slot))
            move = moves.get(slot)
            if move is not None:
                piece = f.udiv(step, constant(I64, move.steps))
                pointer = f.getelementptr(I8, pointer, f.mul(piece, constant(I64, move.bytes)))
            f.store(pointer, f.getelementptr(PTR, pointers, slot))
        return pointers
