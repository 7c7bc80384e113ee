"""Which kernels have indices of 32 bits.

Most registers of a GPU are 32 bits wide, and a multiplication of 64 bits takes several
instructions, a division dozens.  Indices are short where all sizes are known and nothing comes near
to what 32 bits hold; addresses have 64 bits always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from mapsto.ir.dims import Dim
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.indices import Composite, Index, ValueOf, atoms, index_terms
from mapsto.lowering.loop_walk import indices_of, statements
from mapsto.lowering.loops import For, Load, Space, Statement

__all__ = ["has_short_indices"]

MOST_ELEMENTS = 1 << 29
"""Of a buffer, and threads of a launch: tiles at the end may reach beyond, but not four times."""
MOST = (1 << 31) - 1


def has_short_indices(kernel: GpuKernel) -> bool:
    """Whether 32 bits hold every index of a kernel, those that a guard finds outside included."""
    shapes = [buffer.shape for buffer in kernel.loops.buffers]
    counts = [_product(shape) for shape in (*shapes, (*kernel.grid, kernel.threads))]
    if kernel.loops.sizes or any(count is None or count >= MOST_ELEMENTS for count in counts):
        return False
    every = list(indices_of(kernel.loops.body))
    if not all(map(_is_bounded, every)):
        return False
    greatest = _greatest(kernel.loops.body)
    return all(_magnitude(index, greatest) <= MOST for index in every)


def _greatest(body: Sequence[Statement]) -> dict[str, int]:
    """How far from zero each loop variable goes at most; those of the same name together."""
    loops = [s for s in statements(body) if isinstance(s, For)]
    found: dict[str, int] = {}
    for _ in loops:
        before = dict(found)
        for loop in loops:
            ends = [_magnitude(index, found) for index in (loop.start, loop.stop)]
            found[loop.variable] = min(MOST + 1, max(found.get(loop.variable, 0), *ends))
        if found == before:
            break
    return found


def _magnitude(index: Index, greatest: Mapping[str, int]) -> int:
    """No less than any number on the way to an index is far from zero."""
    total = 0
    for monomial, coefficient in index_terms(index):
        # A register holds a number or a flag of the schedule, by which others are taken or not.
        known = [atom for atom in monomial if not isinstance(atom, ValueOf)]
        total += abs(coefficient) * prod(_of_atom(atom, greatest) for atom in known)
    return total


def _of_atom(atom: str | Composite, greatest: Mapping[str, int]) -> int:
    if isinstance(atom, str):
        return greatest.get(atom, MOST + 1)
    sides = _magnitude(atom.left, greatest), _magnitude(atom.right, greatest)
    if max(sides) > MOST or not isinstance(atom.right, int) or atom.right <= 0:
        return max(sides)
    if atom.kind == "floordiv":
        return -(-sides[0] // atom.right)
    return atom.right - 1 if atom.kind == "mod" else max(sides)


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
