"""The syntax tree's construction: one method for each rule or alias of `grammar.lark`.

Each takes the offsets of its text and the values of the rule's children.  What the grammar cannot
say without becoming unreadable is checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.expression_builder import ExpressionBuilder
from mapsto.dsl.lalr import Token
from mapsto.dsl.strings import split_docstring
from mapsto.dsl.syntax import (
    Attribute,
    Binding,
    Block,
    Broken,
    Docstring,
    Expression,
    ExpressionStatement,
    For,
    FromImport,
    Gradient,
    Identifier,
    If,
    Import,
    ImportedName,
    ImportPath,
    Let,
    LossDefinition,
    MapDefinition,
    MetricDefinition,
    ModuleDefinition,
    Name,
    ParamDeclaration,
    Parameter,
    StateDeclaration,
    Statement,
    StateUpdate,
    Target,
    TargetTuple,
    TrainDefinition,
    TypeExpression,
)

__all__ = ["Builder"]


class Builder(ExpressionBuilder):
    """Makes nodes of one source."""

    @property
    def actions(self) -> Mapping[str, Callable[..., Any]]:
        """The methods by the names of their rules."""
        return {name: getattr(self, name) for name in _ACTIONS}

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


_ACTIONS = [
    name
    for part in (ExpressionBuilder, Builder)
    for name in vars(part)
    if not name.startswith("_") and name != "actions"
]
