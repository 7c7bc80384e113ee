"""From instructions to functions of (state, lanes).

Each family of instructions registers a decoder by the first word of the opcode.  A decoder takes
the modifiers that it knows from the opcode; what is left over is an `UnknownInstruction`, so
that nothing is executed with half of its meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptx.errors import InvalidProgram, UnknownInstruction
from ptx.state import Lanes, State
from ptx.syntax import (
    Address,
    Immediate,
    Instruction,
    Kernel,
    Name,
    Operand,
    Register,
    Sink,
    Vector,
)
from ptx.types import TYPES, Type, type_named, unsigned

Array = np.ndarray
Execute = Callable[[State, Lanes], None]
Read = Callable[[State, Lanes], Array]
Write = Callable[[State, Lanes, Array], None]

ANY_WIDTH = ("ld", "st", "cvt", "atom", "red", "ldu", "set", "slct", "mov")
"""Instructions that take registers wider than their type."""


@dataclass(frozen=True)
class Layout:
    """Where variables are: by name, the space and the address in it."""

    places: dict[str, tuple[str, int]]


@dataclass(frozen=True)
class Context:
    """What names mean in a kernel."""

    kernel: Kernel
    layout: Layout
    widths: dict[str, int]
    """Of registers, in bits."""


class Opcode:
    """The words of an opcode; decoders take from them."""

    def __init__(self, instruction: Instruction) -> None:
        self.text = instruction.opcode
        self.name, *self.rest = instruction.opcode.split(".")

    def take(self, *choices: str) -> str | None:
        """The next word, if it is one of the choices."""
        if self.rest and self.rest[0] in choices:
            return self.rest.pop(0)
        return None

    def has(self, word: str) -> bool:
        """Whether the next word is this one; takes it."""
        return self.take(word) is not None

    def drop(self, *choices: str) -> None:
        """Takes all words of the choices that come next; they mean nothing here."""
        while self.take(*choices):
            pass

    def type(self) -> Type:
        """The next word, a type."""
        if not self.rest:
            raise UnknownInstruction(f"{self.text} has no type")
        return type_named(self.rest.pop(0))

    def done(self) -> None:
        """UnknownInstruction if a word is left."""
        if self.rest:
            raise UnknownInstruction(f"{self.text}: no meaning for .{'.'.join(self.rest)}")

    def unknown(self) -> UnknownInstruction:
        return UnknownInstruction(self.text)


Decoder = Callable[[Opcode, Instruction, Context], Execute]
DECODERS: dict[str, Decoder] = {}


def decoder(*names: str) -> Callable[[Decoder], Decoder]:
    """Registers a decoder for opcodes."""

    def register(function: Decoder) -> Decoder:
        for name in names:
            assert name not in DECODERS, name
            DECODERS[name] = function
        return function

    return register


def decode(instruction: Instruction, context: Context) -> Execute:
    """The function of an instruction that is no control flow."""
    opcode = Opcode(instruction)
    if opcode.name not in DECODERS:
        raise opcode.unknown()
    return DECODERS[opcode.name](opcode, instruction, context)


def source(operand: Operand, kind: Type, context: Context) -> Read:
    """How to read an operand as a type."""
    if isinstance(operand, Register):
        return _register_source(operand, kind, context)
    if isinstance(operand, Immediate):
        value = immediate(operand, kind)
        return lambda state, lanes: value
    if isinstance(operand, Name):
        return _name_source(operand, kind, context)
    if isinstance(operand, Vector):
        return _packed_source(operand, kind, context)
    raise InvalidProgram(f"no value: {operand}")


def _register_source(operand: Register, kind: Type, context: Context) -> Read:
    name, width = operand.name, context.widths[operand.name]
    if kind.kind == "predicate":
        if width != 1:
            raise InvalidProgram(f"{name} is no predicate")
        if operand.negated:
            return lambda state, lanes: ~state.read(name, lanes)
        return lambda state, lanes: state.read(name, lanes)
    if width == kind.bits:
        dtype = kind.dtype
        return lambda state, lanes: state.read(name, lanes).view(dtype)
    if width < kind.bits:
        raise InvalidProgram(f"{name} has {width} bits, not {kind.bits}")
    bits = unsigned(kind.bits)
    return lambda state, lanes: state.read(name, lanes).astype(bits).view(kind.dtype)


def immediate(operand: Immediate, kind: Type) -> Array:
    """A literal as an array of one value."""
    if kind.kind == "predicate":
        return np.array([bool(operand.value)])
    if kind.is_float and operand.is_float and operand.bits != kind.bits:
        wide = np.array([operand.value], unsigned(operand.bits)).view(f"f{operand.bits // 8}")
        return wide.astype(kind.dtype)
    value = operand.value & ((1 << kind.bits) - 1)
    return np.array([value], unsigned(kind.bits)).view(kind.dtype)


def _name_source(operand: Name, kind: Type, context: Context) -> Read:
    name = operand.name
    if name in context.layout.places:
        _, address = context.layout.places[name]
        value = np.array([address + operand.offset], unsigned(kind.bits)).view(kind.dtype)
        return lambda state, lanes: value
    if name.startswith("%") or name == "WARP_SZ":
        return lambda state, lanes: _special(state, name, lanes, kind)
    raise InvalidProgram(f"`{name}` is not declared")


def _special(state: State, name: str, lanes: Lanes, kind: Type) -> Array:
    if name not in state.special:
        raise UnknownInstruction(f"the special register {name}")
    value = state.special[name]
    chosen = value[lanes] if isinstance(value, np.ndarray) else np.array([value])
    return chosen.astype(unsigned(kind.bits)).view(kind.dtype)


def _packed_source(operand: Vector, kind: Type, context: Context) -> Read:
    """`{a, b}` as one value, a in the low bits."""
    each = kind.bits // len(operand.items)
    part = TYPES[f"b{each}"]
    reads = [source(item, part, context) for item in operand.items]
    wide = unsigned(kind.bits).type

    def read(state: State, lanes: Lanes) -> Array:
        total = np.zeros(1, wide)
        for i, part_read in enumerate(reads):
            total = total | (part_read(state, lanes).astype(wide) << wide(each * i))
        return total.view(kind.dtype)

    return read


def target(operand: Operand, kind: Type, context: Context) -> Write:
    """How to write a result of a type; into wider registers by its sign."""
    if isinstance(operand, Sink):
        return lambda state, lanes, value: None
    if isinstance(operand, Vector):
        return _unpacking_target(operand, kind, context)
    if not isinstance(operand, Register):
        raise InvalidProgram(f"no place for a result: {operand}")
    name, width = operand.name, context.widths[operand.name]
    if width < kind.bits:
        raise InvalidProgram(f"{name} has {width} bits, not {kind.bits}")
    bits = unsigned(width)
    if width == kind.bits:
        return lambda state, lanes, value: state.write(name, lanes, np.asarray(value).view(bits))
    wide = np.dtype(f"{'i' if kind.is_signed else 'u'}{width // 8}")
    narrow = np.dtype(f"{'i' if kind.is_signed else 'u'}{kind.bits // 8}")

    def write(state: State, lanes: Lanes, value: Array) -> None:
        state.write(name, lanes, np.asarray(value).view(narrow).astype(wide).view(bits))

    return write


def _unpacking_target(operand: Vector, kind: Type, context: Context) -> Write:
    each = kind.bits // len(operand.items)
    writes = [target(item, TYPES[f"b{each}"], context) for item in operand.items]
    wide, part = unsigned(kind.bits).type, unsigned(each)

    def write(state: State, lanes: Lanes, value: Array) -> None:
        bits = np.array(value).view(wide)
        for i, part_write in enumerate(writes):
            part_write(state, lanes, (bits >> wide(each * i)).astype(part))

    return write


def address(operand: Operand, context: Context) -> Read:
    """The addresses that `[base + offset]` means, as unsigned numbers of 64 bits."""
    if not isinstance(operand, Address):
        raise InvalidProgram(f"no address: {operand}")
    offset = np.uint64(operand.offset & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(operand.base, Register):
        base = operand.base.name
        wide = context.widths[base] == 64

        def read(state: State, lanes: Lanes) -> Array:
            value = state.read(base, lanes)
            if wide:
                return value + offset
            return (value + np.uint32(operand.offset & 0xFFFF_FFFF)).astype(np.uint64)

        return read
    constant = source(operand.base, TYPES["b64"], context)
    return lambda state, lanes: np.full(state.size(lanes), constant(state, lanes) + offset)


def space_of(operand: Operand, context: Context) -> str | None:
    """The space of the variable that an address names."""
    if isinstance(operand, Address) and isinstance(operand.base, Name):
        return context.layout.places[operand.base.name][0]
    return None


def elementwise(
    function: Callable[..., Array],
    kinds: list[Type],
    result: Type,
    instruction: Instruction,
    context: Context,
) -> Execute:
    """An operation of each thread alone: the first operand is the result."""
    operands = instruction.operands
    if len(operands) != len(kinds) + 1:
        raise InvalidProgram(f"{instruction.opcode} takes {len(kinds)} operands")
    write = target(operands[0], result, context)
    reads = [source(x, kind, context) for x, kind in zip(operands[1:], kinds, strict=True)]
    dtype = result.dtype
    if len(reads) == 2:
        left, right = reads
        return lambda state, lanes: write(
            state, lanes, _as(function(left(state, lanes), right(state, lanes)), dtype)
        )

    def execute(state: State, lanes: Lanes) -> None:
        write(state, lanes, _as(function(*(read(state, lanes) for read in reads)), dtype))

    return execute


def _as(value: Array, dtype: np.dtype) -> Array:
    assert value.dtype == dtype, f"{value.dtype} for {dtype}"
    return value
