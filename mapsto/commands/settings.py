"""`--static n=64`: sizes, element types and settings by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mapsto.arguments import typed_leaves
from mapsto.dsl import syntax
from mapsto.dsl.arguments import is_optional
from mapsto.dsl.diagnostics import nearest
from mapsto.dsl.dimensions import KINDS, evaluate_type, is_kind, names_in_type
from mapsto.dsl.evaluation import evaluate
from mapsto.dsl.frame import Frame
from mapsto.dsl.scope import Scope
from mapsto.dsl.sessions import elaborating, from_python, new_frame
from mapsto.dsl.values import Dimensions, ElementType, Number
from mapsto.errors import MapstoError
from mapsto.ir.dims import symbol
from mapsto.ir.types import DType, TensorType

__all__ = ["Setting", "Settings", "check_names", "input_types", "parse_settings"]

Setting = bool | int | float | DType | tuple[int, ...] | str
Settings = Mapping[str, Setting]

_FORM = re.compile(r"\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)\s*=\s*(.+?)\s*")
_LARGEST = 2**31 - 1


def parse_settings(texts: Iterable[str]) -> dict[str, Setting]:
    """The settings of `n=64`, `s=3,4` (a group of sizes), `T=f64`, `rate=0.1` and the like;
    `net.hidden=64` is an argument of the module that `net` is."""
    settings: dict[str, Setting] = {}
    for text in texts:
        match = _FORM.fullmatch(text)
        if match is None:
            raise MapstoError(f"--static {text}: write name=value, such as n=64")
        settings[match[1]] = _value(match[2])
    return settings


def _value(text: str) -> Setting:
    if text in ("true", "false"):
        return text == "true"
    if text in {dtype.value for dtype in DType}:
        return DType(text)
    for kind in (int, float, _sizes):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part.strip())


def check_names(settings: Settings, known: Iterable[str], owner: str) -> None:
    """Raises MapstoError for a setting of a name that means nothing."""
    names = list(dict.fromkeys(known))
    for name in settings:
        if name in names:
            continue
        close = nearest(name, names)
        hint = f"; did you mean `{close}`?" if close else f"; there are {', '.join(names)}"
        raise MapstoError(
            f"--static {name}: `{owner}` has nothing of this name{hint if names else ''}"
        )


def names_of(definition: syntax.MapDefinition) -> Iterator[str]:
    """The names that settings can give a value for a map: sizes, element types, arguments."""
    yield from (generic.name for generic in definition.generics)
    for parameter in definition.parameters:
        if parameter.type is not None and not is_kind(parameter.type):
            yield from names_in_type(parameter.type)
        if not _is_input(parameter):
            yield parameter.name.name


def input_types(
    definition: syntax.MapDefinition, scope: Scope, settings: Settings
) -> tuple[dict[str, TensorType], dict[str, object]]:
    """The types of the tensors that a map takes, and the values of its other arguments.

    Sizes that nothing fixes are symbols of their names, a group `...s` is one dimension, and an
    element type that nothing fixes is f32.  Raises DiagnosticsError where a type is wrong.
    """
    generics = frozenset(generic.name for generic in definition.generics)
    with elaborating():
        frame = new_frame(Scope(scope, generics=generics))
        static = _static_arguments(definition, frame, settings)
        inputs = [parameter for parameter in definition.parameters if _is_input(parameter)]
        types = {}
        for parameter in inputs:
            for name, declared in typed_leaves(parameter.name.name, parameter.type):
                _bind_unknown(frame, declared, settings)
                types[name] = evaluate_type(declared, frame)
    return types, static


def _is_input(parameter: syntax.Parameter) -> bool:
    """Whether a parameter is a tensor, or several, that callers give: a scalar with a default is
    not, nor what may be left out."""
    type_ = parameter.type
    if is_optional(parameter):
        return False
    if isinstance(type_, syntax.TupleType):
        return True
    if not isinstance(type_, syntax.ValueType) or type_.name.name in KINDS:
        return False
    return type_.shape is not None or parameter.default is None


def _static_arguments(
    definition: syntax.MapDefinition, frame: Frame, settings: Settings
) -> dict[str, object]:
    """Arguments that are no tensors: given ones; defaults are bound for the types that use them."""
    static: dict[str, object] = {}
    for parameter in definition.parameters:
        name = parameter.name.name
        if _is_input(parameter):
            continue
        if name in settings:
            static[name] = _as_argument(settings[name])
            frame.scope.bind(name, from_python(static[name]), parameter.span)
        elif parameter.default is not None:
            frame.scope.bind(name, evaluate(parameter.default, frame), parameter.default.span)
        else:
            raise MapstoError(f"the argument `{name}` needs a value: give --static {name}=...")
    return static


def _as_argument(setting: Setting) -> object:
    return list(setting) if isinstance(setting, tuple) else setting


def _bind_unknown(frame: Frame, type_: syntax.ValueType, settings: Settings) -> None:
    """Gives the names in a type that have no value the one of the settings, or a stand-in."""
    groups = {
        item.name.name
        for item in type_.shape or ()
        if isinstance(item, syntax.Spread) and item.name is not None
    }
    for name in names_in_type(type_):
        if frame.scope.binding_of_dimension(name) is None:
            value = _group(name, settings) if name in groups else _size(name, settings)
            frame.scope.bind(name, value, type_.span)
    generic = type_.name.name
    open_names = {g for scope in frame.scope.enclosing() for g in scope.generics}
    if generic in open_names and frame.scope.binding_of_dimension(generic) is None:
        frame.scope.bind(generic, ElementType(_dtype(generic, settings)), type_.span)


def _size(name: str, settings: Settings) -> Number:
    value = settings.get(name)
    if value is None:
        return Number(symbol(name))
    return Number(_checked_size(name, value))


def _group(name: str, settings: Settings) -> Dimensions:
    value = settings.get(name)
    if value is None:
        return Dimensions((symbol(name),))
    sizes: Sequence[Setting] = value if isinstance(value, tuple) else (value,)
    return Dimensions(tuple(_checked_size(name, size) for size in sizes))


def _checked_size(name: str, value: Setting) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        raise MapstoError(f"--static {name}={value}: a size is a whole number from 1 to {_LARGEST}")
    return value


def _dtype(name: str, settings: Settings) -> DType:
    value = settings.get(name, DType.F32)
    if not isinstance(value, DType):
        raise MapstoError(f"--static {name}={value}: `{name}` is an element type, such as f32")
    return value
