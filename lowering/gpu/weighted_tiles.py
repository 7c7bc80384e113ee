"""Choosing the tiles of weighted sums on a GPU, by counting cycles as for one contraction.

A block has `rows` of the result, with all their columns, and goes over the keys, so many at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil

from mapsto.lowering.gpu.contraction_tiles import (
    BLOCK_CYCLES,
    HIDDEN_COST,
    MATRIX_MULTIPLY_ADDS,
    MEMORY_BYTES,
    MEMORY_LATENCY,
    MULTIPLY_ADDS,
    OTHER_REGISTERS,
    BlockTile,
    slowdown,
)
from mapsto.lowering.gpu.target import GpuTarget, MatrixShape
from mapsto.lowering.gpu.vector_access import LARGEST_ACCESS

__all__ = ["WeightedSizes", "WeightedTile", "choose_weighted_tile"]

ROW_THREADS = 8
"""Threads beside each other that have a row's keys, and its columns, where each multiplies."""
EXPONENTIAL = 32
"""Instructions for a weight, from the score on."""
ROW_STEP = 50
"""Instructions of each thread of a row for a part of the keys: to compare, and what follows."""
STEP_CYCLES = 200
"""Cycles of a part beside its work: to wait for others, and for what is read first."""
STAGES = 2
_SIDE = 16
_MATRIX_ROW_THREADS = 4
_BESIDE = 1.35
"""How many times as many registers are taken as there are sums and factors: while some are
multiplied, others are loaded, or become weights."""
_MEASURES = 3
"""Numbers of each key, or row, that weights are computed from where rows have no running ones."""
_WHOLE = 8
"""Panels are so many elements deep, or a multiple: what is read from memory at once, at least."""


@dataclass(frozen=True, slots=True)
class WeightedSizes:
    """`rows x keys` products of `depths` steps each, and sums of `columns`, `batch` times, with
    elements of so many bytes in shared memory.  If `is_running`, the greatest score and the total
    of each row are kept."""

    batch: int
    rows: int
    keys: int
    depths: tuple[int, ...]
    columns: int
    element_bytes: int
    is_running: bool = True


@dataclass(frozen=True, slots=True)
class WeightedTile:
    """The tile of rows and keys, whose depth is all there is, and that of rows and columns, whose
    steps are the keys of the first; `others` are those of more products.  `is_running` as in
    `WeightedSizes`."""

    fits: BlockTile
    values: BlockTile
    others: tuple[BlockTile, ...] = ()
    is_running: bool = True

    @property
    def products(self) -> tuple[BlockTile, ...]:
        """The tiles of all products."""
        return self.fits, *self.others

    def shared_bytes(self, element_bytes: int) -> int:
        """At most what is in shared memory: the rows, keys and values of all stages, and, where
        threads multiply on their own, the weights."""
        fits, values, padding = self.fits, self.values, 2 * LARGEST_ACCESS // element_bytes
        elements = sum(_padded(fits.rows, each.depth, padding) for each in self.products)
        elements += sum(STAGES * _padded(fits.columns, t.depth, padding) for t in self.products)
        elements += STAGES * _padded(values.columns, values.depth, padding)
        elements += 0 if fits.is_matrix else _padded(fits.rows, fits.columns, padding)
        # What threads of targets without shuffles tell each other.
        return elements * element_bytes + fits.rows * ROW_THREADS * 8

    def registers(self, passing: int, words: int) -> int:
        """About how many registers a thread needs, `passing` of them for what is on its way, and so
        many for a sum."""
        fits, values = self.fits, self.values
        products = len(self.products) * fits.columns
        sums = (fits.rows * (products + values.columns)) // fits.threads
        if fits.is_matrix:
            rows, keys = 2 * fits.part_rows // _SIDE, fits.columns // _MATRIX_ROW_THREADS
            factors = (fits.part_rows + max(fits.columns, values.columns)) // 4
        else:
            rows, keys = fits.part_rows, fits.part_columns
            factors = 2 * (rows + max(keys, values.part_columns))
        measures = 0 if self.is_running else _MEASURES * keys
        held = ceil((sums + 3 * rows + factors + measures) * _BESIDE)
        return (held + passing) * words + OTHER_REGISTERS


def _padded(outer: int, inner: int, padding: int) -> int:
    """At most the elements of a panel, whichever way round it lies."""
    return outer * inner + padding * max(outer, inner)


@cache
def choose_weighted_tile(
    target: GpuTarget, sizes: WeightedSizes, shape: MatrixShape | None
) -> WeightedTile | None:
    """The tile with the least estimated time; None where none fits."""
    tiles = _matrix_tiles(target, sizes, shape) if shape else _thread_tiles(target, sizes)
    fitting = [tile for tile in tiles if _resident(target, sizes, tile)]
    return min(fitting, key=lambda tile: _cycles(target, sizes, tile), default=None)


def _resident(target: GpuTarget, sizes: WeightedSizes, tile: WeightedTile) -> int:
    """How many blocks a multiprocessor runs at once."""
    depth = sum(each.depth for each in tile.products)
    elements = (tile.fits.columns * (depth + tile.values.columns)) // tile.fits.threads
    words = max(1, sizes.element_bytes // 4)
    passing = 0 if target.has_async_copy else ceil(elements * min(4, sizes.element_bytes) / 4)
    registers = tile.registers(passing, words)
    if registers > target.max_registers:
        return 0
    shared = tile.shared_bytes(sizes.element_bytes)
    return target.resident_blocks(tile.fits.threads, shared, registers)


def _cycles(target: GpuTarget, sizes: WeightedSizes, tile: WeightedTile) -> float:
    """The cycles from the first block to the last, on the multiprocessor with the most."""
    fits, values = tile.fits, tile.values
    resident = _resident(target, sizes, tile)
    blocks = ceil(sizes.batch * ceil(sizes.rows / fits.rows) / target.processors)
    together = min(blocks, resident)
    weights, depth = fits.rows * fits.columns, sum(each.depth for each in tile.products)
    products = weights * (depth + values.columns)
    lanes = _MATRIX_ROW_THREADS if fits.is_matrix else ROW_THREADS
    of_rows = fits.rows * (lanes * ROW_STEP + values.columns) if sizes.is_running else 0
    issued = (weights * EXPONENTIAL + of_rows) / MULTIPLY_ADDS
    if fits.is_matrix:
        issued += products * sizes.element_bytes / (2 * MATRIX_MULTIPLY_ADDS)
        issued += products / (fits.part_rows * 8 * MULTIPLY_ADDS)
    else:
        parts = ((fits.part_rows, fits.part_columns), (fits.part_rows, values.part_columns))
        loads = sum(ceil(r / 4) + ceil(c / 4) for r, c in parts)
        work = sum(r * c for r, c in parts)
        issued += products * (1 + loads / work) / MULTIPLY_ADDS
    brought = fits.columns * (depth + values.columns) * sizes.element_bytes / MEMORY_BYTES
    step = max(issued, brought) + HIDDEN_COST * min(issued, brought)
    step *= slowdown(together * fits.threads // target.warp)
    steps = ceil(sizes.keys / fits.columns)
    part = max(together * step + STEP_CYCLES, MEMORY_LATENCY)
    return ceil(blocks / resident) * (steps * part + BLOCK_CYCLES)


def _thread_tiles(target: GpuTarget, sizes: WeightedSizes) -> Iterator[WeightedTile]:
    """Tiles of threads, `ROW_THREADS` to a row; a thread's columns are whole accesses."""
    columns = ceil(sizes.columns / ROW_THREADS)
    columns = ceil(columns / 4) * 4 if columns > 2 else columns
    for part_rows, threads, part_keys in product((1, 2, 4, 8), (4, 8, 16, 32), (1, 2, 4, 8)):
        rows, keys = part_rows * threads, part_keys * ROW_THREADS
        if threads * ROW_THREADS < target.warp or not _is_needed(sizes, rows, keys):
            continue
        depths = [ceil(depth / _WHOLE) * _WHOLE for depth in sizes.depths]
        fits, *others = (BlockTile(rows, keys, d, part_rows, part_keys, STAGES) for d in depths)
        part = BlockTile(rows, columns * ROW_THREADS, keys, part_rows, columns, STAGES)
        if fits.threads <= target.max_threads:
            yield WeightedTile(fits, part, tuple(others), sizes.is_running)


def _matrix_tiles(
    target: GpuTarget, sizes: WeightedSizes, shape: MatrixShape
) -> Iterator[WeightedTile]:
    """Tiles of warps, each with whole rows."""
    deep = _SIDE if sizes.element_bytes == 2 else shape.k
    depths = [ceil(depth / deep) * deep for depth in sizes.depths]
    columns = ceil(sizes.columns / _SIDE) * _SIDE
    for part_rows, warps, keys in product((16, 32), (1, 2, 4, 8), (16, 32, 64, 128)):
        if not _is_needed(sizes, part_rows * warps, keys):
            continue
        rows = part_rows * warps
        fits, *others = (
            BlockTile(rows, keys, depth, part_rows, keys, STAGES, is_matrix=True)
            for depth in depths
        )
        part = BlockTile(rows, columns, keys, part_rows, columns, STAGES, is_matrix=True)
        if fits.threads <= target.max_threads:
            yield WeightedTile(fits, part, tuple(others), sizes.is_running)


def _is_needed(sizes: WeightedSizes, rows: int, keys: int) -> bool:
    """Whether a tile is not twice as large as what there is."""
    return rows < 2 * max(sizes.rows, _SIDE) and keys < 2 * max(sizes.keys, _SIDE)
