"""Maps of maps: `grad`, `value_and_grad`, `jvp`, `hessian`, `vmap`, `remat`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mapsto.dsl.arguments import match_names
from mapsto.dsl.calling import Parameters, flag, map_argument
from mapsto.dsl.derivatives import differentiate, push, recomputed
from mapsto.dsl.diagnostics import Help, Kind, nearest
from mapsto.dsl.evaluation import applies
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.hessians import second_derivatives
from mapsto.dsl.instances import Instance
from mapsto.dsl.mapping import map_over
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Closure,
    Expected,
    Frozen,
    Group,
    Mode,
    Number,
    Partial,
    Precision,
    Text,
    Transform,
    Value,
)

__all__ = ["TRANSFORMS"]

_SUMMARIES = {
    "grad": "the gradient of a map with a scalar result, by its first argument or `argnums`; with"
    " `has_aux` together with the further results",
    "value_and_grad": "the value of a map and its gradient",
    "jvp": "the value of a map and its derivative along directions, which follow the arguments",
    "hessian": "the second derivatives of a map with a scalar result",
    "vmap": "a map applied to each element along an axis of its arguments, the first or `in_axes`",
    "remat": "the map, computed again where its derivative needs it rather than kept in memory",
}
_BY_ARGUMENT = Parameters("f", "argnums", required=1)
_WITH_AUX = Parameters("f", "argnums", "has_aux", required=1)
_SIGNATURES = {
    "grad": _WITH_AUX,
    "value_and_grad": _WITH_AUX,
    "jvp": _BY_ARGUMENT,
    "hessian": _BY_ARGUMENT,
    "vmap": Parameters("f", "in_axes", "out_axes", required=1),
    "remat": Parameters("f", required=1),
}


def _make(kind: str, span: Span, arguments: tuple[Argument, ...]) -> Transform:
    given = _SIGNATURES[kind].match(kind, arguments, span)
    made = Transform(kind, map_argument(given["f"]), (0,), True, flag(given, "has_aux"))
    if "argnums" in given:
        numbers = given["argnums"]
        group = numbers.value if isinstance(numbers.value, Group) else None
        items = (numbers.value,) if group is None else group.items
        argnums = tuple([_argument_number(item, numbers.span) for item in items])
        made = replace(made, argnums=argnums, single=group is None)
    # `out_axes=none` says something, unlike other arguments that are `none`.
    every = match_names(_SIGNATURES[kind].names, arguments, kind, span)
    in_axes, out_axes = given.get("in_axes"), every.get("out_axes")
    if in_axes is not None:
        made = replace(made, in_axes=in_axes.value)
    return made if out_axes is None else replace(made, out_axes=out_axes.value)


def _argument_number(item: Value, span: Span) -> int | str:
    if isinstance(item, Text):
        return item.value
    if not isinstance(item, Number) or not isinstance(item.value, int) or item.value < 0:
        fail(Kind.NOT_A_WHOLE_NUMBER, span, found=describe(item))
    return item.value


@applies(Transform)
def _transform(
    function: Transform,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    return _RULES[function.kind](function, frame, span, arguments)


def _gradient(
    function: Transform, frame: Frame, span: Span, arguments: tuple[Argument, ...]
) -> Value:
    numbers = _positions(function, arguments, span)
    found = differentiate(function.function, numbers, frame, span, arguments)
    gradients = found.gradients[0] if function.single else Group(found.gradients)
    if function.kind == "value_and_grad":
        return Group((found.value, gradients))
    return Group((gradients, _auxiliary(found.value, span))) if function.has_aux else gradients


def _auxiliary(value: Value, span: Span) -> Value:
    """What a map gives besides its loss."""
    items = value.items if isinstance(value, Group) else ()
    if len(items) < 2:
        fail(Kind.CANNOT_UNPACK, span, expected=2, count=1, found=describe(value))
    return items[1] if len(items) == 2 else Group(items[1:])


def _jvp(function: Transform, frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> Value:
    """`jvp(f)(x, dx)`: after the arguments of f, a direction for each chosen one."""
    count = len(arguments) - len(function.argnums)
    if count < len(function.argnums):
        fail(Kind.NO_DIRECTION, span, found=len(arguments), count=len(function.argnums))
    primals, directions = arguments[: max(count, 0)], arguments[max(count, 0) :]
    numbers = _positions(function, primals, span)
    return Group(push(function.function, numbers, frame, span, primals, directions))


def _hessian(
    function: Transform, frame: Frame, span: Span, arguments: tuple[Argument, ...]
) -> Value:
    numbers = _positions(function, arguments, span)
    rows = second_derivatives(function, numbers, frame, span, arguments)
    if function.single:
        return rows[0][0]
    return Group(tuple([Group(tuple(row)) for row in rows]))


def _remat(function: Transform, frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> Value:
    return recomputed(function.function, frame, span, arguments)


_Rule = Callable[[Transform, Frame, Span, tuple[Argument, ...]], Value]
_RULES: Mapping[str, _Rule] = {
    "grad": _gradient,
    "value_and_grad": _gradient,
    "jvp": _jvp,
    "hessian": _hessian,
    "vmap": map_over,
    "remat": _remat,
}


def _positions(function: Transform, arguments: Sequence[Argument], span: Span) -> list[int]:
    """Which of the given arguments to differentiate by."""
    return [_position(function, number, arguments, span) for number in function.argnums]


def _position(
    function: Transform, number: int | str, arguments: Sequence[Argument], span: Span
) -> int:
    """The place of an argument among those given, by its number or its name in the map."""
    names = _parameter_names(function.function)
    given = [
        names[i] if argument.name is None and i < len(names) else argument.name
        for i, argument in enumerate(arguments)
    ]
    if isinstance(number, int):
        if number < len(names) and names[number] in given:
            return given.index(names[number])
        if number < len(arguments):
            return number
        facts: Facts = {"name": function.kind, "number": number, "count": len(arguments)}
        fail(Kind.NO_SUCH_ARGUMENT, span, **facts)
    if number not in given:
        suggestion = nearest(number, [name for name in given if name])
        help = None if suggestion is None else Help.DID_YOU_MEAN
        facts = {"name": number, "owner": function.kind, "suggestion": suggestion}
        fail(Kind.NO_NAMED_ARGUMENT, span, help=help, **facts)
    return given.index(number)


def _parameter_names(function: Value) -> list[str]:
    """The names of a map's parameters; none where they are not known."""
    match function:
        case Closure():
            return [parameter.name.name for parameter in function.definition.parameters]
        case Instance():
            return [] if function.call is None else _parameter_names(function.call)
        case Transform() | Mode() | Frozen() | Precision():
            return _parameter_names(function.function)
        case Partial():
            given = [argument.name for argument in function.arguments]
            rest = _parameter_names(function.function)[given.count(None) :]
            return [name for name in rest if name not in given]
    return []


def _builtin(kind: str) -> Builtin:
    def make(
        frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
    ) -> Value:
        return _make(kind, span, arguments)

    return Builtin(kind, _SUMMARIES[kind], make, usage=_SIGNATURES[kind].usage)


TRANSFORMS: Mapping[str, Value] = {kind: _builtin(kind) for kind in _SUMMARIES}
"""The maps of maps by name."""
