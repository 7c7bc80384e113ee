"""Functions of configuration values: lists of one option for each dimension, least sizes,
initializers that are options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NoReturn

from mapsto import ir
from mapsto.dsl.calling import Parameters
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.initialization import initialize
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import Argument, Builtin, Expected, Group, Key, Number, Text, Value

__all__ = ["CONFIGURATION"]

Given = Mapping[str, Argument]


def _each(frame: Frame, span: Span, expected: Expected | None, given: Given) -> Value:
    x, wanted = given["x"], _whole(given["count"])
    if not isinstance(wanted, int):
        fail(Kind.NOT_A_WHOLE_NUMBER, given["count"].span, found=wanted)
    items = x.value.items if isinstance(x.value, Group) else (x.value,) * wanted
    if len(items) != wanted:
        facts: Facts = {"expected": wanted, "count": len(items), "found": describe(x.value)}
        fail(Kind.CANNOT_UNPACK, x.span, **facts)
    return Group(items, is_list=True)


def _at_least(frame: Frame, span: Span, expected: Expected | None, given: Given) -> Value:
    """Where symbols leave it open which is greater, nothing is wrong yet."""
    found, least, what = _whole(given["x"]), _whole(given["least"]), given["what"]
    if not isinstance(what.value, Text):
        _wrong_kind("what", "a string", what)
    missing = least - found
    if isinstance(missing, int) and missing > 0:
        fail(Kind.TOO_SMALL, span, what=what.value.value, found=found, least=least)
    return Number(found)


def _initial(frame: Frame, span: Span, expected: Expected | None, given: Given) -> Value:
    key = given["key"]
    if not isinstance(key.value, Key):
        _wrong_kind("key", "a random key", key)
    return initialize(given["initializer"].value, frame, span, key.value, expected)


def _whole(argument: Argument) -> ir.Dim:
    value = argument.value
    if not isinstance(value, Number) or isinstance(value.value, float):
        fail(Kind.NOT_A_WHOLE_NUMBER, argument.span, found=describe(value))
    return value.value


def _wrong_kind(name: str, expected: str, given: Argument) -> NoReturn:
    fail(Kind.WRONG_KIND, given.span, name=name, expected=expected, found=describe(given.value))


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

    return Builtin(name, summary, apply)


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
)
CONFIGURATION: Mapping[str, Value] = {function.name: function for function in _FUNCTIONS}
"""The functions by name."""
