"""Columns of a tile from each of the blocks that an epilogue takes together (`ir/epilogue.py`).

A tile of as many vectors as there are blocks, or a multiple, has the same columns of each block:

    blocks of columns   | 0 . . . 1 . . . 2 . . . 3 . . . |
    tile 0              | ▓ . . . ▓ . . . ▓ . . . ▓ . . . |
    tile 1              | . ▓ . . . ▓ . . . ▓ . . . ▓ . . |

So the epilogue finds all that it takes in the tile that was just summed up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mapsto.lowering import indices
from mapsto.lowering.contraction_sides import Columns, Lane
from mapsto.lowering.contraction_steps import KRange, Step
from mapsto.lowering.indices import Index, from_dim, variable
from mapsto.lowering.loops import Buffer, Expression, For, LoopKind, Statement

__all__ = ["BlockColumns"]


@dataclass(frozen=True, slots=True)
class BlockColumns(Columns):
    """The columns, all of whose tiles are full, in so many `blocks`."""

    blocks: int = 1

    @property
    def _part(self) -> int:
        """The columns of a tile in each block."""
        return self.width // self.blocks

    def _column(self, tile: Index, block: Index, position: Index) -> Index:
        """Which column of the side is at a position of a tile's part in a block."""
        length = self.group.size
        assert isinstance(length, int), "blocks have known lengths"
        return block * (length // self.blocks) + tile * self._part + position

    def pack(
        self, buffer: Buffer, slot: Index, batch: Index, tile: Index, part: KRange
    ) -> list[Statement]:
        k, p, width = variable("k"), variable("p"), self._part
        start, depth = self.flat_range(part)
        across = self._column(tile, indices.floor_div(p, width), indices.modulo(p, width))
        squares = self._transposing(buffer, slot, batch, across, part)
        if squares:
            return squares

        def line(block: int) -> Statement:
            value = self.flat_element(batch, self._column(tile, block, p), start + k)
            copy = buffer.store((slot, k, p + block * width), value)
            return For("p", 0, width, (copy,), LoopKind.VECTOR)

        return [For("k", 0, depth, tuple(map(line, range(self.blocks))))]

    def vectors(self, body: Callable[[Lane], Statement]) -> For:
        lanes = self.tile.lanes
        lane = Lane(variable("v"), variable("l"))
        vector = For("l", 0, lanes, (body(lane),), LoopKind.VECTOR, lanes=lanes)
        return For("v", 0, self.tile.vectors, (vector,), LoopKind.UNROLL)

    def direct_element(self, batch: Index, tile: Index, lane: Lane, step: Step) -> Expression:
        each = self._part // self.tile.lanes
        block, vector = indices.floor_div(lane.vector, each), indices.modulo(lane.vector, each)
        column = self._column(tile, block, vector * self.tile.lanes + lane.lane)
        return self.read(self.batch.split(batch) | self.group.split(column) | step.dims)

    def handed_on(self, tile: Index) -> tuple[Index, Index]:
        return from_dim(self._part) * tile, self._part
