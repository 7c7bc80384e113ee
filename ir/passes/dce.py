"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Block
from mapsto.ir.linearize import keep_live
from mapsto.ir.passes.base import BlockPass

__all__ = ["EliminateDeadCode"]


@dataclass(frozen=True)
class EliminateDeadCode(BlockPass):
    """Removes operations whose results nothing uses.

        %1 = exp %x                     %2 = mul %x, %x
        %2 = mul %x, %x         =>      return %2
        return %2

    Operations with effects stay.  Arguments stay: they are the function's interface.
    """

    name = "dce"

    def run_on_block(self, block: Block) -> Block:
        return block.with_operations(
            keep_live(block.operations[:-1], block.returned) + block.operations[-1:]
        )
