"""Where the loops of a contraction are: the tile at hand, the chunk of rows that a task has, and
the elements of a tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapsto.ir.dims import Dim
from mapsto.lowering import indices
from mapsto.lowering.contraction_steps import KRange
from mapsto.lowering.indices import Index, from_dim
from mapsto.lowering.loops import Buffer, Expression

__all__ = ["Chunk", "Place", "TileValues", "tile_element", "unflatten"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tile is: its batch, its row and column tile, and its slots in packed buffers."""

    batch: Index
    row_tile: Index
    column_tile: Index
    row_slot: Index
    column_slot: Index
    part: KRange


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of tiles that a task has: so many from `start` on, with the sums of all blocks."""

    start: Index
    tiles: Index
    sums: Buffer

    def slot(self, tile: Index, above: int) -> Index:
        """Where the sums of a tile are that has others `above` those it is counted from."""
        return tile + above - self.start


TileValues = Callable[[Index, Index], Expression]
"""The element at a row and a column of a tile."""


def tile_element(
    buffer: Buffer, slots: Sequence[Index], row: Index, column: Index, first: int = 0
) -> Expression:
    """An element of a tile, in the slots of a buffer of tiles, whose columns begin at `first`."""
    return buffer[(*slots, row, column + first)]


def unflatten(flat: Index, outer: Dim, inner: Dim) -> tuple[Index, Index]:
    """The two indices of a flat one over `outer * inner`."""
    if outer == 1:
        return 0, flat
    return indices.floor_div(flat, from_dim(inner)), indices.modulo(flat, from_dim(inner))
