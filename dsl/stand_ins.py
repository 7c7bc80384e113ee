"""What stands for the unknowns of a definition while it is checked: sizes, dtypes, arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.arguments import is_optional
from mapsto.dsl.diagnostics import Kind, report
from mapsto.dsl.dimensions import evaluate_type, group_name, is_kind, names_in_type
from mapsto.dsl.evaluation import evaluate
from mapsto.dsl.frame import Frame
from mapsto.dsl.scope import Scope
from mapsto.dsl.values import (
    Dimensions,
    ElementType,
    Group,
    Nothing,
    Number,
    Tensor,
    Unknowable,
    Unknown,
    Value,
)

__all__ = ["LARGE", "SMALL", "Trial", "configured", "fill", "stand_in", "unknowns"]

LARGE, SMALL = 192, 12
"""Sizes are multiples of one of these, so that they divide by common numbers of heads or groups:
large ones, as windows and slices need, or small ones, as tables of positions need."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How the unknowns of a definition are filled in."""

    symbolic: bool = True
    group: int = 1
    dtypes: tuple[ir.DType, ...] = ()
    unit: int = LARGE
    sizes: dict[str, int] = field(default_factory=dict)
    """The numbers of the dimensions by name, where they are not symbolic: multiples of `unit`."""
    training: bool = False
    absent: bool = False
    """Whether optional tensors are left out."""


def unknowns(frame: Frame, parent: Scope, definition: syntax.MapDefinition, trial: Trial) -> Scope:
    """A scope in which the dimensions and dtypes of a map's parameters have values."""
    generics = frozenset(generic.name for generic in definition.generics)
    scope = Scope(parent, generics=generics)
    own = {p.name.name for p in definition.parameters if not is_optional(p)}
    types = [p.type for p in definition.parameters if p.type is not None]
    types += [] if definition.result is None else [definition.result]
    fill(scope, types, [g.name for g in definition.generics], own, trial)
    return scope


def fill(
    scope: Scope,
    types: Iterable[syntax.TypeExpression],
    generics: Sequence[str],
    known: set[str],
    trial: Trial,
) -> None:
    """Gives the names in types stand-ins: symbols, or distinct numbers."""
    for name, dtype in zip(generics, _dtypes(trial), strict=False):
        scope.bind(name, ElementType(dtype))
    for name, is_group in _names(types):
        if name in known or scope.binding_of_dimension(name) is not None:
            continue
        if is_group:
            plain = "any" if name == "..." else name
            dims = tuple(_size(f"{plain}{i}", trial) for i in range(trial.group))
            scope.bind(name, Dimensions(dims))
        else:
            scope.bind(name, Number(_size(name, trial)))


def _dtypes(trial: Trial) -> Iterator[ir.DType]:
    last = ir.DType.F32
    for last in trial.dtypes:
        yield last
    while True:
        yield last


def _size(name: str, trial: Trial) -> ir.Dim:
    if trial.symbolic:
        return ir.symbol(name)
    return trial.sizes.setdefault(name, trial.unit * (len(trial.sizes) + 1))


def _names(types: Iterable[syntax.TypeExpression]) -> Iterator[tuple[str, bool]]:
    for type in types:
        groups = {group_name(node) for node in syntax.walk(type) if isinstance(node, syntax.Spread)}
        yield from ((name, name in groups) for name in names_in_type(type))


def stand_in(frame: Frame, parameter: syntax.Parameter, trial: Trial) -> Value:
    """A value for a parameter: a tensor of its type, a number, or its default."""
    type = parameter.type
    if trial.absent and is_optional(parameter):
        return Nothing()
    if isinstance(type, syntax.TupleType):
        parts = [syntax.Parameter(p.span, parameter.name, p, None) for p in type.items]
        names = tuple([name.name for name in type.names])
        return Group(tuple([stand_in(frame, part, trial) for part in parts]), names=names)
    if type is not None and not is_kind(type):
        if type.shape is None and type.name.name == "bool" and parameter.default is not None:
            return evaluate(parameter.default, frame)
        return Tensor(ir.Value(evaluate_type(type, frame), None, 0, parameter.name.name))
    kind = "" if type is None else type.name.name
    if kind == "int" and trial.symbolic:
        return Number(ir.symbol(parameter.name.name))
    if parameter.default is not None:
        return evaluate(parameter.default, frame)
    if kind == "int":
        return Number(2 if trial.unit == LARGE else 4)
    if kind == "float":
        return Number(0.5)
    span = parameter.span
    return Unknown(Unknowable(report(Kind.CANNOT_INFER, span, name=span.text)))


def configured(frame: Frame, parameter: syntax.Parameter, trial: Trial) -> Value:
    """A configuration value: symbolic for whole numbers, else the default."""
    type = parameter.type
    is_int = isinstance(type, syntax.ValueType) and type.name.name == "int"
    if parameter.default is not None and not (is_int and trial.symbolic):
        return evaluate(parameter.default, frame)
    if isinstance(type, syntax.ValueType) and not is_kind(type) and not type.shape:
        return Number(0.5)
    return stand_in(frame, parameter, trial)
