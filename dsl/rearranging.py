"""Functions that put elements in other places: stack, split, flip, roll, tile, repeat, and new or
fewer axes."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto import ir
from mapsto.dsl.calling import Given, Table, functions_of
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.gathering import gather
from mapsto.dsl.shaping import chosen_axes, shape_argument, whole_numbers
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import (
    as_tensor,
    common_dtype,
    describe,
    dimension_notes,
    elementwise,
    list_dims,
    sorted_variables,
    spread,
)
from mapsto.dsl.values import Argument, Group, Number, Position, Tensor, Value

__all__ = ["REARRANGING", "cut", "join", "one_axis", "reshaped", "tensor_argument"]


def tensor_argument(frame: Frame, given: Given, name: str = "x") -> Tensor:
    """The argument of that name as a tensor."""
    return as_tensor(frame, given[name].span, given[name].value)


def one_axis(given: Given, rank: int, default: int = 0) -> int:
    """The argument `axis` of a function that works along one axis; AXIS_OUT_OF_RANGE for none."""
    argument = given.get("axis")
    if argument is None:
        if not -rank <= default < rank:
            fail(Kind.AXIS_OUT_OF_RANGE, given["x"].span, axis=default, rank=rank)
        return default % rank
    axes = chosen_axes(argument, rank)
    if len(axes) != 1:
        fail(Kind.NOT_A_WHOLE_NUMBER, argument.span, found=describe(argument.value))
    return axes[0]


def reshaped(frame: Frame, span: Span, x: Tensor, shape: Sequence[ir.Dim]) -> Tensor:
    """The same elements in row-major order in another shape."""
    leading = x.value.shape[: len(x.axes)]
    return Tensor(frame.emit(span, ir.Reshape, x.value, shape=(*leading, *shape)), x.axes)


def cut(
    frame: Frame, span: Span, x: Tensor, axis: int, start: ir.Dim, size: ir.Dim, step: int = 1
) -> Tensor:
    """`size` elements along an axis from `start` on, `step` apart."""
    place = len(x.axes) + axis
    shape = x.value.shape
    starts = tuple(start if i == place else 0 for i in range(len(shape)))
    sizes = tuple(size if i == place else dim for i, dim in enumerate(shape))
    steps = tuple(step if i == place else 1 for i in range(len(shape)))
    part = frame.emit(span, ir.Slice, x.value, starts=starts, sizes=sizes, steps=steps)
    return Tensor(part, x.axes)


def join(frame: Frame, span: Span, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Tensors one after another along an axis."""
    axes = sorted_variables(variable for part in parts for variable in part.axes)
    values = [spread(frame, span, part, axes, part.shape) for part in parts]
    return Tensor(frame.emit(span, ir.Concat, *values, axis=len(axes) + axis), axes)


# ---- several tensors


def _stack(frame: Frame, span: Span, given: Given) -> Value:
    argument = given["tensors"]
    group = argument.value
    if not isinstance(group, Group) or not group.items:
        fail(Kind.NOT_ITERABLE, argument.span, found=describe(group))
    dtype = common_dtype(frame, span, group.items)
    tensors = [as_tensor(frame, argument.span, item, dtype) for item in group.items]
    shape = tensors[0].shape
    for tensor in tensors:
        if tensor.shape != shape:
            facts: Facts = {"left": tensors[0].type, "right": tensor.type}
            notes = dimension_notes(frame, (*shape, *tensor.shape))
            fail(Kind.SHAPES_DIFFER, span, notes=notes, **facts)
    axis = chosen_axes(given["axis"], len(shape) + 1)[0] if "axis" in given else 0
    raised = (*shape[:axis], 1, *shape[axis:])
    return join(frame, span, [reshaped(frame, span, t, raised) for t in tensors], axis)


def _split(frame: Frame, span: Span, given: Given) -> Value:
    """`parts` is a number of equal parts, or a list of sizes that add up to the axis."""
    x = tensor_argument(frame, given)
    axis = one_axis(given, len(x.shape))
    extent, parts = x.shape[axis], given["parts"]
    sizes = whole_numbers(parts)
    if not isinstance(parts.value, Group):
        (count,) = sizes
        if not isinstance(count, int):
            fail(Kind.NOT_A_WHOLE_NUMBER, parts.span, found=describe(parts.value))
        sizes = (ir.floor_div(extent, max(count, 1)),) * count
    if sum(sizes) != extent or not all(not isinstance(size, int) or size >= 0 for size in sizes):
        facts: Facts = {"found": x.type, "axis": axis, "parts": parts.span.text}
        fail(Kind.CANNOT_SPLIT, span, notes=dimension_notes(frame, (extent,)), **facts)
    starts: list[ir.Dim] = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    pairs = zip(starts, sizes, strict=False)  # The last start is the end.
    return Group(tuple(cut(frame, span, x, axis, start, size) for start, size in pairs), True)


# ---- along an axis


def _flip(frame: Frame, span: Span, given: Given) -> Value:
    x = tensor_argument(frame, given)
    rank = len(x.shape)
    axes = chosen_axes(given["axis"], rank) if "axis" in given else tuple(range(rank))
    for axis in axes:
        extent = x.shape[axis]
        x = cut(frame, span, x, axis, 0 if extent == 0 else extent - 1, extent, -1)
    return x


def _roll(frame: Frame, span: Span, given: Given) -> Value:
    """Element i becomes element i + shift; what leaves at one end comes in at the other."""
    x = tensor_argument(frame, given)
    axis = one_axis(given, len(x.shape), default=-1)
    extent, shift = x.shape[axis], given["shift"].value
    if extent == 0:
        return x
    known = isinstance(shift, Number) and isinstance(shift.value, int)
    if not known or not isinstance(extent, int):
        return _roll_by(frame, span, x, axis, given["shift"])
    (number,) = whole_numbers(given["shift"])
    last = number % extent  # type: ignore[operator]
    parts = [(extent - last, last), (0, extent - last)]
    return join(frame, span, [cut(frame, span, x, axis, *part) for part in parts], axis)


def _roll_by(frame: Frame, span: Span, x: Tensor, axis: int, shift: Argument) -> Value:
    """By a number that is known, or an axis whose size is known, only when it runs."""
    amount = as_tensor(frame, shift.span, shift.value, ir.DType.I32)
    if not amount.dtype.is_integer or amount.shape:
        fail(Kind.NOT_A_WHOLE_NUMBER, shift.span, found=describe(shift.value))
    amount = elementwise(frame, span, ir.Cast, [amount], dtype=ir.DType.I32)
    type_ = ir.TensorType(ir.DType.I32, (x.shape[axis],))
    counted = Tensor(frame.emit(span, ir.Iota, axis=0, type=type_))
    moved = elementwise(frame, span, ir.Sub, [counted, amount])
    source = elementwise(frame, span, ir.Mod, [moved, Number(x.shape[axis])])
    items: list[Position | Tensor | None] = [None] * len(x.shape)
    items[axis] = source
    return gather(frame, span, x, items)


def _repeat(frame: Frame, span: Span, given: Given) -> Value:
    """Each element `times` times in a row."""
    x = tensor_argument(frame, given)
    axis = one_axis(given, len(x.shape), default=-1)
    (times,) = shape_argument(given["times"])[:1] or (1,)
    shape, extent = x.shape, x.shape[axis]
    wide = (*shape[: axis + 1], times, *shape[axis + 1 :])
    raised = reshaped(frame, span, x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    repeated = Tensor(spread(frame, span, raised, x.axes, wide), x.axes)
    return reshaped(frame, span, repeated, (*shape[:axis], extent * times, *shape[axis + 1 :]))


def _tile(frame: Frame, span: Span, given: Given) -> Value:
    """The whole tensor `times[i]` times along axis i; new leading axes where there are more."""
    x = tensor_argument(frame, given)
    times = shape_argument(given["times"])
    rank = max(len(times), len(x.shape))
    times = (1,) * (rank - len(times)) + times
    shape = (1,) * (rank - len(x.shape)) + x.shape
    raised = tuple(dim for extent in shape for dim in (1, extent))
    wide = tuple(d for pair in zip(times, shape, strict=True) for d in pair)
    tiled = Tensor(spread(frame, span, reshaped(frame, span, x, raised), x.axes, wide), x.axes)
    return reshaped(frame, span, tiled, [a * b for a, b in zip(times, shape, strict=True)])


# ---- axes


def _squeeze(frame: Frame, span: Span, given: Given) -> Value:
    """Without axes of size 1: the ones given, or all."""
    x = tensor_argument(frame, given)
    shape = x.shape
    ones = tuple(i for i, dim in enumerate(shape) if dim == 1)
    axes = chosen_axes(given["axis"], len(shape)) if "axis" in given else ones
    kept = [dim for i, dim in enumerate(shape) if i not in axes]
    if not set(axes) <= set(ones):
        fail(Kind.CANNOT_RESHAPE, span, found=x.type, shape=list_dims(kept))
    return reshaped(frame, span, x, kept)


def _expand_dims(frame: Frame, span: Span, given: Given) -> Value:
    """New axes of size 1, so that the result has them at these places."""
    x = tensor_argument(frame, given)
    count = len(whole_numbers(given["axis"]))
    axes = chosen_axes(given["axis"], len(x.shape) + count)
    if len(set(axes)) != len(axes):
        fail(Kind.REPEATED_AXIS, given["axis"].span)
    rest = iter(x.shape)
    shape = [1 if i in axes else next(rest) for i in range(len(x.shape) + count)]
    return reshaped(frame, span, x, shape)


def _permuted(frame: Frame, span: Span, x: Tensor, order: Sequence[int]) -> Tensor:
    leading = len(x.axes)
    permutation = (*range(leading), *(leading + axis for axis in order))
    return Tensor(frame.emit(span, ir.Transpose, x.value, permutation=permutation), x.axes)


def _swap_axes(frame: Frame, span: Span, given: Given) -> Value:
    x = tensor_argument(frame, given)
    rank = len(x.shape)
    first, second = (chosen_axes(given[name], rank)[0] for name in ("first", "second"))
    order = list(range(rank))
    order[first], order[second] = second, first
    return _permuted(frame, span, x, order)


def _move_axis(frame: Frame, span: Span, given: Given) -> Value:
    x = tensor_argument(frame, given)
    rank = len(x.shape)
    source, target = (chosen_axes(given[name], rank)[0] for name in ("source", "target"))
    order = [axis for axis in range(rank) if axis != source]
    order.insert(target, source)
    return _permuted(frame, span, x, order)


def _flatten(frame: Frame, span: Span, given: Given) -> Value:
    """The axes from `start` to `stop`, both included, as one."""
    x = tensor_argument(frame, given)
    rank = len(x.shape)
    if not rank:
        return reshaped(frame, span, x, (1,))
    start = chosen_axes(given["start"], rank)[0] if "start" in given else 0
    stop = chosen_axes(given["stop"], rank)[0] if "stop" in given else rank - 1
    merged = ir.product(x.shape[start : stop + 1])
    if stop < start:
        fail(Kind.BAD_PERMUTATION, span, found=x.type)
    return reshaped(frame, span, x, (*x.shape[:start], merged, *x.shape[stop + 1 :]))


_FUNCTIONS: Table = {
    "stack": (_stack, "tensors of one shape along a new axis", ("tensors", "axis"), 1),
    "split": (
        _split,
        "a list of parts along an axis: so many equal ones, or a list of sizes",
        ("x", "parts", "axis"),
        2,
    ),
    "flip": (_flip, "the elements in reverse along an axis, or all axes", ("x", "axis"), 1),
    "roll": (
        _roll,
        "element i at i + shift along an axis; what leaves comes in at the other end",
        ("x", "shift", "axis"),
        2,
    ),
    "repeat": (
        _repeat,
        "each element along an axis several times in a row",
        ("x", "times", "axis"),
        2,
    ),
    "tile": (_tile, "the tensor several times along each axis", ("x", "times"), 2),
    "squeeze": (_squeeze, "without axes of size 1, or without those given", ("x", "axis"), 1),
    "expand_dims": (_expand_dims, "with new axes of size 1 at these places", ("x", "axis"), 2),
    "swap_axes": (_swap_axes, "two axes exchanged", ("x", "first", "second"), 3),
    "move_axis": (_move_axis, "an axis at another place", ("x", "source", "target"), 3),
    "flatten": (
        _flatten,
        "the axes from `start` to `stop`, both included, as one",
        ("x", "start", "stop"),
        1,
    ),
}

REARRANGING = functions_of(_FUNCTIONS)
"""The rearranging functions by name."""
