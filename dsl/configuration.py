"""Functions of configuration values: lists of one option for each dimension, least sizes,
initializers that are options."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mapsto.dsl.calling import Given, Parameters, map_argument, wrong_kind
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import applies, apply
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.initialization import initialize
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_dim, static_integer
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Expected,
    Frozen,
    Group,
    Key,
    Number,
    Partial,
    Text,
    Value,
)

__all__ = ["CONFIGURATION"]

_MOST_OPTIONS = 1_000


def _each(frame: Frame, span: Span, expected: Expected | None, given: Given) -> Value:
    x, wanted = given["x"], static_integer(given["count"].value, given["count"].span)
    if wanted > _MOST_OPTIONS:
        fail(Kind.TOO_MANY_ITERATIONS, given["count"].span, limit=_MOST_OPTIONS)
    items = x.value.items if isinstance(x.value, Group) else (x.value,) * wanted
    if len(items) != wanted:
        facts: Facts = {"expected": wanted, "count": len(items), "found": describe(x.value)}
        fail(Kind.CANNOT_UNPACK, x.span, **facts)
    return Group(items, is_list=True)


def _at_least(frame: Frame, span: Span, expected: Expected | None, given: Given) -> Value:
    """Where symbols leave it open which is greater, nothing is wrong yet."""
    found, least = (static_dim(given[name].value, given[name].span) for name in ("x", "least"))
    what = given["what"]
    if not isinstance(what.value, Text):
        wrong_kind("what", "a string", what)
    missing = least - found
    if isinstance(missing, int) and missing > 0:
        fail(Kind.TOO_SMALL, span, what=what.value.value, found=found, least=least)
    return Number(found)


def _initial(frame: Frame, span: Span, expected: Expected | None, given: Given) -> Value:
    key = given["key"]
    if not isinstance(key.value, Key):
        wrong_kind("key", "a random key", key)
    return initialize(given["initializer"].value, frame, span, key.value, expected)


@applies(Frozen)
def _apply_frozen(
    function: Frozen,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    with frame.session.freezing():
        return apply(function.function, frame, span, arguments, expected)


@applies(Partial)
def _apply_partial(
    function: Partial,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    """What a call gives by name counts, whatever was given before."""
    names = {argument.name for argument in arguments if argument.name is not None}
    earlier = (a for a in function.arguments if a.name is None or a.name not in names)
    given = sorted((*earlier, *arguments), key=lambda argument: argument.name is not None)
    return apply(function.function, frame, span, tuple(given), expected)


def _frozen(frame: Frame, span: Span, expected: Expected | None, given: Given) -> Value:
    return Frozen(map_argument(given["f"]))


def _partial(
    frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
) -> Value:
    if not arguments or arguments[0].name is not None:
        fail(Kind.MISSING_ARGUMENT, span, name="f", owner="partial")
    return Partial(map_argument(arguments[0]), arguments[1:])


def _builtin(
    name: str,
    summary: str,
    signature: tuple[str, ...],
    function: Callable[[Frame, Span, Expected | None, Given], Value],
) -> Builtin:
    parameters = Parameters(*signature, required=len(signature))

    def apply(
        frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
    ) -> Value:
        return function(frame, span, expected, parameters.match(name, arguments, span))

    return Builtin(name, summary, apply, usage=parameters.usage)


_FUNCTIONS = (
    _builtin(
        "each",
        "the list `x` of `count` items, or another value that many times",
        ("x", "count"),
        _each,
    ),
    _builtin(
        "at_least",
        "the whole number `x`; a mistake if it is less than `least`",
        ("x", "least", "what"),
        _at_least,
    ),
    _builtin("initial", "a first value from an initializer", ("initializer", "key"), _initial),
    _builtin("frozen", "the map `f`, its parameters constants to derivatives", ("f",), _frozen),
    Builtin("partial", "the map `f` with the arguments that follow it", _partial, usage="f, .."),
)
CONFIGURATION: Mapping[str, Value] = {function.name: function for function in _FUNCTIONS}
"""The functions by name."""
