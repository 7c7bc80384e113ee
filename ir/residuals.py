"""What to keep of a computation, so that what follows from it can be computed again later.

The backward pass of a loop or a branch needs values of the forward pass.  Keeping one costs memory
for every step, so views and cheap elementwise operations are computed again instead, where what
they are computed from takes no more memory than their results.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mapsto.ir.bounds import nonnegative
from mapsto.ir.core import Operation, Trait, Value
from mapsto.ir.dims import Dim

__all__ = ["Residuals", "choose_residuals"]


@dataclass(frozen=True, slots=True)
class Residuals:
    """The values to keep, and the operations to repeat on them, in order."""

    kept: tuple[Value, ...]
    repeated: tuple[Operation, ...]


def choose_residuals(
    needed: Iterable[Value], free: Iterable[Value], operations: Sequence[Operation]
) -> Residuals:
    """What to keep of the operations, so that the needed values can be computed where only the
    `free` values and those kept are known."""
    return _Choice(frozenset(free)).of(list(dict.fromkeys(needed)), operations)


class _Choice:
    def __init__(self, free: frozenset[Value]) -> None:
        self.free = free
        self.sources: dict[Value, frozenset[Value]] = {}

    def of(self, needed: Sequence[Value], operations: Sequence[Operation]) -> Residuals:
        """The choice for the values needed."""
        kept = dict.fromkeys(source for v in needed for source in self._cheapest(v))
        order = {value: i for i, op in enumerate(operations) for value in op.results}
        # The last first: what follows from others that are kept is not kept itself.
        for value in sorted(kept, key=lambda value: order.get(value, -1), reverse=True):
            rest = kept.keys() - {value}
            if value in order and _follows(value, self.free | rest):
                del kept[value]
        repeated = _between(needed, self.free | kept.keys())
        return Residuals(tuple(kept), tuple(op for op in operations if op in repeated))

    def _cheapest(self, value: Value) -> frozenset[Value]:
        """What to keep for one value: itself, or what it is computed from at no more memory."""
        if value not in self.sources:
            self.sources[value] = self._computed(value)
        return self.sources[value]

    def _computed(self, value: Value) -> frozenset[Value]:
        if value in self.free:
            return frozenset()
        op = value.defining_op
        if op is None or not _is_cheap(op):
            return frozenset([value])
        sources = frozenset[Value]().union(*map(self._cheapest, op.operands))
        return sources if nonnegative(_bytes([value]) - _bytes(sources)) else frozenset([value])


def _is_cheap(op: Operation) -> bool:
    """Whether it costs little to repeat the op: a view of memory, or a few instructions."""
    is_simple = op.has(Trait.INDEXING) or (
        op.has(Trait.ELEMENTWISE) and not op.has(Trait.EXPENSIVE)
    )
    return is_simple and not op.regions and not op.can_fail and not op.has_effect


def _bytes(values: Iterable[Value]) -> Dim:
    return sum((value.type.elements * value.dtype.bytes for value in values), start=0)


def _follows(value: Value, known: Iterable[Value]) -> bool:
    """Whether cheap operations give the value from values that are known."""
    known, pending = set(known), [value]
    while pending:
        op = pending.pop().defining_op
        if op is None or not _is_cheap(op):
            return False
        pending += [operand for operand in op.operands if operand not in known]
    return True


def _between(needed: Sequence[Value], known: set[Value] | frozenset[Value]) -> set[Operation]:
    """The operations that give the needed values from those that are known."""
    found: set[Operation] = set()
    pending = [value for value in needed if value not in known]
    while pending:
        op = pending.pop().defining_op
        if op is not None and op not in found:
            found.add(op)
            pending += [operand for operand in op.operands if operand not in known]
    return found
