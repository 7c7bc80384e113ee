"""The rows of a thread in weighted sums: the greatest score so far, the total, and the weights.

All threads of a row keep the same greatest score; each adds up its own weights, until the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mapsto.ir.types import DType
from mapsto.lowering.gpu.contraction_blocks import within_side
from mapsto.lowering.gpu.contraction_fragments import WarpWork
from mapsto.lowering.gpu.contraction_panels import Share
from mapsto.lowering.gpu.contraction_threads import ThreadWork
from mapsto.lowering.indexed import Indices
from mapsto.lowering.indices import Index, variable
from mapsto.lowering.loops import (
    Allocate,
    Barrier,
    Buffer,
    Constant,
    Expression,
    For,
    If,
    Let,
    LoopKind,
    Reduce,
    Ref,
    Shuffle,
    Space,
    Statement,
    all_of,
    apply,
    cast,
    compare,
    constant,
    select,
)
from mapsto.lowering.weighted_problem import WeightedProblem

__all__ = ["RunningRows", "over"]

_LANE = "lane"


@dataclass(frozen=True, slots=True)
class RunningRows:
    """The rows from `row` on of a batch, as far as keys were seen; `fits` holds a part's scores,
    then its weights."""

    problem: WeightedProblem
    fits: ThreadWork | WarpWork
    values: ThreadWork | WarpWork
    batch: Index
    row: Index
    has_shuffle: bool

    @property
    def share(self) -> Share:
        """Which scores the thread has."""
        return self.fits.share

    @property
    def slots(self) -> Buffer:
        """Where threads of a row tell each other what they have, if not by shuffles."""
        shape = self.fits.tile.rows, self.share.lanes
        return Buffer("slots", self.fits.sums.dtype, shape, Space.SHARED)

    @property
    def total(self) -> Expression:
        """The total of the row."""
        return self._total[self._place]

    @property
    def _place(self) -> Indices:
        return tuple(variable(name) for name, _ in self.share.rows)

    def _of_rows(self, name: str) -> Buffer:
        shape = tuple(extent for _, extent in self.share.rows)
        return Buffer(name, self.fits.sums.dtype, shape, Space.REGISTER)

    @property
    def _top(self) -> Buffer:
        return self._of_rows("top")

    @property
    def _total(self) -> Buffer:
        return self._of_rows("total")

    @property
    def _base(self) -> Buffer:
        """The greatest score of a part; then what is subtracted from scores."""
        return self._of_rows("base")

    @property
    def _factor_type(self) -> DType:
        return self.problem.values.dtype

    def _constant(self, value: float) -> Constant:
        return constant(value, self.fits.sums.dtype)

    # ---- statements

    def begin(self) -> list[Statement]:
        """Declares what is kept of rows: nothing was seen."""
        first = [
            self._top.store(self._place, self._constant(-math.inf)),
            self._total.store(self._place, self._constant(0)),
        ]
        buffers = (self._top, self._total, self._base)
        return [*map(Allocate, buffers), *over(self.share.rows, first)]

    def see(self, key: Index) -> list[Statement]:
        """Makes weights of the products with the keys from one on, and brings what was summed to
        the same measure."""
        return [
            *self._scores(key),
            *self._gather("max", self._base),
            *over(self.share.rows, [*self._rescale(), *self._weights(key)]),
        ]

    def finish(self) -> list[Statement]:
        """Adds up the totals; no number is what belongs to an infinite greatest score."""
        name = "off"
        off = Ref(name, self._top.dtype)
        values = self.values.share
        top = self._top[self._place]
        sums = Reduce("add", self.values.sums, values.place, off)
        correction: list[Statement] = [
            Let(name, top - top),
            Reduce("add", self._total, self._place, off),
            *over(values.columns, [sums]),
        ]
        return [*self._gather("add", self._total), *over(self.share.rows, correction)]

    def store_statistics(self) -> list[Statement]:
        """Writes the greatest scores and the totals, if they are results of the kernel: the first
        thread of each row."""
        access, rows = self.problem.access, self.problem.fits.rows
        known = {access.sums.top: self._top[self._place], access.sums.total: self.total}
        stores = access.store_row(access.row(self._at(0)), known)
        first = compare("eq", self.share.lane, 0)
        exists = within_side(self.row + self.share.row, rows.size, self.fits.tile.rows)
        condition = all_of(first, exists)
        if not stores or condition is None:
            return []
        return over(self.share.rows, [If(condition, tuple(stores))])

    def less_than(self, least: float, then: Statement) -> list[Statement]:
        """The statement where the greatest score of one of the thread's rows is less."""
        condition = apply("lt", self._top[self._place], self._constant(least))
        return over(self.share.rows, [If(condition, (then,))])

    # ---- scores and weights

    def _at(self, key: Index) -> Indices:
        """The indices of the thread's score of a key."""
        fits = self.problem.fits
        point = {
            **fits.batch.split(self.batch),
            **fits.rows.split(self.row + self.share.row),
            **fits.columns.split(key),
        }
        return tuple(point[d] for d in range(fits.op.rank))

    def _scores(self, key: Index) -> list[Statement]:
        """Replaces products by scores, and finds the greatest of each row among the thread's; keys
        that do not exist fit least."""
        share, sums, tile = self.share, self.fits.sums, self.fits.tile
        key = key + share.column
        exists = within_side(key, self.problem.fits.columns.size, tile.columns)
        row = within_side(self.row + share.row, self.problem.fits.rows.size, tile.rows)

        def use(score: Expression) -> list[Statement]:
            value = cast(score, sums.dtype)
            if exists is not None:
                value = select(exists, value, self._constant(-math.inf))
            store = sums.store(share.place, value)
            return [store, Reduce("max", self._base, self._place, sums[share.place])]

        guard = all_of(exists, row)
        body = self.problem.access.score(self._at(key), sums[share.place], guard, use)
        least = self._base.store(self._place, self._constant(-math.inf))
        return over(share.rows, [least, *over(share.columns, body)])

    def _rescale(self) -> Iterator[Statement]:
        """Takes the greatest score of a part into that of all, and what was summed with it.  As
        long as there are none but infinite ones, zero is subtracted: each weighs nothing yet."""
        top, base, place, dtype = self._top, self._base, self._place, self._top.dtype
        greatest, factor = Ref("greatest", dtype), Ref("factor", dtype)
        none = apply("eq", greatest, self._constant(-math.inf))
        values = self.values.share
        yield Let("greatest", apply("max", top[place], base[place]))
        yield base.store(place, select(none, self._constant(0), greatest))
        yield Let("factor", apply("exp", top[place] - base[place]))
        yield top.store(place, greatest)
        yield Reduce("mul", self._total, place, factor)
        yield from over(values.columns, [Reduce("mul", self.values.sums, values.place, factor)])

    def _weights(self, key: Index) -> list[Statement]:
        """Replaces scores by weights, and adds these to the thread's part of the total."""
        share, sums = self.share, self.fits.sums

        def use(weight: Expression) -> list[Statement]:
            # The total is that of weights before they are rounded to what they are multiplied as.
            whole = cast(weight, sums.dtype)
            store = sums.store(share.place, cast(cast(weight, self._factor_type), sums.dtype))
            return [store, Reduce("add", self._total, self._place, whole)]

        at, score = self._at(key + share.column), sums[share.place]
        body = self.problem.access.weight(at, score, self._base[self._place], use)
        return over(share.columns, body)

    # ---- the threads of a row

    def _gather(self, op: str, register: Buffer) -> list[Statement]:
        """Combines what the threads of a row have, in every one of them."""
        if self.has_shuffle:
            return over(self.share.rows, list(self._shuffled(op, register)))
        row, place = self.share.row, self._place
        tell = self.slots.store((row, self.share.lane), register[place])
        first = register.store(place, self.slots[row, 0])
        others = Reduce(op, register, place, self.slots[row, _LANE])
        hear: list[Statement] = [first, For(_LANE, 1, self.share.lanes, (others,), LoopKind.UNROLL)]
        return [*over(self.share.rows, [tell]), Barrier(), *over(self.share.rows, hear)]

    def _shuffled(self, op: str, register: Buffer) -> Iterator[Statement]:
        lane = self.share.lanes // 2
        while lane:
            name = f"other{lane}"
            yield Let(name, Shuffle(register[self._place], lane))
            yield Reduce(op, register, self._place, Ref(name, register.dtype))
            lane //= 2


def over(loops: Sequence[tuple[str, int]], body: Sequence[Statement]) -> list[Statement]:
    """The statements for all values of some variables, laid out."""
    result = list(body)
    for name, extent in reversed(loops):
        result = [For(name, 0, extent, tuple(result), LoopKind.UNROLL)]
    return result
