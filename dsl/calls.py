"""Calls: of maps, module instances, compositions and dtypes.

A map is elaborated anew for each call, with its dimensions and dtypes unified with the arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.arguments import absent, check_kind, match_arguments
from mapsto.dsl.conformance import conform, fitting_group, type_of_result
from mapsto.dsl.custom_gradients import CustomCall
from mapsto.dsl.diagnostics import Diagnostic, DiagnosticError, Kind, Note, NoteKind
from mapsto.dsl.dimensions import (
    KINDS,
    Unifier,
    dtype_of,
    evaluate_type,
    free_names,
    is_kind,
    is_unnamed,
    names_in_type,
)
from mapsto.dsl.evaluation import (
    applies,
    apply,
    call_arguments,
    evaluate,
    evaluates,
    scalar_or_tensor,
)
from mapsto.dsl.frame import Facts, Frame, SlotKey, fail
from mapsto.dsl.gradient_check import check_gradient
from mapsto.dsl.indexing import reduce_over_indices
from mapsto.dsl.instances import Instance, copy_for, leaf_paths
from mapsto.dsl.scope import Scope
from mapsto.dsl.source import Span
from mapsto.dsl.statements import evaluate_block
from mapsto.dsl.structures import describe_structure
from mapsto.dsl.tensors import as_tensor, coerce, describe, elementwise
from mapsto.dsl.trees import apply_to_leaves, tree_for_tensor
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Closure,
    Composition,
    ConstantMap,
    Dimensions,
    ElementType,
    Expected,
    Formula,
    Key,
    Number,
    Position,
    Tensor,
    Truth,
    Unknowable,
    Unknown,
    Value,
)

__all__ = ["bind_arguments", "convert"]

_MAXIMUM_NOTES = 4
_ADAPTABLE = (Number, Formula, Position, Truth)
"""Values that take the element type that a parameter asks for."""


@evaluates(syntax.Call)
def _call(node: syntax.Call, frame: Frame, expected: Expected | None) -> Value:
    if isinstance(node.function, syntax.Index) and isinstance(node.function.base, syntax.Name):
        reduction = evaluate(node.function.base, frame)
        if isinstance(reduction, Builtin) and reduction.reduction:
            return reduce_over_indices(reduction, node.function, node, frame)
    function = evaluate(node.function, frame)
    return apply(function, frame, node.span, call_arguments(node, frame), expected)


@applies(Builtin)
def _builtin(
    function: Builtin,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    return function.apply(frame, span, arguments, expected)


@applies(Composition)
def _composition(
    function: Composition,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    if not function.functions:
        return _only_argument("chain", span, arguments).value
    first, *rest = function.functions
    place = arguments[0].span if arguments else span
    value = apply(first, frame, span, arguments)
    for step in rest:
        value = apply(step, frame, span, (Argument(None, value, place),))
    return value


@applies(ConstantMap)
def _constant(
    function: ConstantMap,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    return function.value


@applies(ElementType)
def _convert(
    function: ElementType,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    argument = _only_argument(str(function.dtype), span, arguments)
    return convert(frame, span, argument.value, function.dtype)


def _only_argument(owner: str, span: Span, arguments: tuple[Argument, ...]) -> Argument:
    """The argument of what takes one, by position."""
    if len(arguments) != 1 or arguments[0].name is not None:
        facts: Facts = {"owner": owner, "expected": 1, "found": len(arguments)}
        fail(
            Kind.TOO_MANY_ARGUMENTS if arguments else Kind.MISSING_ARGUMENT, span, name="x", **facts
        )
    return arguments[0]


def convert(frame: Frame, span: Span, value: Value, dtype: ir.DType) -> Tensor:
    """The value with another element type."""
    if isinstance(value, Number | Formula | Position) and dtype is not ir.DType.BOOL:
        if isinstance(value, Number) and isinstance(value.value, float) and not dtype.is_float:
            value = as_tensor(frame, span, value)
        else:
            return as_tensor(frame, span, value, dtype)
    tensor = as_tensor(frame, span, value)
    if tensor.dtype is dtype:
        return tensor
    return elementwise(frame, span, ir.Cast, [tensor], dtype=dtype)


@applies(Instance)
def _instance(
    function: Instance,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    call = function.call
    if call is None:
        fail(Kind.NOT_CALLABLE, span, found=f"`{function.title}`, which has no unnamed map,")
    tree = tree_for_tensor(call.definition, arguments)
    if tree is not None:
        paths = leaf_paths(tree)

        def own(key: SlotKey) -> Value:
            return copy_for(function, key, paths[key], frame)

        return apply_to_leaves(own, frame, span, arguments)
    return apply(call, frame, span, arguments, expected)


@applies(Closure)
def _closure(
    function: Closure,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    if tree_for_tensor(function.definition, arguments) is not None:
        return apply_to_leaves(lambda _: function, frame, span, arguments)
    with frame.deeper(span, function.title):
        try:
            return _elaborate(function, frame, span, arguments, expected)
        except Unknowable:
            raise
        except DiagnosticError as error:
            if frame.session.depth == 1:
                raise
            raise DiagnosticError(_called_from(error, function, span)) from None


def _called_from(error: DiagnosticError, function: Closure, span: Span) -> Diagnostic:
    """The diagnostic with a note of this call, if it is about the inside of the map or about a call
    inside of it."""
    found, body = error.diagnostic, function.definition.span
    places = [
        found.span,
        *(n.span for n in found.notes if n.kind is NoteKind.CALLED_HERE and n.span),
    ]
    place = places[-1]
    inside = place.source is body.source and body.start <= place.start < body.end
    if not inside or len(found.notes) >= _MAXIMUM_NOTES or found.kind is Kind.RECURSION:
        return found
    note = Note(NoteKind.CALLED_HERE, span, {"name": function.title})
    return replace(found, notes=(*found.notes, note))


def _elaborate(
    function: Closure,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    definition = function.definition
    if definition.gradient is not None:
        return _with_gradient(function, frame, span, arguments, expected)
    inner = _bound(function, frame, span, arguments, expected)
    return _body(function, inner, expected)


def _bound(
    function: Closure,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Frame:
    """A frame inside of a map, with its parameters bound."""
    generics = frozenset(generic.name for generic in function.definition.generics)
    inner = frame.inside(Scope(function.scope, generics=generics))
    bind_arguments(inner, function.definition, arguments, expected, function.title, span)
    return inner


def _body(function: Closure, inner: Frame, expected: Expected | None) -> Value:
    definition = function.definition
    value = evaluate_block(definition.body, inner, _wanted(definition.result, inner, expected))
    if value is None:
        fail(Kind.NO_VALUE, definition.body.span, owner=function.title)
    return check_result(inner, definition, value, function.title)


def _with_gradient(
    function: Closure,
    frame: Frame,
    span: Span,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
) -> Value:
    """A call of a map with a gradient of its own, which is compared with the derivative once for
    each kind of arguments."""

    def call(frame: Frame, arguments: tuple[Argument, ...]) -> CustomCall:
        inner = _bound(function, frame, span, arguments, expected)

        def run(inside: Frame) -> Value:
            return _body(function, inside, expected)

        return CustomCall(inner, span, function.definition, function.title, run)

    made = call(frame, arguments)
    value = made.emit()
    compared = frame.session.compared
    types = tuple([describe_structure(argument.value) for argument in arguments])
    key = (id(function.definition), types)
    if made.written.is_checked and compared is not None and key not in compared:
        compared.add(key)
        check_gradient(made, arguments, call)
    return value


def bind_arguments(
    inner: Frame,
    definition: syntax.MapDefinition,
    arguments: tuple[Argument, ...],
    expected: Expected | None,
    title: str,
    span: Span,
) -> None:
    """Binds the parameters of a map, and the dimensions and dtypes in their types.

    What has a type is unified first; then the context may fix names of the result's type; numbers
    take the types that follow.  A default that mentions tensors or their sizes comes last.
    """
    matched = match_arguments(definition.parameters, arguments, title, span)
    tensors: list[tuple[syntax.Parameter, Argument]] = []
    dependent: list[syntax.Parameter] = []
    of_tensors = _names_of_tensors(definition)
    for parameter in definition.parameters:
        given = matched.get(parameter.name.name)
        if given is None and parameter.default is None:
            fail(Kind.MISSING_ARGUMENT, span, name=parameter.name.name, owner=title)
        if given is None and of_tensors & set(_names(parameter.default)):
            dependent.append(parameter)
            continue
        given = given or _default(parameter, inner)
        if not _bind_known(inner, parameter, given):
            tensors.append((parameter, given))
    later = _bind_tensors(inner, tensors, title)
    result = definition.result
    if isinstance(result, syntax.ValueType) and expected is not None:
        _adopt_expected(inner, result, expected, span, title)
    for parameter, given in later:
        assert isinstance(parameter.type, syntax.ValueType)
        what = f"argument `{parameter.name.name}` of `{title}`"
        value = _adapt(inner, parameter.type, given, what)
        inner.scope.bind(parameter.name.name, value, given.span)
    for parameter in dependent:
        given = _default(parameter, inner)
        if not _bind_known(inner, parameter, given):
            what = f"the default of `{parameter.name.name}`"
            value = conform(inner, parameter.type, given.value, given.span, what)
            inner.scope.bind(parameter.name.name, value, given.span)


def _names_of_tensors(definition: syntax.MapDefinition) -> set[str]:
    """The names of parameters that are tensors, and those in their types."""
    parameters = [p for p in definition.parameters if p.type is not None and not is_kind(p.type)]
    kinds = {p.name.name for p in definition.parameters} - {p.name.name for p in parameters}
    names = {name for p in parameters if p.type is not None for name in names_in_type(p.type)}
    return ({p.name.name for p in parameters} | names) - kinds


def _names(expression: syntax.Expression | None) -> Iterator[str]:
    for node in () if expression is None else syntax.walk(expression):
        if isinstance(node, syntax.Name):
            yield node.name


def _default(parameter: syntax.Parameter, inner: Frame) -> Argument:
    assert parameter.default is not None
    value = evaluate(parameter.default, inner)
    return Argument(parameter.name.name, value, parameter.default.span)


def _bind_known(inner: Frame, parameter: syntax.Parameter, given: Argument) -> bool:
    """Binds what exists only during elaboration; False for what has the type of a tensor."""
    name, value = parameter.name.name, given.value
    if absent(parameter, value):
        inner.scope.bind(name, value, given.span)
        return True
    if parameter.type is not None and not is_kind(parameter.type):
        return False
    if isinstance(parameter.type, syntax.ValueType) and not isinstance(value, Unknown):
        value = check_kind(parameter.type.name.name, name, given)
    inner.scope.bind(name, value, given.span)
    return True


def _bind_tensors(
    inner: Frame, tensors: list[tuple[syntax.Parameter, Argument]], title: str
) -> list[tuple[syntax.Parameter, Argument]]:
    """Unifies and binds what has a type; gives the numbers that are left."""
    unifier = Unifier(inner, title)
    later = []
    for parameter, given in tensors:
        name, type = parameter.name.name, parameter.type
        if isinstance(type, syntax.ValueType) and isinstance(given.value, _ADAPTABLE):
            later.append((parameter, given))
            continue
        assert type is not None
        value = _unify(inner, unifier, type, given, f"argument `{name}` of `{title}`")
        inner.scope.bind(name, value, given.span)
    unifier.finish()
    return later


def _unify(
    inner: Frame, unifier: Unifier, type: syntax.TypeExpression, given: Argument, what: str
) -> Value:
    """The argument's value after its type was unified with the declared one."""
    if isinstance(type, syntax.TupleType):
        group = fitting_group(type, given.value, given.span, what)
        parts = [Argument(None, item, given.span) for item in group.items]
        types = zip(type.items, parts, strict=True)
        return group.with_items([_unify(inner, unifier, t, part, what) for t, part in types])
    if type.shape is None and type.name.name in KINDS:
        return check_kind(type.name.name, what, given)
    value = given.value
    if isinstance(value, Key) and dtype_of(type, inner) is ir.DType.I64 and not type.shape:
        return value
    if not scalar_or_tensor(value) and not isinstance(value, _ADAPTABLE):
        found = describe(value)
        fail(Kind.WRONG_VALUE, given.span, what=what, expected=type.span.text, found=found)
    tensor = as_tensor(inner, given.span, value, dtype_of(type, inner))
    unifier.unify(type, tensor.type, given.span, what)
    return tensor


def _adapt(inner: Frame, type: syntax.ValueType, given: Argument, what: str) -> Value:
    """A number as a tensor of the declared type; an unknown `...s` is then empty."""
    if type.shape is None and type.name.name == "bool" and isinstance(given.value, Truth):
        return given.value
    shape = type.shape
    for item in shape or ():
        if isinstance(item, syntax.Spread) and item.name and free_names(item, inner):
            target = inner.scope.target_of(item.name.name)
            target.bind(item.name.name, Dimensions(()), given.span)
    named = None if shape is None else tuple([d for d in shape if not is_unnamed(d)])
    wanted = evaluate_type(replace(type, shape=named), inner)
    return coerce(inner, given.span, given.value, wanted, what=what)


def _adopt_expected(
    inner: Frame, result: syntax.ValueType, expected: Expected, span: Span, title: str
) -> None:
    """Lets the context fix names of the result's type that no argument fixes."""
    dtype = dtype_of(result, inner)
    if dtype is None and expected.dtype is not None:
        name = result.name.name
        inner.scope.target_of(name).bind(name, ElementType(expected.dtype), span)
        dtype = expected.dtype
    open_dims = any(free_names(item, inner) for item in result.shape or ())
    if open_dims and expected.shape is not None and _may_adopt(result, expected):
        actual = ir.TensorType(dtype or ir.DType.F32, expected.shape)
        unifier = Unifier(inner, title)
        unifier.unify(result, actual, span, f"the result of `{title}`")
        unifier.finish()


def _may_adopt(result: syntax.ValueType, expected: Expected) -> bool:
    """Whether the shape of the context binds a result: a hint does if the result has any shape."""
    shape = result.shape or ()
    return not expected.is_hint or (len(shape) == 1 and isinstance(shape[0], syntax.Spread))


def _wanted(
    type: syntax.TypeExpression | None, inner: Frame, expected: Expected | None
) -> Expected | None:
    return expected if type is None else type_of_result(type, inner)


def check_result(inner: Frame, definition: syntax.MapDefinition, value: Value, title: str) -> Value:
    """The value of a map's body as the result that the map declares."""
    statements = definition.body.statements
    span = statements[-1].span if statements else definition.body.span
    return conform(inner, definition.result, value, span, f"the result of `{title}`")
