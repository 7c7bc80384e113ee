"""The pass that groups ops into kernels; see `ir/fusion.py` for how."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Function, Module
from mapsto.ir.fusion import fuse_function
from mapsto.ir.ops.control import Kernel
from mapsto.ir.passes.base import Pass

__all__ = ["Fuse", "is_fused"]


@dataclass(frozen=True)
class Fuse(Pass):
    """Groups ops into kernels, with as few passes over memory as the data flow allows.

    %1 = contract %x, %w                  %2 = kernel(%x, %w, %b) {
    %2 = broadcast %b                         contract, broadcast, add, max
    %3 = add %1, %2               =>          return
    %4 = max %3, %0                       }
    return %4                             return %2

    A function's body has only kernels, ops that are lowered on their own, views (reshapes of a
    buffer), constant arrays and the `return` afterwards.  Calls and differentiation must be
    expanded before.
    """

    name = "fuse"

    def run(self, module: Module) -> Module:
        functions = module.functions.items()
        return Module({n: f if is_fused(f) else fuse_function(f) for n, f in functions})


def is_fused(function: Function) -> bool:
    """Whether the ops of a function are in kernels already."""
    return any(isinstance(op, Kernel) for op in function.operations())
