"""What a schedule needs to know of a contraction of two operands.

The dimensions of the iteration domain are sorted by where they appear:

- `batch`: in the result and in both operands;
- `rows`: in the result and in one operand, whose elements are broadcast;
- `columns`: in the result and in the other operand, which is read in vectors; the result's last
  dimension is one of these, so that results are stored in vectors as well;
- `reduced`: summed over.

Each group is handled as one flat index: `rows` of extents (n, h) are n*h rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Protocol

from mapsto.ir.dims import Dim, product
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.types import DType
from mapsto.lowering.indices import Index, split_offset
from mapsto.lowering.loops import Expression, Statement

__all__ = [
    "LEAST_TOGETHER",
    "ContractionProblem",
    "Group",
    "OperandAccess",
    "Sides",
    "analyze",
    "sort_dimensions",
]

LEAST_TOGETHER = 4
"""Fewer rows are not worth the shuffles that bring them together."""


@dataclass(frozen=True, slots=True)
class Group:
    """Dimensions of the iteration domain that a schedule treats as one, the last fastest."""

    dims: tuple[int, ...]
    extents: tuple[Dim, ...]

    @property
    def size(self) -> Dim:
        """The number of flat positions."""
        return product(self.extents)

    def split(self, flat: Index, lane: Index = 0) -> dict[int, Index]:
        """The index of each dimension at a flat position, and `lane` further on in the last."""
        place = dict(zip(self.dims, split_offset(flat, self.extents), strict=True))
        if self.dims and lane != 0:
            place[self.dims[-1]] += lane
        return place

    def last(self, count: int) -> Group:
        """So many of the last dimensions."""
        first = len(self.dims) - count
        return Group(self.dims[first:], self.extents[first:])

    def first(self, count: int) -> Group:
        """So many of the first dimensions."""
        return Group(self.dims[:count], self.extents[:count])


class OperandAccess(Protocol):
    """How the kernel around a contraction reads operands and uses results; these one by one, or
    those of so many `blocks` of columns together (`ir/epilogue.py`)."""

    blocks: int

    def read(
        self, operand: int, indices: Sequence[Index], guard: Expression | None = None
    ) -> Expression:
        """The operand's factor at a point of the iteration domain, zero outside the tensor and
        where the guard is false."""

    def element(
        self, operand: int, place: Sequence[Index], inside: Expression | None = None
    ) -> Expression:
        """The operand's element at a place of the tensor, zero where `inside` does not hold."""

    def is_direct(self, operand: int) -> bool:
        """Whether reading is a plain load from memory, without computation or bounds checks."""

    def store(
        self, indices: Sequence[Index], value: Expression, guard: Expression | None
    ) -> Sequence[Statement]:
        """What is done with the result at an index of the result."""

    def store_blocks(
        self, indices: Sequence[Index], values: Sequence[Expression]
    ) -> Sequence[Statement]:
        """What is done with the results at an index of the first block, and of each other one."""


@dataclass(frozen=True, slots=True)
class ContractionProblem:
    """A contraction with its dimensions sorted; `row_operand` is 0 or 1."""

    op: Contract
    access: OperandAccess
    batch: Group
    rows: Group
    columns: Group
    reduced: Group
    row_operand: int
    at: Mapping[int, Index] = field(default_factory=dict)
    """The indices of dimensions that are fixed, and are in no group."""

    @property
    def dtype(self) -> DType:
        """The element type of operands and result."""
        return self.op.operands[0].dtype

    def read(
        self, operand: int, point: Mapping[int, Index], guard: Expression | None = None
    ) -> Expression:
        """The operand's factor at a point; dimensions that it does not depend on may be missing."""
        whole = {**self.at, **point}
        indices = [whole.get(d, 0) for d in range(len(self.op.extents))]
        return self.access.read(operand, indices, guard)

    def store(self, point: Mapping[int, Index], value: Expression) -> Sequence[Statement]:
        """What is done with the result at the indices of its dimensions."""
        return self.access.store(self._result_indices(point), value, None)

    def store_blocks(
        self, point: Mapping[int, Index], values: Sequence[Expression]
    ) -> Sequence[Statement]:
        """What is done with the results at these indices of each block of columns."""
        return self.access.store_blocks(self._result_indices(point), values)

    def _result_indices(self, point: Mapping[int, Index]) -> list[Index]:
        whole = {**self.at, **point}
        return [whole[d] for d in range(self.op.rank)]

    def of_batch(self, number: Index) -> ContractionProblem:
        """The contraction of one batch alone."""
        return replace(self, batch=Group((), ()), at=self.batch.split(number))

    @property
    def rows_together(self) -> Group | None:
        """The last dimensions of rows where they are the last ones of the result, so that these
        rows are neighbours there; None where they are few, or not known how many."""
        wide = [dim for dim in range(self.op.rank) if self.op.extents[dim] != 1]
        pairs = zip(reversed(self.rows.dims), reversed(wide), strict=False)
        count = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        group = self.rows.last(count)
        return group if isinstance(group.size, int) and group.size >= LEAST_TOGETHER else None

    def contiguous_in(self, operand: int, group: Group) -> bool:
        """Whether neighbours along the group's last dimension are neighbours in memory."""
        map_ = self.op.maps[operand]
        if not group.dims or not map_.results:
            return False
        last = group.dims[-1]
        others = [expr for expr in map_.results[:-1] if expr.coefficients[last] != 0]
        return map_.results[-1].coefficients[last] == 1 and not others

    def contiguous_dims(self, operand: int, group: Group) -> int:
        """How many of the group's last dimensions are one run of neighbours in memory."""
        map_, shape = self.op.maps[operand], self.op.operands[operand].shape
        pairs = zip(reversed(group.dims), reversed(group.extents), strict=True)
        for count, (dim, extent) in enumerate(pairs):
            axis = len(map_.results) - 1 - count
            axes = [i for i, expr in enumerate(map_.results) if expr.coefficients[dim] != 0]
            if axes != [axis] or map_.results[axis].coefficients[dim] != 1:
                return count
            if map_.results[axis].single != dim or shape[axis] != extent:
                return count + 1
        return len(group.dims)


@dataclass(frozen=True, slots=True)
class Sides:
    """The dimensions of a contraction, sorted; `row_operand` is 0 or 1."""

    batch: Group
    rows: Group
    columns: Group
    reduced: Group
    row_operand: int

    def problem(self, op: Contract, access: OperandAccess) -> ContractionProblem:
        """The contraction with these sides."""
        return ContractionProblem(
            op, access, self.batch, self.rows, self.columns, self.reduced, self.row_operand
        )


def analyze(
    op: Contract, access: OperandAccess, swapped: bool = False
) -> ContractionProblem | None:
    """A contraction with its dimensions sorted; None for what has none of that form."""
    sides = sort_dimensions(op, swapped)
    return None if sides is None else sides.problem(op, access)


def sort_dimensions(op: Contract, swapped: bool = False) -> Sides | None:
    """Sorts the dimensions of a sum of products of two; None for what is not of that form.

    `swapped`: with rows as columns, so that results are stored across vectors; None where there
    are no rows.
    """
    if op.kind != "sum" or len(op.operands) != 2 or not op.reduced or op.rank == 0:
        return None
    if not op.attributes["reassociate"]:
        return None
    first, second = (map_.dims for map_ in op.maps)
    # Dimensions of one position, as the phases of a stride, are neither rows nor columns.
    last = max((d for d in range(op.rank) if op.extents[d] != 1), default=op.rank - 1)
    if (last in first) == (last in second):
        return None
    broadcast = 0 if last in second else 1
    row_operand = 1 - broadcast if swapped else broadcast
    row_dims, column_dims = (first, second) if row_operand == 0 else (second, first)
    units = {d for d in range(op.rank) if op.extents[d] == 1} - row_dims - column_dims
    batch = [d for d in range(op.rank) if d in units or (d in row_dims and d in column_dims)]
    rows = [d for d in range(op.rank) if d in row_dims and d not in column_dims]
    columns = [d for d in range(op.rank) if d in column_dims and d not in row_dims]
    if len(batch) + len(rows) + len(columns) != op.rank or not columns:
        return None
    # The order of the sum is the same whichever way round: which one is better may depend on sizes
    # that another program for the same operands does not know.
    reduced = _reduction_order(op, broadcast)
    return Sides(
        _group(op, batch), _group(op, rows), _group(op, columns), _group(op, reduced), row_operand
    )


def _reduction_order(op: Contract, row_operand: int) -> list[int]:
    """The reduced dimensions, those that are contiguous in the row operand innermost."""
    results = op.maps[row_operand].results

    def position(dim: int) -> int:
        axes = [i for i, expr in enumerate(results) if expr.coefficients[dim] != 0]
        return axes[-1] if axes else -1

    return sorted(op.reduced, key=position)


def _group(op: Contract, dims: Sequence[int]) -> Group:
    kept = [d for d in dims if op.extents[d] != 1] or list(dims[:1])
    ones = [d for d in dims if d not in kept]
    ordered = [*ones, *kept]
    return Group(tuple(ordered), tuple(op.extents[d] for d in ordered))
