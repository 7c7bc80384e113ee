"""Maps of maps: `grad`, `value_and_grad`, `jvp`, `vmap`.

The derivative of a map is requested with an op that names a function of the IR; a pass expands it.
A module instance among the arguments stands for its parameters.

Inside index notation, and so under `vmap`, a derivative is one at each point of the indices: the
arguments to differentiate by are spread over the indices first, so that each point has its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mapsto import ir
from mapsto.dsl.calling import Parameters
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import applies, apply, is_applicable, scalar_or_tensor
from mapsto.dsl.frame import Facts, Frame, SlotKey, fail
from mapsto.dsl.functions import close, free_values
from mapsto.dsl.instances import Instance, instances_in
from mapsto.dsl.source import Span
from mapsto.dsl.structures import mapped, rebuilt, tensors_in
from mapsto.dsl.tensors import as_tensor, describe, sorted_variables, spread
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Closure,
    Expected,
    Group,
    IndexVariable,
    Number,
    ParameterTree,
    Tensor,
    Transform,
    Value,
)

__all__ = ["TRANSFORMS", "Differentiated", "differentiate"]

_SUMMARIES = {
    "grad": "the gradient of a map with a scalar result, by its first argument or `argnums`",
    "value_and_grad": "the value of a map and its gradient",
    "jvp": "the value of a map and its derivative along directions, which follow the arguments",
    "vmap": "a map applied to each element along the first axis of its arguments",
}
_SIGNATURE = Parameters("f", "argnums", required=1)


def _make(
    kind: str,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
) -> Transform:
    given = _SIGNATURE.match(kind, arguments, span)
    function = given["f"].value
    if not is_applicable(function):
        fail(Kind.NOT_CALLABLE, given["f"].span, found=describe(function))
    numbers = given.get("argnums")
    if numbers is None:
        return Transform(kind, function, (0,), True)
    items = numbers.value.items if isinstance(numbers.value, Group) else (numbers.value,)
    argnums = []
    for item in items:
        if not isinstance(item, Number) or not isinstance(item.value, int) or item.value < 0:
            fail(Kind.NOT_A_WHOLE_NUMBER, numbers.span, found=describe(item))
        argnums.append(item.value)
    return Transform(kind, function, tuple(argnums), not isinstance(numbers.value, Group))


@applies(Transform)
def _transform(
    function: Transform,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    if function.kind == "vmap":
        return _vmap(function, frame, span, arguments)
    if function.kind == "jvp":
        return _jvp(function, frame, span, arguments)
    _check_argnums(function, len(arguments), span)
    found = differentiate(function.function, function.argnums, frame, span, arguments)
    gradients = found.gradients[0] if function.single else Group(found.gradients)
    return gradients if function.kind == "grad" else Group((found.value, gradients))


def _check_argnums(function: Transform, count: int, span: Span) -> None:
    for number in function.argnums:
        if number >= count:
            facts: Facts = {"name": function.kind, "number": number, "count": count}
            fail(Kind.NO_SUCH_ARGUMENT, span, **facts)


@dataclass(frozen=True, slots=True)
class Differentiated:
    """The value of a map, and its gradient by each of the chosen arguments."""

    value: Value
    gradients: tuple[Value, ...]


@dataclass(slots=True)
class _Traced:
    """A map elaborated into a function of its own.

    `arguments` are the values inside that its arguments stand for, `actual` what they are outside,
    `fresh` those to differentiate by.  The function's results are `tensors`, then new `states`.
    """

    name: str
    result: Value
    arguments: list[ir.Value]
    actual: list[ir.Value]
    fresh: dict[int, Tensor]
    tensors: list[Tensor]
    states: list[SlotKey]
    results: list[ir.Value]

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
    axes = {v for value in given if isinstance(value, Tensor) for v in value.axes}
    while True:
        order = sorted_variables(axes)
        traced = _trace_over(function, frame, span, arguments, argnums, order)
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
    session = frame.session
    before = {key: cell.current for key, cell in session.states.items()}
    fresh: dict[int, Tensor] = {}
    outside: dict[ir.Value, ir.Value] = {}
    inner = list(arguments)
    for number in argnums:
        actual = _differentiable(frame, arguments[number], axes)
        if actual is None:
            continue
        value = ir.Value(actual.type, None, 0, f"x{number}")
        fresh[number], outside[value] = Tensor(value, axes), actual
        inner[number] = Argument(arguments[number].name, fresh[number], arguments[number].span)
    with session.block() as build:
        result = apply(function, frame, span, tuple(inner))
        tensors = tensors_in(frame, span, result)
    updated = [
        key
        for key, cell in session.states.items()
        if cell.current is not before.get(key, cell.initial)
    ]
    results = [t.value for t in tensors] + [session.states[key].current for key in updated]
    free = [v for v in free_values(build.block, results) if v not in outside]
    free = [*outside, *free]
    name = f"{_title(function)}.{len(session.functions)}"
    session.functions[name] = close(name, build, free, results, {"private": True})
    for key in updated:
        session.states[key].current = before.get(key, session.states[key].initial)
    actual_values = [outside.get(value, value) for value in free]
    return _Traced(name, result, free, actual_values, fresh, tensors, updated, results)


def _differentiable(
    frame: Frame, given: Argument, axes: tuple[IndexVariable, ...]
) -> ir.Value | None:
    """The argument's tensor, spread over the indices; None for a module instance."""
    if isinstance(given.value, Instance):
        return None
    tensor = as_tensor(frame, given.span, given.value, ir.DType.F32)
    if not tensor.dtype.is_float:
        fail(Kind.NOT_DIFFERENTIABLE, given.span, found=describe(tensor))
    return spread(frame, given.span, tensor, axes, tensor.shape)


def _title(function: Value) -> str:
    if isinstance(function, Closure):
        return function.title
    return function.title if isinstance(function, Instance) else type(function).__name__.lower()


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
    loss = traced.tensors[0]
    if loss.shape or not loss.dtype.is_float:
        fail(Kind.LOSS_NOT_SCALAR, span, found=loss.type)
    fresh = traced.fresh
    targets: list[Tensor | Instance] = [
        fresh[n] if n in fresh else _instance_of(arguments[n]) for n in argnums
    ]
    used = set(traced.arguments)
    targets += modules
    if loss.axes and any(isinstance(target, Instance) for target in targets):
        fail(Kind.GRADIENT_IN_INDEX, span)
    slots = [{} if isinstance(t, Tensor) else _parameters(frame, t) for t in targets]
    for own in slots[len(argnums) :]:
        for key in [key for key, value in own.items() if value not in used]:
            del own[key]
    wrt = [v for t, own in zip(targets, slots, strict=True) for v in _values(t, own)]
    value, gradients = _pull_back(frame, span, traced, wrt)
    pairs = zip(targets, slots, strict=True)
    return Differentiated(value, tuple([_arranged(t, own, gradients) for t, own in pairs]))


def _instance_of(given: Argument) -> Instance:
    assert isinstance(given.value, Instance)
    return given.value


def _values(target: Tensor | Instance, slots: Mapping[SlotKey, ir.Value]) -> list[ir.Value]:
    return [target.value] if isinstance(target, Tensor) else list(slots.values())


def _arranged(
    target: Tensor | Instance,
    slots: Mapping[SlotKey, ir.Value],
    gradients: Mapping[ir.Value, ir.Value],
) -> Value:
    if isinstance(target, Tensor):
        return Tensor(gradients[target.value], target.axes)
    return ParameterTree(target, {key: Tensor(gradients[v]) for key, v in slots.items()})


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


def _parameters(frame: Frame, value: Value) -> dict[SlotKey, ir.Value]:
    """The real parameters of an instance that were used so far, in the order of declaration."""
    session = frame.session
    keys = [(inner, slot.name) for _, inner in instances_in(value) for slot in inner.slots]
    known = {key: session.current(key) for key in keys if key in session.parameters}
    return {key: value for key, value in known.items() if value.dtype.is_float}


def _adopt(frame: Frame, traced: _Traced, values: list[ir.Value]) -> Value:
    """The call's value; states that the map updated get their new values."""
    count = len(traced.tensors)
    for key, current in zip(traced.states, values[count:], strict=True):
        frame.session.states[key].current = current
    return _arranged_results(traced, values[:count])


def _arranged_results(traced: _Traced, values: Sequence[ir.Value]) -> Value:
    """Values in place of the call's results."""
    pairs = zip(values, traced.tensors, strict=True)
    return rebuilt(traced.result, [Tensor(value, tensor.axes) for value, tensor in pairs])


def _jvp(function: Transform, frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> Value:
    """`jvp(f)(x, dx)`: after the arguments of f, a direction for each chosen one."""
    count = len(arguments) - len(function.argnums)
    _check_argnums(function, count, span)
    primals, directions = arguments[:count], arguments[count:]
    traced = _trace(function.function, frame, span, primals, function.argnums, directions)
    position = {value: i for i, value in enumerate(traced.arguments)}
    tangents, wrt = [], []
    for number, direction in zip(function.argnums, directions, strict=True):
        if number not in traced.fresh:
            fail(Kind.NOT_DIFFERENTIABLE, primals[number].span, found="an instance of a module")
        primal = traced.fresh[number]
        tangents.append(_direction(frame, direction, primal))
        wrt.append(position[primal.value])
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
    return Group((value, _arranged_results(traced, derivative)))


def _direction(frame: Frame, given: Argument, primal: Tensor) -> ir.Value:
    """The direction along an argument, spread over the indices that the argument depends on."""
    tensor = as_tensor(frame, given.span, given.value, primal.dtype)
    if tensor.type != primal.type:
        facts: Facts = {"expected": primal.type, "found": tensor.type}
        fail(Kind.WRONG_SHAPE, given.span, what="the direction", **facts)
    return spread(frame, given.span, tensor, primal.axes, primal.shape)


def _vmap(function: Transform, frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> Value:
    """The function of arguments that depend on a new index over their first axes."""
    variable: IndexVariable | None = None
    inner = []
    for argument in arguments:
        if not scalar_or_tensor(argument.value):
            inner.append(argument)
            continue
        tensor = as_tensor(frame, argument.span, argument.value)
        if not tensor.shape:
            inner.append(argument)
            continue
        variable = variable or IndexVariable("element", tensor.shape[0], argument.span)
        if tensor.shape[0] != variable.extent:
            facts: Facts = {"extent": variable.extent, "size": tensor.shape[0], "type": tensor.type}
            fail(Kind.EXTENTS_DIFFER, argument.span, name="vmap", axis=0, **facts)
        mapped = Tensor(tensor.value, (*tensor.axes, variable))
        inner.append(Argument(argument.name, mapped, argument.span))
    if variable is None:
        fail(Kind.NOTHING_TO_MAP, span)
    result = apply(function.function, frame, span, tuple(inner))
    return _stacked(frame, span, result, variable)


def _stacked(frame: Frame, span: Span, value: Value, variable: IndexVariable) -> Value:
    def stack(leaf: Value) -> Value:
        tensor = as_tensor(frame, span, leaf)
        outer = tuple(v for v in tensor.axes if v is not variable)
        return Tensor(spread(frame, span, tensor, (*outer, variable), tensor.shape), outer)

    return mapped(stack, value)


def _builtin(kind: str) -> Builtin:
    def make(
        frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
    ) -> Value:
        return _make(kind, frame, span, arguments)

    return Builtin(kind, _SUMMARIES[kind], make)


TRANSFORMS: Mapping[str, Value] = {kind: _builtin(kind) for kind in _SUMMARIES}
"""The maps of maps by name."""
