"""Gathers: accesses in which an index is itself a tensor, `table[ids[n], d]`."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto import ir
from mapsto.dsl.frame import Frame
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import (
    affine,
    as_tensor,
    broadcast_shape,
    elementwise,
    read,
    select,
    sorted_variables,
    spread,
)
from mapsto.dsl.values import Access, IndexVariable, Number, Position, Tensor
from mapsto.ir.bounds import inside_above, inside_below

__all__ = ["gather"]


def gather(
    frame: Frame, span: Span, base: Tensor, items: Sequence[Position | Tensor | None]
) -> Tensor:
    """Reads `base` with a tensor, a position or None (the whole axis) for each axis of its shape.

    A position that shares an index with an index tensor becomes an index tensor too, so that
    `p[n, y[n]]` reads one element for each n; where it is outside, the result is zero, as in any
    affine access.  As in NumPy, the axes of adjacent index tensors take the place of the axes that
    they index; else they come first.
    """
    positions: list[Position | Tensor | None] = [*map(Position.of, base.axes), *items]
    given = [item for item in positions if isinstance(item, Tensor)]
    involved = {variable for tensor in given for variable in tensor.axes}
    inside: list[Tensor] = []
    for axis, item in enumerate(positions):
        if isinstance(item, Position) and involved & set(item.variables):
            index = as_tensor(frame, span, item, given[0].dtype)
            if not _is_inside(item, base.value.shape[axis]):
                inside.append(_inside(frame, span, index, base.value.shape[axis]))
                index = select(frame, span, inside[-1], index, Number(0))
            positions[axis] = index
    axes = tuple(a for a, item in enumerate(positions) if isinstance(item, Tensor))
    tensors = [item for item in positions if isinstance(item, Tensor)]
    variables = sorted_variables(v for tensor in tensors for v in tensor.axes)
    shape = broadcast_shape(frame, span, tensors)
    indices = [spread(frame, span, tensor, variables, shape) for tensor in tensors]
    value = frame.emit(span, ir.Gather, base.value, *indices, axes=axes)
    whole = [a for a, item in enumerate(positions) if item is None]
    adjacent = axes == tuple(range(axes[0], axes[0] + len(axes)))
    before = [a for a in whole if adjacent and a < axes[0]]
    own = {a: IndexVariable("", base.value.shape[a], span) for a in before}
    batch = [IndexVariable("", dim, span) for dim in shape]
    own |= {a: IndexVariable("", base.value.shape[a], span) for a in whole if a not in own}
    reads = [*map(Position.of, (*variables, *batch))]
    for axis, item in enumerate(positions):
        if not isinstance(item, Tensor):
            reads.append(Position.of(own[axis]) if item is None else item)
    access = Access(value, tuple(reads))
    order = sorted_variables(access.variables)
    left = len(batch) + len(own)
    result = Tensor(read(frame, span, access, order), order[: len(order) - left])
    for condition in inside:
        result = select(frame, span, condition, result, Number(0))
    return result


def _is_inside(position: Position, size: ir.Dim) -> bool:
    """Whether a position is provably inside an axis of this size."""
    expr = affine(position, position.variables)
    extents = [variable.extent for variable in position.variables]
    return inside_below(expr, extents) and inside_above(expr, extents, size)


def _inside(frame: Frame, span: Span, index: Tensor, size: ir.Dim) -> Tensor:
    above = elementwise(frame, span, ir.Ge, [index, Number(0)])
    return elementwise(
        frame, span, ir.And, [above, elementwise(frame, span, ir.Lt, [index, Number(size)])]
    )
