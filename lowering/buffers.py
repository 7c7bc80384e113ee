"""Buffer assignment: where every tensor of a fused function lives.

Results live in the caller's buffers, and where the function says so (`aliases`) in the buffer of an
argument, which they update in place.  Everything else shares one arena: tensors whose lifetimes
overlap have memory of their own, a kernel's result takes over an operand that is needed no more
where the kernel's order of access allows it.  Sizes that are known only at run time are handled as
expressions; memory is shared there where it is certain to be large enough.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from mapsto.ir.bounds import nonnegative
from mapsto.ir.core import Function, Value
from mapsto.ir.dims import Dim, floor_div
from mapsto.ir.fusion import alias_pairs, buffer_of
from mapsto.ir.kernel_key import kernel_key
from mapsto.ir.ops.control import Kernel
from mapsto.ir.stages import is_external
from mapsto.lowering.sharing import SharingRules

__all__ = ["Arena", "Argument", "BufferPlan", "Literal", "Place", "Result", "assign_buffers"]

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


Place = Argument | Result | Arena | Literal


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


def assign_buffers(function: Function) -> BufferPlan:
    """Places for all tensors of a fused function."""
    return _Assignment(function).run()


class _Assignment:
    def __init__(self, function: Function) -> None:
        self.function = function
        self.kernels = [op for op in function.block.operations if isinstance(op, Kernel)]
        self._rules: dict[Hashable, SharingRules] = {}
        """By kernel, and by what kernels that are the same have in common."""
        self._numbers = {kernel: number for number, kernel in enumerate(self.kernels)}
        self.last: dict[Value, int] = {}
        for number, kernel in enumerate(self.kernels):
            self.last.update((buffer_of(value), number) for value in kernel.operands)
        self.places: dict[Value, Place] = {a: Argument(i) for i, a in enumerate(function.arguments)}
        self.copies: list[tuple[Value, int]] = []
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
                if buffer_of(value) is value and is_external(value):
                    self.places[value] = Literal(value)

    # ---- results

    def _place_results(self) -> None:
        aliases = dict(alias_pairs(self.function))
        count = 0
        for number, value in enumerate(self.function.results):
            base = buffer_of(value)
            argument = aliases.get(number)
            if argument is None:
                self.places[base] = Result(count)
                count += 1
            elif base is not self.function.arguments[argument]:
                self._place_update(base, argument)

    def _place_update(self, value: Value, argument: int) -> None:
        """In the argument's buffer where nothing needs the old elements afterwards."""
        old = self.function.arguments[argument]
        assert isinstance(value.owner, Kernel)
        writer = self._numbers[value.owner]
        last = self.last.get(old, -1)
        if last < writer or (last == writer and self._may_take_over(old, value)):
            self.places[value] = Argument(argument)
        else:
            self.copies.append((value, argument))
            self.last[value] = len(self.kernels)

    def _may_take_over(self, old: Value, new: Value) -> bool:
        kernel = new.owner
        assert isinstance(kernel, Kernel)
        rules = self._rules_of(kernel)
        operands = [i for i, v in enumerate(kernel.operands) if buffer_of(v) is old]
        return all(kernel.operands[i] is old and rules.may_share(i, new.index) for i in operands)

    def _rules_of(self, kernel: Kernel) -> SharingRules:
        if kernel not in self._rules:
            key = kernel_key(kernel)
            known = self._rules.get(key)
            self._rules[key] = self._rules[kernel] = known or SharingRules(kernel)
        return self._rules[kernel]

    # ---- the arena

    def _collect_units(self) -> None:
        home: dict[Value, _Unit] = {}
        for number, kernel in enumerate(self.kernels):
            taken: set[Value] = set()
            for value in kernel.results:
                if value in self.places:
                    continue
                unit = self._unit_to_take(kernel, number, value, home, taken)
                if unit is None:
                    unit = _Unit(_padded_bytes(value), number, number)
                    self.units.append(unit)
                unit.values.append(value)
                unit.last = max(number, self.last.get(value, number))
                home[value] = unit

    def _unit_to_take(
        self,
        kernel: Kernel,
        number: int,
        value: Value,
        home: dict[Value, _Unit],
        taken: set[Value],
    ) -> _Unit | None:
        """The memory of an operand that the kernel is the last to read."""
        for operand in dict.fromkeys(map(buffer_of, kernel.operands)):
            free = operand in home and operand not in taken and self.last[operand] == number
            if free and home[operand].last == number and self._may_take_over(operand, value):
                taken.add(operand)
                return home[operand]
        return None


def _padded_bytes(value: Value) -> Dim:
    size = value.type.elements * value.dtype.bytes
    return floor_div(size + (ALIGNMENT - 1), ALIGNMENT) * ALIGNMENT


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
