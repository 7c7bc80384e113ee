"""Constants, and ops that move elements without computing on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, DenseArray, Operation, Trait, Value
from mapsto.ir.dims import Dim, DimExpression
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.ops.axes import AlongAxis
from mapsto.ir.types import DType, TensorType

__all__ = ["Broadcast", "Concat", "Constant", "Iota", "Pad", "Reshape", "Slice", "Transpose"]


def dims_of(op: Operation, name: str) -> tuple[Dim, ...]:
    """An attribute that is a tuple of dimensions."""
    value = op.attributes[name]
    assert isinstance(value, tuple)
    return tuple([d for d in value if isinstance(d, int | DimExpression)])


def ints_of(op: Operation, name: str) -> tuple[int, ...]:
    """An attribute that is a tuple of plain numbers."""
    value = op.attributes[name]
    assert isinstance(value, tuple)
    return tuple(i for i in value if isinstance(i, int))


def static_shape(shape: Sequence[Dim]) -> tuple[int, ...]:
    """A shape without named sizes; TypeRuleError where one is left."""
    sizes = tuple(dim for dim in shape if isinstance(dim, int))
    if len(sizes) != len(shape):
        raise TypeRuleError(f"the shape {list(map(str, shape))} has named sizes without a value")
    return sizes


class Constant(Operation):
    """A tensor known when the program is compiled: a number for every element, or an array."""

    name = "constant"
    arity = 0
    traits = Trait.INDEXING
    attribute_types = {"value": (bool, int, float, DenseArray), "type": TensorType}

    @property
    def type(self) -> TensorType:
        """The type of the result."""
        type_ = self.attributes["type"]
        assert isinstance(type_, TensorType)
        return type_

    @property
    def splat(self) -> float | None:
        """The number that all elements are; None where an array is given."""
        value = self.attributes["value"]
        return value if isinstance(value, bool | int | float) else None

    def infer(self) -> tuple[TensorType, ...]:
        value = self.attributes["value"]
        if isinstance(value, DenseArray) and value.array.shape != self.type.shape:
            raise TypeRuleError(f"constant of shape {value.array.shape} typed {self.type}")
        return (self.type,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        value = self.attributes["value"]
        if isinstance(value, DenseArray):
            return (value.array.astype(self.type.dtype.numpy),)
        return (np.full(static_shape(self.type.shape), value, self.type.dtype.numpy),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return [None]


class Iota(Operation):
    """Each element is its own index along `axis`."""

    name = "iota"
    arity = 0
    traits = Trait.INDEXING
    attribute_types = {"axis": int, "type": TensorType}
    not_differentiable = "an index is not a continuous quantity"

    def infer(self) -> tuple[TensorType, ...]:
        type_, axis = self.attributes["type"], self.attributes["axis"]
        assert isinstance(type_, TensorType) and isinstance(axis, int)
        if not 0 <= axis < type_.rank:
            raise TypeRuleError(f"iota along axis {axis} of {type_}")
        return (type_,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        type_, axis = self.attributes["type"], self.attributes["axis"]
        assert isinstance(type_, TensorType) and isinstance(axis, int)
        shape = [1] * type_.rank
        shape[axis] = -1
        extent = type_.shape[axis]
        assert isinstance(extent, int)
        indices = np.arange(extent).reshape(shape).astype(type_.dtype.numpy)
        return (np.broadcast_to(indices, static_shape(type_.shape)),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return [None]


class _LinearUnary(Operation):
    """One operand, in which the op is linear: the tangent goes through the op itself."""

    arity = 1
    traits = Trait.INDEXING

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        tangent = tangents[0]
        return [None if tangent is None else build.append(self.rebuilt([tangent])).result]


class Broadcast(_LinearUnary):
    """Repeats a tensor along new axes: operand axis i is result axis `dims[i]`, ascending."""

    name = "broadcast"
    attribute_types = {"shape": tuple, "dims": tuple}

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The shape of the result."""
        return dims_of(self, "shape")

    @property
    def dims(self) -> tuple[int, ...]:
        """The result axis of each operand axis."""
        return ints_of(self, "dims")

    def infer(self) -> tuple[TensorType, ...]:
        operand, shape, dims = self.operands[0].type, self.shape, self.dims
        ordered = list(dims) == sorted(set(dims)) and all(0 <= d < len(shape) for d in dims)
        if len(dims) != operand.rank or not ordered:
            raise TypeRuleError(f"broadcast of {operand} to {list(shape)} along {list(dims)}")
        for extent, dim in zip(operand.shape, dims, strict=True):
            if shape[dim] != extent:
                raise TypeRuleError(f"broadcast of {operand} to {list(shape)} along {list(dims)}")
        return (operand.with_shape(shape),)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        shape = self.result.shape
        aligned = [shape[d] if d in self.dims else 1 for d in range(len(shape))]
        return (np.broadcast_to(operands[0].reshape(static_shape(aligned)), static_shape(shape)),)

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        from mapsto.ir.ops.contraction import reduce_axes

        axes = [d for d in range(len(self.shape)) if d not in self.dims]
        return [reduce_axes(build, "sum", cotangent, axes)]


class Transpose(_LinearUnary):
    """Result axis i is operand axis `permutation[i]`."""

    name = "transpose"
    attribute_types = {"permutation": tuple}

    @property
    def permutation(self) -> tuple[int, ...]:
        """The operand axis of each result axis."""
        return ints_of(self, "permutation")

    def infer(self) -> tuple[TensorType, ...]:
        operand, permutation = self.operands[0].type, self.permutation
        if sorted(permutation) != list(range(operand.rank)):
            raise TypeRuleError(f"transpose of {operand} by {list(permutation)}")
        return (operand.with_shape(tuple(operand.shape[p] for p in permutation)),)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.transpose(operands[0], self.permutation),)

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        inverse = tuple(self.permutation.index(i) for i in range(len(self.permutation)))
        return [build.emit(Transpose, cotangent, permutation=inverse)]


class Reshape(_LinearUnary):
    """The same elements in row-major order in another shape."""

    name = "reshape"
    attribute_types = {"shape": tuple}

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The shape of the result."""
        return dims_of(self, "shape")

    def infer(self) -> tuple[TensorType, ...]:
        operand = self.operands[0].type
        result = operand.with_shape(self.shape)
        if operand.elements != result.elements:
            raise TypeRuleError(f"reshape of {operand} to {list(self.shape)}")
        return (result,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (operands[0].reshape(static_shape(self.result.shape)),)

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        return [build.emit(Reshape, cotangent, shape=self.operands[0].shape)]


class Slice(_LinearUnary):
    """Element k of axis i is operand element `starts[i] + k * steps[i]`; steps may be negative."""

    name = "slice"
    attribute_types = {"starts": tuple, "sizes": tuple, "steps": tuple}

    def infer(self) -> tuple[TensorType, ...]:
        operand = self.operands[0].type
        starts, sizes, steps = self.starts, self.sizes, self.steps
        if not len(starts) == len(sizes) == len(steps) == operand.rank or 0 in steps:
            raise TypeRuleError(f"slice of {operand}: {starts}, {sizes}, {steps}")
        for start, size, step, extent in zip(starts, sizes, steps, operand.shape, strict=True):
            _check_slice(operand, start, size, step, extent)
        return (operand.with_shape(sizes),)

    @property
    def starts(self) -> tuple[Dim, ...]:
        """The first element read along each axis."""
        return dims_of(self, "starts")

    @property
    def sizes(self) -> tuple[Dim, ...]:
        """The number of elements read along each axis."""
        return dims_of(self, "sizes")

    @property
    def steps(self) -> tuple[int, ...]:
        """The distance between elements read along each axis."""
        return ints_of(self, "steps")

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        result = operands[0]
        for axis, (start, step) in enumerate(zip(self.starts, self.steps, strict=True)):
            size = self.result.shape[axis]
            assert isinstance(start, int) and isinstance(size, int)
            result = np.take(result, start + step * np.arange(size), axis)
        return (result,)

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        from mapsto.ir.ops.slice_transpose import scatter_slice

        return [scatter_slice(build, self, cotangent)]


def _check_slice(operand: TensorType, start: Dim, size: Dim, step: int, extent: Dim) -> None:
    last = start + (size - 1) * step
    for position in (start, last):
        known = isinstance(position, int) and isinstance(extent, int) and size != 0
        if known and not 0 <= position < extent:  # type: ignore[operator]
            raise TypeRuleError(f"slice of {operand} reads element {position} of {extent}")


class Pad(_LinearUnary):
    """Puts `low[i]` elements `value` before and `high[i]` after the tensor along axis i."""

    name = "pad"
    attribute_types = {"low": tuple, "high": tuple, "value": (bool, int, float)}
    defaults = {"value": 0}

    @property
    def low(self) -> tuple[Dim, ...]:
        """The number of elements put before, along each axis."""
        return dims_of(self, "low")

    @property
    def high(self) -> tuple[Dim, ...]:
        """The number of elements put after, along each axis."""
        return dims_of(self, "high")

    def infer(self) -> tuple[TensorType, ...]:
        operand, low, high = self.operands[0].type, self.low, self.high
        negative = any(isinstance(d, int) and d < 0 for d in (*low, *high))
        if not len(low) == len(high) == operand.rank or negative:
            raise TypeRuleError(f"pad of {operand} by {list(low)} and {list(high)}")
        shape = tuple(a + d + b for a, d, b in zip(low, operand.shape, high, strict=True))
        return (operand.with_shape(shape),)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        widths = list(zip(self.low, self.high, strict=True))
        value = self.attributes["value"]
        if not widths:
            return (operands[0],)
        return (np.pad(operands[0], widths, constant_values=value),)  # type: ignore[arg-type]

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        if tangents[0] is None:
            return [None]
        return [build.emit(Pad, tangents[0], low=self.low, high=self.high)]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        shape = self.operands[0].shape
        steps = (1,) * len(shape)
        return [build.emit(Slice, cotangent, starts=self.low, sizes=shape, steps=steps)]


class Concat(AlongAxis):
    """Tensors one after another along `axis`."""

    name = "concat"
    traits = Trait.INDEXING

    def infer(self) -> tuple[TensorType, ...]:
        if not self.operands or not 0 <= self.axis < self.operands[0].type.rank:
            raise TypeRuleError(f"concat of {len(self.operands)} tensors along axis {self.axis}")
        first = self.operands[0].type
        total: Dim = 0
        rest = _without_axis(first, self.axis)
        for operand in self.operands:
            same_rank = operand.type.rank == first.rank
            if not same_rank or _without_axis(operand.type, self.axis) != rest:
                raise TypeRuleError(f"concat of {first} and {operand.type} along axis {self.axis}")
            total = total + operand.shape[self.axis]
        shape = (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])
        return (first.with_shape(shape),)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.concatenate(operands, self.axis),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        if all(tangent is None for tangent in tangents):
            return [None]
        pairs = zip(tangents, self.operands, strict=True)
        filled = [build.like(0, x) if tangent is None else tangent for tangent, x in pairs]
        return [build.emit(Concat, *filled, axis=self.axis)]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        parts: list[Value | None] = []
        start: Dim = 0
        for operand, is_linear in zip(self.operands, linear, strict=True):
            shape = operand.shape
            starts = tuple(start if i == self.axis else 0 for i in range(len(shape)))
            part: dict[str, Any] = {"starts": starts, "sizes": shape, "steps": (1,) * len(shape)}
            parts.append(build.emit(Slice, cotangent, **part) if is_linear else None)
            start = start + shape[self.axis]
        return parts


def _without_axis(type_: TensorType, axis: int) -> tuple[DType, tuple[Dim, ...]]:
    return type_.dtype, (*type_.shape[:axis], *type_.shape[axis + 1 :])
