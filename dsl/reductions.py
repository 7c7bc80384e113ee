"""Reductions: over bound indices, `sum[k](e)`, and over axes, `sum(x, axis=-1)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapsto import ir
from mapsto.dsl.calling import Given, Parameters, flag
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.evaluation import scalar_or_tensor
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_integer
from mapsto.dsl.tensors import (
    affine,
    as_access,
    as_tensor,
    describe,
    elementwise,
    sorted_variables,
    spread,
)
from mapsto.dsl.values import (
    Access,
    Argument,
    Builtin,
    Expected,
    Group,
    IndexVariable,
    Nothing,
    Number,
    ParameterTree,
    Product,
    Tensor,
    Truth,
    Value,
)

__all__ = ["REDUCTIONS", "reduce_variables"]

_SUMMARIES = {
    "sum": "the sum",
    "prod": "the product",
    "max": "the greatest element; nan if one is nan",
    "min": "the least element; nan if one is nan",
    "mean": "the arithmetic mean; of truth values, how many are true, in f32",
    "any": "whether any is true",
    "all": "whether all are true",
    "argmax": "the first position of the greatest element, i32",
    "argmin": "the first position of the least element, i32",
}
_POSITIONS = {"argmax": ir.ArgMax, "argmin": ir.ArgMin}
_LOGICAL = {"any": "max", "all": "min"}


def reduce_variables(
    frame: Frame, span: Span, name: str, value: Value, variables: Sequence[IndexVariable]
) -> Tensor:
    """Reduces a value over index variables: one contraction for a product of accesses."""
    if name in _POSITIONS:
        return _position(frame, span, name, value, variables)
    if name in ("mean", "any", "all"):
        value = as_tensor(frame, span, value)
    if name in _LOGICAL:
        return _logical(frame, span, name, as_tensor(frame, span, value), variables)
    if name == "mean":
        tensor = _as_float(frame, span, as_tensor(frame, span, value))
        total = reduce_variables(frame, span, "sum", tensor, variables)
        count = Number(ir.product(tuple(variable.extent for variable in variables)))
        return elementwise(frame, span, ir.Div, [total, count])
    return _contract(frame, span, name, value, variables)


def _contract(
    frame: Frame, span: Span, kind: str, value: Value, variables: Sequence[IndexVariable]
) -> Tensor:
    own: tuple[IndexVariable, ...] = ()
    if isinstance(value, Product) and value.dtype is not ir.DType.BOOL:
        factors = value.factors
    else:
        tensor = _countable(frame, span, as_tensor(frame, span, value))
        own = tuple(IndexVariable("", dim, span) for dim in tensor.shape)
        factors = (as_access(Tensor(tensor.value, (*tensor.axes, *own))),)
    used = {variable for factor in factors for variable in factor.variables}
    kept = (*sorted_variables(used - {*variables, *own}), *own)
    order = (*kept, *variables)
    maps = [_map(factor, order) for factor in factors]
    operands = [factor.tensor for factor in factors]
    extents = [variable.extent for variable in order]
    result = frame.contract(span, operands, maps, extents, len(kept), kind)
    return Tensor(result, kept[: len(kept) - len(own)])


def _map(factor: Access, order: Sequence[IndexVariable]) -> ir.AffineMap:
    return ir.AffineMap(len(order), tuple(affine(p, order) for p in factor.positions))


def _countable(frame: Frame, span: Span, tensor: Tensor) -> Tensor:
    """Truth values count as 0 and 1."""
    if tensor.dtype is not ir.DType.BOOL:
        return tensor
    return elementwise(frame, span, ir.Cast, [tensor], dtype=ir.DType.I32)


def _as_float(frame: Frame, span: Span, tensor: Tensor) -> Tensor:
    if tensor.dtype.is_float:
        return tensor
    if tensor.dtype is ir.DType.BOOL:
        return elementwise(frame, span, ir.Cast, [tensor], dtype=ir.DType.F32)
    return fail(Kind.DTYPE_NOT_ACCEPTED, span, help=Help.CAST, operation="mean", dtype=tensor.dtype)


def _logical(
    frame: Frame, span: Span, name: str, tensor: Tensor, variables: Sequence[IndexVariable]
) -> Tensor:
    if tensor.dtype is not ir.DType.BOOL:
        fail(Kind.NOT_A_TRUTH_VALUE, span, found=tensor.type, operator=name)
    number = _countable(frame, span, tensor)
    reduced = _contract(frame, span, _LOGICAL[name], number, variables)
    return elementwise(frame, span, ir.Gt, [reduced, Number(0)])


def _position(
    frame: Frame, span: Span, name: str, value: Value, variables: Sequence[IndexVariable]
) -> Tensor:
    """The position along one index; the tensor is spread over it if it does not depend on it."""
    if len(variables) != 1:
        fail(Kind.ONE_INDEX, span, name=name)
    if variables[0].extent == 0:
        fail(Kind.TOO_SMALL, span, what=f"the size that `{name}` searches", found=0, least=1)
    tensor = as_tensor(frame, span, value)
    if tensor.dtype is ir.DType.BOOL:
        tensor = _countable(frame, span, tensor)
    axes = sorted_variables((*tensor.axes, variables[0]))
    full = spread(frame, span, tensor, axes, tensor.shape)
    axis = axes.index(variables[0])
    result = frame.emit(span, _POSITIONS[name], full, axis=axis)
    return Tensor(result, tuple(v for v in axes if v is not variables[0]))


_AXES = Parameters("x", "axis", "keepdims", required=1)


def _reduce_axes(name: str, frame: Frame, span: Span, arguments: tuple[Argument, ...]) -> Value:
    given = _AXES.match(name, arguments, span)
    x = given["x"]
    if isinstance(x.value, ParameterTree) and name not in _POSITIONS and not _chooses(given):
        return _reduce_tree(frame, span, name, x.value)
    if not isinstance(x.value, Tensor | Product | Number | Truth):
        fail(Kind.NOT_A_TENSOR, x.span, found=describe(x.value))
    tensor = as_tensor(frame, span, x.value)
    default = (len(tensor.shape) - 1,) if name in _POSITIONS else tuple(range(len(tensor.shape)))
    _check_no_tensor(name, given)
    axes = _axes(given["axis"], len(tensor.shape)) if "axis" in given else default
    own = [IndexVariable("", dim, span) for dim in tensor.shape]
    labelled = Tensor(tensor.value, (*tensor.axes, *own))
    if name in _POSITIONS and not tensor.shape:
        fail(Kind.NOT_A_TENSOR, x.span, found="a scalar")
    reduced = reduce_variables(frame, span, name, labelled, [own[a] for a in axes])
    result = Tensor(reduced.value, tensor.axes)
    if not flag(given, "keepdims"):
        return result
    shape = tuple(1 if i in axes else dim for i, dim in enumerate(tensor.shape))
    leading = result.value.shape[: len(tensor.axes)]
    value = frame.emit(span, ir.Reshape, result.value, shape=(*leading, *shape))
    return Tensor(value, tensor.axes)


def _chooses(given: Mapping[str, Argument]) -> bool:
    """Whether axes are chosen or kept."""
    others = [argument.value for name, argument in given.items() if name != "x"]
    return any(value not in (Nothing(), Truth(False)) for value in others)


_COMBINED = {
    "sum": ir.Add,
    "prod": ir.Mul,
    "max": ir.Max,
    "min": ir.Min,
    "any": ir.Or,
    "all": ir.And,
}


def _reduce_tree(frame: Frame, span: Span, name: str, tree: ParameterTree) -> Tensor:
    """Reduces over all elements of all tensors; those of different dtypes meet in the widest."""
    if name == "mean":
        total = _reduce_tree(frame, span, "sum", tree)
        count = sum((ir.product(leaf.shape) for _, leaf in tree), start=0)
        return elementwise(frame, span, ir.Div, [total, Number(count)])
    parts = [_reduction(name, frame, span, leaf) for _, leaf in tree]
    if not parts:
        fail(Kind.NOT_A_TENSOR, span, found="a tree without parameters")
    widest = max((part.dtype for part in parts), key=lambda dtype: dtype.bits)
    result, *rest = [_in_dtype(frame, span, part, widest) for part in parts]
    for part in rest:
        result = elementwise(frame, span, _COMBINED[name], [result, part])
    return result


def _reduction(name: str, frame: Frame, span: Span, value: Value) -> Tensor:
    """A reduction of all elements of a tensor or of a tree."""
    return as_tensor(frame, span, _reduce_axes(name, frame, span, (Argument(None, value, span),)))


def _in_dtype(frame: Frame, span: Span, tensor: Tensor, dtype: ir.DType) -> Tensor:
    if tensor.dtype is dtype:
        return tensor
    return elementwise(frame, span, ir.Cast, [tensor], dtype=dtype)


def _check_no_tensor(name: str, given: Given) -> None:
    """`max(x, y)` of two tensors, which is `maximum(x, y)` here."""
    axis = given.get("axis")
    if name in ("max", "min") and axis is not None and scalar_or_tensor(axis.value):
        found, help = describe(axis.value), Help.GREATER_OF_TWO
        fail(Kind.NOT_A_WHOLE_NUMBER, axis.span, help=help, found=found, name=name)


def _axes(argument: Argument, rank: int) -> tuple[int, ...]:
    value = argument.value
    items = value.items if isinstance(value, Group) else (value,)
    axes = []
    for item in items:
        axis = static_integer(item, argument.span)
        if not -rank <= axis < rank:
            fail(Kind.AXIS_OUT_OF_RANGE, argument.span, axis=axis, rank=rank)
        axes.append(axis % rank)
    if len(set(axes)) != len(axes):
        fail(Kind.REPEATED_AXIS, argument.span)
    return tuple(axes)


def _builtin(name: str, summary: str) -> Builtin:
    def apply(
        frame: Frame, span: Span, arguments: tuple[Argument, ...], expected: Expected | None
    ) -> Value:
        return _reduce_axes(name, frame, span, arguments)

    return Builtin(name, summary, apply, reduction=True, usage=_AXES.usage)


REDUCTIONS = {name: _builtin(name, summary) for name, summary in _SUMMARIES.items()}
"""The reductions by name."""
