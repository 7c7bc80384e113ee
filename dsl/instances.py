"""Module instances: configuration, members, and the paths that name their parameters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from copy import deepcopy

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.arguments import bind_kind, check_names, match_arguments
from mapsto.dsl.diagnostics import Help, Kind, Note, NoteKind, nearest
from mapsto.dsl.dimensions import evaluate_type, free_names, names_in_type
from mapsto.dsl.evaluation import applies, evaluate, find
from mapsto.dsl.frame import Facts, Frame, SlotKey, StateCell, fail
from mapsto.dsl.scope import Bound, InstanceScope
from mapsto.dsl.source import Span
from mapsto.dsl.values import (
    Argument,
    Closure,
    Composition,
    Deferred,
    Expected,
    Frozen,
    Group,
    Mode,
    ModuleClass,
    Nothing,
    ParameterTree,
    Partial,
    Precision,
    Slot,
    Tensor,
    Transform,
    Truth,
    Value,
)

__all__ = [
    "Instance",
    "copy_for",
    "duplicate",
    "holds_tensors",
    "instances_in",
    "instantiate",
    "leaf_paths",
    "member",
    "slot_paths",
    "slot_tensor",
    "slot_type",
    "slots_in",
]


class Instance(Value):
    """A module with its configuration; equal only to itself.

    `scope` holds its members, and the dimensions and dtypes that its first use fixed.
    """

    __slots__ = ("copies", "definition", "scope")

    def __init__(self, definition: syntax.ModuleDefinition, scope: InstanceScope) -> None:
        self.definition = definition
        self.scope = scope
        self.copies: dict[SlotKey, tuple[str, Instance]] = {}
        """The instances that work in its place on each tensor of a tree, with their paths."""

    @property
    def title(self) -> str:
        """The name of the module."""
        return self.definition.name.name

    @property
    def slots(self) -> Iterator[Slot]:
        """Its own parameters and states, as declared, but for those that are left out."""
        for node in self.definition.members:
            if isinstance(node, syntax.ParamDeclaration | syntax.StateDeclaration):
                bound = self.scope.names[node.name.name].value
                if isinstance(bound, Slot):
                    yield bound

    @property
    def call(self) -> Closure | None:
        """Its unnamed map."""
        for node in self.definition.members:
            if isinstance(node, syntax.MapDefinition) and node.name is None:
                return Closure(node, self.scope, self.title)
        return None


@applies(ModuleClass)
def instantiate(
    module: ModuleClass,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None = None,
) -> Instance:
    """The module with this configuration; its parameters appear when they are first used."""
    definition = module.definition
    generics = frozenset(g.name for g in definition.generics)
    scope = InstanceScope(module.scope, _inferred(definition, frame.inside(module.scope)), generics)
    instance = Instance(definition, scope)
    inner = frame.inside(scope)
    check_names((*definition.parameters, *definition.members))
    with frame.deeper(span, instance.title):
        matched = match_arguments(definition.parameters, arguments, instance.title, span)
        for parameter in definition.parameters:
            _configure(inner, parameter, matched.get(parameter.name.name), span, instance.title)
        for node in definition.members:
            _bind_member(instance, node, inner)
    return instance


def copied(instance: Instance, frame: Frame) -> Instance:
    """Another instance with the same configuration, whose sizes are open; its submodules are
    copied too."""
    definition, old = instance.definition, instance.scope
    assert old.parent is not None
    scope = InstanceScope(old.parent, old.inferred - old.generics, old.generics)
    copy = Instance(definition, scope)
    for parameter in definition.parameters:
        bound = old.names[parameter.name.name]
        value = _copied_part(parameter, bound.value, frame)
        scope.names[parameter.name.name] = Bound(value, bound.span)
    for node in definition.members:
        _bind_member(copy, node, frame.inside(scope))
    return copy


def duplicate(instance: Instance) -> Instance:
    """Another instance that is the same in all: its sizes are those of this one, and what is shared
    in it, such as a parameter that two layers have in common, is shared in the other as well."""
    return deepcopy(instance)


def _copied_part(parameter: syntax.Parameter, value: Value, frame: Frame) -> Value:
    """A configuration value of a copy: what it takes as a `module` is copied with it, what it takes
    as a `map`, such as a schedule with a state, is shared."""
    is_part = isinstance(parameter.type, syntax.ValueType) and parameter.type.name.name == "module"
    return copied(value, frame) if is_part and isinstance(value, Instance) else value


def _inferred(definition: syntax.ModuleDefinition, frame: Frame) -> frozenset[str]:
    """The dimensions of parameters and states that neither configuration nor the file gives."""
    configured = {parameter.name.name for parameter in definition.parameters}
    names: set[str] = set()
    for node in definition.members:
        if isinstance(node, syntax.ParamDeclaration | syntax.StateDeclaration):
            names.update(names_in_type(node.type))
    known = {name for name in names if frame.scope.binding_of_dimension(name) is not None}
    return frozenset(names - configured - known)


def _configure(
    inner: Frame, parameter: syntax.Parameter, given: Argument | None, span: Span, owner: str
) -> None:
    name = parameter.name.name
    if given is None:
        if parameter.default is None:
            fail(Kind.MISSING_ARGUMENT, span, name=name, owner=owner)
        value = evaluate(parameter.default, inner)
        given = Argument(name, value, parameter.default.span)
    inner.scope.bind(name, bind_kind(inner, parameter, given), given.span)


def _bind_member(instance: Instance, node: syntax.ModuleMember, inner: Frame) -> None:
    scope = instance.scope
    if isinstance(node, syntax.ParamDeclaration) and _is_left_out(node.initializer, inner):
        scope.bind(node.name.name, Nothing(), node.name.span)
    elif isinstance(node, syntax.ParamDeclaration | syntax.StateDeclaration):
        scope.bind(node.name.name, Slot(instance, node), node.name.span)
    elif isinstance(node, syntax.MapDefinition) and node.name is not None:
        title = f"{instance.title}.{node.name.name}"
        scope.bind(node.name.name, Closure(node, scope, title), node.name.span)
    elif isinstance(node, syntax.Binding):
        scope.bind(node.name.name, constant_value(node, inner), node.name.span)


def _is_left_out(initializer: syntax.Expression | None, frame: Frame) -> bool:
    """Whether the configuration says that there is no such parameter, as in
    `param b: f32[n] ~ if bias then zeros else none`."""
    if isinstance(initializer, syntax.Conditional):
        condition = evaluate(initializer.condition, frame)
        if not isinstance(condition, Truth):
            return False
        chosen = initializer.then if condition.value else initializer.otherwise
        return _is_left_out(chosen, frame)
    return isinstance(initializer, syntax.Name) and find(frame, initializer.name) == Nothing()


def constant_value(node: syntax.Binding, frame: Frame) -> Value:
    """The value of a constant or submodule; one with tensors, or one that depends on `training`, is
    built anew where it is used."""
    session = frame.session
    outer, session.mode_was_read = session.mode_was_read, False
    with session.scratch():
        value = evaluate(node.value, frame)
    by_mode, session.mode_was_read = session.mode_was_read, outer
    if by_mode and next(instances_in(value), None) is not None:
        fail(Kind.MODULE_BY_MODE, node.value.span, help=Help.DECIDE_IN_MAP, name=node.name.name)
    return Deferred(node.value, frame.scope) if by_mode or holds_tensors(value) else value


def holds_tensors(value: Value) -> bool:
    """Whether a value refers to IR that belongs to one elaboration."""
    if isinstance(value, Group):
        return any(map(holds_tensors, value.items))
    return isinstance(value, Tensor | ParameterTree)


def member(instance: Instance, name: str, span: Span) -> Value:
    """A member or configuration value of an instance."""
    own = {
        node.name.name
        for node in (*instance.definition.members, *instance.definition.parameters)
        if not isinstance(node, syntax.Broken) and node.name is not None
    }
    bound = instance.scope.names.get(name) if name in own else None
    if bound is not None:
        return bound.value
    suggestion = nearest(name, own)
    help = None if suggestion is None else Help.DID_YOU_MEAN
    facts: Facts = {"name": name, "found": f"`{instance.title}`", "suggestion": suggestion}
    return fail(Kind.NO_MEMBER, span, help=help, **facts)


def slot_type(frame: Frame, slot: Slot) -> ir.TensorType:
    """The type of a parameter or state; its dimensions have to be known by now."""
    declared = slot.declaration.type
    if not isinstance(declared, syntax.ValueType):
        fail(Kind.NOT_A_TENSOR_TYPE, declared.span, name=declared.span.text)
    return evaluate_type(declared, frame.inside(slot.instance.scope))


def slot_tensor(frame: Frame, slot: Slot, span: Span) -> Tensor:
    """The tensor of a parameter or state, which becomes an argument of what is elaborated."""
    tensor = _slot_tensor(frame, slot, span)
    if slot.is_state or not frame.session.frozen:
        return tensor
    return Tensor(frame.emit(span, ir.StopGradient, tensor.value))


def _slot_tensor(frame: Frame, slot: Slot, span: Span) -> Tensor:
    session, key = frame.session, (slot.instance, slot.name)
    cell = session.states.get(key)
    if cell is not None:
        return Tensor(cell.current)
    if key in session.parameters:
        return Tensor(session.current(key))
    if key in session.resolving:
        fail(Kind.CYCLIC_DEFINITION, slot.declaration.span, name=slot.name)
    session.resolving.add(key)
    try:
        _check_known(frame, slot, span)
        value = ir.Value(slot_type(frame, slot), None, 0, slot.name)
    finally:
        session.resolving.discard(key)
    if slot.is_state:
        session.states[key] = StateCell(value, value)
    else:
        session.parameters[key] = value
    return Tensor(value)


def _check_known(frame: Frame, slot: Slot, span: Span) -> None:
    declared = slot.declaration.type
    inside = frame.inside(slot.instance.scope)
    for dim in declared.shape or () if isinstance(declared, syntax.ValueType) else ():
        for name in sorted(free_names(dim, inside)):
            facts: Facts = {"name": slot.name, "owner": slot.instance.title}
            note = Note(NoteKind.DEFINED_HERE, slot.declaration.span, facts)
            fail(Kind.PARAMETER_SIZE_UNKNOWN, span, notes=[note], dimension=name, **facts)


def instances_in(value: Value, path: str = "") -> Iterator[tuple[str, Instance]]:
    """Every module instance in a value, with its path, in the order of declaration; an instance
    that is reached twice goes by its first path."""
    yield from _instances(value, path, set())


def _instances(value: Value, path: str, seen: set[Instance]) -> Iterator[tuple[str, Instance]]:
    if isinstance(value, Group | Composition):
        items = value.items if isinstance(value, Group) else value.functions
        for i, item in enumerate(items):
            yield from _instances(item, join(path, str(i)), seen)
    if isinstance(value, Frozen | Mode | Partial | Precision | Transform):
        yield from _instances(value.function, path, seen)
    if not isinstance(value, Instance) or value in seen:
        return
    seen.add(value)
    yield path, value
    for name, bound in value.scope.names.items():
        yield from _instances(bound.value, join(path, name), seen)
    for own, copy in value.copies.values():
        yield from _instances(copy, join(path, own), seen)


def slots_in(*roots: Value) -> dict[SlotKey, Slot]:
    """The parameters and states reachable from the roots, in declaration order."""
    return {
        (instance, slot.name): slot
        for root in roots
        for _, instance in instances_in(root)
        for slot in instance.slots
    }


def slot_paths(roots: Sequence[tuple[str, Value]]) -> dict[SlotKey, str]:
    """The path of each parameter and state reachable from the roots, in declaration order."""
    paths: dict[SlotKey, str] = {}
    for prefix, root in roots:
        for path, instance in instances_in(root, prefix):
            for slot in instance.slots:
                paths.setdefault((instance, slot.name), join(path, slot.name))
    return paths


def leaf_paths(tree: ParameterTree) -> dict[SlotKey, str]:
    """The paths of a tree's tensors, as the instance whose parameters they stand for has them."""
    known = {} if tree.instance is None else slot_paths([("", tree.instance)])
    return {key: tree.paths.get(key) or known[key] for key in tree.tensors}


def copy_for(instance: Instance, key: SlotKey, path: str, frame: Frame) -> Instance:
    """The instance that works in place of this one on the tensor of a tree that has this key; it
    has states of its own."""
    if key not in instance.copies:
        taken = {own for own, _ in instance.copies.values()}
        names = (path if n == 1 else f"{path}.{n}" for n in itertools.count(1))
        name = next(name for name in names if name not in taken)
        instance.copies[key] = (name, copied(instance, frame))
    return instance.copies[key][1]


def join(path: str, name: str) -> str:
    """A path one step longer: `layers` and `0` make `layers.0`."""
    return f"{path}.{name}" if path else name
