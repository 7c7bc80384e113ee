"""The work of a thread on a tile, with multiply-adds of its own.

Threads stand in a grid over the block's tile, a warp as a compact part of it, so that few different
elements are read at once: 4 x 8 threads of 8 x 8 results read 32 rows and 64 columns.  A thread has
its rows in runs of a vector, a run for every `thread rows * run`, and its columns likewise: lanes
that are neighbours read neighbouring vectors, which are in different banks.

    for k: load the rows' elements, load the columns' elements, and for each row and column:
             sums[row, column] += row element * column element
"""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.types import DType
from mapsto.lowering.gpu.contraction_panels import (
    THREAD,
    HeldPanel,
    Panel,
    Share,
    Use,
    over_lanes,
)
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.vector_access import LARGEST_ACCESS
from mapsto.lowering.indices import Index, variable
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    LoopKind,
    Space,
    Statement,
    cast,
    constant,
    fma,
)

__all__ = ["ThreadWork", "Use"]

WARP = 32
_REGISTER, _UNROLL = Space.REGISTER, LoopKind.UNROLL
K_UNROLL = 8
"""Steps of the reduction that are laid out in a row."""


@dataclass(frozen=True, slots=True)
class _Axis:
    """The rows or the columns of a tile, as threads have them: `part` each, in runs of `run`, of
    which the first begins at `thread * run` and the next `threads * run` further on."""

    part: int
    threads: int
    thread: Index
    run: int

    def position(self, number: Index) -> Index:
        """The position in the tile of a thread's row or column of that number."""
        return (
            number // self.run * (self.threads * self.run)
            + self.thread * self.run
            + (number % self.run)
        )


@dataclass(frozen=True, slots=True)
class ThreadWork:
    """Sums of a type, and the panels that they are made from."""

    tile: BlockTile
    rows: Panel | HeldPanel
    columns: Panel
    dtype: DType
    name: str = "sums"

    @property
    def sums(self) -> Buffer:
        """A thread's part of the tile."""
        return Buffer(
            self.name, self.dtype, (self.tile.part_rows, self.tile.part_columns), _REGISTER
        )

    def begin(self) -> list[Statement]:
        """Declares the sums and sets them to zero."""
        return [Allocate(self.sums), *self.clear()]

    def clear(self) -> list[Statement]:
        """Sets the sums to zero."""
        return [self._for_sums((self.sums.store(("i", "j"), constant(0, self.dtype)),))]

    @property
    def share(self) -> Share:
        """Which sums a thread has."""
        rows, columns = self._axes()
        i, j = variable("i"), variable("j")
        return Share(
            rows=(("i", rows.part),),
            columns=(("j", columns.part),),
            row=rows.position(i),
            column=columns.position(j),
            place=(i, j),
            lanes=columns.threads,
        )

    def hand_over(self, panel: HeldPanel) -> list[Statement]:
        """Writes a thread's sums where all threads of the block read them, a run of rows at once;
        columns are its steps."""
        rows, columns = self._axes()
        first, j, lane = variable("r") * rows.run, variable("j"), variable("e")
        run = Buffer("run", self.dtype, (rows.run,), _REGISTER)
        turn = run.store((lane,), self.sums[first + lane, j])
        place = panel.at(0, rows.position(first) + lane, columns.position(j))
        store = panel.buffer.store(place, cast(run[lane], panel.dtype))
        turned = For("e", 0, rows.run, (turn,), _UNROLL)
        body = (Allocate(run), turned, over_lanes(store, "e", rows.run))
        runs = For("r", 0, rows.part // rows.run, body, _UNROLL)
        return [For("j", 0, columns.part, (runs,), _UNROLL)]

    def multiply(self, row_stage: Index, column_stage: Index) -> list[Statement]:
        """Adds the products of the panels of a stage of each side."""
        rows, columns = self._axes()
        k = variable("k")
        left = Buffer("row", self.dtype, (rows.part,), _REGISTER)
        right = Buffer("column", self.dtype, (columns.part,), _REGISTER)
        loads = [
            *_load(left, rows, self.rows, row_stage, k),
            *_load(right, columns, self.columns, column_stage, k),
        ]
        add = self.sums.store(("i", "j"), fma(left["i"], right["j"], self.sums["i", "j"]))
        body = (*loads, self._for_sums((add,)))
        return [For("k", 0, self.tile.depth, body, unroll=K_UNROLL)]

    def results(self, use: Use) -> list[Statement]:
        """The statements that use the sums, given their rows and columns in the tile."""
        rows, columns = self._axes()
        i, first = variable("i"), variable("r") * columns.run
        row, column = rows.position(i), columns.position(first)
        body = use(row, column, columns.run, lambda lane: self.sums[i, first + lane])
        runs = For("r", 0, columns.part // columns.run, tuple(body), LoopKind.UNROLL)
        return [For("i", 0, self.tile.part_rows, (runs,), LoopKind.UNROLL)]

    def _for_sums(self, body: tuple[Statement, ...]) -> Statement:
        inner = For("j", 0, self.tile.part_columns, body, LoopKind.UNROLL)
        return For("i", 0, self.tile.part_rows, (inner,), LoopKind.UNROLL)

    def _axes(self) -> tuple[_Axis, _Axis]:
        """Where the thread's rows and columns are."""
        tile = self.tile
        across, down = tile.columns // tile.part_columns, tile.rows // tile.part_rows
        warp_across, warp_down = _warp_shape(across, down)
        thread = variable(THREAD)
        warp, lane = thread // WARP, thread % WARP
        warps_across = across // warp_across
        row = warp // warps_across * warp_down + lane // warp_across
        column = warp % warps_across * warp_across + lane % warp_across
        run = LARGEST_ACCESS // self.dtype.bytes
        return (
            _Axis(tile.part_rows, down, row, min(run, tile.part_rows)),
            _Axis(tile.part_columns, across, column, min(run, tile.part_columns)),
        )


def _warp_shape(across: int, down: int) -> tuple[int, int]:
    """How many threads across and down a warp has, all powers of two: 8 and 4 where there are."""
    warp_down = min(down, max(4, WARP // across))
    return WARP // warp_down, warp_down


def _load(
    target: Buffer, axis: _Axis, panel: Panel | HeldPanel, stage: Index, k: Index
) -> list[Statement]:
    """Reads a thread's elements of a panel into registers, a run at a time."""
    first = variable("r") * axis.run
    lane = variable("e")
    value = panel.buffer[panel.at(stage, axis.position(first) + lane, k)]
    run = over_lanes(target.store((first + lane,), value), "e", axis.run)
    return [Allocate(target), For("r", 0, axis.part // axis.run, (run,), LoopKind.UNROLL)]
