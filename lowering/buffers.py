"""Buffer assignment: where every tensor of a fused function lives.

Results live in the caller's buffers, and where the function says so (`aliases`) in the buffer of an
argument, which they update in place.  Everything else shares one arena: tensors whose lifetimes
overlap have memory of their own, a result takes over an operand that is needed no more where its
step's order of access allows it.  Sizes that are known only at run time are handled as
expressions; memory is shared there where it is certain to be large enough.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from mapsto.ir.bodies import alias_pairs
from mapsto.ir.bounds import nonnegative
from mapsto.ir.core import Function, Operation, Trait, Value
from mapsto.ir.dims import Dim, floor_div
from mapsto.ir.fusion import buffer_of
from mapsto.ir.kernel_key import kernel_key
from mapsto.ir.ops.control import Kernel
from mapsto.ir.stages import is_literal
from mapsto.ir.types import DType
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.sharing import KernelSharing, PairSharing, Sharing

__all__ = [
    "Ahead",
    "Arena",
    "Argument",
    "BufferPlan",
    "Literal",
    "Place",
    "Result",
    "assign_buffers",
    "is_step",
    "padded_bytes",
]

ALIGNMENT = 64
"""Bytes to which buffers in the arena are aligned."""


@dataclass(frozen=True, slots=True)
class Argument:
    """The buffer of the argument of this number."""

    number: int


@dataclass(frozen=True, slots=True)
class Result:
    """The buffer of the result of this number, among those that alias no argument."""

    number: int


@dataclass(frozen=True, slots=True)
class Arena:
    """At this offset in the arena, in bytes."""

    offset: Dim


@dataclass(frozen=True, slots=True, eq=False)
class Literal:
    """A constant array, in the program itself."""

    value: Value


@dataclass(frozen=True, slots=True)
class Ahead:
    """At this offset, in bytes, in the memory that is filled ahead of a loop around the function.
    No tensor of the function lives there."""

    offset: Dim


Place = Argument | Result | Arena | Literal | Ahead


@dataclass(frozen=True, slots=True, eq=False)
class BufferPlan:
    """Places by the value that owns the memory (see `buffer_of`), and copies to make at the end,
    of a value to an argument that could not be updated in place."""

    places: dict[Value, Place]
    copies: tuple[tuple[Value, int], ...]
    arena_bytes: Dim
    live_bytes: int
    """The most bytes that are in use at one time, of tensors of known size: a lower bound."""

    def place(self, value: Value) -> Place:
        """Where a value is."""
        return self.places[buffer_of(value)]


@dataclass(slots=True, eq=False)
class _Unit:
    """Values that take over one piece of memory from each other."""

    size: Dim
    first: int
    last: int
    values: list[Value] = field(default_factory=list)


def is_step(op: Operation) -> bool:
    """Whether an op of a fused function is executed, and is not only a view or a constant."""
    return isinstance(op, Kernel) or op.has(Trait.APART)


def padded_bytes(elements: Dim, dtype: DType) -> Dim:
    """The bytes of an array, rounded up to whole cache lines."""
    return floor_div(elements * dtype.bytes + (ALIGNMENT - 1), ALIGNMENT) * ALIGNMENT


def assign_buffers(
    function: Function,
    division: Division,
    in_place: Mapping[Operation, PairSharing] | None = None,
) -> BufferPlan:
    """Places for all tensors of a fused function whose kernels are lowered with this division of
    work; `in_place` says which results of ops that are lowered on their own may be written over
    which operands."""
    return _Assignment(function, division, in_place or {}).run()


class _Assignment:
    def __init__(
        self, function: Function, division: Division, in_place: Mapping[Operation, PairSharing]
    ) -> None:
        self.function = function
        self.division = division
        self.steps = [op for op in function.block.operations if is_step(op)]
        self._rules: dict[Hashable, Sharing] = dict(in_place.items())
        """By op, and by what kernels that are the same have in common."""
        self._numbers = {step: number for number, step in enumerate(self.steps)}
        self.last: dict[Value, int] = {}
        for number, step in enumerate(self.steps):
            self.last.update((buffer_of(value), number) for value in step.operands)
        self.places: dict[Value, Place] = {a: Argument(i) for i, a in enumerate(function.arguments)}
        self.copies: list[tuple[Value, int]] = []
        self.returned = {buffer_of(value) for value in function.results}
        self.units: list[_Unit] = []

    def run(self) -> BufferPlan:
        """The plan."""
        self._place_literals()
        self._place_results()
        self._collect_units()
        static = [unit for unit in self.units if isinstance(unit.size, int)]
        end = _place_static(static, self.places)
        arena = _place_symbolic([u for u in self.units if u not in static], end, self.places)
        return BufferPlan(self.places, tuple(self.copies), arena, _most_live(static))

    def _place_literals(self) -> None:
        for op in self.function.block.operations:
            for value in op.results:
                if is_literal(value):
                    self.places[value] = Literal(value)

    # ---- results

    def _place_results(self) -> None:
        aliases = dict(alias_pairs(self.function))
        count = 0
        for number, value in enumerate(self.function.results):
            base = buffer_of(value)
            argument = aliases.get(number)
            if argument is None:
                self._place_chain(base, Result(count))
                count += 1
            elif base is not self.function.arguments[argument]:
                self._place_update(base, argument)

    def _place_chain(self, value: Value, place: Place) -> None:
        """Places a value, and before it the operands that it takes over."""
        self.places[value] = place
        step = value.owner
        assert isinstance(step, Operation)
        for operand in dict.fromkeys(map(buffer_of, step.operands)):
            free = operand not in self.places and self.last[operand] == self._numbers[step]
            if free and self._is_inner(operand) and self._may_take_over(operand, value):
                self._place_chain(operand, place)
                return

    def _is_inner(self, value: Value) -> bool:
        """Whether a step computes the value for other steps alone."""
        return isinstance(value.owner, Operation) and value not in self.returned

    def _place_update(self, value: Value, argument: int) -> None:
        """In the argument's buffer where nothing needs the old elements afterwards."""
        old = self.function.arguments[argument]
        assert isinstance(value.owner, Operation)
        writer = self._numbers[value.owner]
        last = self.last.get(old, -1)
        if last < writer or (last == writer and self._may_take_over(old, value)):
            self.places[value] = Argument(argument)
        else:
            self.copies.append((value, argument))
            self.last[value] = len(self.steps)

    def _may_take_over(self, old: Value, new: Value) -> bool:
        step = new.owner
        assert isinstance(step, Operation)
        rules = self._rules_of(step)
        operands = [i for i, v in enumerate(step.operands) if buffer_of(v) is old]
        return all(step.operands[i] is old and rules.may_share(i, new.index) for i in operands)

    def _rules_of(self, step: Operation) -> Sharing:
        if step not in self._rules:
            if isinstance(step, Kernel):
                key = kernel_key(step)
                known = self._rules.get(key)
                self._rules[key] = self._rules[step] = known or KernelSharing(step, self.division)
            else:
                self._rules[step] = PairSharing()
        return self._rules[step]

    # ---- the arena

    def _collect_units(self) -> None:
        home: dict[Value, _Unit] = {}
        for number, step in enumerate(self.steps):
            taken: set[Value] = set()
            for value in step.results:
                if value in self.places:
                    continue
                unit = self._unit_to_take(step, number, value, home, taken)
                if unit is None:
                    unit = _Unit(padded_bytes(value.type.elements, value.dtype), number, number)
                    self.units.append(unit)
                unit.values.append(value)
                unit.last = max(number, self.last.get(value, number))
                home[value] = unit

    def _unit_to_take(
        self,
        step: Operation,
        number: int,
        value: Value,
        home: dict[Value, _Unit],
        taken: set[Value],
    ) -> _Unit | None:
        """The memory of an operand that the step is the last to read."""
        for operand in dict.fromkeys(map(buffer_of, step.operands)):
            free = operand in home and operand not in taken and self.last[operand] == number
            if free and home[operand].last == number and self._may_take_over(operand, value):
                taken.add(operand)
                return home[operand]
        return None


def _place_static(units: Sequence[_Unit], places: dict[Value, Place]) -> int:
    """Offsets for units of known size, the largest first, each at the lowest free place.

    Gives the end of the memory used.
    """
    placed: list[tuple[int, int, _Unit]] = []
    for unit in sorted(units, key=lambda u: (-_known(u.size), u.first)):
        size = _known(unit.size)
        offset = 0
        for start, stop, other in sorted(placed, key=lambda entry: entry[0]):
            apart = other.last < unit.first or unit.last < other.first
            if not apart and start < offset + size:
                offset = max(offset, stop)
        placed.append((offset, offset + size, unit))
        places.update((value, Arena(offset)) for value in unit.values)
    return max((stop for _, stop, _ in placed), default=0)


def _known(size: Dim) -> int:
    assert isinstance(size, int)
    return size


def _place_symbolic(units: Sequence[_Unit], start: Dim, places: dict[Value, Place]) -> Dim:
    """Offsets from `start` on for units of symbolic size; gives the end of the memory used.

    A unit shares memory with earlier ones where that is certainly as large, or the unit is.
    """
    slots: list[_Unit] = []
    members: dict[_Unit, list[_Unit]] = {}
    for unit in units:
        slot = next((s for s in slots if s.last < unit.first and _comparable(s, unit)), None)
        if slot is None:
            slot = _Unit(unit.size, unit.first, unit.last)
            slots.append(slot)
        if not nonnegative(slot.size - unit.size):
            slot.size = unit.size
        slot.last = unit.last
        members.setdefault(slot, []).append(unit)
    for slot in slots:
        for unit in members[slot]:
            places.update((value, Arena(start)) for value in unit.values)
        start = start + slot.size
    return start


def _comparable(left: _Unit, right: _Unit) -> bool:
    difference = left.size - right.size
    return nonnegative(difference) or nonnegative(-difference)


def _most_live(units: Sequence[_Unit]) -> int:
    times = [unit.first for unit in units]
    return max(
        (sum(_known(u.size) for u in units if u.first <= t <= u.last) for t in times), default=0
    )
