"""From the loops of a kernel, written for tasks and vectors, to launches of blocks and threads.

    for row_task in 0..128 parallel {          for row_task in 0..128 block {
      for j in 0..1000 vector {                  for thread in 0..128 thread {
        y[row_task, j] = x[row_task, j]            for j in thread..1000 step 128 {
      }                                              y[row_task, j] = x[row_task, j]
    }                                              ...

A task with vector loops is a block, whose threads share its vector loops (`threads`); a task
without any is a thread.  Local buffers of a task are shared memory where they are small, else its
part of scratch memory.  Loops over blocks that a schedule wrote stay as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mapsto.ir.dims import Dim, floor_div, product
from mapsto.lowering.gpu.accesses import BlockMemory
from mapsto.lowering.gpu.barriers import BarrierInsertion
from mapsto.lowering.gpu.chunks import Rows, is_plain
from mapsto.lowering.gpu.combining import Combiner
from mapsto.lowering.gpu.kernel import SCRATCH_ALIGNMENT, GpuKernel
from mapsto.lowering.gpu.launches import Launch, split_launches
from mapsto.lowering.gpu.names import Names
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.threads import ThreadMapper
from mapsto.lowering.gpu.turns import largest_extent, lay_out_turns
from mapsto.lowering.indices import Index, to_dim, variable
from mapsto.lowering.indices import floor_div as index_quotient
from mapsto.lowering.loop_rewrite import Access, Rewriter
from mapsto.lowering.loop_walk import statements, stored_buffers
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    If,
    Let,
    LoopFunction,
    LoopKind,
    Space,
    Statement,
    compare,
)

__all__ = ["map_kernel", "shared_bytes"]

_SHARED_BUDGET = 9216
"""Local buffers of a task are in shared memory up to so many bytes, which two squares take
(`staged_squares`): more would keep others out."""
_SHARED_ALIGNMENT = 16
_HELD = 16
"""Rows of more elements a thread than this get more threads."""


def map_kernel(function: LoopFunction, target: GpuTarget) -> tuple[GpuKernel, ...]:
    """The launches that compute a kernel, in order.

    Raises ValueError for loops that cannot be mapped (see `threads` and `launches`).
    """
    launches, common = split_launches(function.body)
    shared_by_all = tuple(map(_in_scratch, common))
    mapped = [_map_launch(function, launch, shared_by_all, target) for launch in launches]
    total = _bytes(shared_by_all) + sum_of(_bytes(each.scratch) for each in mapped)
    before = _bytes(shared_by_all)
    kernels: list[GpuKernel] = []
    for each in mapped:
        offsets = (*_offsets(shared_by_all), *_offsets(each.scratch, before))
        buffers = (*function.buffers, *shared_by_all, *each.scratch)
        name = function.name if len(mapped) == 1 else f"{function.name}_{len(kernels)}"
        loops = LoopFunction(name, buffers, function.sizes, (each.grid,))
        kernels.append(_kernel(loops, total, offsets, target))
        before = before + _bytes(each.scratch)
    return tuple(kernels)


def _kernel(
    loops: LoopFunction, scratch_bytes: Dim, offsets: tuple[Dim, ...], target: GpuTarget
) -> GpuKernel:
    """The launch of a function whose body is one nest of block and thread loops."""
    blocks = list(_nest(loops.body, LoopKind.BLOCK))
    threads = list(_nest(blocks[-1].body, LoopKind.THREAD))
    shared = [s.buffer for loop in blocks for s in loop.body if isinstance(s, Allocate)]
    grid = [loop.stop - loop.start for loop in reversed(blocks)]
    block = [loop.stop for loop in reversed(threads)]
    x, y, z, *_ = [*grid, 1, 1]
    i, j, k, *_ = [*(extent for extent in block if isinstance(extent, int)), 1, 1]
    bytes_ = shared_bytes(shared)
    return GpuKernel(
        name=re.sub(r"\W", "_", loops.name, flags=re.ASCII),
        loops=loops,
        grid=(x, y, z),
        block=(i, j, k),
        shared_bytes=bytes_,
        dynamic_bytes=bytes_ if bytes_ > target.static_shared_bytes else 0,
        scratch_bytes=scratch_bytes,
        scratch=offsets,
    )


def _nest(body: Iterable[Statement], kind: LoopKind) -> Iterator[For]:
    """The loops of a kind that are one inside the other."""
    for statement in body:
        if isinstance(statement, For) and statement.kind is kind:
            yield statement
            yield from _nest(statement.body, kind)
            return


# ---- memory


def _in_scratch(buffer: Buffer) -> Buffer:
    return replace(buffer, space=Space.ARGUMENT, alignment=SCRATCH_ALIGNMENT)


def _size(buffer: Buffer) -> Dim:
    size = product(buffer.shape) * buffer.dtype.bytes
    return floor_div(size + (SCRATCH_ALIGNMENT - 1), SCRATCH_ALIGNMENT) * SCRATCH_ALIGNMENT


def sum_of(dims: Iterable[Dim]) -> Dim:
    """The sum of dimensions."""
    total: Dim = 0
    for dim in dims:
        total = total + dim
    return total


def _bytes(buffers: Iterable[Buffer]) -> Dim:
    return sum_of(map(_size, buffers))


def _offsets(buffers: Sequence[Buffer], start: Dim = 0) -> list[Dim]:
    """Where each of the buffers begins in scratch memory."""
    return [start + _bytes(buffers[:number]) for number in range(len(buffers))]


def shared_bytes(buffers: Iterable[Buffer]) -> int:
    """The bytes of shared memory that buffers of static shape take together."""
    sizes = (math.prod(_static(buffer)) * buffer.dtype.bytes for buffer in buffers)
    return sum(-(-size // _SHARED_ALIGNMENT) * _SHARED_ALIGNMENT for size in sizes)


def _static(buffer: Buffer) -> tuple[int, ...]:
    return tuple(dim for dim in buffer.shape if isinstance(dim, int))


# ---- one launch


@dataclass(frozen=True, slots=True)
class _Mapped:
    """A nest of block and thread loops, and the scratch buffers that only it has."""

    grid: For
    scratch: tuple[Buffer, ...]


def _map_launch(
    function: LoopFunction, launch: Launch, common: Sequence[Buffer], target: GpuTarget
) -> _Mapped:
    placed = Rewriter(buffers={buffer.name: _as_it_is(buffer) for buffer in common})
    body = placed.block(launch.body)
    lets = tuple(Let(let.name, placed.expression(let.value)) for let in launch.lets)
    launch = Launch(lets, body)
    loop = launch.loop
    if loop is not None and loop.kind is LoopKind.BLOCK:
        return _Mapped(_with_lets(loop, launch.lets), ())
    inside = body if loop is None else loop.body
    vectors = [s for s in statements(inside) if isinstance(s, For) and s.kind is LoopKind.VECTOR]
    mapper = _BlockTasks if vectors else _ThreadTasks
    return mapper(function, launch, target, vectors).run()


def _as_it_is(buffer: Buffer) -> Callable[[tuple[Index, ...]], Access]:
    return lambda indices: (buffer, indices)


def _with_lets(loop: For, lets: Sequence[Statement]) -> For:
    """A nest of block and thread loops with statements at the start of what threads do."""
    if not lets:
        return loop
    inner = any(isinstance(s, For) and s.kind is LoopKind.THREAD for s in loop.body)
    if loop.kind is LoopKind.THREAD and not inner:
        return replace(loop, body=(*lets, *loop.body))
    nests = (LoopKind.BLOCK, LoopKind.THREAD)
    body = [_with_lets(s, lets) if isinstance(s, For) and s.kind in nests else s for s in loop.body]
    return replace(loop, body=tuple(body))


class _Tasks:
    """What both ways to map a loop over tasks have in common; without a loop there is one task."""

    def __init__(
        self, function: LoopFunction, launch: Launch, target: GpuTarget, vectors: Sequence[For]
    ) -> None:
        self.target, self.vectors = target, vectors
        self.lets, self.loop = launch.lets, launch.loop
        self.body = launch.body if self.loop is None else self.loop.body
        self.names = Names(function)
        self.thread = self.names.fresh("thread")
        self.locals = [
            s.buffer
            for s in statements(self.body)
            if isinstance(s, Allocate) and s.buffer.space is Space.LOCAL
        ]

    @property
    def tasks(self) -> Index:
        """How many tasks there are."""
        return 1 if self.loop is None else self.loop.stop - self.loop.start

    def thread_loop(self, count: int, body: Sequence[Statement]) -> For:
        """The loop around what a thread does."""
        return For(self.thread, 0, count, (*self.lets, *body), LoopKind.THREAD)


class _BlockTasks(_Tasks):
    """A task is a block."""

    def run(self) -> _Mapped:
        """The nest of loops."""
        block = self.names.fresh("block") if self.loop is None else self.loop.variable
        threads = self._threads()
        combiner = Combiner(self.target, self.thread, threads)
        variables: dict[str, Index] = {}
        if self.loop is not None and self.loop.start != 0:
            variables = {block: self.loop.start + variable(block)}
        ranges = {} if self.loop is None else _range_of(self.loop)
        body = Rewriter(ranges=ranges).block(self.body)
        rows = Rows(variable(self.thread), threads)
        rows.find(body, self.locals)
        self.locals = [each for each in self.locals if each.name not in rows.registers]
        shared, scratch, places = self._place_locals(block)
        body = Rewriter(variables, places).block(body)
        mapped = ThreadMapper(rows, combiner, self.names).block(body)
        if threads > 1:
            memory = BlockMemory(self.thread, threads, frozenset({block}), stored_buffers(mapped))
            mapped = BarrierInsertion(memory).run(mapped)
        mapped = lay_out_turns(mapped, self.thread, threads)
        shared += combiner.shared
        inside: tuple[Statement, ...] = (self.thread_loop(threads, mapped),)
        inside = (*(Allocate(buffer) for buffer in shared), *inside)
        return _Mapped(For(block, 0, self.tasks, inside, LoopKind.BLOCK), tuple(scratch))

    def _threads(self) -> int:
        """As many as the longest vector loop keeps busy, in whole warps; more than usual for long
        rows, of which a thread then has fewer elements."""
        most, warp = self.target.block_threads, self.target.warp
        extents = [largest_extent(loop) for loop in self.vectors]
        longest = max(most if extent is None else extent for extent in extents)
        rows = [largest_extent(loop) or 0 for loop in self.vectors if is_plain(loop)]
        row, limit = max(rows, default=0), self.target.max_threads // 2
        while row > _HELD * most and 2 * most <= limit:
            most *= 2
        return min(most, max(1, -(-longest // warp)) * warp)

    def _place_locals(
        self, block: str
    ) -> tuple[list[Buffer], list[Buffer], dict[str, Callable[[tuple[Index, ...]], Access]]]:
        """The local buffers in shared memory, those in scratch memory, and accesses to both."""
        static = all(len(_static(buffer)) == len(buffer.shape) for buffer in self.locals)
        if static and shared_bytes(self.locals) <= _SHARED_BUDGET:
            shared = [replace(buffer, space=Space.SHARED) for buffer in self.locals]
            return shared, [], {buffer.name: _as_it_is(buffer) for buffer in shared}
        count = to_dim(self.tasks)
        scratch = [_in_scratch(replace(b, shape=(count, *b.shape))) for b in self.locals]
        own = variable(block)
        return [], scratch, {buffer.name: _row_of(buffer, own) for buffer in scratch}


class _ThreadTasks(_Tasks):
    """A task is a thread; neighbouring threads have neighbouring elements of scratch memory."""

    def run(self) -> _Mapped:
        """The nest of loops."""
        block, threads = self.names.fresh("block"), self._threads()
        task = variable(block) * threads + variable(self.thread)
        variables: dict[str, Index] = {}
        given = self.body
        if self.loop is not None:
            variables = {self.loop.variable: self.loop.start + task}
            given = Rewriter(ranges=_range_of(self.loop)).block(given)
        count = to_dim(self.tasks)
        scratch = [_in_scratch(replace(b, shape=(*b.shape, count))) for b in self.locals]
        places = {buffer.name: _column_of(buffer, task) for buffer in scratch}
        body = _one_by_one(Rewriter(variables, places).block(given))
        tasks, blocks = self.tasks, index_quotient(self.tasks + (threads - 1), threads)
        if not (isinstance(tasks, int) and tasks % threads == 0):
            body = (If(compare("lt", task, tasks), body),)
        inside = (self.thread_loop(threads, body),)
        return _Mapped(For(block, 0, blocks, inside, LoopKind.BLOCK), tuple(scratch))

    def _threads(self) -> int:
        if self.loop is None:
            return 1
        most, warp = self.target.block_threads, self.target.warp
        if not isinstance(self.tasks, int):
            return most
        return min(most, max(1, -(-self.tasks // warp)) * warp)


def _row_of(buffer: Buffer, number: Index) -> Callable[[tuple[Index, ...]], Access]:
    return lambda indices: (buffer, (number, *indices))


def _column_of(buffer: Buffer, number: Index) -> Callable[[tuple[Index, ...]], Access]:
    return lambda indices: (buffer, (*indices, number))


def _range_of(loop: For) -> dict[str, tuple[int, int]]:
    """The least and greatest value of a loop's variable, where they are known."""
    if isinstance(loop.start, int) and isinstance(loop.stop, int):
        return {loop.variable: (loop.start, loop.stop - 1)}
    return {}


def _one_by_one(body: Iterable[Statement]) -> tuple[Statement, ...]:
    """The statements with tasks inside of them done one after the other."""
    return tuple(new for statement in body for new in _serial(statement))


def _serial(statement: Statement) -> Iterator[Statement]:
    match statement:
        case For(variable=name, start=start, stop=stop, body=body) if stop - start == 1:
            yield from _one_by_one(Rewriter({name: start}).block(body))
        case For(kind=kind, body=body):
            kind = LoopKind.SERIAL if kind is LoopKind.PARALLEL else kind
            yield replace(statement, kind=kind, body=_one_by_one(body))
        case If(condition, then, otherwise):
            yield If(condition, _one_by_one(then), _one_by_one(otherwise))
        case _:
            yield statement
