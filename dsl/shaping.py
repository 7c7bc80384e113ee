"""Functions that move elements: reshape, transpose, concat, broadcast, full, iota."""

from __future__ import annotations

from collections.abc import Mapping

from mapsto import ir
from mapsto.dsl.calling import Given, Parameters, Table, functions_of, wrong_kind
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_dim
from mapsto.dsl.tensors import as_tensor, coerce, common_dtype, describe, dimension_notes, spread
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Dimensions,
    ElementType,
    Expected,
    Formula,
    Group,
    Number,
    Product,
    Tensor,
    Value,
)

__all__ = ["SHAPING", "chosen_axes", "dtype_argument", "shape_argument", "whole_numbers"]


def whole_numbers(argument: Argument) -> tuple[ir.Dim, ...]:
    """A list of whole numbers, or one."""
    if isinstance(argument.value, Dimensions):
        return argument.value.dims
    items = argument.value.items if isinstance(argument.value, Group) else (argument.value,)
    return tuple([static_dim(item, argument.span) for item in items])


def chosen_axes(argument: Argument, rank: int) -> tuple[int, ...]:
    """Axes of a tensor of this rank, negative ones counted from the last."""
    axes = []
    for axis in whole_numbers(argument):
        if not isinstance(axis, int) or not -rank <= axis < rank:
            fail(Kind.AXIS_OUT_OF_RANGE, argument.span, axis=axis, rank=rank)
        axes.append(axis % rank)
    return tuple(axes)


def shape_argument(argument: Argument) -> tuple[ir.Dim, ...]:
    """A shape: a list of sizes, or one size."""
    dims = whole_numbers(argument)
    for dim in dims:
        if isinstance(dim, int) and dim < 0:
            fail(Kind.NEGATIVE_DIMENSION, argument.span, value=dim)
    return dims


def _reshape(frame: Frame, span: Span, given: Given) -> Value:
    """One dimension may be -1: it is what remains."""
    x = as_tensor(frame, given["x"].span, given["x"].value)
    wanted = whole_numbers(given["shape"])
    elements = ir.product(x.shape)
    if -1 in wanted:
        rest = ir.product(tuple(dim for dim in wanted if dim != -1))
        missing = 0 if rest == 0 else ir.floor_div(elements, rest)
        wanted = tuple(missing if dim == -1 else dim for dim in wanted)
    if ir.product(wanted) != elements or any(isinstance(d, int) and d < 0 for d in wanted):
        shape = f"[{', '.join(map(str, wanted))}]"
        notes = dimension_notes(frame, x.shape)
        fail(Kind.CANNOT_RESHAPE, span, notes=notes, found=x.type, shape=shape)
    leading = x.value.shape[: len(x.axes)]
    return Tensor(frame.emit(span, ir.Reshape, x.value, shape=(*leading, *wanted)), x.axes)


def _transpose(frame: Frame, span: Span, given: Given) -> Value:
    x = as_tensor(frame, given["x"].span, given["x"].value)
    rank = len(x.shape)
    order = chosen_axes(given["axes"], rank) if "axes" in given else tuple(reversed(range(rank)))
    if sorted(order) != list(range(rank)):
        fail(Kind.BAD_PERMUTATION, given["axes"].span, found=x.type)
    leading = len(x.axes)
    permutation = (*range(leading), *(leading + axis for axis in order))
    return Tensor(frame.emit(span, ir.Transpose, x.value, permutation=permutation), x.axes)


def _concat(frame: Frame, span: Span, given: Given) -> Value:
    group = given["tensors"].value
    if not isinstance(group, Group) or not group.items:
        fail(Kind.NOT_ITERABLE, given["tensors"].span, found=describe(group))
    dtype = common_dtype(frame, span, group.items)
    tensors = [as_tensor(frame, given["tensors"].span, item, dtype) for item in group.items]
    first = tensors[0]
    axis = chosen_axes(given["axis"], len(first.shape))[0] if "axis" in given else 0
    for tensor in tensors:
        rest, other = _without(tensor.shape, axis), _without(first.shape, axis)
        if rest != other or not tensor.shape:
            facts: Facts = {"left": first.type, "right": tensor.type, "axis": axis}
            fail(Kind.CANNOT_CONCAT, span, notes=dimension_notes(frame, (*rest, *other)), **facts)
    axes = tuple(sorted({v for t in tensors for v in t.axes}, key=lambda v: v.serial))
    values = [spread(frame, span, tensor, axes, tensor.shape) for tensor in tensors]
    return Tensor(frame.emit(span, ir.Concat, *values, axis=len(axes) + axis), axes)


def _without(shape: tuple[ir.Dim, ...], axis: int) -> tuple[ir.Dim, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


def _broadcast(frame: Frame, span: Span, given: Given) -> Value:
    x = as_tensor(frame, given["x"].span, given["x"].value)
    wanted = shape_argument(given["shape"])
    offset = len(wanted) - len(x.shape)
    fits = offset >= 0 and all(
        dim in (1, want) for dim, want in zip(x.shape, wanted[max(offset, 0) :], strict=True)
    )
    if not fits:
        shape = f"[{', '.join(map(str, wanted))}]"
        fail(Kind.CANNOT_BROADCAST, span, found=x.type, shape=shape)
    return Tensor(spread(frame, span, x, x.axes, wanted), x.axes)


_FULL_SUMMARY = "a tensor of a shape with one value"
_FULL = Parameters("shape", "value", "dtype", required=2)


def _full(
    frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
) -> Value:
    """A number takes the dtype that is given or that the context asks for."""
    given = _FULL.match("full", arguments, span)
    default = common_dtype(frame, span, [given["value"].value])
    if expected is not None and isinstance(given["value"].value, Number | Formula):
        default = expected.dtype or default
    dtype = dtype_argument(given, default)
    type = ir.TensorType(dtype, shape_argument(given["shape"]))
    value, place = given["value"].value, given["value"].span
    if isinstance(value, Tensor | Product):
        tensor = as_tensor(frame, place, value)
        if not tensor.shape and tensor.dtype is dtype:
            return Tensor(spread(frame, place, tensor, tensor.axes, type.shape), tensor.axes)
    return coerce(frame, place, value, type, what="the value")


def _iota(frame: Frame, span: Span, given: Given) -> Value:
    (size,) = shape_argument(given["size"])[:1] or (0,)
    type = ir.TensorType(dtype_argument(given, ir.DType.I32), (size,))
    return Tensor(frame.emit(span, ir.Iota, axis=0, type=type))


def dtype_argument(given: Given, default: ir.DType) -> ir.DType:
    """The argument `dtype`, or the default where it is not given."""
    argument = given.get("dtype")
    if argument is None:
        return default
    if not isinstance(argument.value, ElementType):
        wrong_kind("dtype", "a dtype", argument)
    return argument.value.dtype


_FUNCTIONS: Table = {
    "reshape": (_reshape, "the same elements in another shape", ("x", "shape"), 2),
    "transpose": (_transpose, "the axes in another order, reversed by default", ("x", "axes"), 1),
    "concat": (_concat, "tensors one after another along an axis", ("tensors", "axis"), 1),
    "broadcast": (_broadcast, "the tensor repeated to a shape", ("x", "shape"), 2),
    "iota": (_iota, "the numbers 0, 1, .. as a tensor", ("size", "dtype"), 1),
}


SHAPING: Mapping[str, Value] = {
    **functions_of(_FUNCTIONS),
    "full": Builtin("full", _FULL_SUMMARY, _full, usage=_FULL.usage),
}
"""The shaping functions by name."""
