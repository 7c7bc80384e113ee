"""`vmap`: a map applied to every element along an axis of its arguments.

The map is applied once, to arguments that depend on a new index; what indices do everywhere in
elaboration does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from mapsto import ir
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import apply, scalar_or_tensor
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_integer
from mapsto.dsl.structures import describe_structure, mapped
from mapsto.dsl.tensors import as_tensor, describe, spread
from mapsto.dsl.values import (
    Argument,
    Group,
    IndexVariable,
    Nothing,
    Number,
    Tensor,
    Transform,
    Value,
)

__all__ = ["map_over", "move_axis"]


def move_axis(frame: Frame, span: Span, value: ir.Value, source: int, target: int) -> ir.Value:
    """The tensor with one axis moved to another place."""
    if source == target:
        return value
    order = list(range(len(value.shape)))
    order.insert(target, order.pop(source))
    moved: ir.Value = frame.emit(span, ir.Transpose, value, permutation=tuple(order))
    return moved


def map_over(
    function: Transform, frame: Frame, span: Span, arguments: tuple[Argument, ...]
) -> Value:
    """The results for all elements, stacked along the first axis or `out_axes`.

    `in_axes` is an axis, or one for each argument; a tensor, or all of a structure, goes by one
    axis.  `none` is for what is the same for every element.  Where nothing is said, scalars and
    what are no tensors are the same for every element, and others go by their first axis.
    """
    mapping = _Mapping(frame, span)
    wishes = _wishes(function.in_axes, arguments, span)
    inner = [
        Argument(given.name, mapping.split(given, given.value, wish), given.span)
        for given, wish in zip(arguments, wishes, strict=True)
    ]
    if mapping.variable is None:
        fail(Kind.NOTHING_TO_MAP, span)
    result = apply(function.function, frame, span, tuple(inner))
    wanted = Number(0) if function.out_axes is None else function.out_axes
    return mapping.stacked(result, wanted, mapping.variable)


def _wishes(
    in_axes: Value | None, arguments: Sequence[Argument], span: Span
) -> Sequence[Value | None]:
    """What `in_axes` says about each argument."""
    if not isinstance(in_axes, Group):
        return [in_axes] * len(arguments)
    if len(in_axes.items) != len(arguments):
        facts: Facts = {"found": len(in_axes.items), "expected": len(arguments)}
        fail(Kind.AXES_COUNT, span, **facts)
    return [_Explicit(item) for item in in_axes.items]


class _Explicit(Value):
    """An axis that is said of one argument, so that it has to have it."""

    __slots__ = ("axis",)

    def __init__(self, axis: Value) -> None:
        self.axis = axis


class _Mapping:
    """The index that stands for the element, known from the first argument that is split."""

    def __init__(self, frame: Frame, span: Span) -> None:
        self.frame = frame
        self.span = span
        self.variable: IndexVariable | None = None

    def split(self, given: Argument, value: Value, wish: Value | None) -> Value:
        """An argument, or a part of one, as it is for one element."""
        explicit = isinstance(wish, _Explicit)
        axis = wish.axis if isinstance(wish, _Explicit) else wish
        if isinstance(axis, Nothing):
            return value
        if isinstance(axis, Group):
            return self._split_items(given, value, axis)
        if isinstance(value, Group):
            return mapped(lambda leaf: self.split(given, leaf, wish), value)
        if not scalar_or_tensor(value):
            if explicit:
                fail(Kind.NOT_A_TENSOR, given.span, found=describe(value))
            return value
        tensor = as_tensor(self.frame, given.span, value)
        if not tensor.shape and not explicit:
            return value
        return self._element(given, tensor, _number(axis, self.span))

    def _split_items(self, given: Argument, value: Value, axes: Group) -> Value:
        items = value.items if isinstance(value, Group) else ()
        if len(items) != len(axes.items):
            facts: Facts = {"what": "an argument of `vmap`", "found": describe_structure(value)}
            fail(Kind.WRONG_VALUE, given.span, expected=_text(axes), **facts)
        pairs = zip(items, axes.items, strict=True)
        parts = [self.split(given, item, _Explicit(axis)) for item, axis in pairs]
        return value.with_items(parts) if isinstance(value, Group) else value

    def _element(self, given: Argument, tensor: Tensor, number: int) -> Tensor:
        """The tensor with one of its axes turned into the index."""
        rank = len(tensor.shape)
        if not -rank <= number < rank:
            fail(Kind.AXIS_OUT_OF_RANGE, given.span, axis=number, rank=rank)
        axis, outer = number % rank, len(tensor.axes)
        size = tensor.shape[axis]
        self.variable = self.variable or IndexVariable("element", size, given.span)
        if size != self.variable.extent:
            facts: Facts = {"extent": self.variable.extent, "size": size, "type": tensor.type}
            fail(Kind.EXTENTS_DIFFER, given.span, name="vmap", axis=axis, **facts)
        value = move_axis(self.frame, given.span, tensor.value, outer + axis, outer)
        return Tensor(value, (*tensor.axes, self.variable))

    def stacked(self, value: Value, wish: Value, variable: IndexVariable) -> Value:
        """A result with the index as an axis; item by item where `out_axes` is a tuple."""
        if isinstance(wish, Group):
            items = value.items if isinstance(value, Group) else ()
            if len(items) != len(wish.items):
                facts: Facts = {"what": "`out_axes`", "found": _text(wish)}
                fail(Kind.WRONG_VALUE, self.span, expected=describe_structure(value), **facts)
            pairs = zip(items, wish.items, strict=True)
            parts = [self.stacked(item, axis, variable) for item, axis in pairs]
            return value.with_items(parts) if isinstance(value, Group) else value
        return mapped(lambda leaf: self._stack(leaf, wish, variable), value)

    def _stack(self, leaf: Value, wish: Value, variable: IndexVariable) -> Value:
        frame, span = self.frame, self.span
        tensor = as_tensor(frame, span, leaf)
        if isinstance(wish, Nothing):
            if variable in tensor.axes:
                fail(Kind.RESULT_IS_MAPPED, span, found=tensor.type)
            return tensor
        number, rank = _number(wish, span), len(tensor.shape) + 1
        if not -rank <= number < rank:
            fail(Kind.AXIS_OUT_OF_RANGE, span, axis=number, rank=rank)
        outer = tuple(v for v in tensor.axes if v is not variable)
        value = spread(frame, span, tensor, (*outer, variable), tensor.shape)
        target = len(outer) + number % rank
        return Tensor(move_axis(frame, span, value, len(outer), target), outer)


def _number(axis: Value | None, span: Span) -> int:
    return 0 if axis is None else static_integer(axis, span)


def _text(axes: Value) -> str:
    """Axes in the words of a message: `(0, none)`."""
    if isinstance(axes, Group):
        return f"({', '.join(map(_text, axes.items))})"
    return str(axes.value) if isinstance(axes, Number) else "none"
