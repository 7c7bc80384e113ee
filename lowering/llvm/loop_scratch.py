"""Scratch memory of kernels: local buffers that do not fit the stack.

First come those that a kernel declares outside its parallel loops, which its tasks share, then one
part for each worker of the thread pool, with the buffers of the task that it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.dims import Dim, floor_div, product
from mapsto.lowering.llvm.loop_statements import on_stack
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Allocate, Buffer, For, LoopFunction, LoopKind, Statement

__all__ = ["ScratchSizes", "scratch_buffers", "scratch_offsets", "scratch_sizes"]

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class ScratchSizes:
    """Bytes of scratch memory: `shared` by the tasks of a kernel, and of each `worker`."""

    shared: Dim
    worker: Dim


def scratch_sizes(function: LoopFunction) -> ScratchSizes:
    """How much scratch memory a kernel needs."""
    loops = [s for s in statements(function.body) if _is_parallel(s)]
    each = [_total_bytes(scratch_buffers(loop.body)) for loop in loops if isinstance(loop, For)]
    sizes = [size for size in each if isinstance(size, int)]
    worker: Dim = max(sizes, default=0)
    for size in each:
        if not isinstance(size, int):
            worker = worker + size
    return ScratchSizes(_total_bytes(scratch_buffers(function.body)), worker)


def _is_parallel(statement: Statement) -> bool:
    return isinstance(statement, For) and statement.kind is LoopKind.PARALLEL


def scratch_buffers(body: tuple[Statement, ...]) -> list[Buffer]:
    """The buffers in scratch memory that a block declares outside its parallel loops."""
    inside = {
        id(nested)
        for loop in statements(body)
        if isinstance(loop, For) and _is_parallel(loop)
        for nested in statements(loop.body)
    }
    declared = [s for s in statements(body) if isinstance(s, Allocate) and id(s) not in inside]
    return [s.buffer for s in declared if not on_stack(s.buffer)]


def _total_bytes(buffers: list[Buffer]) -> Dim:
    total: Dim = 0
    for buffer in buffers:
        total = total + _buffer_bytes(buffer)
    return total


def _buffer_bytes(buffer: Buffer) -> Dim:
    size = product(buffer.shape) * buffer.dtype.bytes
    unit = _ALIGNMENT
    return floor_div(size + (unit - 1), unit) * unit


def scratch_offsets(buffers: list[Buffer]) -> list[Dim]:
    """Where each of the buffers of one part begins, in bytes."""
    return [_total_bytes(buffers[:number]) for number in range(len(buffers))]
