"""How the results of a tile are handed on to what is fused behind a contraction.

In vectors of columns, as they are summed up.  Where neighbours in memory are rows, as those of a
convolution whose rows are the pixels of an image, each of these would be stored element by element:

    for i of the tile:                           for 8 columns:
        for 16 columns:                              for i of the tile, laid out:
            y[column, pixel + i] = total     =>          y[column, pixel + i] = total

What is inside the loop over columns is transposed in registers (`llvm/loop_transpose.py`), and the
rows of a tile are stored in one go.  Not those of a tile that is not full, or goes from one image
to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mapsto.lowering import indices
from mapsto.lowering.contraction_places import Place, TileValues
from mapsto.lowering.contraction_problem import LEAST_TOGETHER, ContractionProblem, Group
from mapsto.lowering.contraction_sides import Columns, Lane, Point, Rows
from mapsto.lowering.indices import variable
from mapsto.lowering.loops import (
    Expression,
    For,
    If,
    LoopKind,
    Statement,
    all_of,
    cast,
    compare,
)

__all__ = ["Results"]

SHORT_REDUCTION = 32
"""Steps up to which results are handed on from registers, row by row, without a loop."""


@dataclass(frozen=True, slots=True)
class Results:
    """The results of tiles of these rows and columns."""

    problem: ContractionProblem
    rows: Rows
    columns: Columns

    def of(self, place: Place, values: Sequence[TileValues]) -> list[Statement]:
        """Hands on those of a tile, of each block of columns."""
        single = self._one_by_one(place, values)
        together = self._together if len(values) == 1 else None
        if together is None:
            return single
        nest = self._stored_together(place, values, together)
        condition = all_of(*self._conditions(place, together))
        return nest if condition is None else [If(condition, tuple(nest), tuple(single))]

    def _one_by_one(self, place: Place, values: Sequence[TileValues]) -> list[Statement]:
        """Row after row, in vectors of columns."""
        filled = self.rows.filled(place.row_tile)
        short = isinstance(filled, int) and self._is_short
        kind = LoopKind.UNROLL if short else LoopKind.SERIAL
        row = self.rows.points(place.row_tile, variable("i"))
        return self.columns.results(
            place.column_tile,
            self._store(place, values, row),
            lambda columns: For("i", 0, filled, (columns,), kind),
        )

    def _store(
        self, place: Place, values: Sequence[TileValues], row: Point
    ) -> Callable[[Lane, Point], Sequence[Statement]]:
        """What is done with the element at a row `i`, of which the indices are given."""
        problem, tile = self.problem, self.columns.tile
        outside = problem.batch.split(place.batch) | row

        def store(lane: Lane, column: Point) -> Sequence[Statement]:
            at = variable("i"), lane.column(tile)
            found: list[Expression] = [cast(value(*at), problem.dtype) for value in values]
            point = {**outside, **column}
            if len(found) == 1:
                return problem.store(point, found[0])
            return problem.store_blocks(point, found)

        return store

    @property
    def _is_short(self) -> bool:
        """Whether results are such a part of the work that they are laid out as the sums are."""
        depth = self.problem.reduced.size
        return isinstance(depth, int) and depth <= SHORT_REDUCTION

    # ---- rows that are neighbours in memory

    @property
    def _together(self) -> Group | None:
        """The dimensions in which the rows of a tile are neighbours in memory; None where there are
        none, or a tile has few rows."""
        found, height = self.problem.rows_together, self.rows.width
        if found is None or not isinstance(found.size, int):
            return None
        return found if LEAST_TOGETHER <= height <= found.size else None

    def _conditions(self, place: Place, together: Group) -> Iterator[Expression | None]:
        """That the tile is full, and does not go on in the next image."""
        height, first = self.rows.width, self.rows.first(place.row_tile)
        if not self.rows.is_even:
            yield compare("eq", self.rows.filled(place.row_tile), height)
        size = together.size
        assert isinstance(size, int), "as it was found"
        if self.problem.rows.size != size and (size % height or self.rows.part):
            yield compare("le", indices.modulo(first, size), size - height)

    def _stored_together(
        self, place: Place, values: Sequence[TileValues], together: Group
    ) -> list[Statement]:
        """All rows of the tile, for a vector of columns after the other."""
        rows, height = self.problem.rows, self.rows.width
        first, size = self.rows.first(place.row_tile), indices.from_dim(together.size)
        outer = rows.first(len(rows.dims) - len(together.dims))
        inside = indices.modulo(first, size) if outer.dims else first
        row = outer.split(indices.floor_div(first, size)) | together.split(inside + variable("i"))
        store = self._store(place, values, row)

        def laid_out(lane: Lane, column: Point) -> Sequence[Statement]:
            return [For("i", 0, height, tuple(store(lane, column)), LoopKind.UNROLL)]

        return self.columns.results(place.column_tile, laid_out, lambda columns: columns)
