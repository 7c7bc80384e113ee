"""The work of a warp on a tile, with matrix instructions.

A warp has `part_rows x part_columns` of the block's tile and multiplies 16 x 16 by 16 x 8 elements
at a time, in one instruction or two.  How the 32 threads hold such matrices is the instruction's
(`MatrixMultiply`): of the sums, thread `l` has rows `l // 4` and `l // 4 + 8`, columns
`2 * (l % 4)` and the next one.

    for k in steps of 16:
        load 16 x 16 of the rows' panel, for every 16 rows
        load 16 x 16 of the columns' panel, for every 16 columns
        multiply each with each: two products for every pair

`LoadMatrix` reads four matrices of 8 x 8 at once, each thread one row of 16 bytes.  Panels keep the
order of global memory: where that is not the one that the instruction wants, the matrices are
transposed on the way to the registers.

Elements of 32 bits, which the instruction rounds to tf32, are read one by one, or two neighbours
along k at once, for a depth of 8.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mapsto.ir.types import DType
from mapsto.lowering.gpu.contraction_panels import THREAD, Panel, Use, over_lanes
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.target import MatrixShape
from mapsto.lowering.indices import Index, variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    LoadMatrix,
    LoopKind,
    MatrixMultiply,
    Space,
    Statement,
    constant,
)

__all__ = ["WarpWork"]

WARP = 32
SIDE = 16
"""Rows, or columns, of the panels that are loaded at once, and the depth of a product."""
PRODUCT_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class WarpWork:
    """The panels that sums in f32 are made from."""

    tile: BlockTile
    rows: Panel
    columns: Panel
    shape: MatrixShape

    @property
    def sums(self) -> Buffer:
        """A thread's elements of the warp's part of the tile."""
        shape = self.tile.part_rows // SIDE, self.tile.part_columns // PRODUCT_COLUMNS, 4
        return Buffer("sums", DType.F32, shape, Space.REGISTER)

    def begin(self) -> list[Statement]:
        """Declares the sums and sets them to zero."""
        zero = self.sums.store(("i", "j", "e"), constant(0, DType.F32))
        return [Allocate(self.sums), self._for_sums((_unroll("e", 4, zero),))]

    def multiply(self, stage: Index) -> list[Statement]:
        """Adds the products of the panels of a stage."""
        tile, depth = self.tile, self._depth
        left, right = (
            Buffer(name, self.rows.dtype, (part // SIDE, SIDE * depth // WARP), Space.REGISTER)
            for name, part in (("left", tile.part_rows), ("right", tile.part_columns))
        )
        load = self._load_halves if self._is_half else self._load_words
        load_rows, load_columns = load(left, right, stage)
        body = (
            Allocate(left),
            Allocate(right),
            _unroll("i", tile.part_rows // SIDE, load_rows),
            _unroll("i", tile.part_columns // SIDE, load_columns),
            self._for_sums(tuple(self._products(left, right))),
        )
        return [For("k", 0, tile.depth, body, LoopKind.UNROLL, step=depth)]

    @property
    def _is_half(self) -> bool:
        return self.rows.dtype.bytes == 2

    @property
    def _depth(self) -> int:
        """The steps of the reduction that are in registers at once."""
        return SIDE if self._is_half else self.shape.k

    def _products(self, left: Buffer, right: Buffer) -> Iterator[Statement]:
        """Those of 16 rows and 8 columns, of all steps in registers."""
        i, j, each = variable("i"), variable("j"), self.shape.k
        size = SIDE, PRODUCT_COLUMNS, each
        for number in range(self._depth // each):
            first = number * SIDE * each // WARP
            second = j % 2 * (PRODUCT_COLUMNS * self._depth // WARP) + first // 2
            yield MatrixMultiply(
                self.sums, (i, j, 0), left, (i, first), right, (j // 2, second), size
            )

    def _load_halves(
        self, left: Buffer, right: Buffer, stage: Index
    ) -> tuple[Statement, Statement]:
        """Loads 16 rows, and 16 columns, four matrices each: those of the rows go down first, those
        of the columns along k first."""
        i, k, lane = variable("i"), variable("k"), variable(THREAD) % WARP
        row, column = self._first()
        high, low = lane // 16 * 8, lane // 8 % 2 * 8
        return (
            _load(left, self.rows, stage, row + i * SIDE + low, k + high),
            _load(right, self.columns, stage, column + i * SIDE + high, k + low),
        )

    def _load_words(self, left: Buffer, right: Buffer, stage: Index) -> tuple[Statement, Statement]:
        """The same, each thread its own elements."""
        row, column = self._first()
        return (
            _load_pairs(left, self.rows, stage, row),
            _load_pairs(right, self.columns, stage, column),
        )

    def results(self, use: Use) -> list[Statement]:
        """The statements that use the sums, given their rows and columns in the tile."""
        i, j, half = variable("i"), variable("j"), variable("half")
        lane = variable(THREAD) % WARP
        row, column = self._first()
        row = row + i * SIDE + half * 8 + lane // 4
        column = column + j * PRODUCT_COLUMNS + lane % 4 * 2
        body = use(row, column, 2, lambda e: self.sums[i, j, half * 2 + e])
        return [self._for_sums((For("half", 0, 2, tuple(body), LoopKind.UNROLL),))]

    def _for_sums(self, body: tuple[Statement, ...]) -> Statement:
        rows, columns, _ = self.sums.shape
        assert isinstance(rows, int) and isinstance(columns, int)
        inner = For("j", 0, columns, body, LoopKind.UNROLL)
        return For("i", 0, rows, (inner,), LoopKind.UNROLL)

    def _first(self) -> tuple[Index, Index]:
        """The first row and column of the warp's part of the tile."""
        warp, across = variable(THREAD) // WARP, self.tile.columns // self.tile.part_columns
        return warp // across * self.tile.part_rows, warp % across * self.tile.part_columns


def _load(target: Buffer, panel: Panel, stage: Index, position: Index, k: Index) -> Statement:
    """Loads 16 x 16 elements of a panel into row `i` of the registers; the thread's number in its
    matrix goes along the rows of shared memory."""
    row = variable(THREAD) % 8
    position, k = (position + row, k) if panel.k_last else (position, k + row)
    place = panel.at(stage, position, k)
    return LoadMatrix(target, (variable("i"), 0), panel.buffer, place, transposed=not panel.k_last)


def _load_pairs(target: Buffer, panel: Panel, stage: Index, first: Index) -> Statement:
    """Loads 16 positions and 8 steps of a panel into row `i` of the registers: of each of two
    matrices of 8 x 8 two neighbours along k."""
    i, half, e, lane = variable("i"), variable("half"), variable("e"), variable(THREAD) % WARP
    position, k = first + i * SIDE + half * 8 + lane // 4, variable("k") + lane % 4 * 2
    value = panel.buffer[panel.at(stage, position, k + e)]
    store = target.store((i, half * 2 + e), value)
    pair = over_lanes(store, "e", 2) if panel.k_last else _unroll("e", 2, store)
    return _unroll("half", 2, pair)


def _unroll(variable: str, extent: int, statement: Statement) -> Statement:
    return For(variable, 0, extent, (statement,), LoopKind.UNROLL)
