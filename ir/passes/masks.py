"""Masks taken from what is kept anyway."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Block, Operation, Value
from mapsto.ir.ops.functions import Max, Min
from mapsto.ir.ops.logic import Compare, Ge, Gt, Le, Lt, Select
from mapsto.ir.ops.shaping import Constant
from mapsto.ir.passes.base import BlockPass
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["DeriveMasks"]


@dataclass(frozen=True)
class DeriveMasks(BlockPass):
    """Compares a clamped value in place of the value before, where the outcome is the same.

        %m = le %z, %0                       %m = le %z, %0
        %h = select %m, %0, %z               %h = select %m, %0, %z
        ...                           =>     ...
        %d = select %m, %0, %g               %n = le %h, %0
                                             %d = select %n, %0, %g

    The derivative of a rectifier needs nothing but its result then, which the next layer keeps in
    memory, so the value before is never written.  This is for a clamp `h` of `z` at a constant k
    by `select` or `max` and `min`: there `z <= k` (below: `z >= k`) and `h <= k` are equivalent,
    nan included.
    """

    name = "masks"

    def run_on_block(self, block: Block) -> Block:
        values: Values = {}
        operations: list[Operation] = []
        last = _last_uses(block)
        for number, op in enumerate(block.operations):
            copy = copy_operation(op, values, {})
            operations.append(copy)
            for mask in _equivalent_masks(op, block):
                if mask.result in values and last[mask.result] > number:
                    again = type(mask)([copy.result, values[mask.operands[1]]])
                    operations.append(again)
                    values[mask.result] = again.result
        return block.with_operations(operations)


_KEPT_WHERE = {Gt: True, Lt: True, Le: False, Ge: False}
"""For comparisons of z with k: whether a select gives z where they hold, for the law to hold."""

_EXTREMA = {Gt: Max, Le: Max, Lt: Min, Ge: Min}
"""For comparisons of z with k: which extremum of the two keeps the outcome."""


def _last_uses(block: Block) -> dict[Value, int]:
    return {v: number for number, op in enumerate(block.operations) for v in op.operands}


def _equivalent_masks(op: Operation, block: Block) -> list[Compare]:
    """The comparisons of the operand that the op clamps, with outcomes that its result gives."""
    if isinstance(op, Select):
        mask = op.operands[0].owner
        return [mask] if isinstance(mask, Compare) and _is_clamp(op, mask) else []
    if not isinstance(op, Max | Min):
        return []
    return [
        mask
        for mask in block.operations
        if isinstance(mask, Compare)
        and _EXTREMA.get(type(mask)) is type(op)
        and _same_operands(op, mask)
    ]


def _is_clamp(op: Select, mask: Compare) -> bool:
    kept = _KEPT_WHERE.get(type(mask))
    if kept is None:
        return False
    value, limit = mask.operands
    chosen, other = op.operands[1:] if kept else reversed(op.operands[1:])
    return chosen is value and _is_same_number(other, limit)


def _same_operands(op: Operation, mask: Compare) -> bool:
    value, limit = mask.operands
    return any(
        x is value and _is_same_number(y, limit)
        for x, y in (op.operands, tuple(reversed(op.operands)))
    )


def _is_same_number(left: Value, right: Value) -> bool:
    """Whether both are the same number everywhere (not nan)."""
    first, second = left.owner, right.owner
    if not isinstance(first, Constant) or not isinstance(second, Constant):
        return False
    return first.splat is not None and first.splat == second.splat
