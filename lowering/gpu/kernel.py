"""A kernel that is mapped to blocks and threads: one launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mapsto.ir.dims import Dim
from mapsto.lowering.indices import Index, evaluate_index
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Allocate, Buffer, LoopFunction, Space

__all__ = ["SCRATCH_ALIGNMENT", "GpuKernel"]

SCRATCH_ALIGNMENT = 256
"""Bytes to which scratch memory, and each buffer in it, is aligned."""


@dataclass(frozen=True, slots=True)
class GpuKernel:
    """One launch.

    `loops` is mapped to blocks and threads; its last buffers are in scratch memory, at the offsets
    `scratch`, in bytes, and the others are parameters.  `grid` is the number of blocks along x, y
    and z, over the named sizes (`$n`); `block` that of threads.  `shared_bytes` are declared in the
    code but for `dynamic_bytes` of them, which the launch has to provide.
    """

    name: str
    loops: LoopFunction
    grid: tuple[Index, Index, Index]
    block: tuple[int, int, int]
    shared_bytes: int = 0
    dynamic_bytes: int = 0
    scratch_bytes: Dim = 0
    scratch: tuple[Dim, ...] = ()

    @property
    def threads(self) -> int:
        """How many threads a block has."""
        x, y, z = self.block
        return x * y * z

    @property
    def shared(self) -> tuple[Buffer, ...]:
        """The buffers in shared memory."""
        declared = (s.buffer for s in statements(self.loops.body) if isinstance(s, Allocate))
        return tuple(buffer for buffer in declared if buffer.space is Space.SHARED)

    @property
    def parameters(self) -> tuple[Buffer, ...]:
        """The buffers that are passed by pointer."""
        return self.loops.buffers[: len(self.loops.buffers) - len(self.scratch)]

    def grid_for(self, sizes: Mapping[str, int]) -> tuple[int, int, int]:
        """The number of blocks for these sizes; with a 0 among them there is nothing to launch."""
        values = {f"${name}": value for name, value in sizes.items()}
        x, y, z = (max(0, evaluate_index(extent, values)) for extent in self.grid)
        return x, y, z
