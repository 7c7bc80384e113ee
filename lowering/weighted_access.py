"""Weighted sums inside their kernel: reading operands, scores and weights element by element, and
using each sum in what is fused behind it (`ir/weighted_sums.py`, `ir/product_sums.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.core import Value
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.product_sums import ProductSums, SumsTogether
from mapsto.ir.weighted_sums import WeightedSums
from mapsto.lowering.affine_indices import affine_index
from mapsto.lowering.contraction_access import KernelAccess
from mapsto.lowering.indexed import IndexedEmitter, Indices
from mapsto.lowering.loops import Buffer, Expression, Statement, Store, cast

__all__ = ["ProductAccess", "SumsAccess", "WeightedAccess", "sums_access"]

Use = Callable[[Expression], Sequence[Statement]]
"""What is done with an element."""


@dataclass(frozen=True, slots=True)
class WeightedAccess:
    """`stages` are the values to compute for each element of the sums, in order, `outputs` the
    kernel's results and their buffers."""

    sums: WeightedSums
    emitter: IndexedEmitter
    stages: Sequence[Value]
    outputs: Mapping[Value, Sequence[Buffer]]

    @property
    def fits(self) -> KernelAccess:
        """How the product of rows and keys reads its operands."""
        return KernelAccess(self.sums.fits, self.emitter, (), {})

    @property
    def values(self) -> KernelAccess:
        """How the sums read what they weight."""
        return KernelAccess(self.sums.sums, self.emitter, self.stages, self.outputs)

    def score(
        self, at: Indices, fit: Expression, guard: Expression | None, use: Use
    ) -> list[Statement]:
        """The statements that compute the score at some indices from the product there; where the
        guard is false nothing is read."""
        sums, emitter = self.sums, self.emitter
        with emitter.floating_scope() as statements:
            emitter.know(
                sums.fits.result, at, emitter.let("fit", cast(fit, sums.fits.result.dtype))
            )
            score = emitter.let("score", emitter.element(sums.scores, at, guard))
        return [*statements, *use(score)]

    def weight(self, at: Indices, score: Expression, top: Expression, use: Use) -> list[Statement]:
        """The statements that compute the weight at some indices from the score there and the
        greatest of the row."""
        sums, emitter, dtype = self.sums, self.emitter, self.sums.scores.dtype
        row = self.row(at)
        with emitter.floating_scope() as statements:
            emitter.know(sums.scores, at, emitter.let("score", cast(score, dtype)))
            emitter.know(sums.top.result, row, emitter.let("top", cast(top, dtype)))
            weight = emitter.let("weight", emitter.element(sums.weights, at))
        return [*statements, *use(weight)]

    def row(self, at: Indices) -> Indices:
        """The indices without that of the key."""
        keys = self.sums.keys
        return (*at[:keys], *at[keys + 1 :])

    def store(self, at: Indices, value: Expression, total: Expression) -> Sequence[Statement]:
        """What is done with a sum, and the total of its row."""
        found = self.sums
        row = [affine_index(e, at) for e in found.row_place(len(at)) if e is not None]
        place = found.in_total(row)
        beside = []
        if found.total is not None:
            dtype = found.total.result.dtype
            beside = [(found.total.result, place, cast(total, dtype))]
        if found.is_mean:
            value = value / total
        return self.values.store(at, cast(value, found.sums.result.dtype), None, beside)

    def store_row(
        self, row: Indices, values: Mapping[Contract | None, Expression]
    ) -> list[Statement]:
        """What is done with the greatest score and the total of a row on their own."""
        found = self.sums
        return [
            Store(
                buffer,
                found.in_total(row) if op is found.total else row,
                cast(values[op], buffer.dtype),
            )
            for op in self.sums.statistics
            for buffer in self.outputs.get(op.result, ())
        ]


@dataclass(frozen=True, slots=True)
class ProductAccess:
    """The same for sums that are weighted by what is computed from products."""

    sums: ProductSums
    emitter: IndexedEmitter
    stages: Sequence[Value]
    outputs: Mapping[Value, Sequence[Buffer]]

    @property
    def products(self) -> list[KernelAccess]:
        """How the products read their operands."""
        return [KernelAccess(op, self.emitter, (), {}) for op in self.sums.products]

    @property
    def values(self) -> KernelAccess:
        """How the sums read what they weight."""
        return KernelAccess(self.sums.sums, self.emitter, self.stages, self.outputs)

    def weight(
        self, at: Indices, products: Sequence[Expression], guard: Expression | None, use: Use
    ) -> list[Statement]:
        """The statements that compute the matrix at some indices from the products there; where the
        guard is false nothing is read."""
        emitter = self.emitter
        with emitter.floating_scope() as statements:
            for op, value in zip(self.sums.products, products, strict=True):
                emitter.know(op.result, at, emitter.let("fit", cast(value, op.result.dtype)))
            weight = emitter.let("weight", emitter.element(self.sums.matrix, at, guard))
        return [*statements, *use(weight)]


SumsAccess = WeightedAccess | ProductAccess


def sums_access(
    sums: SumsTogether,
    emitter: IndexedEmitter,
    stages: Sequence[Value],
    outputs: Mapping[Value, Sequence[Buffer]],
) -> SumsAccess:
    """The access of sums of either kind."""
    if isinstance(sums, WeightedSums):
        return WeightedAccess(sums, emitter, stages, outputs)
    return ProductAccess(sums, emitter, stages, outputs)
