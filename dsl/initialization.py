"""First values of parameters and states, from the initializers that a module declares."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.dimensions import dtype_of, free_names
from mapsto.dsl.elaborated import Elaborated, InputSpec, Structure
from mapsto.dsl.evaluation import apply, call_arguments, evaluate, is_applicable
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.functions import close
from mapsto.dsl.instances import slot_paths, slot_type, slots_in
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import coerce
from mapsto.dsl.values import Argument, Closure, Expected, Key, Partial, Slot, Tensor, Value

__all__ = ["elaborate_initializers", "initial_value", "initialize", "stream_of"]


def stream_of(path: str) -> int:
    """The number of the random stream of a parameter: the same path has the same numbers."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")


def elaborate_initializers(frame: Frame, roots: Sequence[tuple[str, Value]]) -> Elaborated:
    """First values of what is reachable from the roots and has a known size."""
    seed = ir.Value(ir.TensorType(ir.DType.I64), None, 0, "seed")
    values: dict[str, Tensor] = {}
    slots = slots_in(*(root for _, root in roots))
    for key, path in slot_paths(roots).items():
        type = _known_type(frame, slots[key])
        if type is not None and path not in values:
            values[path] = initial_value(frame, slots[key], type, seed, path)
    build = frame.session.build
    results = [tensor.value for tensor in values.values()]
    function = close("init", build, [seed], results)
    structure: Structure = {path: tensor.type for path, tensor in values.items()}
    module = ir.Module({"init": function, **frame.session.functions})
    return Elaborated(module, "init", (), (), (InputSpec("seed", seed.type),), structure)


def _known_type(frame: Frame, slot: Slot) -> ir.TensorType | None:
    """The type of a slot if its dimensions and dtype are known."""
    declared = slot.declaration.type
    inside = frame.inside(slot.instance.scope)
    if not isinstance(declared, syntax.ValueType) or dtype_of(declared, inside) is None:
        return None
    if any(free_names(dim, inside) for dim in declared.shape or ()):
        return None
    type = slot_type(frame, slot)
    if type.symbols:
        fail(Kind.SYMBOLIC_PARAMETER, slot.declaration.span, name=slot.name, type=type)
    return type


def initial_value(
    frame: Frame, slot: Slot, type: ir.TensorType, seed: ir.Value, path: str
) -> Tensor:
    """The first value of a parameter or a state, which has this type."""
    declaration = slot.declaration
    inside = frame.inside(slot.instance.scope)
    expression, kind, help = declaration.initializer, Kind.MISSING_INITIALIZER, Help.ADD_INITIALIZER
    if isinstance(declaration, syntax.StateDeclaration):
        expression, kind, help = expression or declaration.value, Kind.MISSING_VALUE, Help.ADD_VALUE
    if expression is None:
        fail(kind, declaration.name.span, help=help, name=slot.name)
    key = Key(seed, stream_of(path))
    expected = Expected(type.dtype, type.shape)
    value = _value(inside, expression, key, expected)
    what = f"the first value of `{slot.name}`"
    return coerce(inside, expression.span, value, type, what=what)


def _value(frame: Frame, node: syntax.Expression, key: Key, expected: Expected) -> Value:
    """A value, or a map to apply: `zeros`, `uniform(-1, 1)`; a parameter `key` receives the key."""
    if isinstance(node, syntax.Call):
        function = evaluate(node.function, frame)
        if _takes_key(function):
            arguments = (_key_argument(key, node.span), *call_arguments(node, frame))
            return apply(function, frame, node.span, arguments, expected)
    return initialize(evaluate(node, frame, expected), frame, node.span, key, expected)


def initialize(
    initializer: Value, frame: Frame, span: Span, key: Key, expected: Expected | None
) -> Value:
    """What an initializer gives: a map is applied, to the key if it takes one."""
    if not is_applicable(initializer):
        return initializer
    arguments = (_key_argument(key, span),) if _takes_key(initializer) else ()
    return apply(initializer, frame, span, arguments, expected)


def _takes_key(value: Value) -> bool:
    """Whether the first parameter of a map is named `key`."""
    if isinstance(value, Partial):
        return _takes_key(value.function) and all(a.name is not None for a in value.arguments)
    if not isinstance(value, Closure):
        return False
    parameters = value.definition.parameters
    return bool(parameters) and parameters[0].name.name == "key"


def _key_argument(key: Key, span: Span) -> Argument:
    return Argument(None, key, span)
