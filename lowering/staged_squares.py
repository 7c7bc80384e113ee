"""Elementwise kernels that read across memory, where the threads of a block have memory in common.

A transposition reads along one index and writes along another.  A task has a square of both; its
lanes read the square along memory into a buffer, then go over it the other way round and write
along memory as well (Ruetsch and Micikevicius, "Optimizing Matrix Transpose in CUDA", 2009):

    for square, a task:
      buffer[32, 32 + 1]                     a row more than needed: columns are in different banks
      for 32 x 32 lanes (row, lane):  buffer[row, lane] = x[last + row, across + lane]
      for 32 x 32 lanes (row, lane):  y[across + row, last + lane] = f(buffer[lane, row])
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

from mapsto.ir.core import Value
from mapsto.ir.dataflow import Place
from mapsto.ir.dims import ceil_div, product
from mapsto.ir.stages import Stage, estimate
from mapsto.lowering.affine_indices import affine_index
from mapsto.lowering.indexed import Indices
from mapsto.lowering.indices import Index, from_dim, split_offset, variable
from mapsto.lowering.kernel_space import OuterGroup, reads_across
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Expression,
    If,
    LoopKind,
    Space,
    Store,
    all_of,
    compare,
)
from mapsto.lowering.row_passes import RowPasses

__all__ = ["StagedSquares"]

SIDE = 32
"""Rows and columns of a square: a warp of lanes each."""
LEAST = SIDE // 2
"""Squares along an index of fewer would be mostly empty."""
MOST_BYTES = 8
"""Bytes of an element of all squares together: a block has room for two of words."""
_ELEMENT = "element"
_WORD = 4
"""Bytes of a bank of memory."""


@dataclass(frozen=True, slots=True)
class StagedSquares:
    """The tasks of a kernel that is plain, with squares along `across` and its last group."""

    kernel: RowPasses
    across: OuterGroup

    @property
    def last(self) -> OuterGroup:
        """The group along which is written."""
        return self.kernel.space.groups[-1]

    @property
    def staged(self) -> Sequence[tuple[Value, Stage, Place]]:
        """What is read along the first of both groups, as far as there is room."""
        if any(estimate((group.extent,)) < LEAST for group in (self.across, self.last)):
            return ()
        found = reads_across(self.kernel.space, self.across)
        ends = accumulate(value.dtype.bytes for value, _, _ in found)
        return [read for read, end in zip(found, ends, strict=True) if end <= MOST_BYTES]

    def write(self) -> None:
        """Emits the tasks."""
        others = [g for g in self.kernel.space.groups if g not in (self.across, self.last)]
        counts = [ceil_div(group.extent, SIDE) for group in (self.across, self.last)]
        shape = (*(group.extent for group in others), *counts)
        with self.kernel.loop("square_task", 0, from_dim(product(shape)), LoopKind.PARALLEL):
            *indices, down, along = split_offset(variable("square_task"), shape)
            for group, index in zip(others, indices, strict=True):
                self.kernel.define(group, index)
            buffers = [self._buffer(value) for value, _, _ in self.staged]
            self._read(down * SIDE, along * SIDE, buffers)
            self._write(down * SIDE, along * SIDE, buffers)

    def _buffer(self, value: Value) -> Buffer:
        emitter, padding = self.kernel.emitter, max(1, _WORD // value.dtype.bytes)
        shape = SIDE, SIDE + padding
        buffer = Buffer(emitter.fresh("square"), value.dtype, shape, Space.LOCAL)
        emitter.append(Allocate(emitter.declare(buffer)))
        return buffer

    def _read(self, across: Index, last: Index, buffers: Sequence[Buffer]) -> None:
        with self._lanes() as (row, lane), self._inside(across + lane, last + row):
            for buffer, (value, at) in zip(buffers, self._elements(), strict=True):
                element = self.kernel.emitter.element(value, at)
                self.kernel.emitter.append(Store(buffer, (row, lane), element))

    def _write(self, across: Index, last: Index, buffers: Sequence[Buffer]) -> None:
        with self._lanes() as (row, lane), self._inside(across + row, last + lane):
            for buffer, (value, at) in zip(buffers, self._elements(), strict=True):
                self.kernel.emitter.know(value, at, buffer[lane, row])
            self.kernel.run_passes()

    def _elements(self) -> Iterator[tuple[Value, Indices]]:
        """What is staged, with the indices of the element that the lane needs."""
        for value, stage, place in self.staged:
            point = self.kernel.point(stage, ())
            yield value, tuple(affine_index(expr, point) for expr in place if expr is not None)

    @contextmanager
    def _lanes(self) -> Iterator[tuple[Index, Index]]:
        element = variable(_ELEMENT)
        with self.kernel.loop(_ELEMENT, 0, SIDE * SIDE, LoopKind.VECTOR):
            yield element // SIDE, element % SIDE

    @contextmanager
    def _inside(self, across: Index, last: Index) -> Iterator[None]:
        """What is done where there are such indices."""
        groups: Mapping[OuterGroup, Index] = {self.across: across, self.last: last}
        conditions: list[Expression | None] = []
        for group, index in groups.items():
            self.kernel.define(group, index)
            whole = isinstance(group.extent, int) and group.extent % SIDE == 0
            conditions.append(None if whole else compare("lt", index, from_dim(group.extent)))
        condition = all_of(*conditions)
        if condition is None:
            yield
            return
        # What depends on the lane is read inside of the condition.
        with self.kernel.emitter.scope(_ELEMENT) as statements:
            yield
        self.kernel.emitter.append(If(condition, tuple(statements)))
