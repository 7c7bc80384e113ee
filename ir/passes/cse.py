"""Common subexpression elimination."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from mapsto.ir.core import Attribute, Block, Operation, Trait, Value
from mapsto.ir.passes.base import BlockPass
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["EliminateCommonSubexpressions"]


@dataclass(frozen=True)
class EliminateCommonSubexpressions(BlockPass):
    """Computes equal operations on equal operands once.

        %1 = exp %x
        %2 = exp %x             =>      %1 = exp %x
        %3 = add %1, %2                 %3 = add %1, %1

    Operands of commutative ops are compared in any order.  Operations with effects or regions are
    left alone.
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
    if not op.regions and all(values.get(value, value) is value for value in op.operands):
        return op
    return copy_operation(op, values, {})


def _is_comparable(op: Operation) -> bool:
    return not op.regions and not op.has(Trait.EFFECT | Trait.TERMINATOR)


def _key(op: Operation) -> Hashable:
    operands: list[Value] = list(op.operands)
    if op.has(Trait.COMMUTATIVE):
        operands.sort(key=id)
    attributes = tuple((name, exact(value)) for name, value in sorted(op.attributes.items()))
    return type(op), tuple(operands), attributes


def exact(attribute: Attribute) -> Hashable:
    """A key that differs for attributes that compare equal without being the same, as 0.0, -0.0
    and False do."""
    if isinstance(attribute, tuple):
        return tuple(exact(item) for item in attribute)
    if isinstance(attribute, bool | int | float):
        return type(attribute).__name__, repr(attribute)
    return attribute
