"""PTX text to records.

Statements end at `;`, wherever lines break.  Braces that begin a statement are blocks with
register names of their own; `mma` and friends have braces inside of statements.  LLVM writes
undefined values as comments (`// implicit-def: %r1`); they become the pseudo-instruction
`implicit_def`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from ptx.errors import InvalidProgram
from ptx.inlining import inlined
from ptx.syntax import (
    Address,
    Immediate,
    Instruction,
    Kernel,
    Name,
    Operand,
    Pair,
    Program,
    Register,
    Sink,
    Variable,
    Vector,
)

_IMPLICIT = re.compile(r"//\s*implicit-def:\s*(%[\w$]+)")
_LINE_COMMENT = re.compile(r"//[^\n]*")
_BLOCK_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_LABEL = re.compile(r"([\w$%]+)\s*:(?!:)")
_ENTRY = re.compile(r"(?:\.visible\s+|\.weak\s+)*\.entry\s+([\w$]+)\s*")
_FUNCTION = re.compile(
    r"(?:\.visible\s+|\.weak\s+)*\.func\s*(?:\((?P<results>[^)]*)\)\s*)?(?P<name>[\w$.]+)\s*"
)
_VARIABLE = re.compile(
    r"(?:\.(?P<linkage>visible|extern|weak|common)\s+)?\.(?P<space>global|const|shared|local|param)\s+"
    r"(?P<attributes>(?:\.(?!align|[busf]\d)\w+(?:\s+|$))*)"
    r"(?:\.align\s+(?P<alignment>\d+)\s+)?"
    r"\.(?P<type>[busf]\d+)\s+"
    r"(?P<pointer>(?:\.ptr\s+)?(?:\.(?:global|shared|const|local)\s+)?(?:\.align\s+\d+\s+)?)"
    r"(?P<name>[\w$.]+)(?P<dims>(?:\s*\[\s*\d*\s*\])*)\s*(?:=\s*(?P<contents>.*))?$",
    re.DOTALL,
)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)$", re.DOTALL)
_RANGE = re.compile(r"(%?[\w$]+?)<(\d+)>$")
_BRANCH_TARGETS = re.compile(r"\.branchtargets\s+(.*)$", re.DOTALL)
_NUMBER = re.compile(r"-?(0[xX][0-9a-fA-F]+|\d+)U?$")
_LITERAL_FLOAT = re.compile(r"0([fFdD])([0-9a-fA-F]+)$")
_SKIPPED_LINE = re.compile(r"\.(loc|file|version|target|address_size)\s")


def parse(text: str) -> Program:
    """The kernels and variables of a module.  InvalidProgram where it is not PTX that the
    interpreter knows.  Calls of functions are inlined."""
    version = _directive(text, "version")
    target = _directive(text, "target")
    text = _IMPLICIT.sub(r"implicit_def \1;", text)
    text = _BLOCK_COMMENT.sub(lambda match: "\n" * match[0].count("\n"), text)
    return _ModuleParser(_LINE_COMMENT.sub("", text)).parse(version, target)


def _directive(text: str, name: str) -> str:
    match = re.search(rf"^\s*\.{name}\s+([^\s,]+)", text, re.MULTILINE)
    if match is None:
        raise InvalidProgram(f"no .{name}")
    return match[1]


class _ModuleParser:
    """The statements outside of kernels."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.position = 0

    def parse(self, version: str, target: str) -> Program:
        kernels: dict[str, Kernel] = {}
        functions: dict[str, Kernel] = {}
        variables: list[Variable] = []
        while self._skip_space():
            if entry := _ENTRY.match(self.text, self.position):
                kernels[entry[1]] = self._kernel(entry, entry[1])
            elif function := _FUNCTION.match(self.text, self.position):
                self._function(function, functions)
            elif _SKIPPED_LINE.match(self.text, self.position):
                self.position = self._find("\n")
            elif self.text.startswith(".section", self.position):
                self.position = self._closing(self._find("{")) + 1
            else:
                variables.append(self._variable())
        whole = {name: inlined(kernel, functions) for name, kernel in kernels.items()}
        return Program(version, target, whole, tuple(variables))

    def _skip_space(self) -> bool:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1
        return self.position < len(self.text)

    def _find(self, character: str) -> int:
        found = self.text.find(character, self.position)
        if found < 0:
            raise InvalidProgram(f"line {self._line(self.position)}: no `{character}` to the end")
        return found

    def _line(self, position: int) -> int:
        return bisect_right(self.line_starts, position)

    def _closing(self, opening: int) -> int:
        """The brace that closes one."""
        depth = 0
        for match in re.compile(r"[{}]").finditer(self.text, opening):
            depth += 1 if match[0] == "{" else -1
            if depth == 0:
                return match.start()
        raise InvalidProgram(f"line {self._line(opening)}: `{{` is never closed")

    def _variable(self) -> Variable:
        end = self._find(";")
        statement = self.text[self.position : end]
        line, self.position = self._line(self.position), end + 1
        return variable(statement, line)

    def _function(self, match: re.Match[str], functions: dict[str, Kernel]) -> None:
        """A function; its results come first among its parameters.  A declaration says nothing."""
        semicolon, brace = self._find(";"), self.text.find("{", match.end())
        if not 0 <= brace < semicolon:
            self.position = semicolon + 1
            return
        kernel = self._kernel(match, match["name"])
        line = self._line(match.start())
        results = [x.strip() for x in (match["results"] or "").split(",") if x.strip()]
        given = tuple(variable(x, line) for x in results)
        kernel.parameters = (*given, *kernel.parameters)
        functions[match["name"]] = kernel

    def _kernel(self, entry: re.Match[str], name: str) -> Kernel:
        line = self._line(entry.start())
        body = self.text.find("{", entry.end())
        end = self._closing(body)
        header = self.text[entry.end() : body].strip()
        self.position = end + 1
        parameters, directives = _header(header, line)
        kernel = Kernel(name, parameters, directives)
        _BodyParser(self, kernel).parse(body + 1, end)
        return kernel


def _header(header: str, line: int) -> tuple[tuple[Variable, ...], dict[str, tuple[int, ...]]]:
    """Parameters, and directives such as `.maxntid 256`."""
    parameters: tuple[Variable, ...] = ()
    if header.startswith("("):
        inside, _, header = header[1:].partition(")")
        pieces = [piece.strip() for piece in inside.split(",")]
        parameters = tuple(variable(piece, line) for piece in pieces if piece)
    directives = {}
    for name, numbers in re.findall(r"\.(\w+)\s*([\d,\s]*)", header):
        directives[name] = tuple(int(number) for number in re.findall(r"\d+", numbers))
    return parameters, directives


def variable(statement: str, line: int) -> Variable:
    """The declaration of a variable or parameter."""
    match = _VARIABLE.match(" ".join(statement.split()))
    if match is None:
        raise InvalidProgram(f"line {line}: not a declaration: {' '.join(statement.split())[:80]}")
    element = int(match["type"][1:]) // 8
    dims = [int(size or 0) for size in re.findall(r"\[\s*(\d*)\s*\]", match["dims"])]
    size = element
    for extent in dims:
        size *= extent
    alignment = int(match["alignment"] or element)
    contents = _contents(match["contents"], element, size) if match["contents"] else None
    external = match["linkage"] == "extern"
    return Variable(match["name"], match["space"], size, alignment, contents, external)


def _contents(text: str, element: int, size: int) -> bytes:
    """The initial bytes of a variable; elements that are not listed are zero."""
    items = [item for item in re.split(r"[\s,{}]+", text) if item]
    numbers = [_number(item) for item in items]
    listed = b"".join((n % (1 << 8 * element)).to_bytes(element, "little") for n in numbers)
    return listed.ljust(size, b"\0")


def _number(text: str) -> int:
    if match := _LITERAL_FLOAT.match(text):
        return int(match[2], 16)
    if not _NUMBER.match(text):
        raise InvalidProgram(f"not a number: {text}")
    return int(text.rstrip("U"), 0)


class _BodyParser:
    """The statements of a kernel."""

    def __init__(self, module: _ModuleParser, kernel: Kernel) -> None:
        self.module = module
        self.kernel = kernel
        self.scopes: list[dict[str, str]] = [{}]
        self.blocks = 0
        self.label = ""

    def parse(self, start: int, end: int) -> None:
        for line, piece in self._pieces(start, end):
            if piece == "{":
                self.blocks += 1
                self.scopes.append({})
            elif piece == "}":
                self.scopes.pop()
            elif piece.endswith(":"):
                self.label = piece[:-1].strip()
                self.kernel.labels[self.label] = len(self.kernel.instructions)
            else:
                self._statement(piece, line)

    def _pieces(self, position: int, end: int) -> Iterator[tuple[int, str]]:
        """Braces of blocks, labels with their colon, statements without `;`, each with its line."""
        text = self.module.text
        while position < end:
            start = position
            if text[position].isspace():
                position += 1
                continue
            if text[position] in "{}":
                position += 1
            elif _SKIPPED_LINE.match(text, position):
                position = text.index("\n", position)
                continue
            elif match := _LABEL.match(text, position):
                position = match.end()
            else:
                position = text.index(";", position) + 1
            piece = text[start:position].rstrip(";")
            yield self.module._line(start), " ".join(piece.split())

    def _statement(self, piece: str, line: int) -> None:
        if not piece or piece.startswith(".pragma"):
            return
        if match := _REGISTERS.match(piece):
            self._declare(match[1], match[2])
        elif match := _BRANCH_TARGETS.match(piece):
            self.kernel.tables[self.label] = tuple(x.strip() for x in match[1].split(","))
        elif piece.startswith(".param"):
            self._name(variable(piece, line).name)
        elif piece.startswith("."):
            self.kernel.variables.append(variable(piece, line))
        else:
            self.kernel.instructions.append(self._instruction(piece, line))

    def _declare(self, kind: str, names: str) -> None:
        for item in names.split(","):
            match = _RANGE.match(item.strip())
            base, count = (match[1], int(match[2])) if match else (item.strip(), None)
            for name in [base] if count is None else [f"{base}{i}" for i in range(count)]:
                self.kernel.registers[self._name(name)] = kind

    def _name(self, name: str) -> str:
        """A name of this block, and of no other."""
        unique = name if len(self.scopes) == 1 else f"{name}.{self.blocks}"
        self.scopes[-1][name] = unique
        return unique

    def _instruction(self, piece: str, line: int) -> Instruction:
        guard, rest = None, piece
        if piece.startswith("@"):
            word, _, rest = piece[1:].partition(" ")
            guard = self._register(word, line)
        opcode, _, tail = rest.strip().partition(" ")
        operands = tuple(self._operand(part, line) for part in _split(tail, ","))
        return Instruction(opcode, operands, guard, line, piece)

    def _register(self, word: str, line: int) -> Register:
        name = word.lstrip("!")
        for scope in reversed(self.scopes):
            if name in scope:
                return Register(scope[name], word.startswith("!"))
        raise InvalidProgram(f"line {line}: `{name}` is not declared")

    def _is_register(self, word: str) -> bool:
        return any(word.lstrip("!") in scope for scope in self.scopes)

    def _operand(self, text: str, line: int) -> Operand:
        text = text.strip()
        if text == "_":
            return Sink()
        if text.startswith(("{", "(")):
            return Vector(tuple(self._operand(part, line) for part in _split(text[1:-1], ",")))
        if text.startswith("["):
            return self._address(text[1:-1].strip(), line)
        if "|" in text:
            first, second = (self._operand(part, line) for part in text.split("|"))
            return Pair(first, second)
        return self._plain(text, line)

    def _plain(self, text: str, line: int) -> Register | Immediate | Name:
        if self._is_register(text):
            return self._register(text, line)
        if match := _LITERAL_FLOAT.match(text):
            return Immediate(int(match[2], 16), 32 if match[1] in "fF" else 64, is_float=True)
        if _NUMBER.match(text):
            return Immediate(_number(text))
        base, sign, offset = text.partition("+")
        if not re.match(r"%?[A-Za-z_$][\w$.]*$", base.strip()):
            raise InvalidProgram(f"line {line}: not an operand: {text}")
        return Name(base.strip(), _number(offset.strip()) if sign else 0)

    def _address(self, text: str, line: int) -> Address:
        match = re.match(r"(.*?)\s*([+-])\s*(-?\w+)$", text)
        if match is None:
            return Address(self._plain(text, line))
        offset = _number(match[3]) * (-1 if match[2] == "-" else 1)
        return Address(self._plain(match[1], line), offset)


def _split(text: str, separator: str) -> list[str]:
    """Split where no bracket is open."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        if character in "[{(":
            depth += 1
        elif character in ")}]":
            depth -= 1
        elif character == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    tail = text[start:].strip()
    return [*parts, tail] if tail else parts
