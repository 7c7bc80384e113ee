"""Cheap branches as selections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mapsto.ir.bounds import nonnegative
from mapsto.ir.core import Block, Module, Operation, Trait, Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.flow import If
from mapsto.ir.ops.logic import Select
from mapsto.ir.ops.shaping import Broadcast
from mapsto.ir.passes.base import Pass
from mapsto.ir.rewriting import Rewriter, rewrite, rewrite_module
from mapsto.ir.substitution import copy_into

__all__ = ["FlattenIf"]

ALWAYS_CHEAP = 64
"""Elementwise operations up to which both branches are computed: a jump costs more."""

PER_ELEMENT = 4
"""Elementwise operations for each element of the results up to which they are: a branch has its
results written to memory, a selection not."""

COST_OF_EXPENSIVE = 16
"""Operations that one of a function such as `exp` counts for."""


@rewrite
def cheap_branches(op: If, rewriter: Rewriter) -> Sequence[Value] | None:
    """Where both branches may be computed, and cheaply, the condition selects from their results"""
    if not all(map(_may_run_always, op.branches)) or not _is_cheap(op):
        return None
    sides = [
        copy_into(
            block, rewriter.build.block, dict(zip(block.arguments, op.arguments, strict=True))
        )
        for block in op.branches
    ]
    return [_selected(op.condition, x, y, rewriter) for x, y in zip(*sides, strict=True)]


def _selected(condition: Value, x: Value, y: Value, rewriter: Rewriter) -> Value:
    if x is y:
        return x
    mask = rewriter.emit(Broadcast, condition, shape=x.shape, dims=()) if x.shape else condition
    return rewriter.emit(Select, mask, x, y)


def _may_run_always(block: Block) -> bool:
    """Whether the operations have no effect, cannot fail, and end up inside other kernels."""
    return all(
        op.has(Trait.ELEMENTWISE | Trait.INDEXING)
        and not (op.has_effect or op.can_fail or op.regions)
        for op in block.operations[:-1]
    )


def _is_cheap(op: If) -> bool:
    cost: Dim = sum((_cost(o) for b in op.branches for o in b.operations[:-1]), start=0)
    elements: Dim = sum((result.type.elements for result in op.results), start=0)
    return nonnegative(ALWAYS_CHEAP + PER_ELEMENT * elements - cost)


def _cost(op: Operation) -> Dim:
    if not op.has(Trait.ELEMENTWISE):
        return 0
    weight = COST_OF_EXPENSIVE if op.has(Trait.EXPENSIVE) else 1
    return weight * op.result.type.elements


@dataclass(frozen=True)
class FlattenIf(Pass):
    """Computes both branches of an `if` and selects, where that is cheap and can do no harm.

        %y = if %c, %x (%x1) {                  %1 = neg %x
          %1 = neg %x1                          %2 = broadcast %c
          return %1                       =>    %y = select %2, %1, %x
        } (%x2) {
          return %x2
        }

    The branches consist of elementwise operations and views, which have no effects and cannot
    fail: no loops, contractions, gathers.  Together they take at most 64 operations, or 4 for each
    element of the results; a function such as `exp` counts as 16, a view as none.  Other branches
    stay: only the one that is taken costs time.
    """

    name = "flatten-if"

    def run(self, module: Module) -> Module:
        return rewrite_module(module, [cheap_branches])
