"""The end of barriers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mapsto.ir.core import Module, Value
from mapsto.ir.ops.remat import Barrier
from mapsto.ir.passes.base import Pass
from mapsto.ir.rewriting import Rewriter, rewrite, rewrite_module

__all__ = ["RemoveBarriers"]


@rewrite
def barrier_of_values(op: Barrier, rewriter: Rewriter) -> Sequence[Value]:
    """Once equal operations are shared, barrier(x) = x"""
    return op.operands


@dataclass(frozen=True)
class RemoveBarriers(Pass):
    """Removes barriers, which have kept apart what is computed twice on purpose.

        %1, %2 = barrier %x, %dy        =>      %3 = tanh %x
        %3 = tanh %1

    What `remat_call` computes again in the backward pass is not kept from the forward pass only
    as long as no pass behind this one shares equal operations.
    """

    name = "barriers"

    def run(self, module: Module) -> Module:
        return rewrite_module(module, [barrier_of_values])
