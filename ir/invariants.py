"""What a loop computes again at every step although it is the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mapsto.ir.builder import Builder
from mapsto.ir.core import Operation, Trait, Value
from mapsto.ir.ops.shaping import Broadcast, Constant, Iota, Reshape, Slice, Transpose
from mapsto.ir.scan_parts import Bound
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["hoist_invariants"]

VIEWS = (Broadcast, Constant, Iota, Reshape, Slice, Transpose)
"""Ops that cost nothing where their result is read element by element: not worth memory."""


def hoist_invariants(
    build: Builder,
    constants: Sequence[Bound],
    operations: Sequence[Operation],
    returned: Sequence[Value],
    always_runs: bool,
) -> tuple[tuple[Bound, ...], tuple[Operation, ...]]:
    """Emits before the loop what its operations compute from constants alone; gives the constants
    and operations that are left to it.

    Views stay where they are used.  What may fail is moved only where the body `always_runs`.
    """
    fixed = {part.argument for part in constants}
    invariant = _invariant(operations, fixed, always_runs)
    rest = [op for op in operations if op not in invariant]
    used = [*(value for op in rest for value in op.operands), *returned]
    hoisted, views = _frontier(used, invariant)
    values: Values = {part.argument: part.operand for part in constants}
    needed = _needed(hoisted, invariant)
    build.block.operations += [copy_operation(op, values, {}) for op in operations if op in needed]
    kept = tuple(op for op in operations if op not in invariant or op in views)
    return (*constants, *(Bound(values[value], value) for value in hoisted)), kept


def _invariant(
    operations: Sequence[Operation], fixed: Iterable[Value], always_runs: bool
) -> set[Operation]:
    known, found = set(fixed), set()
    for op in operations:
        stays = op.has_effect or op.has(Trait.OPAQUE) or (op.can_fail and not always_runs)
        if not stays and all(value in known for value in op.operands):
            known.update(op.results)
            found.add(op)
    return found


def _frontier(
    used: Iterable[Value], invariant: set[Operation]
) -> tuple[list[Value], set[Operation]]:
    """The invariant values to hand to the loop, and the views of them (or of constants) in it."""
    values: dict[Value, None] = {}
    views: set[Operation] = set()
    pending = list(used)
    while pending:
        value = pending.pop()
        op = value.defining_op
        if op not in invariant or op is None:
            continue
        if not isinstance(op, VIEWS):
            values[value] = None
        elif op not in views:
            views.add(op)
            pending += op.operands
    return list(values), views


def _needed(values: Iterable[Value], invariant: set[Operation]) -> set[Operation]:
    """The invariant operations that the values depend on."""
    found: set[Operation] = set()
    pending = list(values)
    while pending:
        op = pending.pop().defining_op
        if op is not None and op in invariant and op not in found:
            found.add(op)
            pending += op.operands
    return found
