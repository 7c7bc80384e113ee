"""Differentiation as a pass."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Module, Value
from mapsto.ir.ops.functions import StopGradient
from mapsto.ir.passes.autodiff import expand_differentiation
from mapsto.ir.passes.base import Pass
from mapsto.ir.rewriting import Rewriter, rewrite, rewrite_module

__all__ = ["Differentiate"]


@rewrite
def stop_gradient_of_result(op: StopGradient, rewriter: Rewriter) -> Value:
    """Once derivatives are taken, stop_gradient(x) = x"""
    return op.operands[0]


@dataclass(frozen=True)
class Differentiate(Pass):
    """Expands `jvp` and `vjp` into the operations that compute the derivatives.

        %y, %dx = vjp @square %x, %dy   =>      %y = mul %x, %x
                                                %1 = mul %dy, %x
                                                %dx = add %1, %1

    No request for a derivative is left, so `stop_gradient` means nothing more and goes.  Raises
    MissingDerivative, which names the op and the source line, where there is none.
    """

    name = "differentiate"

    def run(self, module: Module) -> Module:
        return rewrite_module(expand_differentiation(module), [stop_gradient_of_result])
