"""`train` blocks: the training step and the evaluation as pure functions.

A step takes the parameters, the states (of the nets, then of the optimizer for each parameter) and
a batch; it gives the losses and new parameters and states, which alias their arguments.  Several
losses run one after another, each on the parameters that the one before it left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.arguments import match_arguments
from mapsto.dsl.derivatives import differentiate
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.elaborated import Elaborated, Structure
from mapsto.dsl.evaluation import apply, lookup
from mapsto.dsl.frame import Frame, SlotKey, fail
from mapsto.dsl.initialization import elaborate_initializers
from mapsto.dsl.instances import (
    Instance,
    instances_in,
    instantiate,
    member,
    slot_paths,
    slot_tensor,
    slots_in,
)
from mapsto.dsl.loss_scaling import LossScaling
from mapsto.dsl.optimizing import Optimizers
from mapsto.dsl.scope import Scope
from mapsto.dsl.sessions import (
    elaborating,
    finish,
    from_python,
    new_frame,
    restoring,
)
from mapsto.dsl.source import Span
from mapsto.dsl.structures import tensors_in
from mapsto.dsl.tensors import as_tensor, coerce
from mapsto.dsl.train_members import (
    UNNAMED,
    Loss,
    accumulators,
    arguments_of,
    bind_member,
    bind_parameter,
    find_losses,
    find_metrics,
    modules_in,
)
from mapsto.dsl.values import (
    Argument,
    Closure,
    Group,
    ModuleClass,
    ParameterTree,
    Tensor,
    TrainClass,
    Value,
)

__all__ = ["Gradients", "Trainer", "make_trainer"]

Types = Mapping[str, ir.TensorType]


class Gradients(Enum):
    """What a step does with its gradients."""

    USE = auto()
    """They change the parameters."""
    KEEP = auto()
    """They are added to those that were kept; no parameter changes."""
    USE_WITH_KEPT = auto()
    """The mean of them and those that were kept changes the parameters."""


class Trainer:
    """A `train` block with its modules.

    `net` are the parameters of the block named `net`; other modules have paths that start with
    their names.  States of the optimizer have paths such as `optimizer.layers.0.w.m`, gradients
    that are kept for a later step such as `gradients.loss.layers.0.w.total`.
    """

    def __init__(
        self, definition: syntax.TrainDefinition, scope: Scope, losses: Sequence[Loss]
    ) -> None:
        self.definition = definition
        self.scope = scope
        self.losses = tuple(losses)
        self.gatherers = accumulators(definition, scope)
        """The modules in which metrics gather what they need from all batches."""
        self._optimizers: Optimizers | None = None
        self._sums: dict[tuple[str, SlotKey], Instance] = {}
        self._scaling: LossScaling | None = None

    @property
    def name(self) -> str:
        """The name of the block."""
        return self.definition.name.name

    @property
    def evaluated(self) -> tuple[syntax.MapDefinition, ...]:
        """The losses and the metrics as definitions of maps."""
        return tuple([closure.definition for closure in self.closures().values()])

    def loss(self, name: str) -> Loss:
        """The loss of a name; KeyError where there is none."""
        return {loss.name: loss for loss in self.losses}[name]

    def metrics(self) -> dict[str, Closure]:
        """The metrics as maps, by name."""
        return find_metrics(self.definition, self.scope)

    def closures(self) -> dict[str, Closure]:
        """The losses and the metrics as maps, by name."""
        return {**{loss.name: loss.closure for loss in self.losses}, **self.metrics()}

    def modules(self) -> list[tuple[str, Instance]]:
        """The instances that are trained, by the prefix of their paths."""
        return modules_in(self.scope)

    def roots(self) -> list[tuple[str, Value]]:
        """Every module instance of the training by the prefix of its paths: nets, optimizers, sums
        of gradients."""
        roots: list[tuple[str, Value]] = [*self.modules()]
        paths = slot_paths(roots)
        roots += [] if self._optimizers is None else self._optimizers.roots()
        sums = self._sums.items()
        roots += [(f"gradients.{name}.{paths[key]}", s) for (name, key), s in sums]
        return roots if self._scaling is None else [*roots, ("scaling", self._scaling.instance)]

    def elaborate_step(
        self,
        types: Types,
        losses: Sequence[Loss] | None = None,
        gradients: Gradients = Gradients.USE,
        precision: ir.DType = ir.DType.F32,
    ) -> Elaborated:
        """One step on a batch: results are the losses, then new parameters and states.

        Products of the losses are computed in `precision` (`precision.py`); in f16 the losses are
        scaled, and a step with a gradient that is not finite changes nothing but the scale.

        `types` are the types of the losses' inputs; the batch size may be symbolic.  A single loss
        without a name is the result itself, everything else goes by name.
        """
        chosen = self.losses if losses is None else tuple(losses)
        with elaborating(), restoring([root for _, root in self.roots()]):
            frame = new_frame(self.scope)
            frame.session.products = precision
            inputs, arguments = _inputs([loss.closure for loss in chosen], types)
            values = self.build_step(frame, arguments, chosen, gradients)
            paths = slot_paths(self.roots())
            span = self.definition.name.span
            entry = f"{self.name}.step"
            result = Group(tuple(values.values()))
            renewed = frame.session.renewed
            done = finish(frame, entry, span, result, inputs, paths, renewed)
            return _named(done, values, alone=UNNAMED)

    def build_step(
        self,
        frame: Frame,
        arguments: Mapping[str, Argument],
        losses: Sequence[Loss] | None = None,
        gradients: Gradients = Gradients.USE,
    ) -> dict[str, Value]:
        """Emits a step; its figures by name.  The session has the new parameters."""
        figures: dict[str, Value] = {}
        for loss in self.losses if losses is None else losses:
            figures |= self._run_loss(frame, loss, arguments, gradients)
        if losses is None and self._optimizers is not None:
            session = frame.session
            paths = slot_paths(self.roots())
            self._optimizers.check_patterns([paths[key] for key in session.parameters])
        return figures

    def _run_loss(
        self, frame: Frame, loss: Loss, arguments: Mapping[str, Argument], what: Gradients
    ) -> dict[str, Value]:
        """Emits a loss, its gradient, and the update of what it trains."""
        if frame.session.products is ir.DType.F16:
            return self._run_scaled(frame, loss, arguments, what)
        value, gradients = _differentiated(frame, loss, loss.closure, arguments)
        self._use(frame, loss, gradients, what)
        return figures_of(loss.name, value)

    def _run_scaled(
        self, frame: Frame, loss: Loss, arguments: Mapping[str, Argument], what: Gradients
    ) -> dict[str, Value]:
        """As `_run_loss`, with a scaled loss; gradients that are not finite are not used."""
        span, session = self.definition.name.span, frame.session
        scaling = self._scaling = self._scaling or LossScaling(frame, span)
        before = {key: cell.current for key, cell in session.states.items()} | session.renewed
        scaled = scaling.scaled(loss.closure)
        value, gradients = _differentiated(frame, loss, scaled, arguments)
        gradients = {key: scaling.unscaled(frame, g) for key, g in gradients.items()}
        used = self._use(frame, loss, gradients, what)
        if what is not Gradients.KEEP:
            finite = scaling.all_finite(frame, used)
            kept = {scaling.instance, *self._sums.values()}
            scaling.restore_unless(frame, finite, before, kept)
        assert isinstance(value, Group)
        return figures_of(loss.name, Group(value.items[1:], names=value.names[1:]))

    def _use(
        self, frame: Frame, loss: Loss, gradients: Mapping[SlotKey, Tensor], what: Gradients
    ) -> list[Tensor]:
        """Changes parameters by gradients, or keeps these; the gradients as they are used."""
        paths = slot_paths(self.modules())
        if what is not Gradients.USE:
            gradients = {
                key: self._with_kept(frame, self._sum(frame, loss, key), gradient, what)
                for key, gradient in gradients.items()
            }
        if what is not Gradients.KEEP:
            self._optimizer().update(frame, gradients, paths)
        return list(gradients.values())

    def _with_kept(self, frame: Frame, total: Instance, by: Tensor, what: Gradients) -> Tensor:
        """Adds a gradient to those that were kept, or gives the mean of all."""
        span = self.definition.name.span
        method = member(total, "add" if what is Gradients.KEEP else "mean", span)
        return as_tensor(frame, span, apply(method, frame, span, (Argument(None, by, span),)))

    def _sum(self, frame: Frame, loss: Loss, key: SlotKey) -> Instance:
        """The sum of the gradients by a parameter that were kept."""
        if (loss.name, key) not in self._sums:
            span = self.definition.name.span
            module = lookup(frame, "GradientSum", span)
            assert isinstance(module, ModuleClass)
            self._sums[loss.name, key] = instantiate(module, frame, span, ())
        return self._sums[loss.name, key]

    def _optimizer(self) -> Optimizers:
        if self._optimizers is None:
            bound = self.scope.names.get("optimizer")
            span = self.definition.name.span
            if bound is None:
                fail(Kind.MISSING_NET, span, name=self.name, parameter="optimizer")
            self._optimizers = Optimizers(bound.value, bound.span or span)
        return self._optimizers

    def elaborate_evaluate(self, types: Types) -> Elaborated:
        """The losses and the metrics on a batch, as a result with a name for each.

        They are what the block says, usually means over the batch: to average over a data set,
        weight each batch by its size.  A metric that updates states of a module of its own gathers:
        its value after the last batch is the one over all.  All other states stay as they are.
        Parameters have the values that an optimizer with a map `weights` gives them, such as `EMA`.
        """
        if self._optimizers is None and "optimizer" in self.scope.names:
            self.elaborate_step(types)  # Which parameters there are to average.
        with elaborating(), restoring([root for _, root in self.roots()]):
            frame = new_frame(self.scope)
            closures = self.closures()
            inputs, arguments = _inputs(list(closures.values()), types)
            values: dict[str, Value] = {}
            losses = {loss.name for loss in self.losses}
            self._take_averages(frame)
            for name, closure in closures.items():
                given = arguments_of(closure, arguments)
                value = apply(closure, frame, closure.definition.span, given)
                tensors_in(frame, closure.definition.span, value)
                values |= figures_of(name, value, name in losses)
            for (instance, _), cell in frame.session.states.items():
                if instance not in self.gatherers:
                    cell.current = cell.initial
            frame.session.renewed.clear()
            entry, paths = f"{self.name}.evaluate", slot_paths(self.roots())
            span, result = self.definition.name.span, Group(tuple(values.values()))
            return _named(finish(frame, entry, span, result, inputs, paths), values)

    def elaborate_averaging(self) -> Elaborated:
        """Gives the parameters the values that evaluation takes in their place."""
        with elaborating(), restoring([root for _, root in self.roots()]):
            frame, span = new_frame(self.scope), self.definition.name.span
            self._take_averages(frame)
            entry, paths = f"{self.name}.averaging", slot_paths(self.roots())
            return finish(frame, entry, span, Group(()), [], paths, frame.session.renewed)

    def _take_averages(self, frame: Frame) -> None:
        """Lets parameters have the values that optimizers which average them give."""
        span = self.definition.name.span
        averaged = {} if self._optimizers is None else dict(self._optimizers.evaluated())
        slots = slots_in(*(root for _, root in self.modules()))
        for key, weights in averaged.items():
            old = slot_tensor(frame, slots[key], span)
            value = apply(weights, frame, span, (Argument(None, old, span),))
            what = f"the average of `{key[1]}`"
            frame.session.renewed[key] = coerce(frame, span, value, old.type, what=what).value

    def elaborate_observe(self) -> Elaborated | None:
        """What follows an evaluation, of a figure (f32[]): schedules and other modules with a map
        `observe` of one argument take note of it.  None where there are none."""
        parts = {part: None for _, root in self.roots() for _, part in instances_in(root)}
        observers = [part.scope.names.get("observe") for part in parts]
        maps = [bound.value for bound in observers if bound and isinstance(bound.value, Closure)]
        maps = [closure for closure in maps if len(closure.definition.parameters) == 1]
        if not maps:
            return None
        with elaborating(), restoring([root for _, root in self.roots()]):
            frame, span = new_frame(self.scope), self.definition.name.span
            figure = ir.Value(ir.TensorType(ir.DType.F32), None, 0, "figure")
            for closure in maps:
                apply(closure, frame, span, (Argument(None, Tensor(figure), span),))
            entry, paths = f"{self.name}.observe", slot_paths(self.roots())
            return finish(frame, entry, span, Group(()), [figure], paths)

    def gathering(self) -> frozenset[str]:
        """The names of the metrics that gather over the batches."""
        own = {name for name, bound in self.scope.names.items() if bound.value in self.gatherers}
        return frozenset(
            name
            for name, closure in self.metrics().items()
            if any(
                isinstance(node, syntax.Name) and node.name in own
                for node in syntax.walk(closure.definition)
            )
        )

    def gathering_states(self) -> frozenset[str]:
        """The paths of the states in which metrics gather."""
        paths = slot_paths(list(self.modules()))
        return frozenset(p for (owner, _), p in paths.items() if owner in self.gatherers)

    def elaborate_initializers(self) -> Elaborated:
        """The function `init(seed: i64[])` of the first values of all parameters and states.

        The step has to be elaborated before, so that their sizes are known.
        """
        with elaborating():
            return elaborate_initializers(new_frame(self.scope), self.roots())


def make_trainer(train: TrainClass, configuration: Mapping[str, object]) -> Trainer:
    """The trainer of a `train` block; DiagnosticsError where its modules are wrong."""
    with elaborating():
        return make_trainer_in(new_frame(train.scope), train, configuration)


def make_trainer_in(
    outer: Frame, train: TrainClass, configuration: Mapping[str, object]
) -> Trainer:
    """As `make_trainer`, in an elaboration that runs already.

    A name such as `net.hidden` is an argument of the module that the default of `net` makes.
    """
    definition = train.definition
    frame = outer.inside(Scope(train.scope))
    span = definition.name.span
    given, changes = [], dict[str, dict[str, Value]]()
    for key, item in configuration.items():
        owner, dot, name = key.partition(".")
        if dot:
            changes.setdefault(owner, {})[name] = from_python(item)
        else:
            given.append(Argument(key, from_python(item), span))
    owners = [Argument(owner, Group(()), span) for owner in changes if owner not in configuration]
    matched = match_arguments(definition.parameters, [*given, *owners], definition.name.name, span)
    for parameter in definition.parameters:
        name = parameter.name.name
        argument = matched.get(name) if name in configuration else None
        bind_parameter(frame, parameter, argument, definition, changes.get(name, {}))
    for node in definition.members:
        bind_member(frame, node, definition.name.name)
    return Trainer(definition, frame.scope, find_losses(definition, frame))


def _differentiated(
    frame: Frame, loss: Loss, function: Value, arguments: Mapping[str, Argument]
) -> tuple[Value, dict[SlotKey, Tensor]]:
    """The value of a loss, as a function of its arguments, and the gradient by what it trains."""
    given = arguments_of(loss.closure, arguments)
    with frame.session.mode(training=True):
        found = differentiate(function, (), frame, loss.span, given, loss.trained)
    gradients: dict[SlotKey, Tensor] = {}
    for tree in found.gradients:
        assert isinstance(tree, ParameterTree)
        gradients = dict(tree) | gradients
    if not gradients:
        fail(Kind.NOTHING_TRAINED, loss.span, name=loss.name)
    return found.value, gradients


def figures_of(name: str, value: Value, is_loss: bool = True) -> dict[str, Value]:
    """The figures that a loss or a metric gives, by name.

    What is behind the first item of a tuple, and the fields of a record, have names with a dot; the
    first field of a loss is the loss itself.
    """
    if not isinstance(value, Group):
        return {name: value}
    names = [f"{name}.{field}" for field in value.names or range(len(value.items))]
    if is_loss or not value.names:
        names[0] = name
    return dict(zip(names, value.items, strict=True))


def _named(done: Elaborated, names: Mapping[str, object], alone: str = "") -> Elaborated:
    """The result with a name for each figure; that of the name `alone` is the result itself where
    there is no other."""
    assert isinstance(done.result, tuple)
    if [*names] == [alone]:
        return replace(done, result=done.result[0])
    named: Structure = dict(zip(names, done.result, strict=True))
    return replace(done, result=named)


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
