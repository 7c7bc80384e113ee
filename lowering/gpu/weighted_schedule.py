"""Choosing the schedule of weighted sums on a GPU, and whether they have a kernel together."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.weighted_sums import WeightedSums
from mapsto.lowering.gpu.contraction_schedule import known_extent
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.weighted_blocks import weighted_body
from mapsto.lowering.gpu.weighted_problem import WeightedSides, sort_weighted
from mapsto.lowering.gpu.weighted_tiles import (
    WeightedSizes,
    WeightedTile,
    choose_weighted_tile,
)
from mapsto.lowering.loops import Statement
from mapsto.lowering.scheduling import WeightedScheduling
from mapsto.lowering.weighted_access import WeightedAccess

__all__ = ["weighted_scheduling", "weighted_tile"]

LEAST_ROWS = 16
"""Fewer rows, as those of one more position of a sequence, leave most of a tile empty; and their
keys are better divided among blocks."""
FEW_KEYS = 512
"""So many keys at most are gone over by few blocks too."""
FEW_BLOCKS = 4
"""A block for every so many multiprocessors are few."""


def weighted_scheduling(target: GpuTarget) -> WeightedScheduling:
    """One kernel for weighted sums where a tile of theirs fits the target."""

    def takes(sums: WeightedSums) -> bool:
        sides = sort_weighted(sums)
        return sides is not None and weighted_tile(sums, sides, target) is not None

    def lower(access: WeightedAccess) -> Sequence[Statement]:
        sides = sort_weighted(access.sums)
        tile = None if sides is None else weighted_tile(access.sums, sides, target)
        assert sides is not None and tile is not None, "the target takes them"
        return weighted_body(sides.problem(access), tile, target)

    return WeightedScheduling(takes, lower)


def weighted_tile(
    sums: WeightedSums, sides: WeightedSides, target: GpuTarget
) -> WeightedTile | None:
    """The tile for this target; depends on sizes, never on what else runs.  None where a kernel
    together does not fit or does not pay."""
    dtype, fits, values = sums.fits.operands[0].dtype, sides.fits, sides.values
    if not dtype.is_float or sums.sums.operands[0].dtype is not dtype:
        return None
    keys, depth, columns = fits.columns.size, fits.reduced.size, values.columns.size
    if not (isinstance(keys, int) and isinstance(depth, int) and isinstance(columns, int)):
        return None
    shape = target.matrix_shape(dtype)
    each = dtype.bytes if shape is not None else max(4, dtype.bytes)
    batch, rows = known_extent(fits.batch.size), known_extent(fits.rows.size)
    if rows < LEAST_ROWS or 0 in (batch, keys, depth, columns):
        return None
    tile = choose_weighted_tile(
        target, WeightedSizes(batch, rows, keys, depth, columns, each), shape
    )
    if tile is None:
        return None
    blocks = batch * -(-rows // tile.fits.rows)
    is_busy = blocks * FEW_BLOCKS >= target.processors or keys <= FEW_KEYS
    return tile if is_busy else None
