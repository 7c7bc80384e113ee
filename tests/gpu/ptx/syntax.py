"""PTX as records: what the parser makes of the text."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Register:
    """A register; `negated`: a predicate that is read as its opposite."""

    name: str
    negated: bool = False


@dataclass(frozen=True)
class Immediate:
    """A literal; `is_float`: the number is the bits of a float of `bits` bits."""

    value: int
    bits: int = 64
    is_float: bool = False


@dataclass(frozen=True)
class Name:
    """A variable, a label or a special register, with what is added to its address."""

    name: str
    offset: int = 0


@dataclass(frozen=True)
class Address:
    """`[base + offset]`."""

    base: Register | Name | Immediate
    offset: int = 0


@dataclass(frozen=True)
class Vector:
    """`{a, b, ...}`."""

    items: tuple[Operand, ...]


@dataclass(frozen=True)
class Pair:
    """`value|predicate`: an instruction with two results."""

    first: Operand
    second: Operand


@dataclass(frozen=True)
class Sink:
    """`_`: a result that nobody wants."""


Operand = Register | Immediate | Name | Address | Vector | Pair | Sink


@dataclass(frozen=True)
class Instruction:
    """`guard`: the predicate of the threads that execute it; `line`: its place in the text."""

    opcode: str
    operands: tuple[Operand, ...]
    guard: Register | None
    line: int
    text: str


@dataclass(frozen=True)
class Variable:
    """A variable or parameter; `space`: param, global, const, shared or local; `external`: its size
    is given at launch."""

    name: str
    space: str
    size: int
    alignment: int
    contents: bytes | None = None
    external: bool = False


@dataclass
class Kernel:
    """An `.entry`.  `labels` and `tables` (of branches) hold positions in `instructions`."""

    name: str
    parameters: tuple[Variable, ...]
    directives: dict[str, tuple[int, ...]]
    registers: dict[str, str] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """A PTX module."""

    version: str
    target: str
    kernels: dict[str, Kernel]
    variables: tuple[Variable, ...]
