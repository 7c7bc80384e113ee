"""Reads the text form of modules; `printer` describes it."""

from __future__ import annotations

import difflib

from mapsto.ir.attributes import attribute_problems
from mapsto.ir.core import (
    Attribute,
    Block,
    Function,
    Location,
    Module,
    Operation,
    Region,
    Trait,
    Value,
    registered_ops,
)
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.printer import implied_attributes
from mapsto.ir.text_attributes import read_attributes, read_type
from mapsto.ir.text_tokens import Cursor, Token
from mapsto.ir.types import TensorType

__all__ = ["parse_module"]


def parse_module(text: str, file: str = "<text>") -> Module:
    """The module of a text.

    Raises TextError, with file, line and column, where the text is not that of a module whose
    operations are well-typed.  What operations refer to by name is left to the verifier.
    """
    return _Parser(Cursor(text, file)).module()


class _Parser:
    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.values: dict[str, Value] = {}

    def module(self) -> Module:
        """Functions up to the end of the text."""
        functions: dict[str, Function] = {}
        while self.cursor.token.kind != "end":
            start = self.cursor.token
            function = self._function()
            if function.name in functions:
                self.cursor.fail(f"the function @{function.name} stands twice", start)
            functions[function.name] = function
        return Module(functions)

    def _function(self) -> Function:
        cursor = self.cursor
        cursor.expect("func")
        token = cursor.expect_kind("symbol", "a function's name, such as @f")
        self.values = {}
        block = self._arguments()
        cursor.expect("->")
        start = cursor.token
        results = cursor.bracketed("(", ")", lambda: read_type(cursor))
        attributes = read_attributes(cursor) if cursor.accept("attributes") else {}
        location = self._location()
        self._body(block)
        found = [value.type for value in block.returned]
        if found != results:
            cursor.fail(f"the function returns {_types_text(found)}", start)
        name = cursor.unquoted(token, token.text[1:])
        return Function(name, block, attributes, location)

    def _arguments(self) -> Block:
        """`(%x: f32[n], ...)`, as an empty block."""
        pairs = self.cursor.bracketed("(", ")", self._argument)
        block = Block([type_ for _, type_ in pairs], [self._hint(token) for token, _ in pairs])
        for (token, _), value in zip(pairs, block.arguments, strict=True):
            self._define(token, value)
        return block

    def _argument(self) -> tuple[Token, TensorType]:
        token = self.cursor.expect_kind("value", "a value, such as %x")
        self.cursor.expect(":")
        return token, read_type(self.cursor)

    def _body(self, block: Block) -> None:
        """`{ operations }`, the last of which is a terminator."""
        cursor = self.cursor
        cursor.expect("{")
        cursor.enter()
        while not cursor.is_next("}"):
            if block.operations and block.terminator.has(Trait.TERMINATOR):
                cursor.fail(f"an operation behind `{block.terminator.name}`")
            block.operations.append(self._operation())
        if not block.operations or not block.terminator.has(Trait.TERMINATOR):
            cursor.fail("a block ends in `return`")
        cursor.take()
        cursor.leave()

    def _operation(self) -> Operation:
        names = self._result_names()
        start = self.cursor.expect_kind("name", "an operation")
        record = self._record(start)
        operands = self._operands()
        given = read_attributes(self.cursor) if self.cursor.is_next("{") else {}
        regions = self._regions()
        types = self._types() if self.cursor.accept(":") else []
        op = self._built(start, record, operands, given, regions, types, self._location())
        if len(names) != len(op.results):
            self.cursor.fail(f"{op.name} has {len(op.results)} results", start)
        for token, value in zip(names, op.results, strict=True):
            value.hint = self._hint(token)
            self._define(token, value)
        return op

    def _result_names(self) -> list[Token]:
        """`%a, %b =`, or nothing."""
        names: list[Token] = []
        while self.cursor.token.kind == "value":
            names.append(self.cursor.take())
            if not self.cursor.accept(","):
                self.cursor.expect("=")
                return names
        if names:
            self.cursor.expect_kind("value", "a value, such as %x")
        return names

    def _record(self, token: Token) -> type[Operation]:
        record = registered_ops().get(token.text)
        if record is None:
            close = difflib.get_close_matches(token.text, registered_ops(), n=1)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            self.cursor.fail(f"no op is named `{token.text}`{hint}", token)
        return record

    def _operands(self) -> list[Value]:
        operands: list[Value] = []
        while self.cursor.token.kind == "value":
            token = self.cursor.take()
            if token.text not in self.values:
                self.cursor.fail(f"{token.text} is not defined", token)
            operands.append(self.values[token.text])
            if not self.cursor.accept(","):
                return operands
        if operands:
            self.cursor.expect_kind("value", "a value, such as %x")
        return operands

    def _regions(self) -> list[Region]:
        """`(%x: f32[n]) { ... }`, any number of times."""
        regions: list[Region] = []
        while self.cursor.is_next("("):
            outer = dict(self.values)
            block = self._arguments()
            self._body(block)
            regions.append(Region(block))
            self.values = outer
        return regions

    def _types(self) -> list[TensorType]:
        types = [read_type(self.cursor)]
        while self.cursor.accept(","):
            types.append(read_type(self.cursor))
        return types

    def _built(
        self,
        start: Token,
        record: type[Operation],
        operands: list[Value],
        given: dict[str, Attribute],
        regions: list[Region],
        types: list[TensorType],
        location: Location | None,
    ) -> Operation:
        attributes = {**implied_attributes(record, types), **record.defaults, **given}
        problem = next(attribute_problems(record, attributes), None)
        if problem is not None:
            self.cursor.fail(problem, start)
        try:
            op = record(operands, attributes, regions, location)
        except TypeRuleError as error:
            self.cursor.fail(error.message, start)
        except Exception as error:
            # A shape rule may take for granted what only holds of programs, not of any text.
            self.cursor.fail(f"{record.name} is ill-formed: {error}", start)
        found = [value.type for value in op.results]
        if found != types:
            self.cursor.fail(f"{record.name} gives {_types_text(found)}", start)
        return op

    def _location(self) -> Location | None:
        """`loc("file":line:column)`, or nothing."""
        cursor = self.cursor
        if not cursor.accept("loc"):
            return None
        cursor.expect("(")
        token = cursor.expect_kind("string", "a file's name in quotes")
        place = Location(cursor.unquoted(token, token.text), self._number(), self._number())
        cursor.expect(")")
        return place

    def _number(self) -> int:
        self.cursor.expect(":")
        token = self.cursor.expect_kind("int", "a number")
        if len(token.text) > len(str(2**63)):
            self.cursor.fail("a line or column out of range", token)
        return int(token.text)

    def _hint(self, token: Token) -> str:
        text = token.text[1:]
        if text.startswith('"'):
            return self.cursor.unquoted(token, text[: text.rindex('"') + 1])
        return "" if text[0].isdigit() else text.partition("$")[0]

    def _define(self, token: Token, value: Value) -> None:
        if token.text in self.values:
            self.cursor.fail(f"{token.text} is defined twice", token)
        self.values[token.text] = value


def _types_text(types: list[TensorType]) -> str:
    return f"({', '.join(map(str, types))})"
