"""`train` blocks: the training step and the evaluation as pure functions.

A step takes the parameters, the states (of the net, then of the optimizer for each parameter) and
a batch; it gives the loss and new parameters and states, which alias their arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.arguments import match_arguments
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.elaborated import Elaborated, Structure
from mapsto.dsl.evaluation import apply, evaluate
from mapsto.dsl.frame import Frame, SlotKey, fail
from mapsto.dsl.instances import Instance, constant_value, copied
from mapsto.dsl.scope import Scope
from mapsto.dsl.sessions import (
    elaborating,
    finish,
    from_python,
    new_frame,
    restoring,
    slot_paths,
)
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import coerce, describe
from mapsto.dsl.transforms import differentiate
from mapsto.dsl.values import (
    Argument,
    Closure,
    Group,
    ParameterTree,
    Tensor,
    TrainClass,
    Value,
)

if TYPE_CHECKING:
    from mapsto.dsl.program import Program

__all__ = ["Trainer", "make_trainer"]

Types = Mapping[str, ir.TensorType]


class Trainer:
    """A `train` block with its modules.

    `net` are the parameters of the block named `net`; other modules have paths that start with
    their names.  States of the optimizer have paths such as `optimizer.layers.0.w.m`.
    """

    program: Program | None = None
    """The program that the block is in."""

    def __init__(self, definition: syntax.TrainDefinition, scope: Scope) -> None:
        self.definition = definition
        self.scope = scope
        self.optimizers: dict[SlotKey, Instance] = {}

    @property
    def name(self) -> str:
        """The name of the block."""
        return self.definition.name.name

    @property
    def net(self) -> Instance | None:
        """The module instance that is trained as `net`."""
        bound = self.scope.names.get("net")
        return bound.value if bound and isinstance(bound.value, Instance) else None

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics."""
        members = self.definition.members
        return tuple([m.name.name for m in members if isinstance(m, syntax.MetricDefinition)])

    @property
    def loss_inputs(self) -> tuple[str, ...]:
        """The names of the arrays that a training step takes."""
        return tuple([p.name.name for p in self.loss.definition.parameters])

    @property
    def evaluation_inputs(self) -> tuple[str, ...]:
        """The names of the arrays that an evaluation takes."""
        closures = [self.loss, *self._metrics().values()]
        names = [p.name.name for c in closures for p in c.definition.parameters]
        return tuple(dict.fromkeys(names))

    @property
    def evaluated(self) -> tuple[syntax.MapDefinition, ...]:
        """The loss and the metrics as definitions of maps."""
        return tuple([c.definition for c in (self.loss, *self._metrics().values())])

    @property
    def loss(self) -> Closure:
        """The loss as a map; DiagnosticError where the block has none."""
        for node in self.definition.members:
            if isinstance(node, syntax.LossDefinition):
                return _as_closure(node, self.scope, f"{self.name}.loss")
        span = self.definition.name.span
        return fail(Kind.MISSING_LOSS, span, help=Help.ADD_LOSS, name=self.name)

    def closures(self) -> dict[str, Closure]:
        """The loss and the metrics as maps, by name."""
        return {"loss": self.loss, **self._metrics()}

    def _metrics(self) -> dict[str, Closure]:
        return {
            node.name.name: _as_closure(node, self.scope, f"{self.name}.{node.name.name}")
            for node in self.definition.members
            if isinstance(node, syntax.MetricDefinition)
        }

    def modules(self) -> list[tuple[str, Instance]]:
        """The instances that are trained, by the prefix of their paths."""
        return [
            ("" if name == "net" else name, bound.value)
            for name, bound in self.scope.names.items()
            if isinstance(bound.value, Instance) and name != "optimizer"
        ]

    def roots(self) -> list[tuple[str, Value]]:
        """Every module instance of the training, optimizers last, by the prefix of its paths."""
        roots: list[tuple[str, Value]] = [*self.modules()]
        paths = slot_paths(roots)
        known = [key for key in paths if key in self.optimizers]
        return [*roots, *((f"optimizer.{paths[key]}", self.optimizers[key]) for key in known)]

    def elaborate_step(self, types: Types) -> Elaborated:
        """One step on a batch: results are the loss, then new parameters and states.

        `types` are the types of the loss's inputs; the batch size may be symbolic.
        """
        with elaborating(), restoring([root for _, root in self.roots()]):
            return self._step(new_frame(self.scope), types)

    def _step(self, frame: Frame, types: Types) -> Elaborated:
        inputs, arguments = _inputs([self.loss], types)
        value, renewed = self.build_step(frame, arguments)
        paths = slot_paths(self.roots())
        span = self.definition.name.span
        return finish(frame, f"{self.name}.step", span, value, inputs, paths, renewed)

    def build_step(
        self, frame: Frame, arguments: Mapping[str, Argument]
    ) -> tuple[Value, dict[SlotKey, ir.Value]]:
        """Emits a step: the loss, and the new parameters."""
        loss = self.loss
        span = self.definition.name.span
        modules = [instance for _, instance in self.modules()]
        given = _arguments_of(loss, arguments)
        with frame.session.mode(training=True):
            found = differentiate(loss, (), frame, span, given, modules)
        renewed: dict[SlotKey, ir.Value] = {}
        for tree in found.gradients:
            assert isinstance(tree, ParameterTree)
            for key, gradient in tree:
                renewed.setdefault(key, self._update(frame, key, gradient).value)
        value = found.value.items[0] if isinstance(found.value, Group) else found.value
        return value, renewed

    def _update(self, frame: Frame, key: SlotKey, gradient: Tensor) -> Tensor:
        """The new value of a parameter by the optimizer's map, with states of its own."""
        bound = self.scope.names.get("optimizer")
        span = self.definition.name.span
        if bound is None:
            fail(Kind.MISSING_NET, span, name=self.name, parameter="optimizer")
        template, place = bound.value, bound.span or span
        if not isinstance(template, Instance) or template.call is None:
            found = describe(template)
            fail(Kind.NOT_AN_OPTIMIZER, place, name=found, reason="it is not a module with a call")
        parameters = template.call.definition.parameters
        if len(parameters) != 2:
            reason = "its map does not take a parameter and a gradient"
            fail(Kind.NOT_AN_OPTIMIZER, place, name=f"`{template.title}`", reason=reason)
        if key not in self.optimizers:
            self.optimizers[key] = copied(template, frame)
        old = Tensor(frame.session.parameters[key])
        given = (Argument(None, old, place), Argument(None, gradient, place))
        value = apply(self.optimizers[key], frame, place, given)
        return coerce(frame, place, value, old.type, what=f"the new value of `{key[1]}`")

    def elaborate_evaluate(self, types: Types) -> Elaborated:
        """The loss and the metrics on a batch, as a result with a name for each.

        They are what the block says, usually means over the batch: to average over a data set,
        weight each batch by its size.  States stay as they are.
        """
        with elaborating(), restoring([root for _, root in self.roots()]):
            frame = new_frame(self.scope)
            span = self.definition.name.span
            closures = self.closures()
            inputs, arguments = _inputs(list(closures.values()), types)
            values = []
            for closure in closures.values():
                given = _arguments_of(closure, arguments)
                value = apply(closure, frame, closure.definition.span, given)
                values.append(value.items[0] if isinstance(value, Group) else value)
            for cell in frame.session.states.values():
                cell.current = cell.initial
            entry, paths = f"{self.name}.evaluate", slot_paths(self.roots())
            done = finish(frame, entry, span, Group(tuple(values)), inputs, paths)
            assert isinstance(done.result, tuple)
            named: Structure = dict(zip(closures, done.result, strict=True))
            return replace(done, result=named)

    def elaborate_initializers(self) -> Elaborated:
        """The function `init(seed: i64[])` of the first values of all parameters and states.

        The step has to be elaborated before, so that their sizes are known.
        """
        from mapsto.dsl.program import elaborate_initializers

        with elaborating():
            return elaborate_initializers(new_frame(self.scope), self.roots())


def make_trainer(
    program: Program, train: TrainClass, configuration: Mapping[str, object]
) -> Trainer:
    """The trainer of a `train` block; DiagnosticsError where its modules are wrong."""
    with elaborating():
        trainer = make_trainer_in(new_frame(train.scope), train, configuration)
    trainer.program = program
    return trainer


def make_trainer_in(
    outer: Frame, train: TrainClass, configuration: Mapping[str, object]
) -> Trainer:
    """As `make_trainer`, in an elaboration that runs already."""
    definition = train.definition
    frame = outer.inside(Scope(train.scope))
    span = definition.name.span
    given = [Argument(k, from_python(v), span) for k, v in configuration.items()]
    matched = match_arguments(definition.parameters, given, definition.name.name, span)
    for parameter in definition.parameters:
        bind_parameter(frame, parameter, matched.get(parameter.name.name), definition)
    for node in definition.members:
        _bind_member(frame, node, definition.name.name)
    return Trainer(definition, frame.scope)


def bind_parameter(
    frame: Frame,
    parameter: syntax.Parameter,
    given: Argument | None,
    definition: syntax.TrainDefinition,
) -> None:
    """Binds a parameter of a `train` block to its argument or default."""
    name = parameter.name.name
    if given is None:
        if parameter.default is None:
            owner = definition.name.name
            fail(Kind.MISSING_ARGUMENT, parameter.span, name=name, owner=owner)
        value = evaluate(parameter.default, frame)
        given = Argument(name, value, parameter.default.span)
    frame.scope.bind(name, given.value, given.span)


def _bind_member(frame: Frame, node: syntax.TrainMember, title: str) -> None:
    if isinstance(node, syntax.Binding):
        frame.scope.bind(node.name.name, constant_value(node, frame), node.name.span)
    elif isinstance(node, syntax.MapDefinition) and node.name is not None:
        closure = Closure(node, frame.scope, f"{title}.{node.name.name}")
        frame.scope.bind(node.name.name, closure, node.name.span)


def _as_closure(
    node: syntax.LossDefinition | syntax.MetricDefinition, scope: Scope, title: str
) -> Closure:
    """A loss or a metric as a map."""
    definition = syntax.MapDefinition(
        node.span, None, (), node.parameters, node.result, None, node.body, None
    )
    return Closure(definition, scope, title)


def _inputs(
    closures: Sequence[Closure], types: Types
) -> tuple[list[ir.Value], dict[str, Argument]]:
    """A value for each input, and the argument that it is, by name."""
    spans: dict[str, Span] = {}
    for closure in closures:
        for parameter in closure.definition.parameters:
            spans.setdefault(parameter.name.name, (parameter.type or parameter).span)
    values = {name: ir.Value(types[name], None, 0, name) for name in spans if name in types}
    arguments = {name: Argument(name, Tensor(v), spans[name]) for name, v in values.items()}
    return list(values.values()), arguments


def _arguments_of(closure: Closure, arguments: Mapping[str, Argument]) -> tuple[Argument, ...]:
    names = [p.name.name for p in closure.definition.parameters]
    return tuple([arguments[name] for name in names if name in arguments])
