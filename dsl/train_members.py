"""The members of a `train` block: its losses and what they train, its metrics, its modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

from mapsto.dsl import syntax
from mapsto.dsl.arguments import check_names
from mapsto.dsl.diagnostics import Help, Kind, Note, NoteKind
from mapsto.dsl.evaluation import evaluate
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.instances import Instance, constant_value, instances_in
from mapsto.dsl.scope import Scope
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import Argument, Closure, ModuleClass, Value

__all__ = [
    "UNNAMED",
    "Loss",
    "accumulators",
    "arguments_of",
    "bind_member",
    "bind_parameter",
    "find_losses",
    "find_metrics",
    "modules_in",
]

UNNAMED = "loss"
"""The name of a loss that has none of its own."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss as a map, and the modules that its gradient changes."""

    name: str
    span: Span
    closure: Closure
    trained: tuple[Instance, ...]


def bind_parameter(
    frame: Frame,
    parameter: syntax.Parameter,
    given: Argument | None,
    definition: syntax.TrainDefinition,
    changes: Mapping[str, Value],
) -> None:
    """Binds a parameter of a `train` block to its argument or default.

    `changes` are arguments of the module that the default makes.
    """
    name = parameter.name.name
    if given is None:
        if parameter.default is None:
            owner = definition.name.name
            fail(Kind.MISSING_ARGUMENT, parameter.span, name=name, owner=owner)
        default = parameter.default
        if changes:
            default = _changed(default, changes, name, frame)
        given = Argument(name, evaluate(default, frame), default.span)
    elif changes:
        fail(Kind.REPEATED_ARGUMENT, given.span, name=name, owner=definition.name.name)
    frame.scope.bind(name, given.value, given.span)


def _changed(
    default: syntax.Expression, changes: Mapping[str, Value], owner: str, frame: Frame
) -> syntax.Expression:
    """The call that makes a module, with other arguments."""
    made = evaluate(default.function, frame) if isinstance(default, syntax.Call) else None
    if not isinstance(default, syntax.Call) or not isinstance(made, ModuleClass):
        fail(Kind.NOT_CALLABLE, default.span, found=f"the default of `{owner}`")
    names = [parameter.name for parameter in made.definition.parameters]
    arguments = [
        replace(given, name=name) if given.name is None else given
        for given, name in zip_longest(default.arguments, names)
        if given is not None
    ]
    kept = [a for a in arguments if a.name is None or a.name.name not in changes]
    for name, value in changes.items():
        span = default.span
        hidden = syntax.Name(span, f"{owner}.{name}")
        frame.scope.bind(hidden.name, value, span)
        kept.append(syntax.Argument(span, syntax.Identifier(span, name), hidden))
    return replace(default, arguments=tuple(kept))


def bind_member(frame: Frame, node: syntax.TrainMember, title: str) -> None:
    """Binds a named value or a map of the block."""
    if isinstance(node, syntax.Binding):
        frame.scope.bind(node.name.name, constant_value(node, frame), node.name.span)
    elif isinstance(node, syntax.MapDefinition) and node.name is not None:
        closure = Closure(node, frame.scope, f"{title}.{node.name.name}")
        frame.scope.bind(node.name.name, closure, node.name.span)


def modules_in(scope: Scope) -> list[tuple[str, Instance]]:
    """The module instances of a block, by the prefix of their paths, but for optimizers."""
    return [
        ("" if name == "net" else name, bound.value)
        for name, bound in scope.names.items()
        if isinstance(bound.value, Instance) and name != "optimizer"
    ]


def find_losses(definition: syntax.TrainDefinition, frame: Frame) -> list[Loss]:
    """The losses of a block, in order; a diagnostic where there is none, or a name comes twice."""
    nodes = [node for node in definition.members if isinstance(node, syntax.LossDefinition)]
    if not nodes:
        span = definition.name.span
        fail(Kind.MISSING_LOSS, span, help=Help.ADD_LOSS, name=definition.name.name)
    _check_unnamed(definition)
    check_names([n for n in definition.members if not isinstance(n, syntax.MapDefinition)])
    return [_loss(node, definition.name.name, frame) for node in nodes]


def _check_unnamed(definition: syntax.TrainDefinition) -> None:
    """Of several losses each needs a name of its own, which no metric has."""
    figures = [
        node
        for node in definition.members
        if isinstance(node, syntax.LossDefinition | syntax.MetricDefinition)
        and (node.name is None or node.name.name == UNNAMED)
    ]
    if len(figures) > 1:
        note = Note(NoteKind.DEFINED_HERE, figures[0].span, {"name": UNNAMED})
        span = (figures[1].name or figures[1]).span
        fail(Kind.REPEATED_NAME, span, notes=[note], name=UNNAMED)


def _loss(node: syntax.LossDefinition, title: str, frame: Frame) -> Loss:
    name = UNNAMED if node.name is None else node.name.name
    trained = tuple([_trained(expression, frame) for expression in node.trained])
    closure = _as_closure(node, frame.scope, f"{title}.{name}")
    span = (node.name or node).span
    return Loss(name, span, closure, trained or tuple(m for _, m in modules_in(frame.scope)))


def _trained(expression: syntax.Expression, frame: Frame) -> Instance:
    """What an expression in the brackets of a loss stands for: a module of the block."""
    with frame.session.scratch():
        value = evaluate(expression, frame)
    known = [part for _, root in modules_in(frame.scope) for _, part in instances_in(root)]
    if not isinstance(value, Instance):
        fail(Kind.NOT_TRAINABLE, expression.span, found=describe(value))
    if value not in known:
        fail(Kind.NOT_TRAINABLE, expression.span, found=f"another `{value.title}`")
    return value


def find_metrics(definition: syntax.TrainDefinition, scope: Scope) -> dict[str, Closure]:
    """The metrics of a block as maps, by name."""
    return {
        node.name.name: _as_closure(node, scope, f"{definition.name.name}.{node.name.name}")
        for node in definition.members
        if isinstance(node, syntax.MetricDefinition)
    }


def accumulators(definition: syntax.TrainDefinition, scope: Scope) -> frozenset[Instance]:
    """The modules in which metrics gather what they need from all batches: those that metrics name
    and nothing that training runs does."""
    in_metrics, elsewhere = set[str](), set[str]()
    for node in definition.members:
        names = in_metrics if isinstance(node, syntax.MetricDefinition) else elsewhere
        names.update(_names(node))
    roots = {prefix or "net": module for prefix, module in modules_in(scope)}
    bound = {n.name.name for n in definition.members if isinstance(n, syntax.Binding)}
    own = (in_metrics - elsewhere) & bound & roots.keys()
    return frozenset([part for name in own for _, part in instances_in(roots[name])])


def _names(node: syntax.Node) -> Iterator[str]:
    return (part.name for part in syntax.walk(node) if isinstance(part, syntax.Name))


def _as_closure(
    node: syntax.LossDefinition | syntax.MetricDefinition, scope: Scope, title: str
) -> Closure:
    """A loss or a metric as a map."""
    definition = syntax.MapDefinition(
        node.span, None, (), node.parameters, node.result, None, node.body, None
    )
    return Closure(definition, scope, title)


def arguments_of(closure: Closure, arguments: Mapping[str, Argument]) -> tuple[Argument, ...]:
    """The arguments that a loss or a metric takes, in order."""
    names = [p.name.name for p in closure.definition.parameters]
    return tuple([arguments[name] for name in names if name in arguments])
