"""Arguments of calls: which parameter each belongs to, and whether its kind fits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import Help, Kind, Note, NoteKind
from mapsto.dsl.dimensions import DTYPES, KINDS, dtype_of
from mapsto.dsl.evaluation import is_applicable
from mapsto.dsl.foreign import hint
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import (
    Argument,
    ConstantMap,
    ElementType,
    Formula,
    Group,
    ModuleClass,
    Nothing,
    Number,
    ParameterTree,
    Tensor,
    Text,
    Truth,
    Unknown,
    Value,
)

__all__ = [
    "absent",
    "bind_kind",
    "check_kind",
    "check_names",
    "is_optional",
    "match_arguments",
    "match_names",
]


def check_names(nodes: Iterable[syntax.Node]) -> None:
    """Reports a name that is given twice among parameters or members, or a second unnamed map."""
    places: dict[str, Span] = {}
    for node in nodes:
        name = getattr(node, "name", None)
        if isinstance(name, syntax.Identifier):
            text, span = name.name, name.span
        elif isinstance(node, syntax.MapDefinition):
            text, span = "map", node.span
        else:
            continue
        if text in places:
            note = Note(NoteKind.DEFINED_HERE, places[text], {"name": text})
            fail(Kind.REPEATED_NAME, span, notes=[note], name=text)
        places[text] = span


def match_arguments(
    parameters: Sequence[syntax.Parameter],
    arguments: Sequence[Argument],
    owner: str,
    span: Span,
) -> dict[str, Argument]:
    """The argument of each parameter that has one, by the parameter's name."""
    check_names(parameters)
    names = [parameter.name.name for parameter in parameters]
    defined = Note(NoteKind.DEFINED_HERE, parameters[0].span, {"name": owner}) if names else None
    return match_names(names, arguments, owner, span, defined)


def match_names(
    names: Sequence[str],
    arguments: Sequence[Argument],
    owner: str,
    span: Span,
    defined: Note | None = None,
) -> dict[str, Argument]:
    """As `match_arguments`, for a function whose parameters have these names."""
    notes = [] if defined is None else [defined]
    facts: Facts
    matched: dict[str, Argument] = {}
    positional = [a for a in arguments if a.name is None]
    if len(positional) > len(names):
        facts = {"owner": owner, "expected": len(names), "found": len(positional)}
        fail(Kind.TOO_MANY_ARGUMENTS, positional[len(names)].span, notes=notes, **facts)
    matched.update(zip(names, positional, strict=False))  # Fewer arguments than parameters.
    for argument in arguments:
        if argument.name is None:
            continue
        if argument.name not in names:
            help, suggestion = hint(argument.name, names, argument=True)
            facts = {"name": argument.name, "owner": owner, "suggestion": suggestion}
            place = argument.name_span or argument.span
            fail(Kind.UNKNOWN_ARGUMENT, place, notes=notes, help=help, **facts)
        if argument.name in matched:
            fail(Kind.REPEATED_ARGUMENT, argument.span, name=argument.name, owner=owner)
        matched[argument.name] = argument
    return matched


def absent(parameter: syntax.Parameter, value: Value) -> bool:
    """Whether the value is the `none` of an optional parameter."""
    return is_optional(parameter) and isinstance(value, Nothing)


def is_optional(parameter: syntax.Parameter) -> bool:
    """Whether a parameter may be `none`: that is its default."""
    return isinstance(parameter.default, syntax.Name) and parameter.default.name == "none"


def bind_kind(frame: Frame, parameter: syntax.Parameter, given: Argument) -> Value:
    """The value of a configuration parameter, checked against its kind.

    A scalar of a dtype stays a number known during elaboration.
    """
    type, value = parameter.type, given.value
    if not isinstance(type, syntax.ValueType) or isinstance(value, Unknown):
        return value
    if absent(parameter, value):
        return value
    name = type.name.name
    if name in KINDS or name == "bool":
        return check_kind(name, parameter.name.name, given)
    dtype = dtype_of(type, frame) or ir.DType.F32
    if type.shape:
        return value
    fits = isinstance(value, Number) and (dtype.is_float or not isinstance(value.value, float))
    if not fits and not isinstance(value, Tensor):
        _fail_kind(parameter.name.name, str(dtype), given)
    if dtype.is_float and isinstance(value, Number) and isinstance(value.value, int):
        return Number(float(value.value))
    return value


_CLASSES: Mapping[str, tuple[type, ...]] = {
    "int": (Number,),
    "float": (Number,),
    "str": (Text,),
    "list": (Group,),
    "dtype": (ElementType,),
    "bool": (Truth, Tensor),
    "tree": (ParameterTree,),
}


def check_kind(kind: str, name: str, given: Argument) -> Value:
    """The argument's value if it is of the kind that parameter `name` takes; a number where a map
    is expected is the map that gives it everywhere."""
    value = given.value
    if kind == "map" and isinstance(value, Number | Formula):
        return ConstantMap(value)
    match kind:
        case "map":
            fits = is_applicable(value) and not isinstance(value, ModuleClass)
        case "module":
            fits = _is_module(value)
        case "any":
            fits = True
        case _:
            fits = isinstance(value, _CLASSES[kind])
    if kind == "int" and isinstance(value, Number) and isinstance(value.value, float):
        fits = False
    if kind == "list" and isinstance(value, Number) and not isinstance(value.value, float):
        return Group((value,), is_list=True)
    if not fits:
        _fail_kind(name, kind, given)
    if kind == "float" and isinstance(value, Number) and isinstance(value.value, int):
        return Number(float(value.value))
    return value


def _is_module(value: Value) -> bool:
    from mapsto.dsl.instances import Instance

    return isinstance(value, Instance | ParameterTree)


def _fail_kind(name: str, kind: str, given: Argument) -> None:
    help = Help.INSTANTIATE if isinstance(given.value, ModuleClass) else None
    title = given.value.definition.name.name if isinstance(given.value, ModuleClass) else ""
    facts: Facts = {
        "name": name,
        "expected": _KIND_WORDS.get(kind, kind),
        "found": describe(given.value),
    }
    fail(Kind.WRONG_KIND, given.span, help=help, module=title, **facts)


_KIND_WORDS = {
    "int": "a whole number known before it runs",
    "float": "a number known before it runs",
    "str": "a string",
    "list": "a list",
    "dtype": "a dtype",
    "bool": "true or false",
    "map": "a map",
    "module": "an instance of a module",
    "tree": "a tree of parameters",
    **{name: f"a number of type {name} known before it runs" for name in DTYPES if name != "bool"},
}
