"""Ops along one axis whose result depends on all elements before: running reductions, linear
recurrences, and the order of elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Trait, Value
from mapsto.ir.dims import Dim, DimExpression, as_dim
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.ops.axes import AlongAxis
from mapsto.ir.ops.contraction import REDUCTIONS
from mapsto.ir.ops.elementwise import FLOATS, NUMERIC, Add, Mul
from mapsto.ir.ops.indexing import Gather
from mapsto.ir.ops.logic import Eq, Select
from mapsto.ir.ops.shaping import Iota, Pad, Slice
from mapsto.ir.types import DType, TensorType

__all__ = ["ArgSort", "Cumulative", "Recurrence", "shifted", "take_along"]

Tangents = Sequence[Value | None]
Facts = dict[str, Any]


class _InOrder(AlongAxis):
    """Runs along an axis from its first element on, or from its last."""

    traits = Trait.WHOLE
    attribute_types: ClassVar = {**AlongAxis.attribute_types, "reverse": bool}
    defaults: ClassVar = {"reverse": False}

    @property
    def reverse(self) -> bool:
        """Whether it starts with the last element."""
        return bool(self.attributes["reverse"])

    def oriented(self, x: Array) -> Array:
        """The array in the order in which the op runs, and back."""
        return np.flip(x, self.axis) if self.reverse else x


class Cumulative(_InOrder):
    """Element i is the sum (prod, max, min) of the elements up to and including i.

    With `reverse`, of the elements from i on.  Half-precision numbers are accumulated in f32.  The
    derivative of an extremum goes to the last element, in the order of the op, that attains it.
    """

    name = "cumulative"
    arity = 1
    attribute_types: ClassVar = {"kind": str, **_InOrder.attribute_types}

    @property
    def kind(self) -> str:
        """The reduction: `sum`, `prod`, `max` or `min`."""
        return str(self.attributes["kind"])

    def infer(self) -> tuple[TensorType, ...]:
        operand = self.operands[0].type
        self.check_axis(operand)
        if self.kind not in REDUCTIONS or operand.dtype not in NUMERIC:
            raise TypeRuleError(f"cumulative {self.kind} of {operand}")
        return (operand,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x = self.oriented(operands[0])
        wide = x.astype(np.float32) if x.dtype == np.float16 else x
        total = REDUCTIONS[self.kind].accumulate(wide, axis=self.axis, dtype=wide.dtype)
        return (self.oriented(total).astype(x.dtype),)

    def jvp(self, build: Builder, results: Sequence[Value], tangents: Tangents) -> Tangents:
        tangent = tangents[0]
        if tangent is None:
            return [None]
        if self.kind == "sum":
            return [build.append(self.rebuilt([tangent])).result]
        if self.kind == "prod":
            return [self._product_tangent(build, results[0], tangent)]
        return [take_along(build, tangent, self._winners(build, results[0]), self.axis)]

    def _product_tangent(self, build: Builder, result: Value, tangent: Value) -> Value:
        """dy[i] = x[i] * dy[i - 1] + y[i - 1] * dx[i]."""
        before = shifted(build, result, self.axis, self.reverse, 1)
        term = build.emit(Mul, tangent, before)
        x = self.operands[0]
        return build.emit(Recurrence, x, term, axis=self.axis, reverse=self.reverse)

    def _winners(self, build: Builder, result: Value) -> Value:
        """Where the extremum so far was found last."""
        x = self.operands[0]
        type_ = TensorType(DType.I32, x.shape)
        here = build.emit(Iota, axis=self.axis, type=type_)
        never = build.like(2**31 - 1 if self.reverse else 0, here)
        found = build.emit(Select, build.emit(Eq, x, result), here, never)
        kind = "min" if self.reverse else "max"
        return build.emit(Cumulative, found, kind=kind, axis=self.axis, reverse=self.reverse)

    def transpose(self, build: Builder, cotangent: Value, linear: Sequence[bool]) -> Tangents:
        facts: Facts = {"kind": "sum", "axis": self.axis, "reverse": not self.reverse}
        return [build.emit(Cumulative, cotangent, **facts)]


class Recurrence(_InOrder):
    """Gives h[i] = a[i] * h[i - 1] + b[i] along an axis, from h = 0; operands a, b.

    With `reverse`, h[i] = a[i] * h[i + 1] + b[i].  It is what running products have as derivative,
    and the core of linear state-space layers.
    """

    name = "recurrence"
    arity = 2

    def infer(self) -> tuple[TensorType, ...]:
        a, b = (operand.type for operand in self.operands)
        self.check_axis(a)
        if a != b or a.dtype not in FLOATS:
            raise TypeRuleError(f"recurrence of {a} and {b}")
        return (a,)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        wide = np.float32 if operands[0].dtype == np.float16 else operands[0].dtype
        a, b = (np.moveaxis(self.oriented(x), self.axis, 0).astype(wide) for x in operands)
        h = np.zeros_like(b)
        state = np.zeros(b.shape[1:], wide)
        for i in range(len(b)):
            state = a[i] * state + b[i]
            h[i] = state
        return (self.oriented(np.moveaxis(h, 0, self.axis)).astype(operands[0].dtype),)

    def jvp(self, build: Builder, results: Sequence[Value], tangents: Tangents) -> Tangents:
        a_tangent, total = tangents
        if a_tangent is not None:
            before = shifted(build, results[0], self.axis, self.reverse, 0)
            term = build.emit(Mul, a_tangent, before)
            total = term if total is None else build.emit(Add, total, term)
        if total is None:
            return [None]
        return [build.append(self.rebuilt([self.operands[0], total])).result]

    def transpose(self, build: Builder, cotangent: Value, linear: Sequence[bool]) -> Tangents:
        after = shifted(build, self.operands[0], self.axis, not self.reverse, 0)
        order: Facts = {"axis": self.axis, "reverse": not self.reverse}
        return [None, build.emit(Recurrence, after, cotangent, **order)]


class ArgSort(AlongAxis):
    """The positions (i32) of the first `count` elements along `axis` in ascending order.

    With `descending`, in descending order.  Equal elements stay in order, and nan counts as
    greatest.
    """

    name = "argsort"
    arity = 1
    traits = Trait.WHOLE
    attribute_types: ClassVar = {
        **AlongAxis.attribute_types,
        "count": (int, DimExpression),
        "descending": bool,
    }
    defaults: ClassVar = {"descending": False}
    not_differentiable = "its result is a position"

    @property
    def count(self) -> Dim:
        """How many positions there are in the result."""
        count = self.attributes["count"]
        assert isinstance(count, int | DimExpression)
        return as_dim(count)

    @property
    def descending(self) -> bool:
        """Whether the greatest element comes first."""
        return bool(self.attributes["descending"])

    def infer(self) -> tuple[TensorType, ...]:
        operand = self.operands[0].type
        self.check_axis(operand)
        extent, count = operand.shape[self.axis], self.count
        if isinstance(extent, int) and isinstance(count, int) and not 0 <= count <= extent:
            raise TypeRuleError(f"argsort gives {count} of {extent} positions")
        shape = (*operand.shape[: self.axis], count, *operand.shape[self.axis + 1 :])
        return (TensorType(DType.I32, shape),)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        x, axis = operands[0], self.axis
        if self.descending:
            backwards = np.argsort(np.flip(x, axis), axis, kind="stable")
            order = x.shape[axis] - 1 - np.flip(backwards, axis)
        else:
            order = np.argsort(x, axis, kind="stable")
        first = order.take(range(self.result.shape[axis]), axis)  # type: ignore[arg-type]
        return (first.astype(np.int32),)

    def jvp(self, build: Builder, results: Sequence[Value], tangents: Tangents) -> Tangents:
        return [None]


def shifted(build: Builder, x: Value, axis: int, reverse: bool, first: float) -> Value:
    """Element i is element i - 1 (with `reverse`, i + 1); `first` where there is none."""
    one = tuple(int(d == axis) for d in range(x.type.rank))
    none = (0,) * x.type.rank
    sides: Facts = {"low": none, "high": one} if reverse else {"low": one, "high": none}
    wide = build.emit(Pad, x, value=float(first) if x.dtype.is_float else int(first), **sides)
    starts = one if reverse else none
    return build.emit(Slice, wide, starts=starts, sizes=x.shape, steps=(1,) * x.type.rank)


def take_along(build: Builder, x: Value, positions: Value, axis: int) -> Value:
    """The elements of x along an axis at positions that depend on the place along the others."""
    type_ = positions.type
    indices = [
        positions if d == axis else build.emit(Iota, axis=d, type=type_) for d in range(type_.rank)
    ]
    return build.emit(Gather, x, *indices, axes=tuple(range(type_.rank)))
