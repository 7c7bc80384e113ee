"""A `scan` taken apart, to be put together differently."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from mapsto.ir.builder import Builder
from mapsto.ir.core import Operation, Region, Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.flow import Scan
from mapsto.ir.regions import enclosed

__all__ = ["Bound", "Carried", "ScanParts"]


@dataclass(frozen=True, slots=True)
class Bound:
    """What the body sees of an operand: a value that stands for it, or for its slices."""

    operand: Value
    argument: Value


@dataclass(frozen=True, slots=True)
class Carried(Bound):
    """A value that is carried; `returned` is what the next step sees."""

    returned: Value


@dataclass(frozen=True, slots=True)
class ScanParts:
    """The parts of a scan.  Any value may stand for an argument of the body: `emit` copies the
    operations into a block of their own."""

    extent: Dim
    reverse: bool
    constants: tuple[Bound, ...]
    carried: tuple[Carried, ...]
    sequences: tuple[Bound, ...]
    outputs: tuple[Value, ...]
    operations: tuple[Operation, ...]

    @staticmethod
    def of(op: Scan) -> ScanParts:
        """The parts of a scan; values of its body stand for themselves."""
        arguments, returned = op.body.arguments, op.body.returned
        constants, carried = len(op.constants), len(op.carried)
        states = zip(
            op.carried, arguments[constants : constants + carried], returned[:carried], strict=True
        )
        return ScanParts(
            op.extent,
            op.is_reverse,
            _bound(op.constants, arguments[:constants]),
            tuple(Carried(*state) for state in states),
            _bound(op.sequences, arguments[constants + carried :]),
            returned[carried:],
            tuple(op.body.operations[:-1]),
        )

    @property
    def arguments(self) -> tuple[Value, ...]:
        """What stands for the arguments of the body."""
        bound: tuple[Bound, ...] = (*self.constants, *self.carried, *self.sequences)
        return tuple(part.argument for part in bound)

    @property
    def returned(self) -> tuple[Value, ...]:
        """What the body gives."""
        return (*(state.returned for state in self.carried), *self.outputs)

    def emit(self, build: Builder) -> tuple[Sequence[Value], Sequence[Value]]:
        """Emits the scan, without constants and sequences that its body does not use; gives the
        final carried values and the stacked outputs."""
        parts = self._used()
        constants, carried, sequences = parts.constants, parts.carried, parts.sequences
        bound: tuple[Bound, ...] = (*constants, *carried, *sequences)
        op = build.op(
            Scan,
            *(part.operand for part in bound),
            regions=[Region(enclosed(parts.arguments, parts.operations, parts.returned))],
            constants=len(constants),
            carried=len(carried),
            extent=parts.extent,
            reverse=parts.reverse,
        )
        assert isinstance(op, Scan)
        return op.finals, op.outputs

    def _used(self) -> ScanParts:
        used = {*self.returned, *(value for op in self.operations for value in op.operands)}
        constants = tuple(part for part in self.constants if part.argument in used)
        sequences = tuple(part for part in self.sequences if part.argument in used)
        return replace(self, constants=constants, sequences=sequences)


def _bound(operands: Iterable[Value], arguments: Iterable[Value]) -> tuple[Bound, ...]:
    return tuple(Bound(*pair) for pair in zip(operands, arguments, strict=True))
