"""Sums of values that are weighted by a matrix, whose elements are computed from products.

    fits    = contract %queries, %keys             rows x keys
    slopes  = contract %d_sums, %values            rows x keys
    weights = exp(.. %fits .. - %top)              element by element, %top of each row or key
    matrix  = .. %slopes .. %weights ..
    sums    = contract %matrix, %others            rows x columns

So are the gradients of weighted sums (`weighted_sums`), once each has a matrix of its own
(`recomputing`): by the queries with `matrix` as it is, by the keys with its rows as keys.  A target
that goes over the keys part by part computes the matrix where it is used, and never has it in
memory (Dao et al., "FlashAttention", 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mapsto.ir.affine import AffineExpr
from mapsto.ir.core import Block, Operation, Trait, Value
from mapsto.ir.dataflow import is_identity, takes_loop
from mapsto.ir.liveness import users_of
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.elementwise import Sub
from mapsto.ir.ops.functions import Exp
from mapsto.ir.ops.indexing import Gather
from mapsto.ir.ops.shaping import Broadcast
from mapsto.ir.stages import Stage, is_external, is_heavy
from mapsto.ir.weighted_sums import WeightedSums, find_weighted_sums, reads_rows

__all__ = ["ProductSums", "SumsTogether", "TakesSums", "find_product_sums", "find_sums_together"]


@dataclass(frozen=True, slots=True, eq=False)
class ProductSums:
    """The ops of the head of this file; `inside` are the values from the products to the matrix,
    which nothing else uses, and `sums`.

    `keys` are the axes of the matrix along which is summed, several where heads share keys or
    values; `side` tells which operand of `sums` the matrix is.
    """

    products: tuple[Contract, ...]
    matrix: Value
    sums: Contract
    keys: tuple[int, ...]
    side: int
    inside: frozenset[Value]

    @property
    def places(self) -> tuple[AffineExpr, ...]:
        """Where along each axis of the matrix a point of the domain of `sums` reads."""
        return self.sums.maps[self.side].results

    def takes(self, behind: Sequence[Stage], stage: Stage) -> bool:
        """Whether a stage uses no more than the sums at its own indices; `behind` are those that do
        so already."""
        if not stage.is_map or stage.value.shape != self.sums.result.shape:
            return False
        own = {self.sums.result, *(other.value for other in behind)}
        found = [read for read in stage.reads if read.value in own | self.inside]
        uses = any(read.value in own for read in found)
        return uses and all(read.value in own and is_identity(read.place) for read in found)


SumsTogether = WeightedSums | ProductSums
"""What a target may have one kernel for."""
TakesSums = Callable[[SumsTogether], bool]
"""Whether a target has one for such sums."""


def find_sums_together(block: Block) -> list[SumsTogether]:
    """The sums of either form in a block; no two have an op in common."""
    weighted = find_weighted_sums(block)
    taken = frozenset().union(*(sums.inside for sums in weighted))
    others = (sums for sums in find_product_sums(block) if taken.isdisjoint(sums.inside))
    return [*weighted, *others]


def find_product_sums(block: Block) -> list[ProductSums]:
    """Those of a block, in order; no two have an op in common."""
    users = users_of(block.operations)
    ends = [op for op in block.operations if isinstance(op, Contract) and is_heavy(op)]
    found = (_ending_in(op, side) for op in ends for side in range(2))
    return [sums for sums in found if sums is not None and _is_closed(sums, users)]


def _ending_in(op: Contract, side: int) -> ProductSums | None:
    matrix = op.operands[side]
    cone = _Cone(matrix)
    singles = [expr.single for expr in op.maps[side].results]
    keys = tuple(axis for axis, d in enumerate(singles) if d in op.reduced)
    if not (cone.is_weighted and cone.fits_together):
        return None
    if op.operands[1 - side] in cone.dependent or not reads_rows(op, side, keys):
        return None
    inside = frozenset((*cone.dependent, op.result))
    return ProductSums(tuple(cone.products), matrix, op, keys, side, inside)


def _is_closed(sums: ProductSums, users: dict[Value, list[Operation]]) -> bool:
    """Whether nothing else uses what is inside."""
    inner = (user for v in sums.inside - {sums.sums.result} for user in users.get(v, ()))
    return all(user.results and sums.inside.issuperset(user.results) for user in inner)


class _Cone:
    """What computes a matrix element by element: the products at its end, and the values that
    depend on them.  What takes a loop is computed before, and known."""

    def __init__(self, matrix: Value) -> None:
        self.products: dict[Contract, None] = {}
        self.dependent: set[Value] = set()
        self.fits_together = True
        self.is_weighted = False
        self._shape = matrix.shape
        self._known: dict[Value, bool] = {}
        self._visit(matrix)

    def _visit(self, value: Value) -> bool:
        """Whether a value depends on a product."""
        known = self._known.get(value)
        if known is not None:
            return known
        op = value.owner
        if not isinstance(op, Operation) or is_external(value):
            depends = False
        elif isinstance(op, Contract) and is_heavy(op) and value.shape == self._shape:
            self.products[op] = None
            depends = True
        elif takes_loop(op):
            depends = False
        else:
            depends = True in [self._visit(operand) for operand in op.operands]
            self.fits_together &= not depends or op.has(Trait.ELEMENTWISE)
            self.fits_together &= not isinstance(op, Gather)
            self.is_weighted |= depends and self._is_weight(op)
        self._known[value] = depends
        if depends:
            self.dependent.add(value)
        return depends

    def _is_weight(self, op: Operation) -> bool:
        """Whether an op is the exponential of what is measured by a number of the row or key."""
        difference = op.operands[0].owner if isinstance(op, Exp) else None
        if not isinstance(difference, Sub):
            return False
        measure = difference.operands[1]
        return isinstance(measure.owner, Broadcast) and not self._visit(measure)
