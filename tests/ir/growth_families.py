"""Which operations random functions are made of, and how their attributes are chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from growth import DTYPES, MOST_POINTS, POSITIVE, Family, Growth, N, random_inputs
from hypothesis import strategies as st

from mapsto import ir
from mapsto.ir.affine import AffineExpr, AffineMap, axis
from mapsto.ir.core import DenseArray, Operation, Value, registered_ops
from mapsto.ir.dims import Dim, dim_value
from mapsto.ir.ops.elementwise import Elementwise
from mapsto.ir.ops.indexing import ArgMax, ArgMin

__all__ = ["FAMILIES"]

# ---- elementwise

_SHIPPED = [r for r in registered_ops().values() if r.__module__.startswith("mapsto.ir.ops")]
UNARY = [r for r in _SHIPPED if issubclass(r, Elementwise) and r.arity == 1 and r is not ir.Cast]
BINARY = [r for r in _SHIPPED if issubclass(r, Elementwise) and r.arity == 2]


def _accepted(record: type[Operation]) -> Callable[[Value], bool]:
    assert issubclass(record, Elementwise)
    return lambda value: value.dtype in record.accepts


def unary(growth: Growth) -> Value | None:
    record = growth.choose([*UNARY, *POSITIVE])
    x = growth.value(_accepted(record))
    return growth.emit(record, _positive(growth, x) if record in POSITIVE else x)


def binary(growth: Growth) -> Value | None:
    record = growth.choose([*BINARY, ir.Add, ir.Sub, ir.Mul, ir.Max])
    x = growth.value(_accepted(record))
    if x is None:
        return None
    if record is ir.Pow:
        return growth.emit(record, _positive(growth, x), _partner(growth, x))
    return growth.emit(record, x, _partner(growth, x))


def _positive(growth: Growth, x: Value | None) -> Value | None:
    """|x| + 1/2"""
    if x is None:
        return None
    half = growth.emit(ir.Constant, value=0.5, type=x.type)
    return growth.emit(ir.Add, growth.emit(ir.Abs, x), half)


def _partner(growth: Growth, x: Value) -> Value | None:
    """A value of the same type, or a constant."""
    if growth.draw(st.booleans()):
        return growth.value(lambda value: value.type == x.type)
    return _constant(growth, x.dtype, x.shape)


def _constant(growth: Growth, dtype: ir.DType, shape: Sequence[Dim]) -> Value | None:
    value: object = growth.number(-2, 3)
    if dtype is ir.DType.BOOL:
        value = growth.draw(st.booleans())
    elif dtype.is_float:
        value = growth.choose([-1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])
    return growth.emit(ir.Constant, value=value, type=ir.TensorType(dtype, tuple(shape)))


def select(growth: Growth) -> Value | None:
    x = growth.value()
    if x is None:
        return None
    condition_type = x.type.with_dtype(ir.DType.BOOL)
    condition = growth.value(lambda value: value.type == condition_type)
    if condition is None and x.dtype is not ir.DType.BOOL:
        condition = growth.emit(ir.Gt, x, _partner(growth, x))
    return growth.emit(ir.Select, condition, x, _partner(growth, x))


def cast(growth: Growth) -> Value | None:
    return growth.emit(ir.Cast, growth.value(), dtype=growth.choose([*DTYPES, ir.DType.BOOL]))


# ---- shapes


def constant(growth: Growth) -> Value | None:
    kind = growth.choose(["splat", "array", "iota", "random"])
    x = growth.value()
    if x is None or kind == "splat":
        return x and _constant(growth, x.dtype, x.shape)
    if kind == "array":
        shape = tuple(growth.draw(st.lists(st.integers(1, 5), max_size=2)))
        array = random_inputs(growth.random, ir.TensorType(x.dtype, shape), shape)
        return growth.emit(ir.Constant, value=DenseArray(array), type=x.type.with_shape(shape))
    if kind == "iota":
        if x.dtype is ir.DType.BOOL:
            return None
        return growth.emit(ir.Iota, axis=growth.number(0, max(0, x.type.rank - 1)), type=x.type)
    key = growth.emit(ir.Constant, value=growth.number(0, 60), type=ir.TensorType(ir.DType.I64))
    dtype = growth.choose([ir.DType.F32, ir.DType.F64])
    assert isinstance(dtype, ir.DType)
    return growth.emit(
        ir.Random, key, stream=growth.number(0, 3), type=ir.TensorType(dtype, x.shape)
    )


def broadcast(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank < 4)
    if x is None:
        return None
    shape, dims = list(x.shape), list(range(x.type.rank))
    for _ in range(growth.number(1, 2)):
        place = growth.number(0, len(shape))
        shape.insert(place, _extent(growth))
        dims = [d + (d >= place) for d in dims]
    return growth.emit(ir.Broadcast, x, shape=tuple(shape), dims=tuple(dims))


def _extent(growth: Growth) -> Dim:
    """The extent of a new axis; n where an argument has that."""
    symbolic = any(N in v.shape for v in growth.build.block.arguments)
    return N if symbolic and growth.number(0, 3) == 0 else growth.number(1, 4)


def transpose(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 1)
    if x is None:
        return None
    permutation = growth.draw(st.permutations(range(x.type.rank)))
    return growth.emit(ir.Transpose, x, permutation=tuple(permutation))


def reshape(growth: Growth) -> Value | None:
    x = growth.value()
    if x is None:
        return None
    shape = list(x.shape)
    place = growth.number(0, len(shape))
    kind = growth.choose(["flat", "merge", "split", "one"])
    if kind == "one":
        shape.insert(place, 1)
    elif kind == "flat":
        shape = [x.type.elements]
    elif place + 1 < len(shape) and kind == "merge":
        shape[place : place + 2] = [shape[place] * shape[place + 1]]
    elif place < len(shape) and shape[place] in (2, 4, 6, 8, 12):
        shape[place : place + 1] = [2, shape[place] // 2]
    return growth.emit(ir.Reshape, x, shape=tuple(shape))


def slice_(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0 and 0 not in value.shape)
    if x is None:
        return None
    parts = [_slice_of(growth, extent) for extent in x.shape]
    starts, sizes, steps = zip(*parts, strict=True)
    return growth.emit(ir.Slice, x, starts=starts, sizes=sizes, steps=steps)


def _slice_of(growth: Growth, extent: Dim) -> tuple[Dim, Dim, int]:
    if not isinstance(extent, int):
        return growth.choose([(0, extent, 1), (extent - 1, extent, -1)])  # type: ignore[return-value]
    start, step = growth.number(0, extent - 1), growth.choose([1, 1, 1, 2, -1])
    assert isinstance(step, int)
    room = start + 1 if step < 0 else (extent - start + step - 1) // step
    return start, growth.number(1, room), step


def pad(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0)
    if x is None:
        return None
    low, high = ([growth.number(0, 2) for _ in x.shape] for _ in range(2))
    value = bool(growth.number(0, 1)) if x.dtype is ir.DType.BOOL else growth.number(0, 2)
    return growth.emit(ir.Pad, x, low=tuple(low), high=tuple(high), value=value)


def concat(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0)
    if x is None:
        return None
    place = growth.number(0, x.type.rank - 1)

    def fits(value: Value) -> bool:
        shape = list(value.shape)
        shape[place : place + 1] = x.shape[place : place + 1]
        return value.dtype is x.dtype and tuple(shape) == x.shape

    operands = [x, *(growth.value(fits) for _ in range(growth.number(0, 2)))]
    return growth.emit(ir.Concat, *operands, axis=place)


# ---- contractions


def reduction(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0 and value.dtype is not ir.DType.BOOL)
    if x is None:
        return None
    order = list(growth.draw(st.permutations(range(x.type.rank))))
    kept = growth.number(0, x.type.rank - 1)
    map_ = AffineMap(len(order), tuple(axis(order.index(d), len(order)) for d in range(len(order))))
    return _contract(growth, [x], [map_], [x.shape[d] for d in order], kept)


def product(growth: Growth) -> Value | None:
    """Two or three operands whose axes of one size may be read at one dimension."""
    first = growth.value(lambda value: value.dtype is not ir.DType.BOOL)
    if first is None:
        return None
    operands = [first]
    for _ in range(growth.number(1, 2)):
        other = growth.value(lambda value: value.dtype is first.dtype)
        operands.append(other or first)
    extents: list[Dim] = []
    places = [_shared_dims(growth, operand, extents) for operand in operands]
    return _shuffled_contract(growth, operands, places, extents)


def _shared_dims(growth: Growth, operand: Value, extents: list[Dim]) -> list[int]:
    """A dimension of the domain for each axis, new where none of its size is chosen."""
    dims: list[int] = []
    for size in operand.shape:
        alike = [d for d, extent in enumerate(extents) if extent == size and d not in dims]
        if alike and growth.draw(st.booleans()):
            dims.append(alike[growth.number(0, len(alike) - 1)])
        else:
            extents.append(size)
            dims.append(len(extents) - 1)
    return dims


def _shuffled_contract(
    growth: Growth, operands: list[Value], places: list[list[int]], extents: list[Dim]
) -> Value | None:
    """The dimensions in any order, so that any of them may be reduced."""
    rank = len(extents)
    order = list(growth.draw(st.permutations(range(rank))))
    maps = [AffineMap(rank, tuple(axis(order.index(d), rank) for d in dims)) for dims in places]
    kept = growth.number(0, rank)
    return _contract(growth, operands, maps, [extents[d] for d in order], kept)


def window(growth: Growth) -> Value | None:
    """Reads by any affine maps, often outside."""
    x = growth.value(lambda value: value.dtype is not ir.DType.BOOL and value.type.rank > 0)
    if x is None:
        return None
    operands = [x]
    if growth.draw(st.booleans()):
        operands.append(growth.value(lambda value: value.dtype is x.dtype) or x)
    rank = growth.number(1, 4)
    extents: list[Dim] = [_extent(growth) for _ in range(rank)]
    maps = []
    for operand in operands:
        exprs = [_expression(growth, rank) for _ in operand.shape]
        maps.append(AffineMap(rank, tuple(exprs)))
    return _contract(growth, operands, maps, extents, growth.number(0, rank))


def _expression(growth: Growth, rank: int) -> AffineExpr:
    coefficients = [0] * rank
    for _ in range(growth.number(0, 2)):
        coefficients[growth.number(0, rank - 1)] = growth.number(-1, 2)
    return AffineExpr(tuple(coefficients), growth.number(-2, 3))


def _contract(
    growth: Growth,
    operands: Sequence[Value],
    maps: Sequence[AffineMap],
    extents: Sequence[Dim],
    rank: int,
) -> Value | None:
    points = 1
    for extent in extents:
        points *= dim_value(extent, growth.sizes)  # type: ignore[arg-type]
    if points > MOST_POINTS:
        return None
    kind = growth.choose(["sum", "sum", "sum", "max", "min", "prod"])
    attributes = {"kind": kind, "rank": rank, "extents": tuple(extents), "maps": tuple(maps)}
    return growth.emit(ir.Contract, *operands, **attributes)


# ---- indexing


def extremum(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0)
    if x is None:
        return None
    record = growth.choose([ArgMax, ArgMin])
    return growth.emit(record, x, axis=growth.number(0, x.type.rank - 1))


def gather(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0 and 0 not in value.shape)
    if x is None:
        return None
    axes = growth.draw(st.sets(st.integers(0, x.type.rank - 1), min_size=1, max_size=2))
    axes = sorted(axes)
    shape = _index_shape(growth)
    indices = [_indices(growth, shape, x.shape[a]) for a in axes]
    return growth.emit(ir.Gather, x, *indices, axes=tuple(axes))


def scatter(growth: Growth) -> Value | None:
    updates = growth.value(lambda value: value.dtype.is_float and value.type.rank > 0)
    if updates is None:
        return None
    batch, rest = updates.shape[:1], list(updates.shape[1:])
    record = growth.choose([ir.ScatterAdd, ir.ScatterMax, ir.ScatterMin])
    # An extremum of no updates is infinite.
    place, extent = growth.number(0, len(rest)), _extent(growth) if record is ir.ScatterAdd else 1
    index = _indices(growth, batch, extent)
    rest.insert(place, extent)
    return growth.emit(record, updates, index, axes=(place,), shape=tuple(rest))


# ---- along an axis


def running(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0 and value.dtype is not ir.DType.BOOL)
    if x is None:
        return None
    order = {"axis": growth.number(0, x.type.rank - 1), "reverse": growth.draw(st.booleans())}
    kind = growth.choose(["sum", "prod", "max", "min", "recurrence"])
    if kind == "recurrence":
        return growth.emit(ir.Recurrence, _partner(growth, x), x, **order)
    return growth.emit(ir.Cumulative, x, kind=kind, **order)


def order(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0)
    if x is None:
        return None
    axis, descending = growth.number(0, x.type.rank - 1), growth.draw(st.booleans())
    return growth.emit(ir.ArgSort, x, axis=axis, count=x.shape[axis], descending=descending)


def updated(growth: Growth) -> Value | None:
    x = growth.value(lambda value: value.type.rank > 0)
    if x is None:
        return None
    axis = growth.number(0, x.type.rank - 1)
    part = growth.value(
        lambda value: (
            value.dtype is x.dtype
            and value.type.rank == x.type.rank
            and all(
                d == axis or a == b
                for d, (a, b) in enumerate(zip(value.shape, x.shape, strict=True))
            )
        )
    )
    start = growth.emit(ir.Constant, value=0, type=ir.TensorType(ir.DType.I32))
    return growth.emit(ir.DynamicUpdate, x, part, start, axes=(axis,))


def _index_shape(growth: Growth) -> tuple[Dim, ...]:
    integer = growth.value(lambda value: value.dtype in (ir.DType.I32, ir.DType.I64))
    if integer is not None:
        return integer.shape
    return tuple(_extent(growth) for _ in range(growth.number(0, 2)))


def _indices(growth: Growth, shape: Sequence[Dim], extent: Dim) -> Value | None:
    """Integers in [0, extent): integers so far modulo the extent, or a constant array or number."""
    type_ = ir.TensorType(ir.DType.I32, tuple(shape))
    fixed = [d for d in shape if isinstance(d, int)]
    if not isinstance(extent, int):
        return growth.emit(ir.Constant, value=0, type=type_)
    known = growth.value(lambda value: value.dtype.is_integer and value.shape == type_.shape)
    if known is not None:
        modulus = growth.emit(ir.Constant, value=extent, type=known.type)
        return growth.emit(ir.Mod, known, modulus)
    if len(fixed) < len(shape):
        return growth.emit(ir.Constant, value=growth.number(0, extent - 1), type=type_)
    array = growth.random.integers(0, extent, fixed).astype(np.int32)
    return growth.emit(ir.Constant, value=DenseArray(np.asarray(array)), type=type_)


FAMILIES: tuple[Family, ...] = (
    unary,
    unary,
    binary,
    binary,
    binary,
    select,
    cast,
    constant,
    broadcast,
    transpose,
    reshape,
    slice_,
    pad,
    concat,
    reduction,
    product,
    product,
    window,
    extremum,
    gather,
    scatter,
    running,
    order,
    updated,
)
