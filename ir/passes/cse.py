"""Common subexpression elimination."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from mapsto.ir.core import Block, Operation, Trait, Value
from mapsto.ir.kernel_key import block_key, exact
from mapsto.ir.passes.base import BlockPass
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["EliminateCommonSubexpressions"]


@dataclass(frozen=True)
class EliminateCommonSubexpressions(BlockPass):
    """Computes equal operations on equal operands once.

        %1 = exp %x
        %2 = exp %x             =>      %1 = exp %x
        %3 = add %1, %2                 %3 = add %1, %1

    Operands of commutative ops are compared in any order, regions by the operations in them.
    Operations with effects are left alone.
    """

    name = "cse"

    def run_on_block(self, block: Block) -> Block:
        values: Values = {}
        known: dict[Hashable, Operation] = {}
        operations = []
        for op in block.operations:
            moved = _moved(op, values)
            twin = known.setdefault(_key(moved), moved) if _is_comparable(moved) else moved
            if twin is moved:
                operations.append(moved)
            values.update(zip(op.results, twin.results, strict=True))
        return block.with_operations(operations)


def _moved(op: Operation, values: Values) -> Operation:
    if all(values.get(value, value) is value for value in op.operands):
        return op
    return copy_operation(op, values, {})


def _is_comparable(op: Operation) -> bool:
    return not (op.has_effect or op.has(Trait.TERMINATOR))


def _key(op: Operation) -> Hashable:
    operands: list[Value] = list(op.operands)
    if op.has(Trait.COMMUTATIVE):
        operands.sort(key=id)
    attributes = tuple((name, exact(value)) for name, value in sorted(op.attributes.items()))
    regions = tuple(block_key(region.block) for region in op.regions)
    return type(op), tuple(operands), attributes, regions
