"""Derivatives of calls: gradients, derivatives along directions, Hessians, recomputation.

A derivative is requested with an op that names a function of the IR; a pass expands it.  A module
instance among the arguments stands for its parameters.

Inside index notation, and so under `vmap`, a derivative is one at each point of the indices: the
arguments to differentiate by are spread over the indices first, so that each point has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mapsto import ir
from mapsto.dsl.carried import LeafType
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import apply, scalar_or_tensor
from mapsto.dsl.frame import Facts, Frame, SlotKey, fail
from mapsto.dsl.functions import close, free_values, size_values
from mapsto.dsl.instances import Instance, slots_in
from mapsto.dsl.source import Span
from mapsto.dsl.structures import describe_structure, leaves, mapped, rebuilt, tensors_in
from mapsto.dsl.tensors import as_tensor, sorted_variables
from mapsto.dsl.tracing import Trace, trace, unused_name
from mapsto.dsl.values import (
    Argument,
    Closure,
    IndexVariable,
    ParameterTree,
    Tensor,
    Value,
)

__all__ = ["Differentiated", "differentiate", "push", "recomputed"]


@dataclass(frozen=True, slots=True)
class Differentiated:
    """The value of a map, and its gradient by each of the chosen arguments."""

    value: Value
    gradients: tuple[Value, ...]


@dataclass(slots=True)
class _Traced:
    """A map elaborated into a function of its own.

    `arguments` are the values inside that its arguments stand for, `actual` what they are outside,
    `fresh` those to differentiate by, `stand_ins` parameters and states that were known before.
    The function's results are `tensors`, then the new values of `states`, or of parameters.
    """

    name: str
    result: Value
    arguments: list[ir.Value]
    actual: list[ir.Value]
    fresh: dict[int, Value]
    tensors: list[Tensor]
    states: list[SlotKey]
    results: list[ir.Value]
    stand_ins: Mapping[SlotKey, ir.Value]

    @property
    def axes(self) -> frozenset[IndexVariable]:
        """The indices that the results depend on."""
        return frozenset(variable for tensor in self.tensors for variable in tensor.axes)


def _trace(
    function: Value,
    frame: Frame,
    span: Span,
    arguments: Sequence[Argument],
    argnums: Sequence[int],
    directions: Sequence[Argument] = (),
) -> _Traced:
    """Elaborates the call, with fresh values for the arguments to differentiate by."""
    arguments = [_computed(frame, argument) for argument in arguments]
    given = [_computed(frame, argument).value for argument in (*arguments, *directions)]
    tensors = [leaf for value in given for leaf in leaves(value) if isinstance(leaf, Tensor)]
    axes = {variable for tensor in tensors for variable in tensor.axes}
    while True:
        traced = _trace_over(function, frame, span, arguments, argnums, sorted_variables(axes))
        if traced.axes <= axes:
            return traced
        # The map knows of more indices than its arguments: it is defined inside their scope.
        del frame.session.functions[traced.name]
        axes |= traced.axes


def _computed(frame: Frame, given: Argument) -> Argument:
    """The argument with a lazy product carried out, so that it tells its indices."""
    if not scalar_or_tensor(given.value):
        return given
    return Argument(given.name, as_tensor(frame, given.span, given.value), given.span)


def _trace_over(
    function: Value,
    frame: Frame,
    span: Span,
    arguments: Sequence[Argument],
    argnums: Sequence[int],
    axes: tuple[IndexVariable, ...],
) -> _Traced:
    """Elaborates the call with the arguments to differentiate by spread over these indices."""
    fresh: dict[int, Value] = {}
    outside: dict[ir.Value, ir.Value] = {}
    inner = list(arguments)
    for number in argnums:
        given = arguments[number]
        if isinstance(given.value, Instance):
            continue
        fresh[number] = _fresh(frame, given, axes, outside)
        inner[number] = Argument(given.name, fresh[number], given.span)
    return _closed(function, frame, span, inner, fresh, outside)


def _closed(
    function: Value,
    frame: Frame,
    span: Span,
    arguments: Sequence[Argument],
    fresh: dict[int, Value],
    outside: Mapping[ir.Value, ir.Value],
) -> _Traced:
    """The call as a function; `outside` has the values around it of arguments that are fresh."""

    def run() -> tuple[Value, list[Tensor]]:
        result = apply(function, frame, span, tuple(arguments))
        return result, tensors_in(frame, span, result)

    built: Trace[tuple[Value, list[Tensor]]] = trace(frame, run)
    result, tensors = built.result
    results = [*(tensor.value for tensor in tensors), *built.updated.values()]
    free = [v for v in free_values(built.build.block, results) if v not in outside]
    free += size_values(frame, span, built.build.block, [*outside, *free])
    name = unused_name(frame, _title(function))
    inside = [*outside, *free]
    frame.session.functions[name] = close(name, built.build, inside, results, {"private": True})
    actual = [*outside.values(), *built.actual(free)]
    states = list(built.updated)
    return _Traced(name, result, inside, actual, fresh, tensors, states, results, built.inside)


def _fresh(
    frame: Frame,
    given: Argument,
    axes: tuple[IndexVariable, ...],
    outside: dict[ir.Value, ir.Value],
) -> Value:
    """New values in the place of an argument's tensors; `outside` receives the tensors, spread over
    the indices."""

    def renew(leaf: Value) -> Value:
        if isinstance(leaf, Instance):
            fail(Kind.NOT_DIFFERENTIABLE, given.span, found="a structure with modules in it")
        tensor = as_tensor(frame, given.span, leaf, ir.DType.F32)
        if not tensor.dtype.is_float:
            fail(Kind.NOT_DIFFERENTIABLE, given.span, found=describe_structure(tensor))
        type = LeafType.of(tensor).over(axes)
        new = type.fresh(given.name or f"x{len(outside)}")
        outside[new.value] = type.spread(frame, given.span, tensor).value
        return new

    return mapped(renew, given.value)


def _title(function: Value) -> str:
    if isinstance(function, Closure):
        return function.title
    return function.title if isinstance(function, Instance) else type(function).__name__.lower()


# ---- reverse mode


def differentiate(
    function: Value,
    argnums: Sequence[int],
    frame: Frame,
    span: Span,
    arguments: Sequence[Argument],
    modules: Sequence[Instance] = (),
) -> Differentiated:
    """The value of a call and the gradient of its (first) result.

    The gradients are by the arguments that `argnums` tell, then by those parameters of `modules`
    that the call uses.
    """
    traced = _trace(function, frame, span, arguments, argnums)
    if not traced.tensors:
        fail(Kind.LOSS_NOT_SCALAR, span, found="nothing")
    loss = traced.tensors[0]
    if loss.shape or not loss.dtype.is_float:
        fail(Kind.LOSS_NOT_SCALAR, span, found=loss.type)
    targets: list[Value] = [traced.fresh.get(n, arguments[n].value) for n in argnums]
    used = set(traced.arguments)
    targets += modules
    if loss.axes and any(isinstance(target, Instance) for target in targets):
        fail(Kind.GRADIENT_IN_INDEX, span)
    slots = [_parameters(frame, traced, target) for target in targets]
    for own in slots[len(argnums) :]:
        for key in [key for key, value in own.items() if value not in used]:
            del own[key]
    wrt = [v for t, own in zip(targets, slots, strict=True) for v in _values(t, own)]
    value, gradients = _pull_back(frame, span, traced, wrt)
    pairs = zip(targets, slots, strict=True)
    return Differentiated(value, tuple([_arranged(t, own, gradients) for t, own in pairs]))


def _values(target: Value, slots: Mapping[SlotKey, ir.Value]) -> list[ir.Value]:
    if isinstance(target, Instance):
        return list(slots.values())
    return [leaf.value for leaf in leaves(target) if isinstance(leaf, Tensor)]


def _arranged(
    target: Value, slots: Mapping[SlotKey, ir.Value], gradients: Mapping[ir.Value, ir.Value]
) -> Value:
    if isinstance(target, Instance):
        return ParameterTree(target, {key: Tensor(gradients[v]) for key, v in slots.items()})

    def gradient(leaf: Value) -> Value:
        return Tensor(gradients[leaf.value], leaf.axes) if isinstance(leaf, Tensor) else leaf

    return mapped(gradient, target)


def _pull_back(
    frame: Frame, span: Span, traced: _Traced, wrt: Sequence[ir.Value]
) -> tuple[Value, dict[ir.Value, ir.Value]]:
    """The call's value and the gradient by each value; zero where the call does not use it."""
    position = {value: i for i, value in enumerate(traced.arguments)}
    used = [value for value in dict.fromkeys(wrt) if value in position]
    one = frame.constant(span, 1.0, traced.results[0].type).value
    op = frame.operation(
        span,
        ir.Vjp,
        *traced.actual,
        one,
        callee=ir.SymbolReference(traced.name),
        results=(*(v.type for v in traced.results), *(v.type for v in used)),
        wrt=tuple([position[value] for value in used]),
        outputs=(0,),
    )
    count = len(traced.results)
    gradients = dict(zip(used, op.results[count:], strict=True))
    for value in wrt:
        if value not in gradients:
            gradients[value] = frame.constant(span, 0.0, value.type).value
    return _adopt(frame, traced, list(op.results[:count])), gradients


def _parameters(frame: Frame, traced: _Traced, value: Value) -> dict[SlotKey, ir.Value]:
    """The real parameters of an instance that were used so far, in the order of declaration, as
    they are at the start of the call."""
    if not isinstance(value, Instance):
        return {}
    session = frame.session
    used = [key for key in slots_in(value) if key in session.parameters]
    known = {key: traced.stand_ins.get(key) or session.initial(key) for key in used}
    return {key: value for key, value in known.items() if value.dtype.is_float}


def _adopt(frame: Frame, traced: _Traced, values: list[ir.Value]) -> Value:
    """The call's value; what the map updated gets its new value."""
    count = len(traced.tensors)
    for key, current in zip(traced.states, values[count:], strict=True):
        frame.session.assign(key, current)
    return _arranged_results(traced, values[:count])


def _arranged_results(traced: _Traced, values: Sequence[ir.Value]) -> Value:
    """Values in place of the call's results."""
    pairs = zip(values, traced.tensors, strict=True)
    return rebuilt(traced.result, [Tensor(value, tensor.axes) for value, tensor in pairs])


# ---- forward mode


def push(
    function: Value,
    argnums: Sequence[int],
    frame: Frame,
    span: Span,
    primals: Sequence[Argument],
    directions: Sequence[Argument],
) -> tuple[Value, Value]:
    """The value of a call and its derivative along a direction for each chosen argument."""
    for number in argnums:
        if isinstance(primals[number].value, Instance):
            fail(Kind.NOT_DIFFERENTIABLE, primals[number].span, found="an instance of a module")
    traced = _trace(function, frame, span, primals, argnums, directions)
    position = {value: i for i, value in enumerate(traced.arguments)}
    tangents: list[ir.Value] = []
    wrt: list[int] = []
    for number, direction in zip(argnums, directions, strict=True):
        fresh = [leaf for leaf in leaves(traced.fresh[number]) if isinstance(leaf, Tensor)]
        tangents += _directions(frame, direction, traced.fresh[number], fresh)
        wrt += [position[leaf.value] for leaf in fresh]
    floats = tuple(i for i, tensor in enumerate(traced.tensors) if tensor.dtype.is_float)
    types = (*(v.type for v in traced.results), *(traced.results[i].type for i in floats))
    attributes: dict[str, Any] = {
        "callee": ir.SymbolReference(traced.name),
        "results": types,
        "wrt": tuple(wrt),
        "outputs": floats,
    }
    op = frame.operation(span, ir.Jvp, *traced.actual, *tangents, **attributes)
    count = len(traced.results)
    value = _adopt(frame, traced, list(op.results[:count]))
    pushed = dict(zip(floats, op.results[count:], strict=True))
    derivative = [
        pushed.get(i) or frame.constant(span, 0, tensor.value.type).value
        for i, tensor in enumerate(traced.tensors)
    ]
    return value, _arranged_results(traced, derivative)


def _directions(
    frame: Frame, given: Argument, primal: Value, tensors: Sequence[Tensor]
) -> list[ir.Value]:
    """The direction along an argument, spread over the indices that the argument depends on."""
    found = list(leaves(given.value))
    if len(found) != len(tensors):
        facts: Facts = {"expected": describe_structure(primal)}
        found_text = describe_structure(given.value)
        fail(Kind.WRONG_VALUE, given.span, what="the direction", found=found_text, **facts)
    directions = []
    for leaf, tensor in zip(found, tensors, strict=True):
        type = LeafType.of(tensor)
        own = as_tensor(frame, given.span, leaf, tensor.dtype)
        if own.type != tensor.type:
            facts = {"expected": tensor.type, "found": own.type}
            fail(Kind.WRONG_SHAPE, given.span, what="the direction", **facts)
        directions.append(type.spread(frame, given.span, own).value)
    return directions


# ---- recomputation


def recomputed(function: Value, frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> Value:
    """The value of a call that is computed again where its derivative needs it."""
    traced = _closed(function, frame, span, arguments, {}, {})
    types = tuple(value.type for value in traced.results)
    callee = ir.SymbolReference(traced.name)
    op = frame.operation(span, ir.RematCall, *traced.actual, callee=callee, results=types)
    return _adopt(frame, traced, list(op.results))
