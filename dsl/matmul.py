"""The matrix product `x @ w` as a contraction, with NumPy's rules for ranks and batches."""

from __future__ import annotations

from mapsto import ir
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import as_tensor, describe, dimension_notes, sorted_variables
from mapsto.dsl.values import IndexVariable, Tensor, Value

__all__ = ["matrix_product"]


def matrix_product(frame: Frame, span: Span, left: Value, right: Value) -> Tensor:
    """Contracts the last axis of `left` with the last but one (or only) axis of `right`."""
    x, w = as_tensor(frame, span, left), as_tensor(frame, span, right)
    for operand in (x, w):
        if not operand.shape:
            fail(Kind.BAD_OPERAND, span, operator="@", found=f"the scalar {describe(operand)}")
    if x.dtype is not w.dtype:
        fail(Kind.DTYPES_DIFFER, span, help=Help.CAST, left=x.dtype, right=w.dtype)
    if x.dtype is ir.DType.BOOL:
        fail(Kind.DTYPE_NOT_ACCEPTED, span, operation="@", dtype=x.dtype)
    inner, other = x.shape[-1], w.shape[-2:][0]
    if inner != other:
        notes = dimension_notes(frame, (inner, other))
        facts: Facts = {"left": x.type, "right": w.type, "first": inner, "second": other}
        fail(Kind.PRODUCT_SHAPES_DIFFER, span, notes=notes, **facts)
    return _contract(frame, span, x, w)


def _contract(frame: Frame, span: Span, x: Tensor, w: Tensor) -> Tensor:
    """The domain is: index variables, batch axes, rows of x, columns of w, the inner axis."""
    axes = sorted_variables((*x.axes, *w.axes))
    batch = _batch(frame, span, x, w)
    rows, columns = x.shape[-2:-1], w.shape[-1:] if len(w.shape) > 1 else ()
    result = (*(v.extent for v in axes), *batch, *rows, *columns)
    extents = (*result, x.shape[-1])
    rank = len(extents)
    row, column = len(axes) + len(batch), len(axes) + len(batch) + len(rows)
    x_tail = [*([row] if rows else []), rank - 1]
    w_tail = [rank - 1, *([column] if columns else [])]
    x_map = _map(x, axes, batch, x_tail, rank)
    w_map = _map(w, axes, batch, w_tail, rank)
    operands, maps = [x.value, w.value], [x_map, w_map]
    value = frame.contract(span, operands, maps, extents, len(result))
    return Tensor(value, axes)


def _batch(frame: Frame, span: Span, x: Tensor, w: Tensor) -> tuple[ir.Dim, ...]:
    left, right = x.shape[:-2], w.shape[:-2]
    rank = max(len(left), len(right))
    pairs = zip((1,) * (rank - len(left)) + left, (1,) * (rank - len(right)) + right, strict=True)
    dims = []
    for a, b in pairs:
        if a != b and 1 not in (a, b):
            notes = dimension_notes(frame, (a, b))
            facts: Facts = {"left": x.type, "right": w.type, "first": a, "second": b}
            fail(Kind.PRODUCT_SHAPES_DIFFER, span, notes=notes, **facts)
        dims.append(b if a == 1 else a)
    return tuple(dims)


def _map(
    tensor: Tensor,
    axes: tuple[IndexVariable, ...],
    batch: tuple[ir.Dim, ...],
    tail: list[int],
    rank: int,
) -> ir.AffineMap:
    """Where the tensor is read; a batch axis of size 1 stretches, so it is read at 0."""
    exprs = [ir.axis(axes.index(variable), rank) for variable in tensor.axes]
    own = tensor.shape[: len(tensor.shape) - len(tail)]
    first = len(batch) - len(own)
    for i, dim in enumerate(own):
        stretched = dim == 1 and batch[first + i] != 1
        position = ir.axis(len(axes) + first + i, rank)
        exprs.append(ir.AffineExpr((0,) * rank) if stretched else position)
    return ir.AffineMap(rank, (*exprs, *(ir.axis(dim, rank) for dim in tail)))
