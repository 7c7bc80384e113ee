"""Evaluation of names, literals, operators, conditionals and members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import NoReturn

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.arithmetic import binary, decide, logical_not, negate
from mapsto.dsl.branches import branch
from mapsto.dsl.diagnostics import DiagnosticError, Help, Kind, Note, NoteKind, nearest
from mapsto.dsl.evaluation import evaluate, evaluates, find, lookup, scalar_or_tensor, tensor_of
from mapsto.dsl.foreign import hint
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.instances import Instance, member, slot_tensor, slots_in
from mapsto.dsl.operators import BinaryOperator, UnaryOperator
from mapsto.dsl.source import Span
from mapsto.dsl.targets import bind_target
from mapsto.dsl.tensors import as_tensor, describe
from mapsto.dsl.values import (
    Deferred,
    Dimensions,
    ElementType,
    Expected,
    Formula,
    Group,
    Indices,
    ModeFlag,
    Namespace,
    Number,
    ParameterTree,
    Position,
    Product,
    Slot,
    Tensor,
    Text,
    Truth,
    Unknown,
    Value,
)

__all__ = ["rounds", "settle"]

_MAXIMUM_ITERATIONS = 10_000


def settle(value: Value, frame: Frame, span: Span) -> Value:
    """The value of what a name refers to: the tensor of a parameter, a constant's value."""
    if isinstance(value, Slot):
        return slot_tensor(frame, value, span)
    if isinstance(value, Unknown):
        raise value.cause
    if isinstance(value, ModeFlag):
        frame.session.mode_was_read = True
        return Truth(frame.session.training)
    if isinstance(value, Deferred):
        return evaluate(value.expression, frame.inside(value.scope))
    return value


@evaluates(syntax.Name)
def _name(node: syntax.Name, frame: Frame, expected: Expected | None) -> Value:
    return settle(lookup(frame, node.name, node.span), frame, node.span)


@evaluates(syntax.Integer)
def _integer(node: syntax.Integer, frame: Frame, expected: Expected | None) -> Value:
    return Number(node.value)


@evaluates(syntax.Float)
def _float(node: syntax.Float, frame: Frame, expected: Expected | None) -> Value:
    return Number(node.value)


@evaluates(syntax.Boolean)
def _boolean(node: syntax.Boolean, frame: Frame, expected: Expected | None) -> Value:
    return Truth(node.value)


@evaluates(syntax.String)
def _string(node: syntax.String, frame: Frame, expected: Expected | None) -> Value:
    return Text(node.value)


@evaluates(syntax.ListExpression, syntax.TupleExpression)
def _group(
    node: syntax.ListExpression | syntax.TupleExpression, frame: Frame, expected: Expected | None
) -> Value:
    items: list[Value] = []
    wanted = () if expected is None else expected.items
    for item, own in zip_longest(node.items, wanted[: len(node.items)]):
        if isinstance(item, syntax.Spread):
            items.extend(_spliced(item, frame))
            continue
        value = evaluate(item, frame, own)
        items.append(as_tensor(frame, item.span, value) if scalar_or_tensor(value) else value)
    if isinstance(node, syntax.ListExpression):
        return Group(tuple(items), is_list=True)
    return Group(tuple(items), names=tuple([name.name for name in node.names]))


def _spliced(spread: syntax.Spread, frame: Frame) -> tuple[Value, ...]:
    """What `...s` puts into a list: sizes, indices, or the items of another list."""
    assert spread.name is not None
    value = settle(lookup(frame, spread.name.name, spread.span), frame, spread.span)
    match value:
        case Dimensions():
            return tuple(map(Number, value.dims))
        case Indices():
            return tuple(map(Position.of, value.variables))
        case Group() if value.is_list:
            return value.items
    name = spread.name.name
    return fail(Kind.NOT_A_GROUP, spread.span, name=name, found=describe(value))


@evaluates(syntax.Comprehension)
def _comprehension(node: syntax.Comprehension, frame: Frame, expected: Expected | None) -> Value:
    """The list of the items; each has a scope of its own, which maps in it keep."""
    items = []
    for value in rounds(evaluate(node.iterable, frame), node.iterable.span):
        frame.session.budget.spend(node.span)
        inner = frame.nested()
        bind_target(inner, node.target, value, node.iterable.span)
        if node.condition is None or _holds(node.condition, inner):
            items.append(tensor_of(node.item, inner))
    return Group(tuple(items), is_list=True)


def rounds(items: Value, span: Span) -> tuple[Value, ...]:
    """The values that a `for` goes through."""
    if not isinstance(items, Group):
        fail(Kind.NOT_ITERABLE, span, found=describe(items))
    if len(items.items) > _MAXIMUM_ITERATIONS:
        fail(Kind.TOO_MANY_ITERATIONS, span, limit=_MAXIMUM_ITERATIONS)
    return items.items


def _holds(condition: syntax.Expression, frame: Frame) -> bool:
    """A condition that has to be known during elaboration."""
    found = decide(frame, condition.span, evaluate(condition, frame))
    if isinstance(found, Tensor):
        fail(Kind.CONDITION_UNKNOWN, condition.span, found=found.type)
    return found


@evaluates(syntax.Unary)
def _unary(node: syntax.Unary, frame: Frame, expected: Expected | None) -> Value:
    value = evaluate(node.operand, frame, expected)
    operation = negate if node.operator is UnaryOperator.NEGATE else logical_not
    return operation(frame, node.span, value)


_CONNECTIVES = {BinaryOperator.AND: False, BinaryOperator.OR: True}


@evaluates(syntax.Binary)
def _binary(node: syntax.Binary, frame: Frame, expected: Expected | None) -> Value:
    hint = _hint(node.operator, expected)
    right = None
    if _chooses_on_the_left(node):
        right = evaluate(node.right, frame, hint)
    left = evaluate(node.left, frame, hint if right is None else _like(node, right, hint))
    if isinstance(left, Truth) and _CONNECTIVES.get(node.operator) is left.value:
        return left
    if right is None:
        right = evaluate(node.right, frame, _like(node, left, hint))
    try:
        result = binary(frame, node.span, node.operator, left, right)
    except DiagnosticError as error:
        if error.diagnostic.span != node.span:
            raise
        notes = (*_operand_notes(node, frame, left, right), *error.diagnostic.notes)
        raise DiagnosticError(replace(error.diagnostic, notes=notes)) from None
    _check_division(node, left, result)
    return result


_ARITHMETIC = frozenset("+-*/")
"""Operators whose operands have the dtype of the result and its shape, or one that stretches."""
_UNLIKE_OPERANDS = frozenset({BinaryOperator.MATRIX_MULTIPLY, BinaryOperator.POWER})


def _hint(operator: BinaryOperator, expected: Expected | None) -> Expected | None:
    """What the context of an operation asks of its operands."""
    if expected is None or operator.value not in _ARITHMETIC:
        return None
    return replace(expected, is_hint=True)


def _like(node: syntax.Binary, other: Value, hint: Expected | None) -> Expected | None:
    """What an operand is asked for where the other one is known."""
    if node.operator in _UNLIKE_OPERANDS:
        return hint
    if isinstance(other, Product):
        return Expected(other.dtype)
    if isinstance(other, Tensor):
        return Expected(other.dtype, other.shape, is_hint=True)
    return hint


def _chooses_on_the_left(node: syntax.Binary) -> bool:
    """Whether the left operand may be a choice of numbers, which the right one gives a dtype."""
    connective = node.operator in _CONNECTIVES
    return not connective and _is_conditional(node.left) and not _is_conditional(node.right)


def _is_conditional(node: syntax.Expression) -> bool:
    if isinstance(node, syntax.Unary):
        return _is_conditional(node.operand)
    return isinstance(node, syntax.Conditional)


def _operand_notes(node: syntax.Binary, frame: Frame, *values: Value) -> Iterator[Note]:
    """The types of tensor operands, where they were defined if they have names."""
    for operand, value in zip((node.left, node.right), values, strict=True):
        if not isinstance(value, Tensor):
            continue
        span = operand.span
        for scope in frame.scope.enclosing():
            bound = scope.names.get(operand.name) if isinstance(operand, syntax.Name) else None
            if bound is not None:
                span = bound.span or span
                break
        yield Note(NoteKind.VALUE_HAS_TYPE, span, {"type": value.type})


def _check_division(node: syntax.Binary, left: Value, result: Value) -> None:
    """Whole numbers divide to a whole number: `1 / 2` is 0, which is hardly what was meant.

    Of a size, as in `n / 2`, it is what was meant.
    """
    written = isinstance(node.left, syntax.Integer)
    if node.operator is not BinaryOperator.DIVIDE or left == Number(0) or not written:
        return
    vanishes = result == Number(0) and isinstance(result, Number)
    symbolic = isinstance(result, Number) and isinstance(result.value, ir.DimExpression)
    if vanishes or (left == Number(1) and symbolic):
        fail(Kind.DIVISION_VANISHES, node.span, help=Help.WRITE_FLOAT, text=node.span.text)


@evaluates(syntax.Conditional)
def _conditional(node: syntax.Conditional, frame: Frame, expected: Expected | None) -> Value:
    condition = decide(frame, node.condition.span, evaluate(node.condition, frame))
    if isinstance(condition, bool):
        return evaluate(node.then if condition else node.otherwise, frame, expected)
    dtype = None if expected is None or expected.dtype is ir.DType.BOOL else expected.dtype

    def side(part: syntax.Expression) -> Value:
        value = evaluate(part, frame, expected)
        is_wish = dtype is not None and is_number(value)
        return as_tensor(frame, part.span, value, dtype) if is_wish else value

    sides = (lambda: side(node.then), lambda: side(node.otherwise))
    return branch(frame, node.span, condition, *sides)


def is_number(value: Value) -> bool:
    """Whether the value takes the element type that the context asks for."""
    return isinstance(value, Number | Formula | Position)


@evaluates(syntax.Attribute)
def _attribute(node: syntax.Attribute, frame: Frame, expected: Expected | None) -> Value:
    base = evaluate(node.base, frame)
    name, span = node.name.name, node.name.span
    match base:
        case Instance():
            return settle(member(base, name, span), frame.inside(base.scope), span)
        case Namespace():
            return _of_namespace(base, name, frame, span)
        case ParameterTree():
            return _of_tree(base, name, span)
        case Group() if base.names:
            return _of_record(base, name, span)
    if not scalar_or_tensor(base):
        fail(Kind.NO_MEMBER, span, name=name, found=describe(base))
    if name in ("shape", "dtype", "rank"):
        return _fact(as_tensor(frame, node.span, base), name)
    return _no_method(node, base, frame)


def _no_method(node: syntax.Attribute, base: Value, frame: Frame) -> NoReturn:
    """Reports `x.name` of a tensor; functions of tensors are no members of them."""
    name = "transpose" if node.name.name == "T" else node.name.name
    _, suggestion = hint(name, frame.scope.visible())
    function = name if find(frame, name) is not None else suggestion
    call = f"{function}({node.base.span.text})" if function and function.isidentifier() else None
    facts: Facts = {"name": node.name.name, "found": describe(base), "suggestion": call}
    fail(Kind.NO_MEMBER, node.name.span, help=Help.NO_METHODS, **facts)


def _fact(tensor: Tensor, name: str) -> Value:
    if name == "rank":
        return Number(len(tensor.shape))
    if name == "dtype":
        return ElementType(tensor.dtype)
    return Group(tuple(map(Number, tensor.shape)), is_list=True)


def _of_namespace(base: Namespace, name: str, frame: Frame, span: Span) -> Value:
    inside = frame.inside(base.scope)
    names = list(base.scope.own_names())
    value = find(inside, name) if name in names else None
    if value is None:
        suggestion = nearest(name, names)
        help = None if suggestion is None else Help.DID_YOU_MEAN
        facts: Facts = {"name": name, "found": f"`{base.title}`", "suggestion": suggestion}
        fail(Kind.NO_MEMBER, span, help=help, **facts)
    return settle(value, inside, span)


def _of_record(base: Group, name: str, span: Span) -> Value:
    if name in base.names:
        return base.items[base.names.index(name)]
    suggestion = nearest(name, base.names)
    help = None if suggestion is None else Help.DID_YOU_MEAN
    facts: Facts = {"name": name, "found": describe(base), "suggestion": suggestion}
    return fail(Kind.NO_MEMBER, span, help=help, **facts)


def _of_tree(base: ParameterTree, name: str, span: Span) -> Value:
    tensor = base.tensors.get((base.instance, name)) if base.instance else None
    if tensor is not None:
        return tensor
    child = base.instance.scope.names.get(name) if base.instance else None
    if child is None:
        fail(Kind.NO_MEMBER, span, name=name, found=describe(base))
    return _part_of_tree(base, child.value, name, span)


def _part_of_tree(base: ParameterTree, part: Value, name: str, span: Span) -> Value:
    """The tree of a submodule, or a list of those of several."""
    if isinstance(part, Group):
        items = tuple([_part_of_tree(base, item, name, span) for item in part.items])
        return part.with_items(items)
    if not isinstance(part, Instance):
        fail(Kind.NO_MEMBER, span, name=name, found=describe(base))
    own = slots_in(part)
    return ParameterTree(part, {key: tensor for key, tensor in base if key in own})
