"""The sides of weighted sums on a CPU, and the memory of a task."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.dims import Dim
from mapsto.ir.types import DType
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.contraction_sides import PADDING, Columns, Rows
from mapsto.lowering.contraction_steps import Steps
from mapsto.lowering.cpu.tiles import Tile
from mapsto.lowering.loops import Buffer, Space
from mapsto.lowering.weighted_problem import WeightedProblem

__all__ = ["WeightedLayout", "WeightedTiles"]


@dataclass(frozen=True, slots=True)
class WeightedTiles:
    """The register tiles of both products, with the same rows; a task has `slivers` tiles of rows,
    and a part of the keys is `panels` tiles."""

    fits: Tile
    values: Tile
    slivers: int
    panels: int

    @property
    def part(self) -> int:
        """The keys of a part."""
        return self.panels * self.fits.columns


@dataclass(frozen=True, slots=True)
class WeightedLayout:
    """The sides of both products as the tiles lay them out, and what a task keeps of its rows."""

    problem: WeightedProblem
    tiles: WeightedTiles

    @property
    def batches(self) -> Dim:
        """How many there are of rows that have the same keys."""
        return self.problem.fits.batch.size

    @property
    def dtype(self) -> DType:
        """The type of all elements."""
        return self.problem.fits.dtype

    @property
    def rows(self) -> Rows:
        """The rows of the first product."""
        fits = self.problem.fits
        return Rows(
            "rows",
            fits.rows,
            fits.batch,
            Steps(fits.reduced, 0),
            lambda point: fits.read(fits.row_operand, point),
            self.tiles.fits,
            packed=True,
            k_inner=fits.contiguous_in(fits.row_operand, fits.reduced),
        )

    @property
    def keys(self) -> Columns:
        """The columns of the first product."""
        return _columns("keys", self.problem.fits, self.tiles.fits)

    @property
    def values(self) -> Columns:
        """The columns of the second product."""
        return _columns("values", self.problem.values, self.tiles.values)

    def whole(self, side: Columns) -> Buffer:
        """All of a side, packed."""
        return side.buffer(self.batches * side.tiles, side.depth)

    @property
    def count(self) -> int:
        """The number of keys."""
        keys = self.problem.fits.columns.size
        assert isinstance(keys, int), "the schedule takes known numbers of keys"
        return keys

    # ---- what a task keeps of its rows

    @property
    def packed_rows(self) -> Buffer:
        """The rows, packed."""
        return self.rows.buffer(self.tiles.slivers, self.rows.depth)

    @property
    def weights(self) -> Buffer:
        """Scores, then weights, of a part of the keys."""
        # A row stride that is a large power of two would map all rows to the same cache sets.
        shape = self.tiles.slivers, self.tiles.fits.rows, self.tiles.part + PADDING
        return Buffer("weights", self.dtype, shape, Space.LOCAL)

    @property
    def sums(self) -> Buffer:
        """The weighted sums of the parts so far."""
        tile = self.tiles.values
        shape = self.tiles.slivers, self.values.tiles, tile.rows, tile.columns
        return Buffer("sums", self.dtype, shape, Space.LOCAL)

    def of_rows(self, name: str) -> Buffer:
        """A number of each row."""
        shape = self.tiles.slivers, self.tiles.fits.rows
        return Buffer(name, self.dtype, shape, Space.LOCAL)


def _columns(name: str, problem: ContractionProblem, tile: Tile) -> Columns:
    operand = 1 - problem.row_operand
    across = problem.contiguous_in(operand, problem.columns)
    return Columns(
        name,
        problem.columns,
        problem.batch,
        Steps(problem.reduced, 0),
        lambda point: problem.read(operand, point),
        tile,
        packed=True,
        k_run=0 if across else problem.contiguous_dims(operand, problem.reduced),
    )
