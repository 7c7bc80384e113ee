"""The function `pad`: a constant, a mirror image, the edge or the other end around a tensor."""

from __future__ import annotations

from mapsto import ir
from mapsto.dsl.calling import Given, Table, functions_of
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.rearranging import cut, join, tensor_argument
from mapsto.dsl.shaping import shape_argument
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import coerce, describe, list_dims, select, spread
from mapsto.dsl.values import Argument, Group, Number, Tensor, Text, Value

__all__ = ["PADDING"]

_MODES = ("constant", "reflect", "edge", "wrap")
Width = tuple[ir.Dim, ir.Dim]
"""How many elements come before and after."""


def _pad(frame: Frame, span: Span, given: Given) -> Value:
    """`widths` is one width for all sides, or a list with a width, or `[before, after]`, for each
    axis."""
    x = tensor_argument(frame, given)
    widths = _widths(given["widths"], x)
    mode = _mode(given)
    if mode == "constant":
        return _constant(frame, span, x, widths, given.get("value"))
    for axis, (before, after) in enumerate(widths):
        if (before, after) == (0, 0):
            continue
        _check_extent(span, x, mode, x.shape[axis], (before, after))
        low, high = _sides(frame, span, x, axis, mode, (before, after))
        x = join(frame, span, [low, x, high], axis)
    return x


def _widths(argument: Argument, x: Tensor) -> list[Width]:
    rank = len(x.shape)
    if not isinstance(argument.value, Group):
        (width,) = shape_argument(argument)
        return [(width, width)] * rank
    items = argument.value.items
    if len(items) != rank:
        fail(Kind.CANNOT_PAD, argument.span, found=x.type, text=argument.span.text)
    widths = []
    for item in items:
        both = shape_argument(Argument(None, item, argument.span))
        if len(both) > 2 or not both:
            fail(Kind.CANNOT_PAD, argument.span, found=x.type, text=argument.span.text)
        widths.append((both[0], both[-1]))
    return widths


def _mode(given: Given) -> str:
    argument = given.get("mode")
    if argument is None:
        return "constant"
    value = argument.value
    if not isinstance(value, Text) or value.value not in _MODES:
        found = f'"{value.value}"' if isinstance(value, Text) else describe(value)
        expected = " or ".join(f'"{mode}"' for mode in _MODES)
        fail(Kind.WRONG_VALUE, argument.span, what="`mode`", expected=expected, found=found)
    return value.value


def _constant(
    frame: Frame, span: Span, x: Tensor, widths: list[Width], value: Argument | None
) -> Tensor:
    filling = Number(0) if value is None else value.value
    outer = (0,) * len(x.axes)
    low, high = (tuple(width[side] for width in widths) for side in (0, 1))
    facts = {"low": (*outer, *low), "high": (*outer, *high)}
    if isinstance(filling, Number) and isinstance(filling.value, int | float):
        if x.dtype is not ir.DType.BOOL:
            coerce(frame, span, filling, ir.TensorType(x.dtype), what="the value")
        number = float(filling.value) if x.dtype.is_float else filling.value
        return Tensor(frame.emit(span, ir.Pad, x.value, value=number, **facts), x.axes)
    assert value is not None
    return _filled(frame, span, x, facts, value)


def _filled(
    frame: Frame, span: Span, x: Tensor, facts: dict[str, tuple[ir.Dim, ...]], value: Argument
) -> Tensor:
    """Padded with a number that is computed."""
    scalar = coerce(frame, value.span, value.value, ir.TensorType(x.dtype), what="the value")
    true = frame.constant(span, True, ir.TensorType(ir.DType.BOOL, x.value.shape))
    inside = Tensor(frame.emit(span, ir.Pad, true.value, value=False, **facts), x.axes)
    padded = Tensor(frame.emit(span, ir.Pad, x.value, **facts), x.axes)
    return select(frame, span, inside, padded, scalar)


def _check_extent(span: Span, x: Tensor, mode: str, extent: ir.Dim, width: Width) -> None:
    """Whether the tensor has the elements that are to be copied."""
    if not isinstance(extent, int):
        return
    largest = {"reflect": extent - 1, "edge": None if extent else 0, "wrap": extent}[mode]
    for side in width:
        if largest is not None and isinstance(side, int) and side > largest:
            fail(Kind.CANNOT_PAD, span, found=x.type, text=f"{list_dims(width)} with `{mode}`")


def _sides(
    frame: Frame, span: Span, x: Tensor, axis: int, mode: str, width: Width
) -> tuple[Tensor, Tensor]:
    """What comes before and after along an axis."""
    (before, after), extent = width, x.shape[axis]
    if mode == "wrap":
        low = cut(frame, span, x, axis, extent - before, before)
        return low, cut(frame, span, x, axis, 0, after)
    if mode == "reflect":
        low = cut(frame, span, x, axis, before, before, -1)
        start = 0 if after == 0 else extent - 2
        return low, cut(frame, span, x, axis, start, after, -1)
    ends = []
    for start, size in ((0, before), (extent - 1, after)):
        edge = cut(frame, span, x, axis, start, 1)
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        ends.append(Tensor(spread(frame, span, edge, x.axes, shape), x.axes))
    return ends[0], ends[1]


_FUNCTIONS: Table = {
    "pad": (
        _pad,
        'the tensor with elements around it: `mode` is "constant" (0, or `value`), "reflect" '
        '(a mirror image), "edge" (the outermost element) or "wrap" (the other end)',
        ("x", "widths", "mode", "value"),
        2,
    ),
}

PADDING = functions_of(_FUNCTIONS)
"""The function `pad` by name."""
