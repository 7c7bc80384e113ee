"""Checks that a mapped kernel can run on its target.  The rules, each with a test:

1. The body is a nest of block loops, at most three, around shared buffers and thread loops, at most
   three of static extent that start at 0, which hold everything else.
2. A block has no more threads and shared memory than the target's have, and only that: arguments,
   shared buffers and registers.
3. Barriers and what else threads do together are not where only some threads may come.

Whether threads race cannot always be decided from indices: `unproven_races` lists the accesses of
which it was not found out that they do not.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.lowering.gpu.accesses import Access, BlockMemory
from mapsto.lowering.gpu.barriers import RaceSearch
from mapsto.lowering.gpu.divergence import divergent_meetings
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.loop_printer import expression_text
from mapsto.lowering.loop_verifier import InvalidLoop, verify_loops
from mapsto.lowering.loop_walk import statements, stored_buffers
from mapsto.lowering.loops import Allocate, For, Load, LoopKind, Space, Statement

__all__ = ["unproven_races", "verify_kernel"]

_MOST_AXES = 3


def verify_kernel(kernel: GpuKernel, target: GpuTarget) -> None:
    """Raise InvalidLoop if a kernel breaks one of the rules above, or one of those of loops."""
    verify_loops(kernel.loops)
    blocks, _ = _nest(kernel)
    _check_memory(kernel, target)
    met = divergent_meetings((blocks[0],), kernel.threads, target.warp)
    if met:
        raise InvalidLoop(f"`{kernel.name}`: {_name(met[0])} where only some threads may come")


def unproven_races(kernel: GpuKernel) -> list[str]:
    """Pairs of accesses, as text, that threads of a block may make to one element between two
    barriers, one of them writing."""
    blocks, threads = _nest(kernel)
    if kernel.threads == 1:
        return []
    stable = frozenset(loop.variable for loop in blocks)
    written = stored_buffers(kernel.loops.body)
    memory = BlockMemory(threads[-1].variable, kernel.block[0], stable, written)
    search = RaceSearch(memory)
    search.run(threads[-1].body)
    return [f"{_text(first)}, {_text(second)}" for first, second in search.found]


def _text(access: Access) -> str:
    element = expression_text(Load(access.buffer, access.indices))
    return f"{element} {'written' if access.writes else 'read'}"


def _name(statement: Statement) -> str:
    return f"a {type(statement).__name__.lower()}"


def _nest(kernel: GpuKernel) -> tuple[list[For], list[For]]:
    """The loops over blocks and those over threads, the outermost first."""
    loops: list[For] = []
    body: Sequence[Statement] = kernel.loops.body
    while True:
        rest = [s for s in body if not _is_shared(s)]
        inner = rest[0] if len(rest) == 1 and isinstance(rest[0], For) else None
        kinds = (LoopKind.BLOCK, LoopKind.THREAD)
        if inner is None or inner.kind not in kinds:
            break
        loops.append(inner)
        body = inner.body
    blocks = [loop for loop in loops if loop.kind is LoopKind.BLOCK]
    threads = [loop for loop in loops if loop.kind is LoopKind.THREAD]
    nested = loops == [*blocks, *threads] and blocks and threads
    if not nested or max(len(blocks), len(threads)) > _MOST_AXES:
        raise InvalidLoop(f"`{kernel.name}` is not a nest of block loops and thread loops")
    for loop in threads:
        if loop.start != 0 or not isinstance(loop.stop, int):
            raise InvalidLoop(f"the thread loop `{loop.variable}` has no static extent")
    return blocks, threads


def _is_shared(statement: Statement) -> bool:
    return isinstance(statement, Allocate) and statement.buffer.space is Space.SHARED


def _check_memory(kernel: GpuKernel, target: GpuTarget) -> None:
    for statement in statements(kernel.loops.body):
        if isinstance(statement, Allocate) and statement.buffer.space is Space.LOCAL:
            raise InvalidLoop(f"`{statement.buffer.name}` has no place in the memory of a GPU")
    if kernel.threads > target.max_threads:
        limit = f"{target.name} allows {target.max_threads}"
        raise InvalidLoop(f"`{kernel.name}` has blocks of {kernel.threads} threads; {limit}")
    if kernel.shared_bytes > target.max_shared_bytes:
        limit = f"{target.name} has {target.max_shared_bytes}"
        raise InvalidLoop(
            f"`{kernel.name}` takes {kernel.shared_bytes} bytes of shared memory; {limit}"
        )
