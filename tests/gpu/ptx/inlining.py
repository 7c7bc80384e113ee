"""Calls of functions, replaced by the functions' instructions.

Parameters and results of calls (`.param` variables of a call's block) become registers, one for
each place that is stored and loaded.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from ptx.errors import InvalidProgram
from ptx.syntax import (
    Address,
    Instruction,
    Kernel,
    Name,
    Operand,
    Pair,
    Register,
    Vector,
)

_DEEPEST = 20


def inlined(kernel: Kernel, functions: dict[str, Kernel]) -> Kernel:
    """The kernel without calls.  InvalidProgram for functions not defined here, or recursive."""
    whole = Kernel(kernel.name, kernel.parameters, kernel.directives)
    _Inliner(whole, functions).add(kernel, "", {}, None, 0)
    return whole


class _Inliner:
    def __init__(self, whole: Kernel, functions: dict[str, Kernel]) -> None:
        self.whole = whole
        self.functions = functions
        self.calls = 0

    def add(
        self, part: Kernel, tag: str, slots: dict[str, str], end: str | None, depth: int
    ) -> None:
        """Appends instructions, with names that begin with `tag`.  `slots`: what parameters of a
        function are for its caller; `end`: where it returns to."""
        if depth > _DEEPEST:
            raise InvalidProgram(f"{part.name} calls itself")
        renamer = _Renamer(part, tag, slots)
        self.whole.registers |= {tag + name: kind for name, kind in part.registers.items()}
        self.whole.variables += [replace(v, name=tag + v.name) for v in part.variables]
        for name, labels in part.tables.items():
            self.whole.tables[tag + name] = tuple(tag + label for label in labels)
        labels_at = defaultdict(list)
        for label, position in part.labels.items():
            labels_at[position].append(label)
        for position, instruction in enumerate(part.instructions):
            self._place(labels_at[position], tag)
            self._instruction(instruction, renamer, end, depth)
        self._place(labels_at[len(part.instructions)], tag)

    def _place(self, labels: list[str], tag: str) -> None:
        for label in labels:
            self.whole.labels[tag + label] = len(self.whole.instructions)

    def _instruction(
        self, instruction: Instruction, renamer: _Renamer, end: str | None, depth: int
    ) -> None:
        name, *rest = instruction.opcode.split(".")
        new = renamer.instruction(instruction)
        if name == "call":
            self._call(instruction, renamer, depth)
        elif name == "ret" and end is not None:
            self._emit(replace(new, opcode="bra.uni", operands=(Name(end),)))
        elif name in ("ld", "st") and rest[0] == "param" and renamer.is_slot(instruction):
            self._move(new, rest[-1], renamer.slot(instruction))
        else:
            self._emit(new)

    def _emit(self, instruction: Instruction) -> None:
        self.whole.instructions.append(instruction)

    def _move(self, new: Instruction, kind: str, place: tuple[str, int]) -> None:
        """Loads and stores of parameters as moves of registers."""
        slot, offset = place
        is_load = new.opcode.startswith("ld")
        value = new.operands[0 if is_load else 1]
        items = value.items if isinstance(value, Vector) else (value,)
        width = int(kind[1:]) // 8
        for i, item in enumerate(items):
            register = f"{slot}+{offset + i * width}"
            self.whole.registers.setdefault(register, f"b{max(16, 8 * width)}")
            both = (item, Register(register)) if is_load else (Register(register), item)
            self._emit(replace(new, opcode=f"mov.b{max(16, 8 * width)}", operands=both))

    def _call(self, instruction: Instruction, renamer: _Renamer, depth: int) -> None:
        groups = [x for x in instruction.operands if isinstance(x, Vector)]
        names = [x for x in instruction.operands if isinstance(x, Name)]
        function = self.functions.get(names[0].name) if names else None
        if function is None:
            raise InvalidProgram(f"line {instruction.line}: a call of what is not defined here")
        given = [renamer.register(item) for group in groups for item in group.items]
        slots = dict(zip((p.name for p in function.parameters), given, strict=True))
        self.calls += 1
        tag, end = f"{self.calls}:", f"end of call {self.calls}"
        self.add(function, tag, slots, end, depth + 1)
        self.whole.labels[end] = len(self.whole.instructions)


class _Renamer:
    """Names of a part in the whole."""

    def __init__(self, part: Kernel, tag: str, slots: dict[str, str]) -> None:
        self.part, self.tag, self.slots = part, tag, slots
        self.own = {*part.labels, *part.tables, *(v.name for v in part.variables)}

    def instruction(self, instruction: Instruction) -> Instruction:
        guard = instruction.guard
        if guard is not None:
            guard = replace(guard, name=self.tag + guard.name)
        operands = tuple(self.operand(operand) for operand in instruction.operands)
        return replace(instruction, operands=operands, guard=guard)

    def operand(self, operand: Operand) -> Operand:
        match operand:
            case Register(name, negated):
                return Register(self.tag + name, negated)
            case Name(name, offset) if name in self.own:
                return Name(self.tag + name, offset)
            case Address(base, offset):
                renamed = self.operand(base)
                assert isinstance(renamed, type(base))
                return Address(renamed, offset)
            case Vector(items):
                return Vector(tuple(map(self.operand, items)))
            case Pair(first, second):
                return Pair(self.operand(first), self.operand(second))
        return operand

    def register(self, operand: Operand) -> str:
        assert isinstance(operand, Register)
        return self.tag + operand.name

    def is_slot(self, instruction: Instruction) -> bool:
        """Whether a load or store of a parameter is of a call, or of a called function."""
        base = _address(instruction).base
        return isinstance(base, Register) or (isinstance(base, Name) and base.name in self.slots)

    def slot(self, instruction: Instruction) -> tuple[str, int]:
        """The register that stands for the place, without its offset, and the offset."""
        address = _address(instruction)
        if isinstance(address.base, Register):
            return self.tag + address.base.name, address.offset
        assert isinstance(address.base, Name)
        return self.slots[address.base.name], address.offset + address.base.offset


def _address(instruction: Instruction) -> Address:
    (address,) = (x for x in instruction.operands if isinstance(x, Address))
    return address
