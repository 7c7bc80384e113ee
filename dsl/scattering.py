"""Functions that put elements where positions say that are computed: scatters and sums of
segments."""

from __future__ import annotations

from functools import partial

from mapsto import ir
from mapsto.dsl.calling import Given, Table, functions_of
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.gathering import gather
from mapsto.dsl.rearranging import reshaped, tensor_argument
from mapsto.dsl.shaping import shape_argument
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import (
    as_tensor,
    common_dtype,
    dimension_notes,
    elementwise,
    select,
    sorted_variables,
    spread,
)
from mapsto.dsl.values import Argument, Group, Number, Tensor, Value

__all__ = ["SCATTERING"]

_OPS = {"max": ir.ScatterMax, "min": ir.ScatterMin}
_COMBINE = {"add": ir.Add, "max": ir.Max, "min": ir.Min}


def _positions(frame: Frame, argument: Argument) -> Tensor:
    """An argument that is a tensor of positions."""
    ids = as_tensor(frame, argument.span, argument.value, ir.DType.I32)
    if not ids.dtype.is_integer:
        fail(Kind.BAD_INDEX, argument.span, found=ids.type)
    return ids


def _into(
    frame: Frame, span: Span, kind: str, ids: Tensor, updates: Tensor, shape: tuple[ir.Dim, ...]
) -> Tensor:
    """The updates combined at their positions along the first axis of a tensor of this shape.

    At each point of index variables on its own.
    """
    axes = sorted_variables((*ids.axes, *updates.axes))
    batch = (*(v.extent for v in axes), *ids.shape)
    index = spread(frame, span, ids, axes, ids.shape)
    type_ = ir.TensorType(ids.dtype, batch)
    indices = [frame.emit(span, ir.Iota, axis=i, type=type_) for i in range(len(axes))]
    values = spread(frame, span, updates, axes, (*ids.shape, *shape[1:]))
    facts: Facts = {
        "axes": tuple(range(len(axes) + 1)),
        "shape": (*(v.extent for v in axes), *shape),
    }
    if kind == "add":
        with frame.building(span) as build:
            return Tensor(ir.scatter_sum(build, values, [*indices, index], **facts), axes)
    return Tensor(frame.emit(span, _OPS[kind], values, *indices, index, **facts), axes)


def _checked_updates(
    frame: Frame, span: Span, given: Given, ids: Tensor, target: ir.TensorType
) -> Tensor:
    """The updates, which have the shape of the ids and then that of an element of the target."""
    argument = given["updates"]
    updates = as_tensor(frame, argument.span, argument.value, target.dtype)
    if not target.shape:
        fail(Kind.NOT_ITERABLE, given["target"].span, found="a scalar")
    wanted = ir.TensorType(target.dtype, (*ids.shape, *target.shape[1:]))
    if updates.dtype is not target.dtype:
        facts: Facts = {"what": "the updates", "expected": wanted, "found": updates.type}
        fail(Kind.WRONG_DTYPE, argument.span, **facts)
    offset = len(wanted.shape) - len(updates.shape)
    fits = offset >= 0 and all(
        a in (1, b) for a, b in zip(updates.shape, wanted.shape[max(offset, 0) :], strict=True)
    )
    if not fits:
        facts = {"what": "the updates", "expected": wanted, "found": updates.type}
        notes = dimension_notes(frame, (*updates.shape, *wanted.shape))
        fail(Kind.WRONG_SHAPE, argument.span, notes=notes, **facts)
    return updates


def _scatter_by(kind: str, frame: Frame, span: Span, given: Given) -> Value:
    """`target` is a tensor, or a shape, which stands for zeros."""
    ids, argument = _positions(frame, given["ids"]), given["target"]
    base: Tensor | None = None
    if isinstance(argument.value, Group | Number):
        dtype = common_dtype(frame, span, [given["updates"].value])
        target = ir.TensorType(dtype, shape_argument(argument))
    else:
        base = as_tensor(frame, argument.span, argument.value)
        target = base.type
    updates = _checked_updates(frame, span, given, ids, target)
    result = _into(frame, span, kind, ids, updates, target.shape)
    if base is None and kind == "add":
        return result
    return elementwise(frame, span, _COMBINE[kind], [result, Number(0) if base is None else base])


def _scatter(frame: Frame, span: Span, given: Given) -> Value:
    """The target with the updates in place of elements; the last of several for one place."""
    ids = _positions(frame, given["ids"])
    target = tensor_argument(frame, given, "target")
    updates = _checked_updates(frame, span, given, ids, target.type)
    count, size = ir.product(ids.shape), target.shape[:1]
    order = frame.emit(span, ir.Iota, axis=0, type=ir.TensorType(ir.DType.I32, (count,)))
    numbers = reshaped(frame, span, Tensor(order), ids.shape)
    last = _into(frame, span, "max", ids, numbers, size)
    found = elementwise(frame, span, ir.Ge, [last, Number(0)])
    position = elementwise(frame, span, ir.Max, [last, Number(0)])
    rest = target.shape[1:]
    full = spread(frame, span, updates, updates.axes, (*ids.shape, *rest))
    flat = reshaped(frame, span, Tensor(full, updates.axes), (count, *rest))
    chosen = gather(frame, span, flat, [position, *[None] * len(rest)])
    condition = reshaped(frame, span, found, (*size, *[1] * len(rest)))
    return select(frame, span, condition, chosen, target)


def _segment(kind: str, frame: Frame, span: Span, given: Given) -> Value:
    x = tensor_argument(frame, given)
    ids = _positions(frame, given["ids"])
    (count,) = shape_argument(given["segments"])[:1] or (0,)
    rank = len(ids.shape)
    if x.shape[:rank] != ids.shape:
        facts: Facts = {"left": x.type, "right": ids.type}
        notes = dimension_notes(frame, (*x.shape[:rank], *ids.shape))
        fail(Kind.SHAPES_DIFFER, span, notes=notes, **facts)
    return _into(frame, span, kind, ids, x, (count, *x.shape[rank:]))


_FUNCTIONS: Table = {
    "scatter": (
        _scatter,
        "the target with updates in place of its elements at ids along the first axis; the last "
        "of several counts",
        ("target", "ids", "updates"),
        3,
    ),
    **{
        f"scatter_{kind}": (partial(_scatter_by, kind), summary, ("target", "ids", "updates"), 3)
        for kind, summary in (
            ("add", "the target (or zeros of a shape) plus updates at ids along the first axis"),
            ("max", "the greatest of the target's elements and of updates at ids"),
            ("min", "the least of the target's elements and of updates at ids"),
        )
    },
    **{
        name: (partial(_segment, kind), summary, ("x", "ids", "segments"), 3)
        for name, kind, summary in (
            (
                "segment_sum",
                "add",
                "the sums of the elements with id 0, 1, .. along the first axis",
            ),
            ("segment_max", "max", "the greatest of the elements with each id; -inf for none"),
            ("segment_min", "min", "the least of the elements with each id; inf for none"),
        )
    },
}

SCATTERING = functions_of(_FUNCTIONS)
"""The functions by name."""
