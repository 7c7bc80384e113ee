"""Choosing the register tile and the blocks of a packed contraction, from the machine description.

The innermost work of a contraction multiplies a sliver of rows with a panel of columns and keeps
`rows * vectors` vector accumulators in registers (Goto and van de Geijn, "Anatomy of
high-performance matrix multiplication", 2008).  The choice is by counting: multiply-adds issued
against vector loads, and the waste in the last tile of each direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil

from mapsto.ir.dims import Dim
from mapsto.lowering.cpu.machine import Machine

__all__ = ["Tile", "choose_tile", "estimated_cycles", "likely_tiles"]

UNKNOWN_EXTENT = 10_000
"""Stands for an extent that is known only at run time: large, so that edges count little."""
LATENCY = 8
"""Multiply-adds that are under way at one time: two are begun in a cycle and take four."""

LEAST_WASTE = 0.05
"""Of all rows, so many have to be missing in the last tile for some tiles to be lower."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` broadcast elements times `vectors` vectors of `lanes` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """The number of columns of the tile."""
        return self.vectors * self.lanes


def choose_tile(machine: Machine, element_bits: int, rows: Dim, columns: Dim) -> Tile:
    """The tile with the least estimated time for a product of this many rows and columns."""
    return likely_tiles(machine, element_bits, rows, columns)[0]


def likely_tiles(machine: Machine, element_bits: int, rows: Dim, columns: Dim) -> tuple[Tile, ...]:
    """All tiles that fit into the registers, from the least estimated time on."""
    known_rows = rows if isinstance(rows, int) else UNKNOWN_EXTENT
    known_columns = columns if isinstance(columns, int) else UNKNOWN_EXTENT
    return _ordered(
        machine.lanes(element_bits),
        machine.vector_registers,
        _Temporaries(2 if machine.has_fma else 3, machine.has_avx512),
        max(1, known_rows),
        max(1, known_columns),
    )


@dataclass(frozen=True, slots=True)
class _Temporaries:
    """The registers that a step needs beside the accumulators and the vectors of columns.

    An element that more than one vector is multiplied with is broadcast to one of `least`.  Where
    each is used once, LLVM loads all of a step ahead, unless the multiply-add itself `broadcasts`.
    """

    least: int
    broadcasts: bool

    def of(self, rows: int, vectors: int) -> int:
        """How many a tile needs."""
        return self.least if vectors > 1 or self.broadcasts else max(self.least, rows)


@cache
def _ordered(
    lanes: int, registers: int, temporaries: _Temporaries, rows: int, columns: int
) -> tuple[Tile, ...]:
    """The tiles that fit; the columns of a single row are used once, as operands of the
    multiply-adds."""
    candidates = [
        Tile(r, v, lanes)
        for v in range(1, 17)
        for r in range(1, 29)
        if r * v + v + temporaries.of(r, v) <= registers or (rows == r == 1 and v <= LATENCY)
    ]
    return tuple(sorted(candidates, key=lambda tile: estimated_cycles(tile, rows, columns)))


def estimated_cycles(tile: Tile, rows: int, columns: int) -> float:
    """Cycles per reduction step over the whole product, in units of one multiply-add issued.

    A step issues `rows * vectors` multiply-adds, each with an element to broadcast, and loads
    `vectors` vectors, as many in a cycle as multiply-adds; fewer than 8 independent accumulators
    leave the multiply-add units waiting.
    """
    overhead = 1.5
    total = 0.0
    for tiles, height in heights(rows, tile.rows):
        issued, loads = height * tile.vectors, tile.vectors + height
        total += tiles * (max(issued, loads, LATENCY) + 0.25 * loads + overhead)
    return total * ceil(columns / tile.columns)


def heights(rows: int, height: int) -> tuple[tuple[int, int], ...]:
    """The tiles that cover some rows, as pairs of how many and how high: all of one height, the
    last one not full, or where that would waste much some that are lower.

        32 rows in tiles of 6:  6 6 5 5 5 5
    """
    tiles = max(1, ceil(rows / height))
    missing = tiles * height - rows
    if missing < LEAST_WASTE * rows:
        return ((tiles, height),)
    lower = max(n for n in range(1, min(tiles, missing) + 1) if missing % n == 0)
    low = height - missing // lower
    if lower == tiles or low <= 0:
        return ((tiles, height),)
    return ((tiles - lower, height), (lower, low))
