"""The parameters of what can be called: maps, built-in functions, and maps made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mapsto.arguments import Parameter, parameters_of
from mapsto.dsl.instances import Instance
from mapsto.dsl.values import (
    Builtin,
    Closure,
    Composition,
    Frozen,
    Mode,
    Partial,
    Precision,
    Transform,
    Value,
)
from mapsto.ir.types import DType

__all__ = ["BY_ARGUMENT", "function_parameters", "position_of"]

BY_ARGUMENT = frozenset({"grad", "value_and_grad", "jvp", "hessian"})
"""The maps of maps that are taken by some of the arguments."""


def function_parameters(value: Value) -> tuple[Parameter, ...] | None:
    """The parameters of a function, in order; None for what cannot be called with arrays, or takes
    any number of arguments."""
    match value:
        case Closure(definition):
            return parameters_of(definition)
        case Instance():
            return None if value.call is None else parameters_of(value.call.definition)
        case Builtin(usage=usage):
            return _described(usage)
        case Composition(functions):
            return function_parameters(functions[0]) if functions else None
        case Mode(function) | Frozen(function) | Precision(function):
            return function_parameters(function)
        case Partial(function):
            inner = function_parameters(function)
            return None if inner is None else _left_over(value, inner)
        case Transform(function=function):
            inner = function_parameters(function)
            return None if inner is None else _transformed(value, inner)
    return None


def position_of(owner: str, number: int | str, names: Sequence[str]) -> int:
    """The position of a parameter that is told by its position or its name.  Raises ValueError."""
    if isinstance(number, str):
        if number not in names:
            raise ValueError(f"{owner} by {number}, but the arguments are {', '.join(names)}")
        return names.index(number)
    count = len(names)
    if not -count <= number < count:
        raise ValueError(f"{owner} by argument {number}, but the map has {count} arguments")
    return number % count


def _described(usage: str) -> tuple[Parameter, ...] | None:
    """The parameters of a built-in function from the names that its documentation gives."""
    names = [name.strip() for name in usage.split(",")]
    if not usage or not all(name.removesuffix("?").isidentifier() for name in names):
        return None
    return tuple(Parameter(n.removesuffix("?"), False, None, n.endswith("?")) for n in names)


def _left_over(value: Partial, inner: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Those that a partial application leaves open."""
    positional = [argument for argument in value.arguments if argument.name is None]
    named = {argument.name for argument in value.arguments}
    return tuple(p for p in inner[len(positional) :] if p.name not in named)


def _transformed(value: Transform, inner: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Those of a derivative: tensors where it is taken, and directions of a forward derivative."""
    known = list(inner)
    names = [parameter.name for parameter in inner]
    argnums = value.argnums if value.kind in BY_ARGUMENT else ()
    chosen = [position_of(value.kind, number, names) for number in argnums]
    for number in chosen:
        known[number] = _as_tensor(known[number])
    if value.kind == "jvp":
        for number in chosen:
            known.append(_direction(known[number], known))
    return tuple(known)


def _as_tensor(parameter: Parameter) -> Parameter:
    """A scalar parameter as a tensor: a number to differentiate by is no constant of the code."""
    if not parameter.is_scalar:
        return parameter
    return replace(parameter, is_tensor=True, dtype=parameter.dtype or DType.F32)


def _direction(parameter: Parameter, known: Sequence[Parameter]) -> Parameter:
    """The parameter for the direction along an argument: `dx` for x."""
    name = f"d{parameter.name}"
    while any(p.name == name for p in known):
        name = f"d{name}"
    return replace(parameter, name=name, has_default=False)
