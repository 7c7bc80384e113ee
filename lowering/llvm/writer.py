"""Functions and modules of LLVM IR (LLVM 22, opaque pointers), written as text.

    module = ModuleWriter()
    f = module.function("scale", [(PTR, "x"), (FLOAT, "a")], VOID)
    x, a = f.parameters
    f.store(f.fmul(f.load(FLOAT, x), a), x)
    f.ret()
    text = str(module)

`FunctionWriter` has one method an instruction (`InstructionWriter`, `MemoryWriter`) and, here,
blocks, branches, phis, loops and calls.  What is written is checked by LLVM's verifier when parsed;
only what it would report far from its cause is checked here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm.memory import MemoryWriter
from mapsto.lowering.llvm.types import PTR, VOID, LLVMType, Operand, constant

Parameter = tuple[LLVMType, str] | tuple[LLVMType, str, str]
"""Type, name and optionally attributes ("noalias nonnull") of a parameter."""


@dataclass(frozen=True, slots=True)
class Block:
    """A basic block: its label and, once begun, its lines."""

    label: str
    lines: list[str] = field(default_factory=list, compare=False)


class Phi(NamedTuple):
    """A phi under construction: its value, and the edges found so far."""

    value: Operand
    edges: list[tuple[Operand, Block]]

    def add(self, value: Operand, block: Block) -> None:
        """The value that arrives from `block`."""
        self.edges.append((value, block))


class FunctionWriter(MemoryWriter):
    """Writes one function.  The entry block is current at first; `parameters` are its arguments."""

    def __init__(
        self,
        module: "ModuleWriter",
        name: str,
        parameters: Sequence[Parameter],
        result: LLVMType,
        linkage: str = "",
        attributes: str = "",
    ) -> None:
        super().__init__(module.has_fma)
        self.module = module
        self.name = name
        self.result = result
        self.linkage = linkage
        self.attributes = attributes
        self.parameters = [Operand(f"%{parameter[1]}", parameter[0]) for parameter in parameters]
        self._signature = [parameter[2] if len(parameter) == 3 else "" for parameter in parameters]
        self._labels = 0
        self._allocas: list[str] = []
        self._phis: list[tuple[Block, int, Phi]] = []
        self._blocks: list[Block] = []
        self.begin(self.block("entry"))

    def declare(self, name: str, result: LLVMType, parameters: Sequence[LLVMType]) -> None:
        self.module.declare(name, result, parameters)

    def declare_text(self, name: str, text: str) -> None:
        self.module.declare_text(name, text)

    # ---- blocks and control flow

    def block(self, name: str = "block") -> Block:
        """A new block, not yet part of the function."""
        self._labels += 1
        return Block(f"{name}.{self._labels}")

    def begin(self, block: Block) -> None:
        """Place the block next and append to it from now on."""
        self._blocks.append(block)
        self.lines = block.lines

    @property
    def current(self) -> Block:
        return self._blocks[-1]

    @property
    def line_count(self) -> int:
        """How many lines of instructions there are."""
        return sum(len(block.lines) for block in self._blocks)

    def branch(self, to: Block) -> None:
        self.emit_void(f"br label %{to.label}")

    def branch_if(
        self, condition: Operand, then: Block, otherwise: Block, metadata: str = ""
    ) -> None:
        """Jump on an i1."""
        suffix = f", {metadata}" if metadata else ""
        self.emit_void(
            f"br i1 {condition.text}, label %{then.label}, label %{otherwise.label}{suffix}"
        )

    def ret(self, value: Operand | None = None) -> None:
        self.emit_void("ret void" if value is None else f"ret {value}")

    def unreachable(self) -> None:
        self.emit_void("unreachable")

    def phi(self, type: LLVMType, *edges: tuple[Operand, Block]) -> Phi:
        """A phi, before the current block's other instructions; edges may follow until the end."""
        block = self.current
        phi = Phi(self.emit(type, ""), list(edges))
        self._phis.append((block, len(block.lines) - 1, phi))
        return phi

    def loop(
        self,
        start: Operand,
        stop: Operand,
        step: int,
        body: Callable[[Operand], None],
        name: str = "loop",
        metadata: str = "",
        turns: int | None = None,
    ) -> None:
        """Run `body(index)` for start, start + step, ... while below `stop` (signed).

        `turns` is how often that is, where it is known: LLVM guesses otherwise that of two loops
        the deeper one takes longer, and keeps its values in registers rather than the other's.
        """
        header, inside, after = self.block(name), self.block(f"{name}.body"), self.block("after")
        before = self.current
        self.branch(header)
        self.begin(header)
        index = self.phi(start.type, (start, before))
        weights = "" if turns is None else self._branch_weights(turns)
        self.branch_if(self.icmp("slt", index.value, stop), inside, after, weights)
        self.begin(inside)
        body(index.value)
        following = self.add(index.value, constant(start.type, step), "nsw")
        index.add(following, self.current)
        self.emit_void(f"br label %{header.label}{', ' + metadata if metadata else ''}")
        self.begin(after)

    def _branch_weights(self, turns: int) -> str:
        node = self.module.metadata(f'!{{!"branch_weights", i32 {turns}, i32 1}}')
        return f"!prof {node}"

    # ---- calls and stack space

    def call(
        self, name: str, result: LLVMType, arguments: Sequence[Operand], attributes: str = ""
    ) -> Operand:
        """Call a function that the module defines or declares; void gives an unusable operand."""
        operands = ", ".join(map(str, arguments))
        text = f"call {result.text} @{name}({operands}){' ' + attributes if attributes else ''}"
        if result != VOID:
            return self.emit(result, text)
        self.emit_void(text)
        return Operand("", VOID)

    def alloca(self, type: LLVMType, count: int = 1, align: int = 64) -> Operand:
        self._values += 1
        name = f"%stack{self._values}"
        # An array type: LLVM does not promote `alloca float, i64 8` to registers.
        allocated = type.text if count == 1 else f"[{count} x {type.text}]"
        self._allocas.append(f"  {name} = alloca {allocated}, align {align}")
        return Operand(name, PTR)

    def __str__(self) -> str:
        for block, line, phi in self._phis:
            edges = ", ".join(f"[{value.text}, %{source.label}]" for value, source in phi.edges)
            block.lines[line] = f"  {phi.value.text} = phi {phi.value.type.text} {edges}"
        parts = [self._head()]
        for number, block in enumerate(self._blocks):
            parts.append(f"{block.label}:")
            if number == 0:
                parts.extend(self._allocas)
            parts.extend(block.lines)
        parts.append("}\n")
        return "\n".join(parts)

    def _head(self) -> str:
        parameters = ", ".join(
            " ".join(filter(None, (operand.type.text, attributes, operand.text)))
            for operand, attributes in zip(self.parameters, self._signature, strict=True)
        )
        words = ["define", self.linkage, self.result.text, f"@{self.name}({parameters})"]
        return " ".join(filter(None, [*words, self.attributes, "{"]))


class ModuleWriter:
    """Collects what one LLVM module holds: functions, globals, declarations, metadata.

    `attributes` are given to every function (a machine's `function_attributes`); `has_fma` says
    whether `FunctionWriter.fma` may use the fused instruction, `has_avx512` whether AVX-512's own
    intrinsics may be used, `has_wide_integers` whether there are integers of 128 bits.
    """

    def __init__(
        self,
        triple: str = "",
        has_fma: bool = True,
        attributes: str = "",
        has_avx512: bool = False,
        has_wide_integers: bool = True,
    ) -> None:
        self.triple = triple
        self.has_fma = has_fma
        self.has_avx512 = has_avx512
        self.has_wide_integers = has_wide_integers
        self.attributes = attributes
        self._functions: dict[str, FunctionWriter] = {}
        self._declarations: dict[str, str] = {}
        self._globals: dict[str, str] = {}
        self._metadata: dict[str, int] = {}

    @staticmethod
    def for_machine(machine: Machine) -> "ModuleWriter":
        """An empty module for a CPU."""
        return ModuleWriter(
            machine.triple, machine.has_fma, machine.function_attributes, machine.has_avx512
        )

    def function(
        self,
        name: str,
        parameters: Sequence[Parameter],
        result: LLVMType = VOID,
        linkage: str = "",
        attributes: str = "",
    ) -> FunctionWriter:
        """Begin a function.  Raises ValueError if the module has one of that name."""
        if name in self._functions:
            raise ValueError(f"function @{name} is defined twice")
        words = " ".join(filter(None, ("nounwind", attributes, self.attributes)))
        function = FunctionWriter(self, name, parameters, result, linkage, words)
        self._functions[name] = function
        return function

    @property
    def lines(self) -> int:
        """How many lines of instructions there are."""
        return sum(function.line_count for function in self._functions.values())

    def has_function(self, name: str) -> bool:
        return name in self._functions

    def declare(self, name: str, result: LLVMType, parameters: Sequence[LLVMType]) -> None:
        """Declare an external function, once however often it is asked for."""
        if name not in self._declarations:
            types = ", ".join(type.text for type in parameters)
            self._declarations[name] = f"declare {result.text} @{name}({types})"

    def declare_text(self, name: str, text: str) -> None:
        self._declarations.setdefault(name, text)

    def add_global(self, name: str, text: str) -> Operand:
        """Define `@name = text`, once; for example `internal constant [2 x i8] c"ab", align 64`."""
        self._globals.setdefault(name, f"@{name} = {text}")
        return Operand(f"@{name}", PTR)

    def metadata(self, text: str) -> str:
        """The reference `!n` of a node, the same for equal text; `@` in it is the node itself."""
        number = self._metadata.setdefault(text, len(self._metadata))
        return f"!{number}"

    def __str__(self) -> str:
        parts = [f'target triple = "{self.triple}"'] if self.triple else []
        parts.extend(self._globals.values())
        parts.extend(map(str, self._functions.values()))
        defined = self._functions.keys()
        parts.extend(text for name, text in self._declarations.items() if name not in defined)
        for text, number in self._metadata.items():
            parts.append(f"!{number} = {text.replace('@', f'!{number}')}")
        return "\n".join(parts) + "\n"
