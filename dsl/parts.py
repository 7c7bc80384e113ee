"""Parts of tensors from a computed start on: `dynamic_slice`, `dynamic_update`."""

from __future__ import annotations

from mapsto import ir
from mapsto.dsl.calling import Given, Table, functions_of
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.gathering import gather
from mapsto.dsl.rearranging import cut, reshaped, tensor_argument
from mapsto.dsl.shaping import shape_argument
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import (
    as_tensor,
    dimension_notes,
    elementwise,
    list_dims,
    select,
    sorted_variables,
    spread,
)
from mapsto.dsl.values import Group, Number, Tensor, Value

__all__ = ["PARTS"]

Starts = dict[int, Tensor]
"""The start along axes where it is not 0."""


def _starts(frame: Frame, given: Given, x: Tensor) -> Starts:
    argument = given["starts"]
    items = argument.value.items if isinstance(argument.value, Group) else (argument.value,)
    if len(items) != len(x.shape):
        what, expected = "`starts`", f"one for each axis of {x.type}"
        found = f"{len(items)}"
        fail(Kind.WRONG_VALUE, argument.span, what=what, expected=expected, found=found)
    starts: Starts = {}
    for axis, item in enumerate(items):
        if item == Number(0):
            continue
        starts[axis] = as_tensor(frame, argument.span, item, ir.DType.I32)
        if starts[axis].shape or not starts[axis].dtype.is_integer:
            fail(Kind.BAD_INDEX, argument.span, found=starts[axis].type)
    return starts


def _counted(frame: Frame, span: Span, size: ir.Dim, dtype: ir.DType) -> Tensor:
    return Tensor(frame.emit(span, ir.Iota, axis=0, type=ir.TensorType(dtype, (size,))))


def _dynamic_slice(frame: Frame, span: Span, given: Given) -> Value:
    x = tensor_argument(frame, given)
    starts, sizes = _starts(frame, given, x), shape_argument(given["sizes"])
    if len(sizes) != len(x.shape):
        facts: Facts = {"found": x.type, "shape": list_dims(sizes)}
        fail(Kind.CANNOT_RESHAPE, given["sizes"].span, **facts)
    for axis, size in enumerate(sizes):
        if axis not in starts:
            x = x if size == x.shape[axis] else cut(frame, span, x, axis, 0, size)
            continue
        counted = _counted(frame, span, size, starts[axis].dtype)
        items: list[Tensor | None] = [None] * len(sizes)
        items[axis] = elementwise(frame, span, ir.Add, [counted, starts[axis]])
        x = gather(frame, span, x, items)
    return x


def _dynamic_update(frame: Frame, span: Span, given: Given) -> Value:
    x, update = tensor_argument(frame, given), _update(frame, given)
    starts = _starts(frame, given, x)
    for axis, (size, extent) in enumerate(zip(update.shape, x.shape, strict=True)):
        if axis not in starts and size != extent:
            starts[axis] = as_tensor(frame, span, Number(0), ir.DType.I32)
    if any(start.axes for start in starts.values()):
        return _selected(frame, span, x, update, starts)
    variables = sorted_variables((*x.axes, *update.axes))
    leading = len(variables)
    operands = [spread(frame, span, value, variables, value.shape) for value in (x, update)]
    order = sorted(starts)
    places = [starts[axis].value for axis in order]
    axes = tuple(leading + axis for axis in order)
    result = frame.emit(span, ir.DynamicUpdate, *operands, *places, axes=axes)
    return Tensor(result, variables)


def _update(frame: Frame, given: Given) -> Tensor:
    """The update, which has the tensor's dtype and along each axis at most its size."""
    x, argument = tensor_argument(frame, given), given["update"]
    update = as_tensor(frame, argument.span, argument.value, x.dtype)
    facts: Facts = {"what": "the update", "expected": x.type, "found": update.type}
    if update.dtype is not x.dtype:
        fail(Kind.WRONG_DTYPE, argument.span, **facts)
    pairs = list(zip(update.shape, x.shape, strict=False))
    larger = any(isinstance(a, int) and isinstance(b, int) and a > b for a, b in pairs)
    if len(update.shape) != len(x.shape) or larger:
        notes = dimension_notes(frame, (*update.shape, *x.shape))
        fail(Kind.WRONG_SHAPE, argument.span, notes=notes, **facts)
    return update


def _selected(frame: Frame, span: Span, x: Tensor, update: Tensor, starts: Starts) -> Tensor:
    """For starts that depend on an index: where the update is, its element, else the old one."""
    rank = len(x.shape)
    inside: Tensor | None = None
    items: list[Tensor] = []
    for axis in range(rank):
        line = [x.shape[axis] if d == axis else 1 for d in range(rank)]
        here = reshaped(frame, span, _counted(frame, span, x.shape[axis], ir.DType.I32), line)
        if axis in starts:
            start = elementwise(frame, span, ir.Cast, [starts[axis]], dtype=ir.DType.I32)
            here = elementwise(frame, span, ir.Sub, [here, start])
            last = Number(update.shape[axis] - 1)
            low = elementwise(frame, span, ir.Ge, [here, Number(0)])
            high = elementwise(frame, span, ir.Le, [here, last])
            both = elementwise(frame, span, ir.And, [low, high])
            inside = both if inside is None else elementwise(frame, span, ir.And, [inside, both])
            here = elementwise(frame, span, ir.Max, [here, Number(0)])
            here = elementwise(frame, span, ir.Min, [here, last])
        items.append(here)
    assert inside is not None
    return select(frame, span, inside, gather(frame, span, update, items), x)


_FUNCTIONS: Table = {
    "dynamic_slice": (
        _dynamic_slice,
        "the part of these sizes from computed starts on, one for each axis",
        ("x", "starts", "sizes"),
        3,
    ),
    "dynamic_update": (
        _dynamic_update,
        "the tensor with an update in place of a part, from computed starts on; in place where "
        "nothing else needs the old elements",
        ("x", "update", "starts"),
        3,
    ),
}

PARTS = functions_of(_FUNCTIONS)
"""The functions by name."""
