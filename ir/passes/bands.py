"""The pass that leaves out of matrices what a mask of indices leaves out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod

from mapsto.ir.band_groups import GroupWriter, NoSuchFormError
from mapsto.ir.banded import Banded, find_banded, matrix_side
from mapsto.ir.bands import Band
from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Operation, Value
from mapsto.ir.liveness import live_operations
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.elementwise import Add
from mapsto.ir.ops.shaping import Concat
from mapsto.ir.passes.base import BlockPass
from mapsto.ir.product_sums import TakesSums, find_sums_together
from mapsto.ir.substitution import Values, copy_operation
from mapsto.ir.types import DType

__all__ = ["Bands"]

GROUPS = (2, 4, 8)
"""In so many groups the rows may be divided; each has kernels of its own."""
WORTH_MORE_GROUPS = 1.15
"""By how much less has to be left with the most groups, so that fewer do not do."""
MOST_GROUPS = 16
"""So many groups of rows at most in a block: each has kernels that take time to compile."""
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

    So for all matrices that are computed element by element from products under the mask, in
    backward passes as well.  What is left out is a number for each row, or such a number times a
    product, and is taken out of the sums: results are those of the whole, also with infinities and
    NaN among the values, but for the order of adding; sums of values have to be within their dtype.
    Only for sizes that are known, and where sums, and the maximum
    along the keys, are all that is needed of the matrices.  A group has `rows` at least, and `work`
    multiply-adds are left out, not counting the first axis: the batch.  Weighted sums that have a
    kernel of their own leave out keys themselves: those that the target `takes_sums` of.
    """

    rows: int = 32
    work: int = 1 << 19
    takes_sums: TakesSums | None = None

    name = "bands"

    def run_on_block(self, block: Block) -> Block:
        found = list(self._matrices(block))
        if not found:
            return block
        return self._divided(block, found, max(GROUPS[0], MOST_GROUPS // len(found)))

    def _matrices(self, block: Block) -> Iterator[Banded]:
        takes = self.takes_sums
        found = [] if takes is None else find_sums_together(block)
        taken = [sums.inside for sums in found if takes is not None and takes(sums)]
        for banded in find_banded(block, GROUPS[0] * self.rows):
            if not any(banded.matrices <= inside for inside in taken):
                yield banded

    def _divided(self, block: Block, found: Iterable[Banded], most: int) -> Block:
        """The block with the rows of the matrices in it in so many groups at most."""
        for banded in found:
            groups = self._groups(banded, most)
            split = _split(block, banded, groups) if groups else None
            if split is not None:
                return self._divided(split, self._matrices(split), most)
        return block

    def _groups(self, banded: Banded, most: int) -> Sequence[_Group]:
        """The groups of rows; none where too little is left out."""
        if any(value.dtype is DType.F16 for value in banded.matrices):
            # Sums of what is left out, before they are weighted, would exceed its range.
            return ()
        rows, keys = (banded.shape[a] for a in banded.axes)
        counts = [n for n in GROUPS if rows >= n * self.rows and n <= most]
        several = [_divided(rows, keys, n, banded.band) for n in counts]
        if not several:
            return ()
        seen = [sum(len(g.rows) * len(g.keys) for g in groups) for groups in several]
        chosen = next(i for i, count in enumerate(seen) if count <= WORTH_MORE_GROUPS * seen[-1])
        share = 1 - seen[chosen] / (rows * keys)
        every = (op.extents[1:] for op in (*banded.products, *banded.users))
        work = sum(prod(e for e in extents if isinstance(e, int)) for extents in every)
        if share < LEAST_SHARE or share * work < self.work:
            return ()
        return several[chosen] if all(group.keys for group in several[chosen]) else ()


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows, and the keys that they see."""

    rows: range
    keys: range


def _divided(rows: int, keys: int, count: int, band: Band) -> list[_Group]:
    """So many groups of rows, with what the band leaves them of the keys."""
    step = ceil(rows / count)
    parts = [range(start, min(rows, start + step)) for start in range(0, rows, step)]
    return [_Group(part, band.columns(part[0], part[-1], keys)) for part in parts]


def _split(block: Block, banded: Banded, groups: Sequence[_Group]) -> Block | None:
    """The block with the matrices computed group by group; None where one has a form outside of the
    band that cannot be taken out of sums."""
    build = Builder(Block(()))
    try:
        _write(build, block, banded, groups)
    except NoSuchFormError:
        return None
    return live_operations(block.with_operations(build.block.operations))


def _write(build: Builder, block: Block, banded: Banded, groups: Sequence[_Group]) -> None:
    values: Values = {}
    writers = [GroupWriter(build, banded, g.rows, g.keys, values) for g in groups]
    users = set(banded.users)
    for op in block.operations:
        build.location = op.location
        if isinstance(op, Contract) and op in users:
            values[op.result] = _used_up(build, op, banded, writers)
        elif banded.matrices.isdisjoint(op.results):
            build.append(_moved(op, values))
        else:
            for writer in writers:
                writer.matrix(op.result)


def _moved(op: Operation, values: Values) -> Operation:
    if not any(operand in values for operand in op.operands):
        return op
    return copy_operation(op, values, {})


def _used_up(build: Builder, op: Contract, banded: Banded, writers: Sequence[GroupWriter]) -> Value:
    """What uses matrices up, from what it is for the groups."""
    matrix = next(value for value in op.operands if value in banded.matrices)
    side = matrix_side(op, matrix, banded.axes)
    assert side is not None, "as was found"
    rows, keys = (op.maps[side].results[a].single for a in banded.axes)
    if len(op.operands) == 1:
        return build.emit(Concat, *(writer.reduced(op) for writer in writers), axis=rows)
    if keys == op.rank:
        return build.emit(Concat, *(writer.over_keys(op, side) for writer in writers), axis=rows)
    total, *others = (writer.over_rows(op, side) for writer in writers)
    for other in others:
        total = build.emit(Add, total, other)
    return total
