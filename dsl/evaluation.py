"""The engine of elaboration: one evaluator for each kind of expression, found by the node's class.

`expressions`, `indexing` and `calls` register the evaluators; they meet here so that none of them
has to import the others.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, NoReturn, TypeVar

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.foreign import FRAMEWORKS, hint
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.scope import FileScope, LibraryScope, Scope
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_dim
from mapsto.dsl.tensors import as_tensor, describe
from mapsto.dsl.values import Applicable, Argument, Expected, Product, Tensor, Value

__all__ = [
    "applies",
    "apply",
    "call_arguments",
    "evaluate",
    "evaluates",
    "fail_unknown",
    "find",
    "lookup",
    "tensor_of",
    "whole_number",
]

Evaluator = Callable[[Any, Frame, Expected | None], Value]
Applier = Callable[[Any, Frame, Span, tuple[Argument, ...], Expected | None], Value]
_EVALUATORS: dict[type[syntax.Expression], Evaluator] = {}
_APPLIERS: dict[type[Value], Applier] = {}
_E = TypeVar("_E", bound=Evaluator)
_A = TypeVar("_A", bound=Applier)


def evaluates(*nodes: type[syntax.Expression]) -> Callable[[_E], _E]:
    """Registers the evaluator of some kinds of expression."""

    def register(function: _E) -> _E:
        _EVALUATORS.update(dict.fromkeys(nodes, function))
        return function

    return register


def applies(*kinds: type[Value]) -> Callable[[_A], _A]:
    """Registers how some kinds of value are called."""

    def register(function: _A) -> _A:
        _APPLIERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def evaluate(
    expression: syntax.Expression, frame: Frame, expected: Expected | None = None
) -> Value:
    """What the expression stands for; DiagnosticError where it means nothing."""
    frame.session.budget.spend(expression.span)
    return _EVALUATORS[type(expression)](expression, frame, expected)


def apply(
    function: Value,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None = None,
) -> Value:
    """The value of a call."""
    applier = _APPLIERS.get(type(function))
    if applier is None:
        fail(Kind.NOT_CALLABLE, span, found=describe(function))
    return applier(function, frame, span, arguments, expected)


def call_arguments(node: syntax.Call, frame: Frame) -> tuple[Argument, ...]:
    """The arguments of a call, evaluated."""
    return tuple([_argument(argument, frame) for argument in node.arguments])


def _argument(node: syntax.Argument, frame: Frame) -> Argument:
    name = None if node.name is None else node.name.name
    place = None if node.name is None else node.name.span
    return Argument(name, evaluate(node.value, frame), node.value.span, place)


def find(frame: Frame, name: str) -> Value | None:
    """What a name stands for, the innermost meaning first; None if it has none."""
    for scope in frame.scope.enclosing():
        bound = scope.names.get(name)
        if bound is not None:
            return bound.value
        if name in _lazy_names(scope):
            return frame.session.resolve(frame, scope, name)
        if isinstance(scope, LibraryScope):
            return scope.registered(name)
    return None


def _lazy_names(scope: Scope) -> Container[str]:
    """The names that get a value when they are first used."""
    if isinstance(scope, FileScope):
        return scope.definitions
    return scope.files if isinstance(scope, LibraryScope) else ()


def lookup(frame: Frame, name: str, span: Span) -> Value:
    """What a name stands for; a diagnostic with a suggestion if it has no meaning."""
    value = find(frame, name)
    if value is None:
        fail_unknown(frame, name, span)
    return value


def fail_unknown(frame: Frame, name: str, span: Span) -> NoReturn:
    """Reports a name without a meaning."""
    help, suggestion = hint(name, frame.scope.visible())
    if name in FRAMEWORKS:
        help = Help.NO_PREFIX
    fail(Kind.UNKNOWN_NAME, span, help=help, name=name, suggestion=suggestion)


def whole_number(expression: syntax.Expression, frame: Frame) -> ir.Dim:
    """The value of an expression that has to be a whole number known during elaboration."""
    return static_dim(evaluate(expression, frame), expression.span)


def tensor_of(
    expression: syntax.Expression, frame: Frame, expected: Expected | None = None
) -> Value:
    """The value of an expression, lazy products carried out."""
    value = evaluate(expression, frame, expected)
    return as_tensor(frame, expression.span, value) if isinstance(value, Product) else value


def is_applicable(value: Value) -> bool:
    """Whether a value can be called."""
    return isinstance(value, Applicable) or type(value) in _APPLIERS


def scalar_or_tensor(value: Value) -> bool:
    """Whether the value is a tensor already, perhaps one that depends on indices."""
    return isinstance(value, Tensor | Product)
