"""The register tile of a contraction: sums of some rows and vectors of columns, made at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapsto.ir.types import DType
from mapsto.lowering.contraction_sides import Columns, Lane
from mapsto.lowering.contraction_steps import KRange, Step, Steps
from mapsto.lowering.cpu.tiles import Tile
from mapsto.lowering.indices import Index, variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Expression,
    For,
    LoopKind,
    Space,
    Statement,
    cast,
    constant,
    fma,
)

__all__ = ["RegisterTile"]


def _nothing(step: Step) -> Sequence[Statement]:
    return ()


@dataclass(frozen=True, slots=True)
class RegisterTile:
    """The tile, the columns that it is cut from, the steps of the reduction, and the type of the
    sums."""

    tile: Tile
    columns: Columns
    steps: Steps
    dtype: DType

    @property
    def accumulators(self) -> Buffer:
        """The sums under way."""
        return Buffer("acc", self.dtype, (self.tile.rows, self.tile.columns), Space.REGISTER)

    def start(self, value: Callable[[Index, Index], Expression]) -> Statement:
        """Sets the sums to values by their row and column."""
        return self._each(lambda i, j: self.accumulators.store((i, j), value(i, j)))

    def clear(self) -> Statement:
        """Sets the sums to zero."""
        return self.start(lambda i, j: constant(0, self.dtype))

    def keep(self, buffer: Buffer, slots: tuple[Index, ...], first: Index = 0) -> Statement:
        """Stores the sums in a buffer's slots, whose columns begin at `first`."""
        acc = self.accumulators
        return self._each(lambda i, j: buffer.store((*slots, i, first + j), acc[i, j]))

    def _each(self, body: Callable[[Index, Index], Statement]) -> Statement:
        """The body for each row and column of the tile, laid out flat."""

        def rows(lane: Lane) -> Statement:
            statement = body(variable("i"), lane.column(self.tile))
            return For("i", 0, self.tile.rows, (statement,), LoopKind.UNROLL)

        return self.columns.vectors(rows)

    def multiply(
        self,
        part: KRange,
        row: Callable[[Step], Expression],
        column: Callable[[Lane, Step], Expression],
        between: Callable[[Step], Sequence[Statement]] = _nothing,
    ) -> Statement:
        """Adds a part of the reduction to the sums.  For each step the column vectors, then row
        after row, so that one broadcast element at a time occupies a register; `row` gives that of
        row `i` of the tile, and what is done `between` the two."""
        acc, i = self.accumulators, variable("i")
        columns = Buffer("column", self.dtype, (self.tile.columns,), Space.REGISTER)

        def step(at: Step) -> list[Statement]:
            def load(lane: Lane) -> Statement:
                element = cast(column(lane, at), self.dtype)
                return columns.store((lane.column(self.tile),), element)

            def add(lane: Lane) -> Statement:
                j = lane.column(self.tile)
                element = cast(row(at), self.dtype)
                return acc.store((i, j), fma(element, columns[j], acc[i, j]))

            rows = For("i", 0, self.tile.rows, (self.columns.vectors(add),), LoopKind.UNROLL)
            return [Allocate(columns), self.columns.vectors(load), *between(at), rows]

        return self.steps.loops(part, step)
