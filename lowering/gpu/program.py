"""A program for a GPU: its kernels as LLVM text, and the plan by which a host launches them.

The plan of a function is that of the CPU (`LoweredFunction`): steps on tensors in memory, in order.
A step that calls a kernel (`KernelCall`, by the name of its loops) is a sequence of launches,
`program.kernels[name]`, to be done one after the other.  The parameters of each are

1. a pointer to each buffer of the call: its operands and results (the `places` of the call) and,
   where the call is `checked`, an i32 that receives an error code if something is amiss;
2. the named sizes of the kernel, `loops.sizes`, as i64;
3. if `scratch_bytes` is not 0, a pointer to so much scratch memory, aligned to 256 bytes, which the
   launches of one call have in common and no others use meanwhile.

An operand that is a view of the whole of another tensor has its place; there are no strides.

On the simulated device a kernel is a function of the host,

    i32 NAME(ptr arguments, i64 grid_x, i64 grid_y, i64 grid_z)

which runs all blocks, one after another.  `arguments` is an array of the parameters, 8 bytes each.
It returns 0, or 1 if threads of a block ended while others of it waited at a barrier.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mapsto.ir.dims import Dim
from mapsto.lowering.assertions import Assertion
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.indices import Index, evaluate_index
from mapsto.lowering.loops import Buffer, LoopFunction
from mapsto.lowering.lowered import EntryPoint, LoweredFunction

__all__ = ["SCRATCH_ALIGNMENT", "GpuKernel", "GpuProgram"]

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
    def parameters(self) -> tuple[Buffer, ...]:
        """The buffers that are passed by pointer."""
        return self.loops.buffers[: len(self.loops.buffers) - len(self.scratch)]

    def grid_for(self, sizes: Mapping[str, int]) -> tuple[int, int, int]:
        """The number of blocks for these sizes; with a 0 among them there is nothing to launch."""
        values = {f"${name}": value for name, value in sizes.items()}
        x, y, z = (max(0, evaluate_index(extent, values)) for extent in self.grid)
        return x, y, z


@dataclass(frozen=True, slots=True, eq=False)
class GpuProgram:
    """LLVM text with the kernels of some functions, and what is needed to run these.

    `kernels` are by the name of the plan's kernel; `assertions` by the error code that a host gives
    to a step that asserts.
    """

    text: str
    target: GpuTarget
    functions: Mapping[str, LoweredFunction]
    kernels: Mapping[str, tuple[GpuKernel, ...]]
    assertions: Mapping[int, Assertion] = field(default_factory=dict)

    def entry(self, name: str) -> EntryPoint:
        """The interface of a function."""
        return self.functions[name].entry

    @property
    def launches(self) -> tuple[GpuKernel, ...]:
        """All kernels, in the order in which they are written."""
        return tuple(kernel for each in self.kernels.values() for kernel in each)
