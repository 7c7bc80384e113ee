"""The syntax tree's construction: one method for each rule or alias of `grammar.lark`.

Each takes the offsets of its text and the values of the rule's children.  What the grammar cannot
say without becoming unreadable is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mapsto.dsl.binders import binder_of
from mapsto.dsl.diagnostics import Collector, Diagnostic, Fact, Help, Kind, Note, NoteKind
from mapsto.dsl.lalr import Token
from mapsto.dsl.source import Source, Span
from mapsto.dsl.strings import clean_docstring, split_docstring, unescaped
from mapsto.dsl.syntax import (
    Argument,
    Attribute,
    Binary,
    BinaryOperator,
    Binder,
    Binding,
    Block,
    Boolean,
    Broken,
    Call,
    Comprehension,
    Conditional,
    Docstring,
    Expression,
    ExpressionStatement,
    Float,
    For,
    FromImport,
    Gradient,
    Identifier,
    If,
    Import,
    ImportedName,
    ImportPath,
    Index,
    IndexItem,
    IndexLambda,
    Integer,
    Let,
    ListExpression,
    LossDefinition,
    MapDefinition,
    MetricDefinition,
    ModuleDefinition,
    Name,
    ParamDeclaration,
    Parameter,
    Slice,
    Spread,
    StateDeclaration,
    Statement,
    StateUpdate,
    String,
    Target,
    TargetTuple,
    TrainDefinition,
    TupleExpression,
    TupleType,
    TypeExpression,
    Unary,
    UnaryOperator,
    ValueType,
)

__all__ = ["Builder"]


class Builder:
    """Makes nodes of one source."""

    def __init__(self, source: Source, collector: Collector) -> None:
        self._source = source
        self._collector = collector

    @property
    def actions(self) -> Mapping[str, Callable[..., Any]]:
        """The methods by the names of their rules."""
        return {name: getattr(self, name) for name in _ACTIONS}

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

    # Statements

    def inline_body(self, start: int, end: int, value: Expression) -> Block:
        return Block(value.span, (ExpressionStatement(value.span, value),))

    def block(self, start: int, end: int, *statements: Statement) -> Block:
        return Block(statements[0].span.to(statements[-1].span), statements)

    def let(
        self,
        start: int,
        end: int,
        target: Target,
        type: TypeExpression | None,
        value: Expression,
    ) -> Let:
        return Let(self._span(start, end), target, type, value)

    def target_tuple(self, start: int, end: int, *items: Target) -> TargetTuple:
        return TargetTuple(self._span(start, end), items)

    def names(self, start: int, end: int, *names: Identifier) -> tuple[Identifier, ...]:
        return names

    generics = names

    def update(self, start: int, end: int, target: Expression, value: Expression) -> StateUpdate:
        if not isinstance(target, Name | Attribute):
            self._report(Kind.BAD_UPDATE_TARGET, target.span, Help.UPDATE_STATE)
        return StateUpdate(self._span(start, end), target, value)

    def expression_statement(self, start: int, end: int, value: Expression) -> ExpressionStatement:
        return ExpressionStatement(value.span, value)

    def if_statement(
        self,
        start: int,
        end: int,
        condition: Expression,
        then: Block,
        otherwise: Block | None = None,
    ) -> If:
        last = otherwise or then
        return If(self._span(start, last.span.end), condition, then, otherwise)

    def else_if(self, start: int, end: int, *parts: Any) -> Block:
        nested = self.if_statement(start, end, *parts)
        return Block(nested.span, (nested,))

    def for_statement(
        self, start: int, end: int, target: Target, iterable: Expression, body: Block
    ) -> For:
        return For(self._span(start, body.span.end), target, iterable, body)

    def broken(self, start: int, end: int) -> Broken:
        return Broken(self._span(start, end))

    # Definitions

    def import_file(self, start: int, end: int, token: Token) -> ImportPath:
        return ImportPath(self._span(start, end), self._unquote(token), True)

    def import_package(self, start: int, end: int, *tokens: Token) -> ImportPath:
        text = ".".join(map(self._text, tokens))
        return ImportPath(self._span(start, end), text, False)

    def import_path(
        self, start: int, end: int, path: ImportPath, alias: Identifier | None
    ) -> Import:
        if path.is_file and alias is None:
            self._report(Kind.UNNAMED_IMPORT, path.span, Help.ADD_ALIAS, path=path.text)
        return Import(self._span(start, end), path, alias)

    def import_names(
        self, start: int, end: int, path: ImportPath, *names: ImportedName
    ) -> FromImport:
        return FromImport(self._span(start, end), path, names)

    def imported_name(
        self, start: int, end: int, name: Identifier, alias: Identifier | None
    ) -> ImportedName:
        return ImportedName(self._span(start, end), name, alias)

    def binding(self, start: int, end: int, name: Identifier, value: Expression) -> Binding:
        return Binding(self._span(start, end), name, value)

    def parameters(self, start: int, end: int, *parameters: Parameter) -> tuple[Parameter, ...]:
        return parameters

    def parameter(
        self,
        start: int,
        end: int,
        name: Identifier,
        type: TypeExpression | None,
        default: Expression | None,
    ) -> Parameter:
        return Parameter(self._span(start, end), name, type, default)

    def _require_types(self, parameters: Sequence[Parameter]) -> None:
        for parameter in parameters:
            if parameter.type is None:
                name = parameter.name.name
                self._report(Kind.UNTYPED_PARAMETER, parameter.span, Help.ADD_TYPE, name=name)

    def map(
        self,
        start: int,
        end: int,
        name: Identifier | None,
        generics: tuple[Identifier, ...] | None,
        parameters: tuple[Parameter, ...],
        result: TypeExpression | None,
        body: Block,
        gradient: Gradient | None,
    ) -> MapDefinition:
        self._require_types(parameters)
        docstring, body = split_docstring(body)
        span = self._span(start, (gradient or body).span.end)
        return MapDefinition(
            span, name, generics or (), parameters, result, docstring, body, gradient
        )

    def gradient(
        self, start: int, end: int, parameters: tuple[Identifier, ...], body: Block
    ) -> Gradient:
        return Gradient(self._span(start, body.span.end), parameters, body)

    def unchecked_gradient(
        self, start: int, end: int, parameters: tuple[Identifier, ...], body: Block
    ) -> Gradient:
        return Gradient(self._span(start, body.span.end), parameters, body, is_checked=False)

    def param(
        self,
        start: int,
        end: int,
        name: Identifier,
        type: TypeExpression,
        initializer: Expression | None,
    ) -> ParamDeclaration:
        return ParamDeclaration(self._span(start, end), name, type, initializer)

    def state(
        self,
        start: int,
        end: int,
        name: Identifier,
        type: TypeExpression,
        value: Expression | None,
        initializer: Expression | None,
    ) -> StateDeclaration:
        if value is not None and initializer is not None:
            self._report(Kind.TWO_FIRST_VALUES, initializer.span, name=name.name)
        return StateDeclaration(self._span(start, end), name, type, value, initializer)

    def module(
        self,
        start: int,
        end: int,
        name: Identifier,
        generics: tuple[Identifier, ...] | None,
        parameters: tuple[Parameter, ...] | None,
        *members: Any,
    ) -> ModuleDefinition:
        self._require_types(parameters or ())
        docstring, rest = self._split_members(members)
        span = self._span(start, end)
        return ModuleDefinition(span, name, generics or (), parameters or (), docstring, rest)

    def train(
        self,
        start: int,
        end: int,
        name: Identifier,
        parameters: tuple[Parameter, ...] | None,
        *members: Any,
    ) -> TrainDefinition:
        docstring, rest = self._split_members(members)
        return TrainDefinition(self._span(start, end), name, parameters or (), docstring, rest)

    def _split_members(self, members: Sequence[Any]) -> tuple[Docstring | None, tuple[Any, ...]]:
        """The docstring, which is first if there is one, and the other members."""
        first = members[0] if isinstance(members[0], Docstring) else None
        for member in members[1:]:
            if isinstance(member, Docstring):
                self._report(Kind.MISPLACED_DOCSTRING, member.span)
        return first, tuple(member for member in members if not isinstance(member, Docstring))

    def loss(
        self,
        start: int,
        end: int,
        name: Identifier | None,
        trained: tuple[Expression, ...] | None,
        parameters: tuple[Parameter, ...],
        result: TypeExpression | None,
        body: Block,
    ) -> LossDefinition:
        self._require_types(parameters)
        span = self._span(start, end)
        return LossDefinition(span, name, trained or (), parameters, result, body)

    def trained(self, start: int, end: int, *nets: Expression) -> tuple[Expression, ...]:
        return nets

    def metric(
        self,
        start: int,
        end: int,
        name: Identifier,
        parameters: tuple[Parameter, ...],
        result: TypeExpression | None,
        body: Block,
    ) -> MetricDefinition:
        self._require_types(parameters)
        return MetricDefinition(self._span(start, end), name, parameters, result, body)


_ACTIONS = [name for name in vars(Builder) if not name.startswith("_") and name != "actions"]
