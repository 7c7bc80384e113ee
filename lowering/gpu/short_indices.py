"""Which kernels have indices of 32 bits.

Most registers of a GPU are 32 bits wide, and a multiplication of 64 bits takes several
instructions, a division dozens.  Indices are short where all sizes are known and nothing comes near
to what 32 bits hold; addresses have 64 bits always.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from mapsto.ir.dims import Dim
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.indices import Index, ValueOf, atoms
from mapsto.lowering.loop_walk import indices_of
from mapsto.lowering.loops import Load, Space

__all__ = ["has_short_indices"]

MOST_ELEMENTS = 1 << 29
"""Of a buffer, and threads of a launch: tiles at the end may reach beyond, but not four times."""


def has_short_indices(kernel: GpuKernel) -> bool:
    """Whether 32 bits hold every index of a kernel."""
    shapes = [buffer.shape for buffer in kernel.loops.buffers]
    counts = [_product(shape) for shape in (*shapes, (*kernel.grid, kernel.threads))]
    if kernel.loops.sizes or any(count is None or count >= MOST_ELEMENTS for count in counts):
        return False
    return all(_is_bounded(index) for index in indices_of(kernel.loops.body))


def _product(extents: Sequence[Dim | Index]) -> int | None:
    known = [extent for extent in extents if isinstance(extent, int)]
    return prod(known) if len(known) == len(extents) else None


def _is_bounded(index: Index) -> bool:
    """Whether an index has no value of a tensor in it, which may be any number; what a register
    has is the kernel's own."""
    values = (atom.expression for atom in atoms(index) if isinstance(atom, ValueOf))
    return all(
        isinstance(value, Load) and value.buffer.space is Space.REGISTER and not value.indices
        for value in values
    )
