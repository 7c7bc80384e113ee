"""A part of a tensor replaced at a place that is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Operation, Trait, Value
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.ops.elementwise import Add
from mapsto.ir.ops.indexing import Gather
from mapsto.ir.ops.shaping import Broadcast, Iota, Transpose, ints_of
from mapsto.ir.types import TensorType

__all__ = ["DynamicUpdate", "dynamic_slice"]

Tangents = Sequence[Value | None]


class DynamicUpdate(Operation):
    """The first operand with the second one in place of the elements from a computed start on.

    The other operands are the start (an integer scalar) along each axis in `axes`; along all others
    the update has the operand's size.  Where it does not fit it is an error.  The memory of the
    operand is updated in place where nothing else needs it.
    """

    name = "dynamic_update"
    traits = Trait.WHOLE | Trait.FALLIBLE
    attribute_types: ClassVar = {"axes": tuple}

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which the start is given, ascending."""
        return ints_of(self, "axes")

    @property
    def starts(self) -> tuple[Value, ...]:
        """The start along each of those axes."""
        return self.operands[2:]

    def infer(self) -> tuple[TensorType, ...]:
        if len(self.operands) != 2 + len(self.axes):
            raise TypeRuleError(f"dynamic_update takes a start for each of {list(self.axes)}")
        operand, update = (value.type for value in self.operands[:2])
        pairs = list(zip(operand.shape, update.shape, strict=False))
        fits = [d in self.axes or a == b for d, (a, b) in enumerate(pairs)]
        ordered = list(self.axes) == sorted({a for a in self.axes if 0 <= a < operand.rank})
        if operand.rank != update.rank or operand.dtype != update.dtype or not all(fits):
            raise TypeRuleError(f"dynamic_update of {operand} by {update}")
        if not ordered or any(s.shape or not s.dtype.is_integer for s in self.starts):
            raise TypeRuleError(f"dynamic_update of {operand} along axes {list(self.axes)}")
        return (operand,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x, update, *starts = operands
        place = [slice(None)] * x.ndim
        for axis, start in zip(self.axes, starts, strict=True):
            first, size = int(start), update.shape[axis]
            if first < 0 or first + size > x.shape[axis]:
                raise IndexError(f"dynamic_update: {size} elements from {first} on do not fit")
            place[axis] = slice(first, first + size)
        result = np.array(x)
        result[tuple(place)] = update
        return (result,)

    def jvp(self, build: Builder, results: Sequence[Value], tangents: Tangents) -> Tangents:
        x, update = tangents[:2]
        if x is None and update is None:
            return [None]
        zeros = [build.like(0, value) for value in self.operands[:2]]
        return [self._updated(build, x or zeros[0], update or zeros[1])]

    def transpose(self, build: Builder, cotangent: Value, linear: Sequence[bool]) -> Tangents:
        update = self.operands[1]
        rest = self._updated(build, cotangent, build.like(0, update)) if linear[0] else None
        part: Value | None = None
        if linear[1]:
            part = dynamic_slice(build, cotangent, self.starts, self.axes, update.type)
        return [rest, part, *[None] * len(self.starts)]

    def _updated(self, build: Builder, x: Value, update: Value) -> Value:
        return build.emit(DynamicUpdate, x, update, *self.starts, axes=self.axes)


def dynamic_slice(
    build: Builder, x: Value, starts: Sequence[Value], axes: Sequence[int], type_: TensorType
) -> Value:
    """The part of this type of a tensor from computed starts along some axes on; the sizes along
    the others are those of the tensor.  Outside it is an error."""
    for start, axis in zip(starts, axes, strict=True):
        line = TensorType(start.dtype, (type_.shape[axis],))
        counted = build.emit(Iota, axis=0, type=line)
        first = build.emit(Broadcast, start, shape=line.shape, dims=())
        gathered = build.emit(Gather, x, build.emit(Add, counted, first), axes=(axis,))
        x = _moved(build, gathered, axis)
    return x


def _moved(build: Builder, x: Value, axis: int) -> Value:
    """The first axis at another place."""
    order = [*range(1, axis + 1), 0, *range(axis + 1, x.type.rank)]
    return x if axis == 0 else build.emit(Transpose, x, permutation=tuple(order))
