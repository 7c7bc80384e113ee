"""Functions along an axis on which each element depends on others before it, or on their order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mapsto import ir
from mapsto.dsl.calling import Given, Table, flag, functions_of
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.rearranging import one_axis, tensor_argument
from mapsto.dsl.shaping import shape_argument
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import (
    as_tensor,
    broadcast_shape,
    common_dtype,
    describe,
    sorted_variables,
    spread,
)
from mapsto.dsl.values import Argument, Group, Tensor, Value

__all__ = ["ORDERING"]


def _numbers(frame: Frame, span: Span, given: Given, name: str) -> Tensor:
    """The argument `x`, of numbers."""
    x = tensor_argument(frame, given)
    if x.dtype is ir.DType.BOOL:
        fail(Kind.DTYPE_NOT_ACCEPTED, given["x"].span, operation=name, dtype=x.dtype)
    return x


# ---- running reductions

_KINDS = {"cumsum": "sum", "cumprod": "prod", "cummax": "max", "cummin": "min"}


def _cumulative(name: str, frame: Frame, span: Span, given: Given) -> Value:
    x = _numbers(frame, span, given, name)
    axis = len(x.axes) + one_axis(given, len(x.shape), default=-1)
    reverse, kind = flag(given, "reverse"), _KINDS[name]
    with frame.building(span) as build:
        result = build.emit(ir.Cumulative, x.value, kind=kind, axis=axis, reverse=reverse)
        if flag(given, "exclusive"):
            first = ir.reduction_identity(kind, x.dtype)
            result = ir.shifted(build, result, axis, reverse, first)
    return Tensor(result, x.axes)


def _recurrence(frame: Frame, span: Span, given: Given) -> Value:
    values = [given["a"].value, given["x"].value]
    dtype = common_dtype(frame, span, values)
    if not dtype.is_float:
        fail(Kind.DTYPE_NOT_ACCEPTED, span, operation="recurrence", dtype=dtype)
    tensors = [as_tensor(frame, span, value, dtype) for value in values]
    axes = sorted_variables(variable for tensor in tensors for variable in tensor.axes)
    shape = broadcast_shape(frame, span, tensors)
    axis = len(axes) + one_axis(given, len(shape), default=-1)
    operands = [spread(frame, span, tensor, axes, shape) for tensor in tensors]
    order = {"axis": axis, "reverse": flag(given, "reverse")}
    return Tensor(frame.emit(span, ir.Recurrence, *operands, **order), axes)


# ---- order


def _positions(frame: Frame, span: Span, x: Tensor, axis: int, count: ir.Dim, down: bool) -> Tensor:
    """The positions of the first `count` elements in order."""
    facts = {"axis": len(x.axes) + axis, "count": count, "descending": down}
    return Tensor(frame.emit(span, ir.ArgSort, x.value, **facts), x.axes)


def _taken(frame: Frame, span: Span, x: Tensor, positions: Tensor, axis: int) -> Tensor:
    with frame.building(span) as build:
        return Tensor(ir.take_along(build, x.value, positions.value, len(x.axes) + axis), x.axes)
    raise AssertionError


def _argsort(frame: Frame, span: Span, given: Given) -> Tensor:
    x = tensor_argument(frame, given)
    axis = one_axis(given, len(x.shape), default=-1)
    return _positions(frame, span, x, axis, x.shape[axis], flag(given, "descending"))


def _sort(frame: Frame, span: Span, given: Given) -> Value:
    x = tensor_argument(frame, given)
    axis = one_axis(given, len(x.shape), default=-1)
    return _taken(frame, span, x, _argsort(frame, span, given), axis)


def _top_k(frame: Frame, span: Span, given: Given) -> Value:
    """The pair of values and positions."""
    x = tensor_argument(frame, given)
    axis = one_axis(given, len(x.shape), default=-1)
    count = _count(given["k"], x.shape[axis])
    positions = _positions(frame, span, x, axis, count, True)
    return Group((_taken(frame, span, x, positions, axis), positions))


def _count(argument: Argument, extent: ir.Dim) -> ir.Dim:
    counts = shape_argument(argument)
    if len(counts) != 1:
        fail(Kind.NOT_A_WHOLE_NUMBER, argument.span, found=describe(argument.value))
    (count,) = counts
    if isinstance(count, int) and isinstance(extent, int) and count > extent:
        fail(Kind.TOO_MANY_ELEMENTS, argument.span, count=count, size=extent)
    return count


def _running(name: str) -> Callable[[Frame, Span, Given], Value]:
    return partial(_cumulative, name)


_WAY = ("x", "axis", "reverse", "exclusive")
_FUNCTIONS: Table = {
    "cumsum": (
        _running("cumsum"),
        "running sums along an axis, the last by default; `reverse` starts at the end, "
        "`exclusive` leaves out the element itself",
        _WAY,
        1,
    ),
    "cumprod": (_running("cumprod"), "running products along an axis", _WAY, 1),
    "cummax": (_running("cummax"), "the greatest element so far along an axis", _WAY, 1),
    "cummin": (_running("cummin"), "the least element so far along an axis", _WAY, 1),
    "recurrence": (
        _recurrence,
        "h[i] = a[i] * h[i - 1] + x[i] along an axis, from h = 0",
        ("a", "x", "axis", "reverse"),
        2,
    ),
    "sort": (
        _sort,
        "the elements in ascending order along an axis, the last by default; stable, and nan "
        "counts as greatest",
        ("x", "axis", "descending"),
        1,
    ),
    "argsort": (
        _argsort,
        "the positions (i32) that sort the elements along an axis",
        ("x", "axis", "descending"),
        1,
    ),
    "top_k": (
        _top_k,
        "the pair of the k greatest elements along an axis in descending order and their positions",
        ("x", "k", "axis"),
        2,
    ),
}

ORDERING = functions_of(_FUNCTIONS)
"""The functions by name."""
