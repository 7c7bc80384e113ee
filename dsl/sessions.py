"""Running an elaboration from outside: sessions, arguments from Python, finished functions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mapsto import ir
from mapsto.dsl.diagnostics import DiagnosticError, Kind
from mapsto.dsl.elaborated import Elaborated, InputSpec, ParameterSpec, Record, Structure
from mapsto.dsl.frame import Budget, Frame, Session, SlotKey, fail
from mapsto.dsl.functions import close
from mapsto.dsl.instances import instances_in, leaf_paths, slot_paths
from mapsto.dsl.library import DiagnosticsError, resolve
from mapsto.dsl.scope import Scope
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import as_tensor
from mapsto.dsl.values import (
    ElementType,
    Group,
    Nothing,
    Number,
    ParameterTree,
    Tensor,
    Text,
    Truth,
    Unknowable,
    Value,
)

__all__ = [
    "Paths",
    "elaborating",
    "finish",
    "flat_results",
    "from_python",
    "new_frame",
    "restoring",
    "slot_paths",
    "structure_of",
    "structured",
]

Paths = Mapping[SlotKey, str]
_RECURSION_LIMIT = 100_000


def new_frame(scope: Scope, budget: Budget | None = None) -> Frame:
    """The start of an elaboration in a scope; several may share a budget."""
    return Frame(Session(ir.Builder(ir.Block([])), resolve, budget=budget or Budget()), scope)


@contextmanager
def elaborating() -> Iterator[None]:
    """Allows deep programs, and gives one kind of error for one mistake and for several."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    try:
        yield
    except Unknowable:
        raise
    except DiagnosticError as error:
        raise DiagnosticsError([error.diagnostic]) from None
    finally:
        sys.setrecursionlimit(limit)


@contextmanager
def restoring(roots: Iterable[Value]) -> Iterator[None]:
    """Forgets the dimensions that a failed elaboration gave to module instances."""
    instances = [instance for root in roots for _, instance in instances_in(root)]
    before = [(dict(instance.scope.names), dict(instance.copies)) for instance in instances]
    try:
        yield
    except BaseException:
        for instance, (names, copies) in zip(instances, before, strict=True):
            instance.scope.names, instance.copies = names, copies
        raise


def from_python(value: object) -> Value:
    """A Python value as a value of elaboration; TypeError where there is none."""
    match value:
        case Value():
            return value
        case None:
            return Nothing()
        case bool():
            return Truth(value)
        case int() | float() | ir.DimExpression():
            return Number(value)
        case str():
            return Text(value)
        case ir.DType():
            return ElementType(value)
        case tuple() if hasattr(value, "_fields"):
            names = tuple(map(str, value._fields))
            return Group(tuple([from_python(item) for item in value]), names=names)
        case dict():
            names = tuple(map(str, value))
            return Group(tuple([from_python(item) for item in value.values()]), names=names)
        case list() | tuple():
            return Group(tuple([from_python(item) for item in value]), isinstance(value, list))
    inner = getattr(value, "value", None)
    if isinstance(inner, Value):
        return inner
    raise TypeError(f"a {type(value).__name__} is no value of the language")


def structured(values: Mapping[str, Value]) -> dict[str, Value]:
    """Arguments whose parts, named `r.loss` or `r.0`, are put together to records and tuples."""
    found: dict[str, Value] = {}
    parts: dict[str, dict[str, Value]] = {}
    for name, value in values.items():
        owner, dot, rest = name.partition(".")
        found[owner] = value
        if dot:
            parts.setdefault(owner, {})[rest] = value
    for owner, own in parts.items():
        inner = structured(own)
        names = () if all(name.isdigit() for name in inner) else tuple(inner)
        found[owner] = Group(tuple(inner.values()), names=names)
    return found


def used_slots(frame: Frame, paths: Paths) -> dict[SlotKey, str]:
    """The slots that the elaboration used, with their paths; unreached ones by module name."""
    session = frame.session
    used = [*session.parameters, *session.states]
    found = {key: path for key, path in paths.items() if key in set(used)}
    for instance, name in used:
        if (instance, name) not in found:
            found[instance, name] = f"{instance.title}.{name}"
    return found


def structure_of(value: Value, paths: Paths) -> Structure:
    """The structure of a result, whose tensors `flat_results` lists."""
    if isinstance(value, Group):
        items = tuple([structure_of(item, paths) for item in value.items])
        return Record(value.names, items) if value.names else items
    if isinstance(value, ParameterTree):
        return {own: value.tensors[key].type for key, own in leaf_paths(value).items()}
    assert isinstance(value, Tensor)
    return value.type


def flat_results(frame: Frame, span: Span, value: Value) -> tuple[Value, list[ir.Value]]:
    """The result with numbers made tensors, and its tensors in order."""
    if isinstance(value, Group):
        parts = [flat_results(frame, span, item) for item in value.items]
        items = tuple([part for part, _ in parts])
        return value.with_items(items), [v for _, values in parts for v in values]
    if isinstance(value, ParameterTree):
        return value, [tensor.value for _, tensor in value]
    tensor = as_tensor(frame, span, value)
    return tensor, [tensor.value]


def finish(
    frame: Frame,
    name: str,
    span: Span,
    result: Value,
    inputs: Sequence[ir.Value],
    paths: Paths,
    new_parameters: Mapping[SlotKey, ir.Value] | None = None,
) -> Elaborated:
    """The module of a finished elaboration: its entry takes parameters, states and inputs, and
    gives the result, then new parameters and states."""
    session = frame.session
    result, outputs = flat_results(frame, span, result)
    used = used_slots(frame, paths)
    parameters = [key for key in used if key in session.parameters]
    states = [key for key in used if key in session.states]
    values = [session.parameters[key] for key in parameters]
    values += [session.states[key].initial for key in states]
    specs = [*_specs(parameters, used, values, False)]
    specs += _specs(states, used, values[len(parameters) :], True)
    _check_sizes(specs, span)
    arguments = [*values, *inputs]
    renewed = dict(new_parameters or session.renewed)
    renewed |= {key: session.states[key].current for key in states if session.states[key].updated}
    order = [*parameters, *states]
    aliases = tuple(
        (len(outputs) + i, order.index(key))
        for i, key in enumerate(k for k in order if k in renewed)
    )
    outputs += [renewed[key] for key in order if key in renewed]
    begin = span.begin
    location = ir.Location(span.file, begin.line, begin.column)
    attributes = {"aliases": aliases} if aliases else {}
    function = close(name, session.build, arguments, outputs, attributes, location)
    return Elaborated(
        ir.Module({name: function, **session.functions}),
        name,
        tuple(specs[: len(parameters)]),
        tuple(specs[len(parameters) :]),
        tuple([InputSpec(value.hint, value.type) for value in inputs]),
        structure_of(result, used),
        tuple([specs[argument] for _, argument in aliases]),
    )


def _specs(
    keys: Sequence[SlotKey], paths: Paths, values: Sequence[ir.Value], is_state: bool
) -> list[ParameterSpec]:
    pairs = zip(keys, values, strict=False)  # The values may go on with states.
    return [ParameterSpec(paths[key], value.type, is_state) for key, value in pairs]


def _check_sizes(specs: Sequence[ParameterSpec], span: Span) -> None:
    """A parameter is stored, so its size has to be a number."""
    for spec in specs:
        if spec.type.symbols:
            fail(Kind.SYMBOLIC_PARAMETER, span, name=spec.path, type=spec.type)
