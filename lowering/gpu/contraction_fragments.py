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
from mapsto.lowering.gpu.contraction_panels import THREAD, Panel, Share, Use, over_lanes
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
    cast,
    constant,
)

__all__ = ["WarpWork"]

WARP = 32
SIDE = 16
"""Rows, or columns, of the panels that are loaded at once, and the depth of a product."""
PRODUCT_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class WarpWork:
    """The panels that sums in f32 are made from; without rows, these are in registers."""

    tile: BlockTile
    rows: Panel | None
    columns: Panel
    shape: MatrixShape
    name: str = "sums"

    @property
    def sums(self) -> Buffer:
        """A thread's elements of the warp's part of the tile."""
        shape = self.tile.part_rows // SIDE, self.tile.part_columns // PRODUCT_COLUMNS, 4
        return Buffer(self.name, DType.F32, shape, Space.REGISTER)

    def begin(self) -> list[Statement]:
        """Declares the sums and sets them to zero."""
        return [Allocate(self.sums), *self.clear()]

    def clear(self) -> list[Statement]:
        """Sets the sums to zero."""
        zero = self.sums.store(("i", "j", "e"), constant(0, DType.F32))
        return [self._for_sums((_unroll("e", 4, zero),))]

    @property
    def share(self) -> Share:
        """Which sums a thread has."""
        rows, columns, _ = _extents(self.sums)
        i, j, half, e = map(variable, ("i", "j", "half", "e"))
        lane = variable(THREAD) % WARP
        row, column = self._first()
        return Share(
            rows=(("i", rows), ("half", 2)),
            columns=(("j", columns), ("e", 2)),
            row=row + i * SIDE + half * 8 + lane // 4,
            column=column + j * PRODUCT_COLUMNS + lane % 4 * 2 + e,
            place=(i, j, half * 2 + e),
            lanes=4,
        )

    def multiply(self, row_stage: Index, column_stage: Index) -> list[Statement]:
        """Adds the products of the panels of a stage of each side."""
        assert self.rows is not None, "rows are in shared memory"
        left, row, i = self._left, self._first()[0], variable("i")
        if not self._is_half:
            return self._steps(_load_pairs(left, self.rows, row_stage, row), column_stage)
        k, lane = variable("k"), variable(THREAD) % WARP
        low, high = lane // 8 % 2 * 8, lane // 16 * 8
        load = _load(left, self.rows, row_stage, row + i * SIDE + low, k + high)
        return self._steps(load, column_stage)

    def multiply_held(self, held: WarpWork, column_stage: Index) -> list[Statement]:
        """Adds the products of sums that the warp has, whose columns are the steps, and the panel
        of the columns: a thread has of both matrices the same elements."""
        i, half, e, next_ = map(variable, ("i", "half", "e", "next"))
        place = i, variable("k") // PRODUCT_COLUMNS + next_, half * 2 + e
        value = cast(held.sums[place], self.columns.dtype)
        store = self._left.store((i, next_ * 4 + half * 2 + e), value)
        parts = _unroll("next", self._depth // PRODUCT_COLUMNS, _unroll("half", 2, _pair(store)))
        return self._steps(parts, column_stage)

    def _steps(self, load_rows: Statement, column_stage: Index) -> list[Statement]:
        tile, left, right = self.tile, self._left, self._right
        load_columns = self._load_columns(right, column_stage)
        body = (
            Allocate(left),
            Allocate(right),
            _unroll("i", tile.part_rows // SIDE, load_rows),
            _unroll("i", tile.part_columns // SIDE, load_columns),
            self._for_sums(tuple(self._products(left, right))),
        )
        return [For("k", 0, tile.depth, body, LoopKind.UNROLL, step=self._depth)]

    @property
    def _left(self) -> Buffer:
        """A thread's elements of 16 rows each."""
        shape = self.tile.part_rows // SIDE, SIDE * self._depth // WARP
        return Buffer("left", self.columns.dtype, shape, Space.REGISTER)

    @property
    def _right(self) -> Buffer:
        """A thread's elements of 16 columns each."""
        shape = self.tile.part_columns // SIDE, SIDE * self._depth // WARP
        return Buffer("right", self.columns.dtype, shape, Space.REGISTER)

    @property
    def _is_half(self) -> bool:
        return self.columns.dtype.bytes == 2

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

    def _load_columns(self, right: Buffer, stage: Index) -> Statement:
        """Loads 16 columns: of halves four matrices, those along k first, where those of the rows
        go down first; of words each thread its own elements."""
        i, k, lane = variable("i"), variable("k"), variable(THREAD) % WARP
        column = self._first()[1]
        if not self._is_half:
            return _load_pairs(right, self.columns, stage, column)
        high, low = lane // 16 * 8, lane // 8 % 2 * 8
        return _load(right, self.columns, stage, column + i * SIDE + high, k + low)

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
        rows, columns, _ = _extents(self.sums)
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
    pair = over_lanes(store, "e", 2) if panel.k_last else _pair(store)
    return _unroll("half", 2, pair)


def _extents(buffer: Buffer) -> list[int]:
    return [extent for extent in buffer.shape if isinstance(extent, int)]


def _pair(statement: Statement) -> Statement:
    return _unroll("e", 2, statement)


def _unroll(variable: str, extent: int, statement: Statement) -> Statement:
    return For(variable, 0, extent, (statement,), LoopKind.UNROLL)
