"""Which operations of a block are needed, and how often values are used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mapsto.ir.core import Block, Operation, Value

__all__ = ["count_uses", "keep_live", "live_operations", "users_of"]


def count_uses(block: Block) -> Counter[Value]:
    """How often each value is an operand in the block, and in what is needed of its regions."""
    uses: Counter[Value] = Counter()
    for op in block.operations:
        uses.update(op.operands)
        for region in op.regions:
            uses.update(count_uses(live_operations(region.block)))
    return uses


def users_of(operations: Iterable[Operation]) -> dict[Value, list[Operation]]:
    """The operations that use a value as an operand, each once, in order; not those of regions."""
    users: dict[Value, list[Operation]] = {}
    for op in operations:
        for operand in dict.fromkeys(op.operands):
            users.setdefault(operand, []).append(op)
    return users


def live_operations(block: Block) -> Block:
    """The block without operations that its results do not need; those in regions stay."""
    live = keep_live(block.operations[:-1], block.returned)
    return block.with_operations([*live, block.terminator])


def keep_live(operations: Sequence[Operation], roots: Sequence[Value | None]) -> list[Operation]:
    """The operations that the roots depend on, or that have an effect, in order."""
    live = {value for value in roots if value is not None}
    kept = []
    for op in reversed(operations):
        if op.has_effect or any(result in live for result in op.results):
            kept.append(op)
            _add_uses(op, live)
    return kept[::-1]


def _add_uses(op: Operation, live: set[Value]) -> None:
    live.update(op.operands)
    for region in op.regions:
        for inner in region.block.operations:
            _add_uses(inner, live)
