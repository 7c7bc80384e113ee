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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mapsto.ir.core import Module
from mapsto.lowering.assertions import Assertion
from mapsto.lowering.driver import KernelTable, lower_function
from mapsto.lowering.gpu.assembly import assemble_text
from mapsto.lowering.gpu.dialect import check_intrinsics
from mapsto.lowering.gpu.emitter import emit_kernel, new_module
from mapsto.lowering.gpu.kernel import SCRATCH_ALIGNMENT, GpuKernel
from mapsto.lowering.gpu.mapping import map_kernel
from mapsto.lowering.gpu.scheduling import gpu_scheduling
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.verifier import verify_kernel
from mapsto.lowering.lowered import EntryPoint, LoweredFunction
from mapsto.lowering.scheduling import Scheduling

__all__ = ["SCRATCH_ALIGNMENT", "GpuKernel", "GpuProgram", "assemble", "lower_gpu"]


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


def lower_gpu(
    module: Module,
    names: str | Sequence[str],
    target: GpuTarget,
    scheduling: Scheduling | None = None,
) -> GpuProgram:
    """The kernels of the named functions of a module, whose sizes should be static; `scheduling`
    instead of the target's own is for measurements.

    Raises VerifyError where an op should have been expanded by a pass before, MissingLowering for
    ops that have no lowering, ValueError for what the target cannot do.
    """
    chosen = [names] if isinstance(names, str) else list(names)
    table = KernelTable(scheduling or gpu_scheduling(target))
    functions = {name: lower_function(module[name], table) for name in chosen}
    kernels = {loops.name: map_kernel(loops, target) for loops in table.written.values()}
    writer = new_module(target)
    for launches in kernels.values():
        for kernel in launches:
            verify_kernel(kernel, target)
            emit_kernel(writer, kernel, target)
    text = str(writer)
    check_intrinsics(text, target.dialect)
    return GpuProgram(text, target, functions, kernels)


def assemble(program: GpuProgram) -> bytes:
    """What a device loads: PTX text, a SPIR-V module, or an object file of this machine."""
    return assemble_text(program.text, program.target)
