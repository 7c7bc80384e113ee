"""The ops of a block, around some that are going to be replaced by others."""

from __future__ import annotations

from collections.abc import Collection

from mapsto.ir.core import Block, Operation, Value

__all__ = ["around"]


def around(
    block: Block, replaced: Collection[Operation]
) -> tuple[list[Operation], list[Operation]]:
    """The other ops: those that need none of the replaced ops' results, and those that do, the last
    one among them.  What has effects keeps its order."""
    late: set[Value] = {result for op in replaced for result in op.results}
    before: list[Operation] = []
    after: list[Operation] = []
    has_late_effect = False
    for op in block.operations:
        if op in replaced:
            continue
        is_last = op is block.terminator
        is_late = is_last or (op.has_effect and has_late_effect)
        if is_late or any(value in late for value in op.operands):
            after.append(op)
            late.update(op.results)
            has_late_effect |= op.has_effect
        else:
            before.append(op)
    return before, after
