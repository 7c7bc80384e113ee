"""Applications of functions from outside of a program: of maps, of maps of maps to them, and of
optimizers to the parameters of a net."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapsto import ir
from mapsto.dsl.elaborated import Elaborated
from mapsto.dsl.evaluation import apply
from mapsto.dsl.instances import Instance, slot_tensor, slots_in
from mapsto.dsl.scope import FileScope
from mapsto.dsl.sessions import (
    elaborating,
    finish,
    from_python,
    new_frame,
    restoring,
    slot_paths,
    structured,
)
from mapsto.dsl.source import Span
from mapsto.dsl.trees import update_parameters
from mapsto.dsl.values import Argument, Closure, Group, ParameterTree, Tensor, Value

__all__ = ["elaborate_application", "elaborate_update"]


def elaborate_application(
    scope: FileScope,
    function: Value,
    entry: str,
    span: Span,
    arguments: Mapping[str, object],
    roots: Sequence[tuple[str, Value]] = (),
) -> Elaborated:
    """The IR of a function applied to named arguments, given in the order of its parameters.

    An argument is the type of a tensor, which becomes an input of the IR function, or a static
    value.  Parameters get their paths from `roots`, then from the arguments that hold them.
    Raises DiagnosticsError, at `span` or the parameter's declaration, where the function does not
    accept the arguments.
    """
    spans = _declarations(function)
    values, inputs = _values(arguments)
    reached = [*roots, *((n, v) for n, v in values.items() if not isinstance(v, Tensor))]
    with elaborating(), restoring([value for _, value in reached]):
        frame = new_frame(scope)
        together = structured(values)
        given = tuple([Argument(n, value, spans.get(n, span)) for n, value in together.items()])
        result = apply(function, frame, span, given)
        return finish(frame, entry, span, result, inputs, slot_paths(reached))


def elaborate_update(
    scope: FileScope, optimizer: Value, net: Instance, gradient: Mapping[str, ir.TensorType]
) -> Elaborated:
    """What an optimizer makes of the parameters of a net; `gradient` has the type of the gradient
    by each parameter to change, by path.

    The paths of parameters begin with `net`, those of the optimizer's states with `optimizer`.
    Raises DiagnosticsError where the optimizer is none.
    """
    span = net.definition.name.span
    inputs = {path: ir.Value(type, None, 0, path) for path, type in gradient.items()}
    with elaborating(), restoring([optimizer, net]):
        frame = new_frame(scope)
        keys = {path: key for key, path in slot_paths([("", net)]).items()}
        slots = slots_in(net)
        for path in gradient:
            slot_tensor(frame, slots[keys[path]], span)
        tree = ParameterTree(net, {keys[path]: Tensor(value) for path, value in inputs.items()})
        given = tuple([Argument(None, value, span) for value in (optimizer, net, tree)])
        update_parameters(frame, span, given)
        paths = slot_paths([("net", net), ("optimizer", optimizer)])
        return finish(frame, "update", span, Group(()), list(inputs.values()), paths)


def _declarations(function: Value) -> dict[str, Span]:
    """Where the types of a map's parameters are declared."""
    if not isinstance(function, Closure):
        return {}
    return {p.name.name: (p.type or p).span for p in function.definition.parameters}


def _values(arguments: Mapping[str, object]) -> tuple[dict[str, Value], list[ir.Value]]:
    """The arguments as values of the language, and those that are inputs."""
    values: dict[str, Value] = {}
    inputs: list[ir.Value] = []
    for name, given in arguments.items():
        if isinstance(given, ir.TensorType):
            inputs.append(ir.Value(given, None, 0, name))
            values[name] = Tensor(inputs[-1])
        else:
            values[name] = from_python(given)
    return values, inputs
