"""The functions that the elaborator knows: their parameters, and what they ask of arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from mapsto.dsl.arguments import match_names
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import is_applicable
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import Argument, Builtin, Expected, Nothing, Truth, Value

__all__ = [
    "Given",
    "Parameters",
    "Table",
    "flag",
    "functions_of",
    "map_argument",
    "wrong_kind",
]

Given = dict[str, Argument]
"""The arguments of a call by parameter."""
Table = Mapping[str, tuple[Callable[[Frame, Span, Given], Value], str, tuple[str, ...], int]]
"""By name: what computes the function, its summary, its parameters, and how many of those have to
be given."""


class Parameters:
    """The names of a function's parameters; the first `required` have to be given."""

    def __init__(self, *names: str, required: int) -> None:
        self.names = names
        self.required = required

    @property
    def usage(self) -> str:
        """The names, with `?` behind those that may be left out."""
        optional = [f"{name}?" for name in self.names[self.required :]]
        return ", ".join([*self.names[: self.required], *optional])

    def match(self, owner: str, arguments: tuple[Argument, ...], span: Span) -> dict[str, Argument]:
        """The arguments by parameter; DiagnosticError where they do not fit.

        An argument that need not be given and is `none` is not given.
        """
        matched = match_names(self.names, arguments, owner, span)
        for name in self.names[self.required :]:
            if name in matched and isinstance(matched[name].value, Nothing):
                del matched[name]
        for name in self.names[: self.required]:
            if name not in matched:
                fail(Kind.MISSING_ARGUMENT, span, name=name, owner=owner)
        return matched


def flag(given: Given, name: str) -> bool:
    """A truth value that is known during elaboration; false where it is not given."""
    argument = given.get(name)
    if argument is None:
        return False
    if not isinstance(argument.value, Truth):
        wrong_kind(name, "true or false", argument)
    return argument.value.value


def map_argument(argument: Argument) -> Value:
    """The argument, which has to be a map or something else that can be called."""
    if not is_applicable(argument.value):
        fail(Kind.NOT_CALLABLE, argument.span, found=describe(argument.value))
    return argument.value


def wrong_kind(name: str, expected: str, given: Argument) -> NoReturn:
    """Reports an argument of another kind than its parameter takes."""
    fail(Kind.WRONG_KIND, given.span, name=name, expected=expected, found=describe(given.value))


def functions_of(table: Table) -> Mapping[str, Value]:
    """The functions of a table by name."""
    return {name: _function(name, table) for name in table}


def _function(name: str, table: Table) -> Builtin:
    function, summary, parameters, required = table[name]
    signature = Parameters(*parameters, required=required)

    def apply(
        frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
    ) -> Value:
        return function(frame, span, signature.match(name, arguments, span))

    return Builtin(name, summary, apply, usage=signature.usage)
