"""The pass that leaves out of weighted sums what a mask of indices leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from mapsto.ir.affine import AffineExpr, axis
from mapsto.ir.bands import Band, constant_outside
from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Value
from mapsto.ir.dims import Dim
from mapsto.ir.liveness import live_operations
from mapsto.ir.ops.contraction import Contract, contract
from mapsto.ir.ops.elementwise import Add, Mul, Sub
from mapsto.ir.ops.functions import Exp, Max
from mapsto.ir.ops.shaping import Broadcast, Concat, Constant, Slice
from mapsto.ir.passes.base import BlockPass
from mapsto.ir.reordering import around
from mapsto.ir.substitution import Values, copy_operation
from mapsto.ir.weighted_sums import WeightedSums, find_weighted_sums

__all__ = ["Bands"]

GROUPS = (2, 4, 8)
"""In so many groups the rows may be divided; each has kernels of its own."""
WORTH_MORE_GROUPS = 1.15
"""By how much less has to be left with the most groups, so that fewer do not do."""
LEAST_SHARE = 0.15
"""The share of the work that is left out, at least."""


@dataclass(frozen=True)
class Bands(BlockPass):
    """Goes over those keys only that a group of rows sees, where a mask of indices says so.

    scores  = select(j <= i, fits, -1e30)         for rows 0..128, 128..256, ..:
    top     = max[j](scores)                          the same for keys 0..128, 0..256, ..
    weights = exp(scores - top)             =>        rest = exp(-1e30 - top)
    total   = sum[j](weights)                         total + rest * (number of other keys)
    sums    = sum[j](weights * values[j])             sums + rest * (sum of their values)

    What is left out is one number for a row, and so a factor of what it is multiplied by: results
    are those of the whole sums, whatever the constant and the values are, but for the order of
    adding.  Only for sizes that are known, and where nothing else uses the weights.  A group has
    `rows` at least, and `work` multiply-adds are left out, not counting the first axis: the batch.
    """

    rows: int = 128
    work: int = 1 << 20

    name = "bands"

    def run_on_block(self, block: Block) -> Block:
        for found in find_weighted_sums(block):
            plan = self._plan(found)
            if plan is not None:
                return self.run_on_block(_split(block, plan))
        return block

    def _plan(self, found: WeightedSums) -> _Plan | None:
        """How to divide the rows; None where that is not worth it."""
        extents = (*found.fits.extents, *found.sums.extents)
        if not all(isinstance(extent, int) for extent in extents):
            return None
        for axis_ in range(1, found.fits.rank):
            row = found.places[axis_].single
            outside = constant_outside(found.scores, (axis_, found.keys))
            if axis_ == found.keys or row is None or outside is None:
                continue
            number, band = outside
            groups = self._groups(found, axis_, band)
            if groups and _is_separate(found, row):
                return _Plan(found, number, groups, axis_, row)
        return None

    def _groups(self, found: WeightedSums, axis_: int, band: Band) -> Sequence[_Group]:
        """The groups of rows; none where too little is left out."""
        rows, keys = (found.scores.shape[a] for a in (axis_, found.keys))
        assert isinstance(rows, int) and isinstance(keys, int), "as was asked for"
        several = [_divided(rows, keys, n, band) for n in GROUPS if rows >= n * self.rows]
        if not several:
            return ()
        seen = [sum(len(g.rows) * len(g.keys) for g in groups) for groups in several]
        chosen = next(i for i, count in enumerate(seen) if count <= WORTH_MORE_GROUPS * seen[-1])
        share = 1 - seen[chosen] / (rows * keys)
        every = (op.extents[1:] for op in (found.fits, found.sums))
        work = sum(prod(e for e in extents if isinstance(e, int)) for extents in every)
        if share < LEAST_SHARE or share * work < self.work:
            return ()
        return several[chosen] if all(group.keys for group in several[chosen]) else ()


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows, and the keys that they see."""

    rows: range
    keys: range


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """Weighted sums whose scores are `number` but for the keys of each group; `rows` is the axis of
    the scores that the groups divide, `row` the dimension of the sums."""

    found: WeightedSums
    number: float
    groups: Sequence[_Group]
    rows: int
    row: int


def _divided(rows: int, keys: int, count: int, band: Band) -> list[_Group]:
    """So many groups of rows, with what the band leaves them of the keys."""
    step = ceil(rows / count)
    parts = [range(start, min(rows, start + step)) for start in range(0, rows, step)]
    return [_Group(part, band.columns(part[0], part[-1], keys)) for part in parts]


def _is_separate(found: WeightedSums, row: int) -> bool:
    """Whether values are the same for all rows, and rows of the weights are in the sums' order."""
    dims = _row_dims(found)
    distinct = -1 not in dims and dims == sorted(set(dims))
    return distinct and row not in found.sums.maps[1 - found.side].dims


def _row_dims(found: WeightedSums) -> list[int]:
    """The dimensions of the sums that the axes of the weights are, but for the keys; -1 for an axis
    that none is."""
    places = [expr for a, expr in enumerate(found.places) if a != found.keys]
    return [-1 if expr.single is None else expr.single for expr in places]


def _split(block: Block, plan: _Plan) -> Block:
    """The block with the weighted sums computed group by group."""
    found = plan.found
    replaced = {op for op in (found.total, found.sums) if op is not None}
    before, after = around(block, replaced)
    build = Builder(Block(()), found.sums.location)
    groups = [_GroupWriter(build, plan, group).write() for group in plan.groups]
    values: Values = {}
    values[found.sums.result] = build.emit(Concat, *(g.sums for g in groups), axis=plan.row)
    if found.total is not None:
        totals = [group.total for group in groups if group.total is not None]
        place = plan.rows - (found.keys < plan.rows)
        values[found.total.result] = build.emit(Concat, *totals, axis=place)
    moved = [copy_operation(op, values, {}) for op in after]
    return live_operations(block.with_operations([*before, *build.block.operations, *moved]))


@dataclass(frozen=True, slots=True)
class _GroupSums:
    """What weighted sums are for a group of rows."""

    sums: Value
    total: Value | None


class _GroupWriter:
    """Writes the weighted sums of a group of rows."""

    def __init__(self, build: Builder, plan: _Plan, group: _Group) -> None:
        self.build = build
        self.plan = plan
        self.found = plan.found
        self.group = group
        self.inside: dict[Value, Value] = {}

    def write(self) -> _GroupSums:
        """The sums, and the total of the weights where there is one."""
        build, found, keys = self.build, self.found, self.group.keys
        scores = self._of_group(found.scores)
        kept = [a for a in range(scores.type.rank) if a != found.keys]
        extents = (*(scores.shape[a] for a in kept), len(keys))
        top = contract(build, [scores], found.top.maps, extents, len(kept), "max")
        left = [range(keys.start), range(keys.stop, self._size(found.keys))]
        if any(left):
            top = build.emit(Max, top, build.like(self.plan.number, top))
        repeated = build.emit(Broadcast, top, shape=scores.shape, dims=tuple(kept))
        weights = build.emit(Exp, build.emit(Sub, scores, repeated))
        sums, total = self._sums(weights), None
        if found.total is not None:
            total = contract(build, [weights], found.total.maps, extents, len(kept))
        if not any(left):
            return _GroupSums(sums, total)
        rest = build.emit(Exp, build.emit(Sub, build.like(self.plan.number, top), top))
        if total is not None:
            count = build.like(sum(map(len, left)), rest)
            total = build.emit(Add, total, build.emit(Mul, rest, count))
        factor = build.emit(Broadcast, rest, shape=sums.shape, dims=tuple(_row_dims(found)))
        for part in filter(None, left):
            more = build.emit(Mul, factor, self._values(part, sums))
            sums = build.emit(Add, sums, more)
        return _GroupSums(sums, total)

    def _size(self, dim: int) -> int:
        """The number of rows or keys of all scores."""
        size = self.found.scores.shape[dim]
        assert isinstance(size, int), "as was asked for"
        return size

    def _of_group(self, value: Value) -> Value:
        """What scores are computed from, for the rows and keys of the group."""
        known = self.inside.get(value)
        if known is None:
            known = self.inside[value] = self._new_of_group(value)
        return known

    def _new_of_group(self, value: Value) -> Value:
        op, offsets = value.defining_op, self._offsets()
        if op is not None and value in self.found.inside:
            if op is self.found.fits:
                shape = self._shape(value.shape)
                extents = (*shape, *self.found.fits.extents[len(shape) :])
                return self._shifted(self.found.fits, extents, offsets)
            return self.build.append(op.rebuilt(list(map(self._of_group, op.operands)))).result
        shape = self._shape(value.shape)
        if isinstance(op, Constant) and op.splat is not None:
            return self.build.constant(op.splat, value.dtype, shape)
        starts = tuple(offsets.get(a, 0) for a in range(len(shape)))
        return self.build.emit(Slice, value, starts=starts, sizes=shape, steps=(1,) * len(shape))

    def _offsets(self) -> dict[int, int]:
        """Where the group begins along the axes of the scores."""
        return {self.plan.rows: self.group.rows.start, self.found.keys: self.group.keys.start}

    def _shape(self, shape: Sequence[Dim]) -> tuple[Dim, ...]:
        """A shape of the scores, for the group."""
        sizes = {self.plan.rows: len(self.group.rows), self.found.keys: len(self.group.keys)}
        return tuple(sizes.get(a, extent) for a, extent in enumerate(shape))

    def _shifted(self, op: Contract, extents: Sequence[Dim], offsets: dict[int, int]) -> Value:
        """A contraction over a part of its domain that begins at these offsets."""
        count = len(op.extents)
        places = [axis(d, count).shifted(offsets.get(d, 0)) for d in range(count)]
        maps = [map_.compose(places) for map_ in op.maps]
        return contract(self.build, op.operands, maps, extents, op.rank, op.kind)

    def _sums(self, weights: Value) -> Value:
        """The sums over the keys of the group."""
        op, side = self.found.sums, self.found.side
        sizes = {self.plan.row: len(self.group.rows), op.rank: len(self.group.keys)}
        extents = [sizes.get(d, extent) for d, extent in enumerate(op.extents)]
        places = [axis(d, len(extents)) for d in range(len(extents))]
        places[op.rank] = places[op.rank].shifted(self.group.keys.start)
        operands, maps = list(op.operands), list(op.maps)
        operands[side], maps[1 - side] = weights, maps[1 - side].compose(places)
        return contract(self.build, operands, maps, extents, op.rank)

    def _values(self, keys: range, like: Value) -> Value:
        """The sum of the values of some keys, in the shape of the sums."""
        op, other = self.found.sums, 1 - self.found.side
        map_ = op.maps[other]
        kept = [d for d in range(op.rank) if d in map_.dims]
        extents = [*(op.extents[d] for d in kept), len(keys)]
        places = [AffineExpr((0,) * len(extents))] * len(op.extents)
        for position, d in enumerate(kept):
            places[d] = axis(position, len(extents))
        places[op.rank] = axis(len(kept), len(extents)).shifted(keys.start)
        total = contract(
            self.build, [op.operands[other]], [map_.compose(places)], extents, len(kept)
        )
        return self.build.emit(Broadcast, total, shape=like.shape, dims=tuple(kept))
