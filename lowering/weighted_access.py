"""Weighted sums inside their kernel: reading operands, scores and weights element by element, and
using each sum in what is fused behind it (`ir/weighted_sums.py`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.core import Value
from mapsto.ir.weighted_sums import WeightedSums
from mapsto.lowering.affine_indices import affine_index
from mapsto.lowering.contraction_access import KernelAccess
from mapsto.lowering.indexed import IndexedEmitter, Indices
from mapsto.lowering.loops import Buffer, Expression, Statement, Store, cast

__all__ = ["WeightedAccess"]

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
        place = tuple(affine_index(e, at) for e in found.row_place(len(at)) if e is not None)
        beside = []
        if found.total is not None:
            dtype = found.total.result.dtype
            beside = [(found.total.result, place, cast(total, dtype))]
        if found.is_mean:
            value = value / total
        return self.values.store(at, cast(value, found.sums.result.dtype), None, beside)

    def store_total(self, row: Indices, total: Expression) -> list[Statement]:
        """What is done with the total of a row on its own."""
        found = self.sums.total
        buffers = () if found is None else self.outputs.get(found.result, ())
        return [Store(buffer, row, cast(total, buffer.dtype)) for buffer in buffers]
