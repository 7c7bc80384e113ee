"""Choosing the schedule of weighted sums on a CPU, and whether they have a kernel together."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from mapsto.ir.product_sums import SumsTogether
from mapsto.ir.types import DType
from mapsto.ir.weighted_sums import WeightedSums
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.tiles import Tile, choose_tile, likely_tiles
from mapsto.lowering.loops import Statement
from mapsto.lowering.scheduling import SumsScheduling
from mapsto.lowering.weighted_access import SumsAccess, WeightedAccess
from mapsto.lowering.weighted_layout import WeightedTiles
from mapsto.lowering.weighted_loops import Outside, weighted_loops
from mapsto.lowering.weighted_problem import WeightedSides, sort_weighted

__all__ = ["weighted_scheduling"]

ROWS = 96
"""A task has so many rows, or a few less: what is done once for them is little then."""
MOST_KEYS = 512
"""A part has so many keys at most, and so many that the scores of a task fill a quarter of the
second-level cache."""
LEAST_ROWS = 16
"""Fewer rows leave most of a tile empty, or pay for packing the keys alone."""
BLOCKS = 8
"""Rows are divided into so many tasks, so that there are enough, as long as one has `FEW_ROWS`."""
FEW_ROWS = 24
WIDEST = 256
"""The sums of a row are so many at most, and so long is the reduction of the first product: beyond,
rows and sums would leave no room in the caches."""


def weighted_scheduling(machine: Machine) -> SumsScheduling:
    """One kernel for weighted sums where the scores of a batch's rows would fill half of the
    second-level cache, or more."""

    def takes(sums: SumsTogether) -> bool:
        if not isinstance(sums, WeightedSums):
            return False
        sides = sort_weighted(sums, plain=False)
        return sides is not None and _pays(sums, sides, machine)

    def lower(access: SumsAccess) -> Sequence[Statement]:
        assert isinstance(access, WeightedAccess), "the machine takes no others"
        sides = sort_weighted(access.sums, plain=False)
        assert sides is not None, "the machine takes them"
        problem = sides.problem(access)
        tiles = _tiles(sides, machine, problem.fits.dtype.bits)
        return weighted_loops(problem, tiles, _outside(access.sums, sides))

    return SumsScheduling(takes, lower)


def _pays(sums: WeightedSums, sides: WeightedSides, machine: Machine) -> bool:
    dtype, extents = sums.scores.dtype, _known(sides)
    factors = (*sums.fits.operands, *sums.sums.operands)
    if extents is None or any(factor.dtype is not dtype for factor in factors):
        return False
    if dtype not in (DType.F32, DType.F64):
        return False
    rows, keys, depth, columns = extents
    if any(Outside.of(sums, axis) is not None for axis in sides.fits.rows.dims[:-1]):
        # A mask by another axis of the rows leaves out keys that would be gone over here.
        return False
    large = rows * keys * dtype.bytes > machine.l2 // 2 and keys >= 2 * _keys(machine, dtype.bits)
    return large and rows >= LEAST_ROWS and 0 < depth <= WIDEST and 0 < columns <= WIDEST


def _known(sides: WeightedSides) -> tuple[int, int, int, int] | None:
    """The rows, the keys, and the lengths of what is multiplied for a score and of what is summed;
    None where one is not known."""
    groups = (sides.fits.rows, sides.fits.columns, sides.fits.reduced, sides.values.columns)
    sizes = [group.size for group in groups]
    known = [size for size in sizes if isinstance(size, int)]
    return (known[0], known[1], known[2], known[3]) if len(known) == len(sizes) else None


def _keys(machine: Machine, bits: int) -> int:
    """The keys of a part, a power of two."""
    most = machine.l2 // 4 // (ROWS * bits // 8)
    return min(MOST_KEYS, 1 << max(4, most.bit_length() - 1))


def _tiles(sides: WeightedSides, machine: Machine, bits: int) -> WeightedTiles:
    """The tiles for a machine.  They are the same however many rows of other batches there are."""
    extents = _known(sides)
    assert extents is not None, "the schedule takes known extents"
    rows, _, _, columns = extents
    keys = _keys(machine, bits)
    fits = choose_tile(machine, bits, rows, keys)
    alike = [t for t in likely_tiles(machine, bits, rows, columns) if t.rows == fits.rows]
    values = alike[0] if alike else Tile(fits.rows, 1, fits.lanes)
    slivers = ceil(min(ROWS, max(FEW_ROWS, rows // BLOCKS)) / fits.rows)
    return WeightedTiles(fits, values, slivers, max(1, keys // fits.columns))


def _outside(sums: WeightedSums, sides: WeightedSides) -> Outside | None:
    """What scores are outside of a band of keys and the last dimension of rows."""
    return Outside.of(sums, sides.fits.rows.dims[-1])
