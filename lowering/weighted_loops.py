"""The loops of weighted sums on a CPU: a task has some rows, and goes over the keys once.

    pack keys, pack values                            each element once, by all threads
    for batch, block of rows parallel:
        pack rows
        sums = 0, total = 0, top = -inf               of its rows
        for part of the keys:
            scores   = f(rows x keys)                 tile by tile, in the second-level cache
            greatest = max(top, scores of the row)
            weights  = exp(scores - greatest)
            factor   = exp(top - greatest);  top = greatest
            total    = total * factor + weights of the row
            sums     = sums * factor + weights x values
        sums -> epilogue

Tiles and packing are those of a contraction.  The order of a row's sums depends on the sizes of the
parts alone: neither on the rows beside it nor on who computes them.  A row whose greatest score is
infinite, or no number, has no number as its sums and total, as it has where each score is
subtracted from the greatest of all; until the end such a row is kept finite, since a greater score
may come.

Where scores are one number outside of a band of rows and keys (`ir/bands.py`), far below all
others, the keys that no row of the block sees are left out.  Their weights are zero, and zeros
change nothing, unless the greatest score of a row is as low, or what is weighted by them is not
finite: where that is found out, they follow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mapsto.ir.bands import Band, constant_outside
from mapsto.ir.dims import ceil_div
from mapsto.ir.types import DType
from mapsto.ir.weighted_sums import WeightedSums
from mapsto.lowering.contraction_places import unflatten
from mapsto.lowering.contraction_sides import Columns, Lane, Point
from mapsto.lowering.contraction_steps import KRange
from mapsto.lowering.contraction_tile import RegisterTile
from mapsto.lowering.indexed import Indices
from mapsto.lowering.indices import (
    Index,
    floor_div,
    from_dim,
    maximum,
    minimum,
    modulo,
    value_of,
    variable,
)
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Comment,
    Constant,
    Expression,
    For,
    If,
    Let,
    LoopKind,
    Reduce,
    Ref,
    Space,
    Statement,
    apply,
    cast,
    compare,
    constant,
    fma,
    select,
)
from mapsto.lowering.weighted_layout import WeightedLayout, WeightedTiles
from mapsto.lowering.weighted_problem import FAR_BELOW, WeightedProblem, at_most, least_score

__all__ = ["Outside", "weighted_loops"]


class Outside(NamedTuple):
    """What scores are outside of a band of rows and keys, at most."""

    score: float
    band: Band

    @staticmethod
    def of(sums: WeightedSums, rows: int) -> Outside | None:
        """What is certain of the scores by the indices of an axis of `rows`; None where nothing is
        that would help."""
        found = constant_outside(sums.scores, (rows, sums.keys))
        if found is None or found[0] > FAR_BELOW:
            return None
        score, band = found
        return Outside(at_most(score, sums.scores.dtype), band)


def weighted_loops(
    problem: WeightedProblem, tiles: WeightedTiles, outside: Outside | None
) -> tuple[Statement, ...]:
    """The statements that compute the weighted sums and hand each to the epilogue."""
    layout = WeightedLayout(problem, tiles)
    blocks = ceil_div(layout.rows.tiles, tiles.slivers)
    batch, block = unflatten(variable("task"), layout.batches, blocks)
    if outside is not None:
        # Blocks that see most come first, so that short ones fill up the end.
        block = from_dim(blocks) - 1 - block
    first = block * tiles.slivers
    count = minimum(tiles.slivers, from_dim(layout.rows.tiles) - first)
    work = _Block(layout, outside, batch, first, count).task()
    tasks = For("task", 0, from_dim(layout.batches * blocks), tuple(work), LoopKind.PARALLEL)
    return (*_pack(layout, layout.keys), *_pack(layout, layout.values), tasks)


def _pack(layout: WeightedLayout, side: Columns) -> list[Statement]:
    """Packs all of a side, tile by tile."""
    tile, whole = variable("tile"), layout.whole(side)
    batch, own = unflatten(tile, layout.batches, side.tiles)
    pack = side.pack(whole, tile, batch, own, KRange(0, from_dim(side.depth)))
    count = from_dim(layout.batches * side.tiles)
    loop = For("tile", 0, count, tuple(pack), LoopKind.PARALLEL)
    return [Allocate(whole), Comment(f"pack {side.name}"), loop]


@dataclass(frozen=True, slots=True)
class _Block:
    """The rows of a task: `count` tiles of a batch, from the `first` one on."""

    layout: WeightedLayout
    outside: Outside | None
    batch: Index
    first: Index
    count: Index

    def task(self) -> list[Statement]:
        """Everything that is done with the rows."""
        layout = self.layout
        kept = (
            layout.packed_rows,
            layout.weights,
            layout.sums,
            self._top,
            self._total,
            self._factor,
        )
        seen = self._keys_seen() if self.outside is not None else self._go_over(0, layout.count)
        return [*map(Allocate, kept), *self._begin(), *seen, *self._finish(), *self._results()]

    @property
    def _top(self) -> Buffer:
        """The greatest score so far."""
        return self.layout.of_rows("top")

    @property
    def _total(self) -> Buffer:
        """The total of the weights so far."""
        return self.layout.of_rows("total")

    @property
    def _factor(self) -> Buffer:
        """What the sums so far are multiplied by, to be to the same measure as those of a part."""
        return self.layout.of_rows("factor")

    @property
    def _row(self) -> Indices:
        """Where a row is among those of the task."""
        return variable("sliver"), variable("i")

    def _constant(self, value: float) -> Constant:
        return constant(value, self.layout.dtype)

    def _begin(self) -> list[Statement]:
        """Packs the rows; nothing was seen yet."""
        layout, sliver = self.layout, variable("sliver")
        every = KRange(0, from_dim(layout.rows.depth))
        pack = layout.rows.pack(layout.packed_rows, sliver, self.batch, self.first + sliver, every)
        row = (
            self._top.store(self._row, self._constant(-math.inf)),
            self._total.store(self._row, self._constant(0)),
            self._factor.store(self._row, self._constant(1)),
        )
        tile = layout.tiles.values
        zero = layout.sums.store(("sliver", "panel", "i", "j"), self._constant(0))
        columns = For("j", 0, tile.columns, (zero,), LoopKind.VECTOR)
        panels = For(
            "panel", 0, from_dim(layout.values.tiles), (For("i", 0, tile.rows, (columns,)),)
        )
        return [For("sliver", 0, self.count, (*pack, For("i", 0, tile.rows, row), panels))]

    # ---- parts of the keys

    def _go_over(self, first: Index, last: Index) -> list[Statement]:
        """Goes over the keys from one to another, part by part.  The first is the first of a tile,
        the last is the last of one, or of all."""
        width, length = self.layout.tiles.part, last - first
        key = first + variable("step") * width
        whole = isinstance(length, int) and length % width == 0
        count = width if whole else minimum(width, last - key)
        body = (
            self._multiply_keys(key, count),
            For("sliver", 0, self.count, (self._rows_there(self._weigh(key, count)),)),
            self._add_values(key, count),
        )
        return [For("step", 0, floor_div(length + (width - 1), width), body)]

    def _multiply_keys(self, key: Index, count: Index) -> Statement:
        """The products of all rows with the keys of a part."""
        layout, sliver, panel = self.layout, variable("sliver"), variable("panel")
        tile = RegisterTile(layout.tiles.fits, layout.keys, layout.rows.steps, layout.dtype)
        acc, packed, width = tile.accumulators, layout.whole(layout.keys), tile.tile.columns
        slot = self.batch * from_dim(layout.keys.tiles) + floor_div(key, width) + panel
        multiply = tile.multiply(
            KRange(0, from_dim(layout.rows.depth)),
            lambda at: layout.rows.packed_element(
                layout.packed_rows, sliver, variable("i"), at.number
            ),
            lambda lane, at: layout.keys.packed_element(packed, slot, lane, at.number),
        )
        body = (
            Allocate(acc),
            tile.clear(),
            multiply,
            tile.keep(layout.weights, (sliver,), panel * width),
        )
        panels = floor_div(count + (width - 1), width)
        return For("panel", 0, panels, (For("sliver", 0, self.count, body),))

    def _add_values(self, key: Index, count: Index) -> Statement:
        """Adds the values of a part, by their weights, to what was summed so far."""
        layout, sliver, panel = self.layout, variable("sliver"), variable("panel")
        tile = RegisterTile(layout.tiles.values, layout.values, layout.values.steps, layout.dtype)
        acc, packed, sums = tile.accumulators, layout.whole(layout.values), layout.sums
        slot = self.batch * from_dim(layout.values.tiles) + panel

        def so_far(i: Index, j: Index) -> Expression:
            return sums[sliver, panel, i, j] * self._factor[sliver, i]

        multiply = tile.multiply(
            KRange(0, count),
            lambda at: layout.weights[sliver, variable("i"), at.number],
            lambda lane, at: layout.values.packed_element(packed, slot, lane, key + at.number),
        )
        body = (
            Allocate(acc),
            tile.start(so_far),
            multiply,
            tile.keep(sums, (sliver, panel)),
        )
        inner = For("sliver", 0, self.count, body)
        return For("panel", 0, from_dim(layout.values.tiles), (inner,))

    # ---- scores and weights

    def _rows_there(self, body: Sequence[Statement]) -> For:
        """The statements for each row `i` of a tile that there is."""
        filled = self.layout.rows.filled(self.first + variable("sliver"))
        return For("i", 0, filled, tuple(body))

    def _weigh(self, key: Index, count: Index) -> list[Statement]:
        """Makes scores, then weights, of a row's products with keys from one on, and brings the
        total to the same measure.  As long as there are none but infinite scores, zero is
        subtracted: each weighs nothing yet."""
        base, added = (Buffer(n, self.layout.dtype, (), Space.REGISTER) for n in ("base", "added"))
        top, total, row = self._top, self._total, self._row
        greatest, factor = Ref("greatest", top.dtype), Ref("rescaling", top.dtype)
        none = apply("eq", greatest, self._constant(-math.inf))
        return [
            Allocate(base),
            Allocate(added),
            base.store((), self._constant(-math.inf)),
            added.store((), self._constant(0)),
            For("j", 0, count, tuple(self._score(key, base)), LoopKind.VECTOR),
            Let("greatest", apply("max", top[row], base[()])),
            base.store((), select(none, self._constant(0), greatest)),
            Let("rescaling", apply("exp", top[row] - base[()])),
            For("j", 0, count, tuple(self._weight(key, base, added)), LoopKind.VECTOR),
            top.store(row, greatest),
            self._factor.store(row, factor),
            total.store(row, fma(total[row], factor, added[()])),
        ]

    def _score(self, key: Index, base: Buffer) -> list[Statement]:
        """Replaces a product by the score, and finds the greatest."""
        weights, at = self.layout.weights, (*self._row, variable("j"))

        def use(score: Expression) -> list[Statement]:
            known = cast(score, weights.dtype)
            return [Let("fits", known), weights.store(at, fits), Reduce("max", base, (), fits)]

        fits = Ref("fits", weights.dtype)
        point = self._point(key + variable("j"))
        return self.layout.problem.access.score(point, weights[at], None, use)

    def _weight(self, key: Index, base: Buffer, added: Buffer) -> list[Statement]:
        """Replaces a score by the weight, and adds it up."""
        weights, at = self.layout.weights, (*self._row, variable("j"))

        def use(weight: Expression) -> list[Statement]:
            known = cast(weight, weights.dtype)
            return [Let("weighs", known), weights.store(at, own), Reduce("add", added, (), own)]

        own = Ref("weighs", weights.dtype)
        point = self._point(key + variable("j"))
        return self.layout.problem.access.weight(point, weights[at], base[()], use)

    def _point(self, key: Index) -> Indices:
        """The indices of the score of row `i` and a key."""
        fits = self.layout.problem.fits
        rows = self.layout.rows.points(self.first + variable("sliver"), variable("i"))
        point = fits.batch.split(self.batch) | rows | fits.columns.split(key)
        return tuple(point[d] for d in range(fits.op.rank))

    # ---- keys that no row sees

    def _keys_seen(self) -> list[Statement]:
        """Goes over the keys that some row sees; over the others if they count."""
        keys, beyond, phase = self.layout.count, self._beyond, variable("phase")
        start, stop = self._between()
        counts = value_of(beyond[()])
        # Once between the two, then before and behind them.
        first = _in_turn(phase, (start, 0, stop))
        length = _in_turn(phase, (stop - start, start * counts, (keys - stop) * counts))
        vote = If(compare("eq", phase, 0), tuple(self._look_beyond(start, stop)))
        return [
            Allocate(beyond),
            beyond.store((), constant(0, DType.I32)),
            For("phase", 0, 3, (*self._go_over(first, first + length), vote)),
        ]

    def _between(self) -> tuple[Index, Index]:
        """The first of the keys that some row sees, and the one behind the last, by whole tiles."""
        outside, tile = self.outside, self.layout.tiles.fits
        assert outside is not None, "there are keys that are not seen"
        first_row, last_row = self._extremes(self.layout.tiles.slivers * tile.rows)
        low = maximum(0, first_row + outside.band.low)
        high = maximum(0, last_row + (outside.band.high + 1))
        keys, width = self.layout.count, tile.columns
        start = minimum(keys, floor_div(low, width) * width)
        stop = minimum(keys, floor_div(high + (width - 1), width) * width)
        return start, maximum(start, stop)

    def _extremes(self, count: int) -> tuple[Index, Index]:
        """The least and the greatest index that rows have along their last dimension."""
        extent = self.layout.problem.fits.rows.extents[-1]
        assert isinstance(extent, int), "the schedule takes known rows"
        row = modulo(self.first * self.layout.tiles.fits.rows, extent)
        # Where the last row is in the next run of the dimension, all may be there.
        is_one_run = maximum(0, 1 - floor_div(row + (count - 1), extent))
        return row * is_one_run, minimum(extent - 1, row + (count - 1))

    @property
    def _beyond(self) -> Buffer:
        """Whether keys count that no row sees: 0 or 1."""
        return Buffer("beyond", DType.I32, (), Space.REGISTER)

    def _look_beyond(self, start: Index, stop: Index) -> list[Statement]:
        """Finds out whether one of them may have a weight, or zero times a value is not zero."""
        layout, yes = self.layout, self._beyond.store((), constant(1, DType.I32))
        outside = self.outside
        assert outside is not None, "there are keys that are not seen"
        probe = Buffer("probe", layout.dtype, (), Space.REGISTER)
        zero, packed = self._constant(0), layout.whole(layout.values)
        slot = self.batch * from_dim(layout.values.tiles) + variable("panel")
        look = Reduce("add", probe, (), packed[slot, "k", "j"] * zero)
        row = For("j", 0, layout.tiles.values.columns, (look,), LoopKind.VECTOR)
        ranges = ((0, start), (stop, layout.count))
        looks = [For("k", first, last, (row,)) for first, last in ranges]
        least = self._constant(least_score(outside.score, layout.dtype))
        low = If(apply("lt", self._top[self._row], least), (yes,))
        return [
            Allocate(probe),
            probe.store((), zero),
            For("panel", 0, from_dim(layout.values.tiles), tuple(looks)),
            If(apply("ne", probe[()], probe[()]), (yes,)),
            For("sliver", 0, self.count, (self._rows_there([low]),)),
        ]

    # ---- results

    def _finish(self) -> list[Statement]:
        """Makes no number of the totals of rows whose greatest score is infinite or none."""
        top, total, row = self._top, self._total, self._row
        off = Ref("off", top.dtype)
        body: list[Statement] = [Let("off", top[row] - top[row])]
        body += [self._factor.store(row, off), total.store(row, total[row] + off)]
        access = self.layout.problem.access
        known = {access.sums.top: top[row], access.sums.total: total[row]}
        body += access.store_row(access.row(self._point(0)), known)
        return [For("sliver", 0, self.count, (self._rows_there(body),))]

    def _results(self) -> list[Statement]:
        """Hands the sums on."""
        layout, values, panel = self.layout, self.layout.problem.values, variable("panel")
        tile = layout.tiles.values
        row = (self.first + variable("sliver")) * tile.rows + variable("i")
        rows = values.batch.split(self.batch) | values.rows.split(row)

        def store(lane: Lane, column: Point) -> Sequence[Statement]:
            point = {**rows, **column}
            at = tuple(point[d] for d in range(values.op.rank))
            total = self._total[self._row]
            value = layout.sums["sliver", panel, "i", lane.column(tile)] + self._factor[self._row]
            return layout.problem.access.store(at, value, total)

        results = layout.values.results(panel, store, lambda body: self._rows_there([body]))
        inner = For("panel", 0, from_dim(layout.values.tiles), tuple(results))
        return [For("sliver", 0, self.count, (inner,))]


def _in_turn(phase: Index, values: Sequence[Index]) -> Index:
    """The first value in phase 0, the second in 1, the third in 2."""
    first, second, third = values
    is_first, is_second = maximum(0, 1 - phase), modulo(phase, 2)
    return first * is_first + second * is_second + third * floor_div(phase, 2)
