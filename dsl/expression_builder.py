"""The construction of expressions and types: the first part of the builder of syntax trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mapsto.dsl.binders import binder_of
from mapsto.dsl.diagnostics import Collector, Diagnostic, Fact, Help, Kind, Note, NoteKind
from mapsto.dsl.lalr import Token
from mapsto.dsl.operators import BinaryOperator, UnaryOperator
from mapsto.dsl.source import Source, Span
from mapsto.dsl.strings import clean_docstring, unescaped
from mapsto.dsl.syntax import (
    Argument,
    Attribute,
    Binary,
    Binder,
    Boolean,
    Call,
    Comprehension,
    Conditional,
    Docstring,
    Expression,
    Float,
    Identifier,
    Index,
    IndexItem,
    IndexLambda,
    Integer,
    ListExpression,
    Name,
    Slice,
    Spread,
    String,
    Target,
    TupleExpression,
    TupleType,
    TypeExpression,
    Unary,
    ValueType,
)

__all__ = ["ExpressionBuilder"]


class ExpressionBuilder:
    """Makes the nodes of expressions and types of one source."""

    def __init__(self, source: Source, collector: Collector) -> None:
        self._source = source
        self._collector = collector

    def _span(self, start: int, end: int) -> Span:
        return Span(self._source, start, end)

    def _text(self, token: Token) -> str:
        return self._source.text[token.start : token.end]

    def _report(self, kind: Kind, span: Span, help: Help | None = None, **facts: Fact) -> None:
        self._collector.add(Diagnostic(kind, span, facts, help=help))

    # Names and literals

    def identifier(self, start: int, end: int, token: Token) -> Identifier:
        return Identifier(self._span(start, end), self._text(token))

    def name(self, start: int, end: int, token: Token) -> Name:
        return Name(self._span(start, end), self._text(token))

    def integer(self, start: int, end: int, token: Token) -> Integer:
        text = self._text(token).replace("_", "")
        return Integer(self._span(start, end), int(text, 16 if "x" in text.lower() else 10))

    def float_value(self, start: int, end: int, token: Token) -> Float:
        return Float(self._span(start, end), float(self._text(token)))

    def true(self, start: int, end: int) -> Boolean:
        return Boolean(self._span(start, end), True)

    def false(self, start: int, end: int) -> Boolean:
        return Boolean(self._span(start, end), False)

    def string(self, start: int, end: int, token: Token) -> String:
        return String(self._span(start, end), self._unquote(token))

    def docstring(self, start: int, end: int, token: Token) -> Docstring:
        return Docstring(self._span(start, end), clean_docstring(self._unquote(token)))

    def _unquote(self, token: Token) -> str:
        quotes = 3 if self._source.text.startswith('"""', token.start) else 1
        first = token.start + quotes

        def report(start: int, end: int, text: str) -> None:
            span = self._span(first + start, first + end)
            self._report(Kind.BAD_ESCAPE, span, Help.DOUBLE_BACKSLASH, text=text)

        return unescaped(self._source.text[first : token.end - quotes], report)

    # Expressions

    def binary(
        self, start: int, end: int, left: Expression, token: Token, right: Expression
    ) -> Binary:
        operator_span = self._span(token.start, token.end)
        operator = BinaryOperator(token.type)
        return Binary(self._span(start, end), operator, left, right, operator_span)

    def unary(self, start: int, end: int, token: Token, operand: Expression) -> Unary:
        return Unary(self._span(start, end), UnaryOperator(token.type), operand)

    def conditional(
        self, start: int, end: int, condition: Expression, then: Expression, otherwise: Expression
    ) -> Conditional:
        return Conditional(self._span(start, end), condition, then, otherwise)

    def parenthesized(self, start: int, end: int, value: Expression) -> Expression:
        return value

    def tuple_value(self, start: int, end: int, *items: Expression) -> TupleExpression:
        return TupleExpression(self._span(start, end), items)

    def field(
        self, start: int, end: int, name: Identifier, value: Expression
    ) -> tuple[Identifier, Expression]:
        return name, value

    def record_value(
        self, start: int, end: int, *fields: tuple[Identifier, Expression]
    ) -> TupleExpression:
        names = self._distinct([name for name, _ in fields])
        return TupleExpression(self._span(start, end), tuple(v for _, v in fields), names)

    def _distinct(self, names: Sequence[Identifier]) -> tuple[Identifier, ...]:
        """The names of the fields of a record, each of which stands once."""
        places: dict[str, Span] = {}
        for name in names:
            if name.name in places:
                note = Note(NoteKind.DEFINED_HERE, places[name.name], {"name": name.name})
                facts = {"name": name.name}
                self._collector.add(Diagnostic(Kind.REPEATED_NAME, name.span, facts, (note,)))
            places[name.name] = name.span
        return tuple(names)

    def brackets(self, start: int, end: int, *items: Expression | Spread) -> Sequence[Any]:
        return items

    def list_value(
        self, start: int, end: int, items: Sequence[Expression | Spread]
    ) -> ListExpression:
        for item in items:
            if isinstance(item, Spread) and item.name is None:
                self._report(Kind.MISPLACED_SPREAD, item.span, Help.NAME_GROUP)
        named = tuple(item for item in items if isinstance(item, Expression) or item.name)
        return ListExpression(self._span(start, end), named)

    def comprehension(
        self,
        start: int,
        end: int,
        item: Expression,
        target: Target,
        iterable: Expression,
        condition: Expression | None,
    ) -> Comprehension:
        return Comprehension(self._span(start, end), item, target, iterable, condition)

    def index_lambda(
        self, start: int, end: int, items: Sequence[Expression | Spread], body: Expression
    ) -> IndexLambda:
        binders: list[Binder] = []
        for item in items:
            binder = binder_of(item)
            if binder is None or item == Spread(item.span, None):
                self._report(Kind.BAD_BINDER, item.span, Help.WRITE_BINDERS)
            else:
                binders.append(binder)
        return IndexLambda(self._span(start, end), tuple(binders), body)

    def call(self, start: int, end: int, function: Expression, *arguments: Argument) -> Call:
        named = False
        for argument in arguments:
            if named and argument.name is None:
                self._report(Kind.POSITIONAL_AFTER_NAMED, argument.span, Help.POSITIONAL_FIRST)
            named = named or argument.name is not None
        return Call(self._span(start, end), function, arguments)

    def argument(self, start: int, end: int, value: Expression) -> Argument:
        return Argument(self._span(start, end), None, value)

    def named_argument(self, start: int, end: int, name: Identifier, value: Expression) -> Argument:
        return Argument(self._span(start, end), name, value)

    def index(self, start: int, end: int, base: Expression, *items: IndexItem) -> Index:
        return Index(self._span(start, end), base, items)

    def slice(
        self,
        start: int,
        end: int,
        first: Expression | None,
        stop: Expression | None,
        step: Expression | None,
    ) -> Slice:
        return Slice(self._span(start, end), first, stop, step)

    def slice_step(self, start: int, end: int, step: Expression | None) -> Expression | None:
        return step

    def attribute(self, start: int, end: int, base: Expression, name: Identifier) -> Attribute:
        return Attribute(self._span(start, end), base, name)

    def spread(self, start: int, end: int, name: Identifier | None) -> Spread:
        return Spread(self._span(start, end), name)

    # Types

    def type_name(self, start: int, end: int, token: Token | None = None) -> Identifier:
        return Identifier(self._span(start, end), self._source.text[start:end])

    def shape(self, start: int, end: int, *items: Expression | Spread) -> Sequence[Any]:
        return items

    def value_type(
        self, start: int, end: int, name: Identifier, shape: tuple[Any, ...] | None
    ) -> ValueType:
        return ValueType(self._span(start, end), name, shape)

    def tuple_type(self, start: int, end: int, *items: TypeExpression) -> TupleType:
        return TupleType(self._span(start, end), items)

    def field_type(
        self, start: int, end: int, name: Identifier, type: TypeExpression
    ) -> tuple[Identifier, TypeExpression]:
        return name, type

    def record_type(
        self, start: int, end: int, *fields: tuple[Identifier, TypeExpression]
    ) -> TupleType:
        names = self._distinct([name for name, _ in fields])
        return TupleType(self._span(start, end), tuple(type for _, type in fields), names)

    def result(self, start: int, end: int, type: TypeExpression) -> TypeExpression:
        return type
