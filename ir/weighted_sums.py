"""Sums of values, weighted by exponentials of how well something fits: found where they are.

    fits    = contract %queries, %keys          rows x keys
    scores  = .. %fits ..                       element by element
    top     = contract max %scores              along the keys
    weights = exp(%scores - %top)
    total   = contract sum %weights             along the keys
    sums    = contract %weights, %values        rows x columns

or, where weights are made smaller than sums, `contract cast(%weights / %total), %values`.

A target that goes over the keys once, part by part, never has a matrix of rows x keys in memory: it
keeps the greatest score so far, and multiplies what was summed by exp(before - now) where a greater
one comes (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al.,
"FlashAttention", 2022).  What is found depends on what is computed, not on who wrote it: scores may
be scaled, masked, or have anything added that is known at an element's indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from mapsto.ir.affine import AffineExpr
from mapsto.ir.core import Block, Operation, Trait, Value
from mapsto.ir.dataflow import Place, is_identity, operand_places
from mapsto.ir.liveness import users_of
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.elementwise import Div, Sub
from mapsto.ir.ops.functions import Exp
from mapsto.ir.ops.indexing import Gather, Scatter
from mapsto.ir.ops.logic import Cast
from mapsto.ir.ops.shaping import Broadcast
from mapsto.ir.ops.updates import DynamicUpdate
from mapsto.ir.stages import Stage, is_external, is_heavy

_T = TypeVar("_T")

__all__ = ["WeightedSums", "along_rows", "find_weighted_sums", "reads_rows"]


@dataclass(frozen=True, slots=True, eq=False)
class WeightedSums:
    """The ops of the head of this file; `inside` are the values from `fits` to `weights`, which
    nothing else uses if they are closed, and `top`, `total` and `sums`.

    `keys` is the axis of the scores along which they are normalized; `side` tells which operand of
    `sums` the weights are, divided by their total already if `is_mean`.  The axes of `total` are
    those of rows in an `order` of its own: heads may have become the last one.
    """

    fits: Contract
    scores: Value
    top: Contract
    weights: Value
    total: Contract | None
    sums: Contract
    keys: int
    side: int
    is_mean: bool
    order: tuple[int, ...]
    inside: frozenset[Value]

    @property
    def statistics(self) -> tuple[Contract, ...]:
        """What is known of each row: its greatest score, and the total of its weights."""
        return (self.top,) if self.total is None else (self.top, self.total)

    @property
    def places(self) -> tuple[AffineExpr, ...]:
        """Where along each axis of the weights a point of the domain of `sums` reads."""
        return self.sums.maps[self.side].results

    def row_place(self, rank: int) -> Place:
        """Where a point of the result of `sums` has its row."""
        rows = [expr for axis, expr in enumerate(self.places) if axis != self.keys]
        return tuple(AffineExpr(expr.coefficients[:rank], expr.constant) for expr in rows)

    def in_total(self, row: Sequence[_T]) -> tuple[_T, ...]:
        """What belongs to the axes of rows, in the order that the total has them in."""
        return tuple(row[axis] for axis in self.order)

    def takes(self, behind: Sequence[Stage], stage: Stage) -> bool:
        """Whether a stage uses no more than the sums at its own indices and the total of the row;
        `behind` are those that do so already."""
        result = self.sums.result
        if not stage.is_map or stage.value.shape != result.shape:
            return False
        own = {result, *(other.value for other in behind)}
        found = [read for read in stage.reads if read.value in own | self.inside]
        uses = any(read.value in own for read in found)
        return uses and all(
            is_identity(read.place)
            if read.value in own
            else self._is_total(read.value)
            and read.place == self.in_total(self.row_place(result.type.rank))
            for read in found
        )

    def _is_total(self, value: Value | None) -> bool:
        return self.total is not None and value is self.total.result


def find_weighted_sums(block: Block, closed: bool = True) -> list[WeightedSums]:
    """Those of a block, in order; no two have an op in common.

    Unless they have to be `closed`, something else may need what is inside, as a backward pass
    does; then several may have it in common.
    """
    search = _Search(block, closed)
    return [found for op in block.operations if (found := search.ending_in(op)) is not None]


class _Search:
    def __init__(self, block: Block, closed: bool) -> None:
        self.block = block
        self.closed = closed
        self.numbers = {op: number for number, op in enumerate(block.operations)}
        self.users = users_of(block.operations)

    def ending_in(self, op: Operation) -> WeightedSums | None:
        """The weighted sums that an op computes."""
        if not isinstance(op, Contract) or not is_heavy(op) or len(op.reduced) != 1:
            return None
        for side, operand in enumerate(op.operands):
            found = self._weighted_by(op, side, operand)
            if found is not None and self._is_closed(found):
                return found
        return None

    def _weighted_by(self, sums: Contract, side: int, factors: Value) -> WeightedSums | None:
        quotient = _quotient(factors)
        weights = factors if quotient is None else quotient.operands[0]
        difference = weights.owner.operands[0].owner if isinstance(weights.owner, Exp) else None
        if not isinstance(difference, Sub):
            return None
        scores, greatest = difference.operands
        repeated = greatest.owner
        top = repeated.operands[0].owner if isinstance(repeated, Broadcast) else None
        keys = _reduced_axis(top, "max", scores)
        if not (isinstance(repeated, Broadcast) and isinstance(top, Contract)) or keys is None:
            return None
        if repeated.dims != _others(scores, keys):
            return None
        cone = _Cone(scores)
        if cone.fits is None or not reads_rows(sums, side, (keys,)):
            return None
        users = [op for op in self.users[weights] if op not in (sums, quotient)]
        reductions = [(op, _reduction(op, "sum", weights)) for op in users]
        totals = [(op, found[1]) for op, found in reductions if found and found[0] == keys]
        if len(totals) > 1 or (self.closed and len(totals) < len(users)):
            return None
        rows = tuple(range(scores.type.rank - 1))
        total, order = totals[0] if totals else (None, rows)
        assert total is None or isinstance(total, Contract)
        if order != rows and not self.closed:
            return None
        repeated_total = None if quotient is None else along_rows(quotient.operands[1], keys)
        if quotient is not None and (total is None or repeated_total is not total.result):
            return None
        ends = (difference.result, greatest, top.result, weights, sums.result)
        divided = () if quotient is None else (factors, *quotient.results, quotient.operands[1])
        inside = {*cone.dependent, *ends, *divided, *(() if total is None else (total.result,))}
        fits, every, is_mean = cone.fits, frozenset(inside), quotient is not None
        ops = (fits, scores, top, weights, total, sums)
        return WeightedSums(*ops, keys, side, is_mean, order, every)

    def _is_closed(self, found: WeightedSums) -> bool:
        """Whether nothing else uses what is inside, if that is asked for, and what is inside needs
        no result of it."""
        results = {found.sums.result, *(op.result for op in found.statistics)}
        users = (user for v in found.inside - results for user in self.users.get(v, ()))
        if self.closed and any(
            not user.results or not found.inside.issuperset(user.results) for user in users
        ):
            return False
        between = self.block.operations[self.numbers[found.fits] : self.numbers[found.sums]]
        if any(op.has_effect for op in between):
            return False
        derived = set(found.inside)
        for op in between:
            if not derived.isdisjoint(op.operands):
                derived.update(op.results)
        return found.sums.operands[1 - found.side] not in derived


class _Cone:
    """What computes scores element by element: the product at its end, and the values that depend
    on it."""

    def __init__(self, scores: Value) -> None:
        self.fits: Contract | None = None
        self.dependent: set[Value] = set()
        self._known: dict[Value, bool] = {}
        self._fails = False
        self._visit(scores)
        if self._fails or not self.dependent:
            self.fits = None

    def _visit(self, value: Value) -> bool:
        """Whether a value depends on the product."""
        known = self._known.get(value)
        if known is not None:
            return known
        op = value.owner
        if not isinstance(op, Operation) or is_external(value):
            depends = False
        elif isinstance(op, Contract) and is_heavy(op):
            self._fails |= self.fits not in (None, op)
            self.fits, depends = op, True
        else:
            # Every operand is visited: one of them may be what does not fit.
            depends = True in [self._visit(operand) for operand in op.operands]
            self._fails |= depends and not op.has(Trait.ELEMENTWISE)
            self._fails |= isinstance(op, Gather | Scatter | DynamicUpdate)
        self._known[value] = depends
        if depends:
            self.dependent.add(value)
        return depends


def _quotient(value: Value) -> Div | None:
    """The division that gives a value, or what it was rounded from."""
    op = value.owner
    op = op.operands[0].owner if isinstance(op, Cast) else op
    return op if isinstance(op, Div) else None


def along_rows(value: Value, keys: int) -> Value | None:
    """What is repeated along the keys, a number for each row, to give a value."""
    op = value.owner
    if not isinstance(op, Broadcast) or op.dims != _others(value, keys):
        return None
    return op.operands[0]


def _others(value: Value, axis: int) -> tuple[int, ...]:
    return tuple(i for i in range(value.type.rank) if i != axis)


def _reduced_axis(op: object, kind: str, operand: Value) -> int | None:
    """The axis of the operand that a reduction is along, where it keeps the others in order."""
    found = _reduction(op, kind, operand)
    return found[0] if found is not None and list(found[1]) == sorted(found[1]) else None


def _reduction(op: object, kind: str, operand: Value) -> tuple[int, tuple[int, ...]] | None:
    """The axis of the operand that a reduction is along, and which of the others each axis of the
    result is."""
    if not isinstance(op, Contract) or op.kind != kind or list(op.operands) != [operand]:
        return None
    if len(op.reduced) != 1 or not op.attributes["reassociate"]:
        return None
    singles = [None if expr is None else expr.single for expr in operand_places(op)[0]]
    if sorted(d for d in singles if d is not None) != list(range(len(singles))):
        return None
    if tuple(op.extents[d] for d in singles if d is not None) != operand.shape:
        return None
    axis = singles.index(op.rank)
    others = [d for d in singles if d != op.rank]
    return axis, tuple(others.index(d) for d in range(op.rank))


def reads_rows(sums: Contract, side: int, keys: Sequence[int]) -> bool:
    """Whether the contraction goes along some axes, over whole rows each of which is used once."""
    map_, shape = sums.maps[side], sums.operands[side].shape
    singles = [expr.single for expr in map_.results]
    if {singles[axis] for axis in keys} != set(sums.reduced):
        return False
    known = [d for d in singles if d is not None]
    axes = zip(singles, map_.results, shape, strict=True)
    return len(set(known)) == len(known) and all(
        sums.extents[d] == size if d is not None else size == 1 and expr == expr.scaled(0)
        for d, expr, size in axes
    )
