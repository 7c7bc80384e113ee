"""Slices of one axis with NumPy's rules: `x[1:]`, `x[:-1]`, `x[::2]`."""

from __future__ import annotations

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.evaluation import evaluate
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import Number, Tensor

__all__ = ["slice_axis"]


def slice_axis(frame: Frame, node: syntax.Slice, value: ir.Value, axis: int) -> ir.Value:
    """The elements of one axis that a slice selects."""
    if node.start is None and node.stop is None and node.step is None:
        return value
    dim = value.shape[axis]
    step = 1 if node.step is None else _whole(node.step, frame)
    if not isinstance(step, int) or step == 0:
        fail(Kind.BAD_SLICE, node.span, text=node.span.text)
    start, size = _range(frame, node, dim, step)
    if isinstance(size, int) and size < 0:
        size = 0
    rank = len(value.shape)
    starts = tuple(start if i == axis else 0 for i in range(rank))
    sizes = tuple(size if i == axis else value.shape[i] for i in range(rank))
    steps = tuple(step if i == axis else 1 for i in range(rank))
    result: ir.Value = frame.emit(
        node.span, ir.Slice, value, starts=starts, sizes=sizes, steps=steps
    )
    return result


def _range(frame: Frame, node: syntax.Slice, dim: ir.Dim, step: int) -> tuple[ir.Dim, ir.Dim]:
    """The first position and the number of positions."""
    if isinstance(dim, int):
        parts = [None if part is None else _whole(part, frame) for part in (node.start, node.stop)]
        if all(part is None or isinstance(part, int) for part in parts):
            selected = range(*slice(parts[0], parts[1], step).indices(dim))
            return (selected.start if len(selected) else 0), len(selected)
    first: ir.Dim = 0 if step > 0 else dim - 1
    start = first if node.start is None else _bound(frame, node.start, dim)
    stop = _bound(frame, node.stop, dim) if node.stop is not None else dim if step > 0 else -1
    if step > 0:
        return start, ir.floor_div(stop - start + (step - 1), step)
    return start, ir.floor_div(start - stop + (-step - 1), -step)


def _bound(frame: Frame, part: syntax.Expression, dim: ir.Dim) -> ir.Dim:
    value = _whole(part, frame)
    return value + dim if isinstance(value, int) and value < 0 else value


def _whole(part: syntax.Expression, frame: Frame) -> ir.Dim:
    """A part of a slice: the size of the result follows from it, so it has to be known."""
    value = evaluate(part, frame)
    if isinstance(value, Number) and not isinstance(value.value, float):
        return value.value
    help = Help.COMPUTED_START if isinstance(value, Tensor) else None
    return fail(Kind.NOT_A_WHOLE_NUMBER, part.span, help=help, found=describe(value))
