"""Differentiation as a pass."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Module
from mapsto.ir.passes.autodiff import expand_differentiation
from mapsto.ir.passes.base import Pass

__all__ = ["Differentiate"]


@dataclass(frozen=True)
class Differentiate(Pass):
    """Expands `jvp` and `vjp` into the operations that compute the derivatives.

        %y, %dx = vjp @square %x, %dy   =>      %y = mul %x, %x
                                                %1 = mul %dy, %x
                                                %dx = add %1, %1

    Raises MissingDerivative, which names the op and the source line, where there is none.
    """

    name = "differentiate"

    def run(self, module: Module) -> Module:
        return expand_differentiation(module)
