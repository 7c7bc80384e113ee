"""Access by computed indices: gather, scatters, and the position of an extremum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Operation, Trait, Value
from mapsto.ir.dims import Dim
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.ops.axes import AlongAxis
from mapsto.ir.ops.contraction import REDUCTIONS, reduction_identity
from mapsto.ir.ops.elementwise import Div, Mul
from mapsto.ir.ops.logic import Cast, Eq, Gt, Select
from mapsto.ir.ops.shaping import dims_of, ints_of
from mapsto.ir.types import DType, TensorType

__all__ = [
    "ArgMax",
    "ArgMin",
    "Gather",
    "Scatter",
    "ScatterAdd",
    "ScatterMax",
    "ScatterMin",
    "scatter_sum",
]


class _Indexed(Operation):
    """Operands: a tensor, then one index tensor for each axis in `axes`, all of one shape."""

    traits = Trait.FALLIBLE

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes whose position an index tensor gives, ascending."""
        return ints_of(self, "axes")

    @property
    def indices(self) -> tuple[Value, ...]:
        """The index tensors."""
        return self.operands[1:]

    def check_indices(self, rank: int) -> tuple[Dim, ...]:
        """The common shape of the index tensors; TypeRuleError where they do not fit."""
        axes = self.axes
        if not axes or list(axes) != sorted(set(axes)) or not 0 <= axes[0] <= axes[-1] < rank:
            raise TypeRuleError(f"{self.name} along axes {list(axes)} of a tensor of rank {rank}")
        if len(self.indices) != len(axes):
            raise TypeRuleError(f"{self.name} takes one index tensor for each of {list(axes)}")
        first = self.indices[0].type
        for index in self.indices:
            if index.shape != first.shape or not index.dtype.is_integer:
                raise TypeRuleError(f"{self.name} by index tensors {first} and {index.type}")
        return first.shape


class Gather(_Indexed):
    """Element (b, r) is `source[.., indices[b], .., r, ..]`; an index outside is an error.

    The result has the index tensors' shape, then the source's axes that no index gives.
    """

    name = "gather"
    attribute_types = {"axes": tuple}

    def infer(self) -> tuple[TensorType, ...]:
        source = self.operands[0].type
        batch = self.check_indices(source.rank)
        kept = tuple(d for i, d in enumerate(source.shape) if i not in self.axes)
        return (source.with_shape((*batch, *kept)),)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        source, indices = operands[0], operands[1:]
        _check_range(self.name, indices, [source.shape[a] for a in self.axes])
        kept = [i for i in range(source.ndim) if i not in self.axes]
        return (source.transpose([*self.axes, *kept])[tuple(indices)],)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        if tangents[0] is None:
            return [None]
        return [build.emit(Gather, tangents[0], *self.indices, axes=self.axes)]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        shape = self.operands[0].shape
        total = scatter_sum(build, cotangent, self.indices, self.axes, shape)
        return [total, *[None] * len(self.indices)]


class Scatter(_Indexed):
    """Combines element (b, r) of the updates with `result[.., indices[b], .., r, ..]`, in order of
    b.

    The result has the shape `shape` and starts as what changes nothing; an index outside is an
    error.
    """

    traits = Trait.WHOLE | Trait.FALLIBLE
    attribute_types: ClassVar = {"axes": tuple, "shape": tuple}
    kind: ClassVar[str]
    """How two elements are combined: a reduction of `contract`."""

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The shape of the result."""
        return dims_of(self, "shape")

    @property
    def identity(self) -> float | int:
        """What the elements are to which no update goes."""
        return reduction_identity(self.kind, self.operands[0].dtype)

    def infer(self) -> tuple[TensorType, ...]:
        updates, shape = self.operands[0].type, self.shape
        batch = self.check_indices(len(shape))
        kept = tuple(d for i, d in enumerate(shape) if i not in self.axes)
        if updates.shape != (*batch, *kept):
            raise TypeRuleError(f"{self.name} of {updates} where {[*batch, *kept]} is expected")
        return (updates.with_shape(shape),)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        updates, indices = operands[0], operands[1:]
        shape = self.result.shape
        _check_range(self.name, indices, [shape[a] for a in self.axes])
        kept = [i for i in range(len(shape)) if i not in self.axes]
        order = [*self.axes, *kept]
        total = np.full([shape[a] for a in order], self.identity, updates.dtype)  # type: ignore[misc]
        REDUCTIONS[self.kind].at(total, tuple(indices), updates)
        return (total.transpose(np.argsort(order)),)

    def added(self, build: Builder, updates: Value) -> Value:
        """Other updates, added up at the same places."""
        return scatter_sum(build, updates, self.indices, self.axes, self.shape)


class ScatterAdd(Scatter):
    """Adds element (b, r) of the updates to `result[.., indices[b], .., r, ..]`, in order of b.

    The result has the shape `shape` and starts as zeros; an index outside is an error.
    """

    name = "scatter_add"
    kind = "sum"

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return [None if tangents[0] is None else self.added(build, tangents[0])]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        gathered = build.emit(Gather, cotangent, *self.indices, axes=self.axes)
        return [gathered, *[None] * len(self.indices)]


def scatter_sum(
    build: Builder,
    updates: Value,
    indices: Sequence[Value],
    axes: Sequence[int],
    shape: Sequence[Dim],
) -> Value:
    """Updates added up at their places; those of half precision are added in f32."""
    facts: dict[str, Any] = {"axes": tuple(axes), "shape": tuple(shape)}
    if updates.dtype not in (DType.F16, DType.BF16):
        return build.emit(ScatterAdd, updates, *indices, **facts)
    wide = build.emit(Cast, updates, dtype=DType.F32)
    total = build.emit(ScatterAdd, wide, *indices, **facts)
    return build.emit(Cast, total, dtype=updates.dtype)


class _ScatterExtremum(Scatter):
    """The derivative is shared equally by the updates that attain the extremum."""

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        updates, tangent = self.operands[0], tangents[0]
        if tangent is None:
            return [None]
        attained = build.emit(Gather, results[0], *self.indices, axes=self.axes)
        wins = build.emit(Eq, updates, attained)
        chosen = build.emit(Select, wins, tangent, build.like(0, tangent))
        count = self.added(build, build.emit(Cast, wins, dtype=updates.dtype))
        zero, one = build.like(0, count), build.like(1, count)
        share = build.emit(Select, build.emit(Gt, count, zero), build.emit(Div, one, count), zero)
        return [build.emit(Mul, self.added(build, chosen), share)]


class ScatterMax(_ScatterExtremum):
    """The greatest of the updates (b, r) that go to `result[.., indices[b], .., r, ..]`.

    The result has the shape `shape`, the least number where no update goes, and nan where one is
    nan; an index outside is an error.
    """

    name = "scatter_max"
    kind = "max"


class ScatterMin(_ScatterExtremum):
    """The least of the updates (b, r) that go to `result[.., indices[b], .., r, ..]`.

    The result has the shape `shape`, the greatest number where no update goes, and nan where one is
    nan; an index outside is an error.
    """

    name = "scatter_min"
    kind = "min"


def _check_range(name: str, indices: Sequence[Array], sizes: Sequence[Dim]) -> None:
    for index, size in zip(indices, sizes, strict=True):
        outside = (index < 0) | (index >= size)
        if outside.any():
            raise IndexError(f"{name}: index {index[outside][0]} into an axis of size {size}")


class _ArgExtremum(AlongAxis):
    """The first position of the extremum along `axis`, which the result no longer has."""

    arity = 1
    not_differentiable = "its result is a position"

    def infer(self) -> tuple[TensorType, ...]:
        operand = self.operands[0].type
        self.check_axis(operand)
        shape = (*operand.shape[: self.axis], *operand.shape[self.axis + 1 :])
        return (TensorType(DType.I32, shape),)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        return [None]


class ArgMax(_ArgExtremum):
    """The first position of the greatest element; a nan counts as greatest."""

    name = "argmax"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.argmax(operands[0], self.axis).astype(np.int32),)


class ArgMin(_ArgExtremum):
    """The first position of the least element; a nan counts as least."""

    name = "argmin"

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        return (np.argmin(operands[0], self.axis).astype(np.int32),)
