"""Index notation: `[i, j] |-> e`, `x[i, 2*j + 1]`, slices, gathers, and reductions `sum[k](e)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.binders import binder_of
from mapsto.dsl.diagnostics import Help, Kind, Note, NoteKind
from mapsto.dsl.evaluation import evaluate, evaluates, scalar_or_tensor
from mapsto.dsl.extents import bind_indices
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.gathering import gather
from mapsto.dsl.reductions import reduce_variables
from mapsto.dsl.slices import slice_axis
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_integer
from mapsto.dsl.tensors import (
    affine,
    as_tensor,
    describe,
    is_static,
    read,
    sorted_variables,
    spread,
)
from mapsto.dsl.values import (
    Access,
    Builtin,
    Expected,
    Group,
    IndexVariable,
    Indices,
    Nothing,
    Number,
    Position,
    Product,
    Tensor,
    Value,
)

__all__ = ["affine", "reduce_over_indices"]


@evaluates(syntax.IndexLambda)
def _index_lambda(node: syntax.IndexLambda, frame: Frame, expected: Expected | None) -> Value:
    """The body over the new variables, whose axes then become the leading ones of a shape."""
    declared = None if expected is None or expected.is_hint else expected.shape
    inner, variables = bind_indices(frame, node.binders, node.body, declared)
    wanted = None if expected is None else Expected(expected.dtype)
    value = evaluate(node.body, inner, wanted)
    if not scalar_or_tensor(value) and not isinstance(value, Position) and not is_static(value):
        fail(Kind.NOT_A_TENSOR, node.body.span, found=describe(value))
    dtype = None if expected is None else expected.dtype
    tensor = as_tensor(inner, node.body.span, value, dtype)
    outer = sorted_variables(v for v in tensor.axes if v not in variables)
    axes = (*outer, *variables)
    return Tensor(spread(inner, node.span, tensor, axes, tensor.shape), outer)


def reduce_over_indices(
    reduction: Builtin, index: syntax.Index, node: syntax.Call, frame: Frame
) -> Value:
    """`sum[k](e)`: reduces the value of `e` over the indices in brackets."""
    if len(node.arguments) != 1 or node.arguments[0].name is not None:
        fail(Kind.BAD_REDUCTION, node.span, name=reduction.name)
    body = node.arguments[0].value
    binders = [_reduction_binder(item) for item in index.items]
    inner, variables = bind_indices(frame, binders, body, None)
    value = evaluate(body, inner)
    if not scalar_or_tensor(value) and not isinstance(value, Position) and not is_static(value):
        fail(Kind.NOT_A_TENSOR, body.span, found=describe(value))
    return reduce_variables(inner, node.span, reduction.name, value, variables)


def _reduction_binder(item: syntax.IndexItem) -> syntax.Binder:
    binder = binder_of(item)
    if binder is None:
        fail(Kind.NOT_AN_INDEX_NAME, item.span, text=item.span.text)
    return binder


@evaluates(syntax.Index)
def _index(node: syntax.Index, frame: Frame, expected: Expected | None) -> Value:
    base = evaluate(node.base, frame)
    if isinstance(base, Group):
        return _item(base, node, frame)
    if isinstance(base, Builtin) and base.reduction:
        fail(Kind.BAD_REDUCTION, node.span, name=base.name)
    if not scalar_or_tensor(base):
        fail(Kind.NOT_INDEXABLE, node.base.span, found=describe(base))
    return _access(as_tensor(frame, node.base.span, base), node, frame)


def _fail_item(base: Group, node: syntax.Index) -> NoReturn:
    """Reports a list or tuple indexed as a tensor is: often a result that has several parts."""
    names = tuple("abcdefgh"[: len(base.items)])
    facts: Facts = {"expected": 1, "found": len(node.items), "names": ", ".join(names)}
    kind = "a list" if base.is_list else f"a tuple of {len(base.items)}"
    help = None if base.is_list else Help.TAKE_APART
    fail(Kind.WRONG_INDEX_COUNT, node.span, help=help, type=kind, **facts)


def _item(base: Group, node: syntax.Index, frame: Frame) -> Value:
    """An item, or a slice, of a list or tuple."""
    item = node.items[0]
    if len(node.items) != 1 or isinstance(item, syntax.Spread):
        _fail_item(base, node)
    count = len(base.items)
    if isinstance(item, syntax.Slice):
        bounds = [_static_bound(part, frame) for part in (item.start, item.stop, item.step)]
        if bounds[2] == 0:
            fail(Kind.BAD_SLICE, item.span, text=item.span.text)
        return Group(base.items[slice(*bounds)], base.is_list)
    number = static_integer(evaluate(item, frame), item.span)
    if not -count <= number < count:
        fail(Kind.INDEX_OUT_OF_RANGE, item.span, index=number, size=count)
    return base.items[number]


def _static_bound(part: syntax.Expression | None, frame: Frame) -> int | None:
    return None if part is None else static_integer(evaluate(part, frame), part.span)


@dataclass(slots=True)
class _Axis:
    """What the access does with one axis: a position, an index tensor, or all of it (None)."""

    item: Position | Tensor | None
    span: Span


def _access(base: Tensor, node: syntax.Index, frame: Frame) -> Value:
    items = _expand(base, node, frame)
    axes: list[_Axis] = []
    for i, item in enumerate(items):
        if isinstance(item, syntax.Slice):
            axis = len(base.axes) + i
            base = Tensor(slice_axis(frame, item, base.value, axis), base.axes)
            axes.append(_Axis(None, item.span))
        elif isinstance(item, IndexVariable):
            axes.append(_plain_axis(frame, item, base, i, node))
        elif item is None:
            axes.append(_Axis(None, node.span))
        else:
            axes.append(_classify(frame, item, base, i, node))
    return _perform(frame, node.span, base, axes)


def _expand(
    base: Tensor, node: syntax.Index, frame: Frame
) -> list[syntax.Expression | syntax.Slice | IndexVariable | None]:
    """One item for each axis: `...s` replaced by its indices, `...` by whole axes."""
    items: list[syntax.Expression | syntax.Slice | IndexVariable | None] = []
    rest: int | None = None
    for item in node.items:
        if not isinstance(item, syntax.Spread):
            items.append(item)
        elif item.name is None:
            if rest is not None:
                fail(Kind.AMBIGUOUS_SPREAD, item.span)
            rest = len(items)
        else:
            items.extend(_group(item, frame))
    rank = len(base.shape)
    missing = rank - len(items)
    notation = any(isinstance(item, IndexVariable) or _is_index(item, frame) for item in items)
    if missing < 0 or (missing > 0 and rest is None and notation):
        facts: Facts = {"expected": rank, "found": len(items), "type": base.type}
        help = Help.NEW_AXIS if any(item and item.span.text == "none" for item in items) else None
        fail(Kind.WRONG_INDEX_COUNT, node.span, help=help, **facts)
    position = len(items) if rest is None else rest
    items[position:position] = [None] * missing
    return items


def _group(item: syntax.Spread, frame: Frame) -> tuple[IndexVariable, ...]:
    from mapsto.dsl.evaluation import lookup

    assert item.name is not None
    value = lookup(frame, item.name.name, item.span)
    if not isinstance(value, Indices):
        fail(Kind.NOT_A_GROUP, item.span, name=item.name.name, found=describe(value))
    return value.variables


def _is_index(item: object, frame: Frame) -> bool:
    from mapsto.dsl.evaluation import find

    return isinstance(item, syntax.Name) and isinstance(find(frame, item.name), Position)


def _classify(
    frame: Frame, item: syntax.Expression, base: Tensor, i: int, node: syntax.Index
) -> _Axis:
    value = evaluate(item, frame)
    dim = base.shape[i]
    if isinstance(value, Number) and not isinstance(value.value, float):
        return _Axis(Position((), _wrapped(value.value, dim, item)), item.span)
    if isinstance(value, Position):
        plain = value.plain
        if plain is not None:
            return _plain_axis(frame, plain, base, i, node, item.span)
        return _Axis(value, item.span)
    if isinstance(value, Tensor | Product):
        tensor = as_tensor(frame, item.span, value)
        if tensor.dtype.is_integer:
            return _Axis(tensor, item.span)
        help = Help.MASKS if tensor.dtype is ir.DType.BOOL else None
        fail(Kind.BAD_INDEX, item.span, help=help, found=tensor.type)
    help = Help.NEW_AXIS if isinstance(value, Nothing) else None
    return fail(Kind.BAD_INDEX, item.span, help=help, found=describe(value))


def _wrapped(index: ir.Dim, dim: ir.Dim, item: syntax.Expression) -> ir.Dim:
    """A constant index; a negative one counts from the end."""
    if isinstance(index, int) and isinstance(dim, int) and not -dim <= index < dim:
        fail(Kind.INDEX_OUT_OF_RANGE, item.span, index=index, size=dim)
    return index + dim if isinstance(index, int) and index < 0 else index


def _plain_axis(
    frame: Frame,
    variable: IndexVariable,
    base: Tensor,
    i: int,
    node: syntax.Index,
    span: Span | None = None,
) -> _Axis:
    """An axis that an index runs over from end to end, so their sizes have to agree."""
    dim = base.shape[i]
    if variable.extent != dim:
        origin: Facts = {"name": variable.name, "value": variable.extent}
        note = Note(NoteKind.INDEX_RUNS, variable.span, origin)
        facts: Facts = {"extent": variable.extent, "size": dim, "type": base.type, "axis": i}
        place = span or node.span
        fail(Kind.EXTENTS_DIFFER, place, notes=[note], name=variable.name, **facts)
    return _Axis(Position.of(variable), span or node.span)


def _perform(frame: Frame, span: Span, base: Tensor, axes: list[_Axis]) -> Value:
    """Reads the elements; what is left of the shape are the axes that were taken whole."""
    if all(axis.item is None for axis in axes):
        return base
    if any(isinstance(axis.item, Tensor) for axis in axes):
        return gather(frame, span, base, [axis.item for axis in axes])
    positions = [Position.of(variable) for variable in base.axes]
    whole = []
    for axis, dim in zip(axes, base.shape, strict=True):
        if isinstance(axis.item, Position):
            positions.append(axis.item)
            continue
        variable = IndexVariable("", dim, span)
        whole.append(variable)
        positions.append(Position.of(variable))
    access = Access(base.value, tuple(positions))
    if not whole and access.variables:
        return Product((access,))
    variables = sorted_variables(access.variables)
    value = read(frame, span, access, variables)
    return Tensor(value, variables[: len(variables) - len(whole)])
