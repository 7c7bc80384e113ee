"""Trees of parameters: a map of tensors that is called on trees works on each of their tensors.

A module does so with states of its own for each tensor, so an optimizer of one parameter is one of
a whole net: `adam(parameters(net), gradient)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from mapsto.dsl import syntax
from mapsto.dsl.calling import Parameters, map_argument, wrong_kind
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.dimensions import is_kind
from mapsto.dsl.evaluation import apply
from mapsto.dsl.frame import Frame, SlotKey, fail
from mapsto.dsl.instances import Instance, slot_tensor, slots_in
from mapsto.dsl.source import Span
from mapsto.dsl.structures import over_trees
from mapsto.dsl.tensors import coerce, describe
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Effect,
    Expected,
    ParameterTree,
    Tensor,
    Value,
)

__all__ = [
    "TREES",
    "apply_to_leaves",
    "new_parameters",
    "tree_for_tensor",
    "update_parameters",
]


def tree_for_tensor(
    definition: syntax.MapDefinition, arguments: Sequence[Argument]
) -> ParameterTree | None:
    """The first tree among the arguments where the map takes a tensor."""
    parameters = {p.name.name: p for p in definition.parameters}
    positional = iter(definition.parameters)
    for given in arguments:
        parameter = next(positional, None) if given.name is None else parameters.get(given.name)
        if not isinstance(given.value, ParameterTree) or parameter is None:
            continue
        if parameter.type is not None and not is_kind(parameter.type):
            return given.value
    return None


def apply_to_leaves(
    function: Callable[[SlotKey], Value],
    frame: Frame,
    span: Span,
    arguments: Sequence[Argument],
) -> Value:
    """The tree of a call at each tensor of the trees among the arguments."""

    def call(key: SlotKey, values: list[Value]) -> Value:
        given = [replace(a, value=v) for a, v in zip(arguments, values, strict=True)]
        return apply(function(key), frame, span, tuple(given))

    return over_trees(frame, span, [argument.value for argument in arguments], call)


def _tree_map(
    frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
) -> Value:
    """The map applied to each tensor."""
    given = _MAPPED.match("tree_map", arguments[:2], span)
    function = map_argument(given["f"])
    trees = (given["tree"], *arguments[2:])
    for tree in trees:
        _checked("tree_map", tree)
    return apply_to_leaves(lambda _: function, frame, span, trees)


_MAPPED = Parameters("f", "tree", required=2)
_PARAMETERS = Parameters("net", required=1)
_UPDATE = Parameters("optimizer", "net", "gradient", required=3)


def _checked(name: str, given: Argument) -> ParameterTree:
    if not isinstance(given.value, ParameterTree):
        wrong_kind(name, "a tree of parameters", given)
    return given.value


def _net(name: str, given: Argument) -> Instance:
    if not isinstance(given.value, Instance):
        wrong_kind(name, "a module instance", given)
    return given.value


def _parameters(
    frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
) -> Value:
    """The parameters of a module as a tree, states left out."""
    net = _net("parameters", _PARAMETERS.match("parameters", arguments, span)["net"])
    slots = {key: slot for key, slot in slots_in(net).items() if not slot.is_state}
    return ParameterTree(net, {k: slot_tensor(frame, s, span) for k, s in slots.items()})


def update_parameters(frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> None:
    """Gives the parameters of a module the values that an optimizer makes of their gradient."""
    given = _UPDATE.match("update", arguments, span)
    net, gradient = _net("update", given["net"]), _checked("update", given["gradient"])
    session = frame.session
    slots = slots_in(net)
    if not gradient.tensors.keys() <= slots.keys():
        fail(Kind.TREES_DIFFER, given["gradient"].span)
    old = {key: slot_tensor(frame, slots[key], span) for key in gradient.tensors}
    tree = ParameterTree(net, old, gradient.paths)
    steps = [Argument(None, part, given["gradient"].span) for part in (tree, gradient)]
    new = apply(given["optimizer"].value, frame, span, tuple(steps))
    tensors = new_parameters(frame, given["optimizer"].span, new, tree)
    for key, tensor in tensors.items():
        if tensor.axes:
            fail(Kind.STATE_IN_INDEX, span, name=key[1])
        session.assign(key, tensor.value)


def new_parameters(
    frame: Frame, span: Span, value: Value, old: ParameterTree
) -> dict[SlotKey, Tensor]:
    """What an optimizer, given at `span`, made of a tree of parameters; each keeps its type."""
    if not isinstance(value, ParameterTree) or value.tensors.keys() != old.tensors.keys():
        reason = "its map does not give the tree of new parameters"
        fail(Kind.NOT_AN_OPTIMIZER, span, name=describe(value), reason=reason)
    return {
        key: coerce(frame, span, value.tensors[key], tensor.type, what=f"the new `{key[1]}`")
        for key, tensor in old
    }


TREES: Mapping[str, Value] = {
    "tree_map": Builtin(
        "tree_map",
        "a map applied to each tensor of trees of parameters",
        _tree_map,
        usage="f, tree, ..",
    ),
    "parameters": Builtin(
        "parameters", "the parameters of a module, as a tree", _parameters, usage=_PARAMETERS.usage
    ),
    "update": Effect(
        "update",
        "a statement: the parameters of a module become what an optimizer makes of their gradient",
        update_parameters,
        _UPDATE.usage,
    ),
}
"""The functions of trees by name."""
