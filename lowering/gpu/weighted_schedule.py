"""Choosing the schedule of weighted sums on a GPU, and whether they have a kernel together."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.product_sums import SumsTogether
from mapsto.ir.weighted_sums import WeightedSums
from mapsto.lowering.gpu.contraction_schedule import known_extent
from mapsto.lowering.gpu.product_blocks import product_body
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.weighted_blocks import weighted_body
from mapsto.lowering.gpu.weighted_tiles import (
    WeightedSizes,
    WeightedTile,
    choose_weighted_tile,
)
from mapsto.lowering.loops import Statement
from mapsto.lowering.scheduling import SumsScheduling
from mapsto.lowering.weighted_access import SumsAccess, WeightedAccess
from mapsto.lowering.weighted_problem import (
    ProductSides,
    WeightedSides,
    sort_products,
    sort_weighted,
)

__all__ = ["weighted_scheduling", "weighted_tile"]

LEAST_ROWS = 16
"""Fewer rows, as those of one more position of a sequence, leave most of a tile empty; and their
keys are better divided among blocks."""
FEW_KEYS = 512
"""So many keys at most are gone over by few blocks too."""
FEW_BLOCKS = 4
"""A block for every so many multiprocessors are few."""


def weighted_scheduling(target: GpuTarget) -> SumsScheduling:
    """One kernel for weighted sums where a tile of theirs fits the target."""

    def takes(sums: SumsTogether) -> bool:
        sides = _sort(sums)
        return sides is not None and weighted_tile(sums, sides, target) is not None

    def lower(access: SumsAccess) -> Sequence[Statement]:
        sides = _sort(access.sums)
        tile = None if sides is None else weighted_tile(access.sums, sides, target)
        assert tile is not None, "the target takes them"
        if isinstance(access, WeightedAccess):
            assert isinstance(sides, WeightedSides)
            return weighted_body(sides.problem(access), tile, target)
        assert isinstance(sides, ProductSides)
        return product_body(sides.problem(access), tile, target)

    return SumsScheduling(takes, lower)


def _sort(sums: SumsTogether) -> WeightedSides | ProductSides | None:
    return sort_weighted(sums) if isinstance(sums, WeightedSums) else sort_products(sums)


def weighted_tile(
    sums: SumsTogether, sides: WeightedSides | ProductSides, target: GpuTarget
) -> WeightedTile | None:
    """The tile for this target; depends on sizes, never on what else runs.  None where a kernel
    together does not fit or does not pay."""
    is_running = isinstance(sides, WeightedSides)
    products = (sums.fits,) if isinstance(sums, WeightedSums) else sums.products
    factors = [op.operands[0].dtype for op in (*products, sums.sums)]
    dtype = factors[0]
    if not dtype.is_float or any(other is not dtype for other in factors):
        return None
    all_sides = (sides.fits,) if isinstance(sides, WeightedSides) else sides.products
    fits, values = all_sides[0], sides.values
    depths = [each.reduced.size for each in all_sides]
    known = [n for n in (fits.columns.size, values.columns.size, *depths) if isinstance(n, int)]
    if len(known) < 2 + len(depths):
        return None
    keys, columns, *known_depths = known
    shape = target.matrix_shape(dtype)
    each = dtype.bytes if shape is not None else max(4, dtype.bytes)
    batch, rows = known_extent(fits.batch.size), known_extent(fits.rows.size)
    if rows < LEAST_ROWS or 0 in (batch, *known):
        return None
    sizes = WeightedSizes(batch, rows, keys, tuple(known_depths), columns, each, is_running)
    tile = choose_weighted_tile(target, sizes, shape)
    if tile is None:
        return None
    blocks = batch * -(-rows // tile.fits.rows)
    is_busy = blocks * FEW_BLOCKS >= target.processors or keys <= FEW_KEYS
    return tile if is_busy else None
