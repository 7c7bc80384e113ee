"""The contraction: index notation as one op.

Matrix products, batched products, convolutions of any rank and stride, pooling, window and axis
reductions are all this op with different affine maps, and so are their derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from mapsto.ir.affine import AffineExpr, AffineMap, projection
from mapsto.ir.builder import Builder
from mapsto.ir.core import Array, Operation, Value
from mapsto.ir.dims import Dim
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.ops.shaping import dims_of
from mapsto.ir.types import DType, TensorType

__all__ = [
    "REDUCTIONS",
    "Contract",
    "access",
    "contract",
    "reduce_axes",
    "reduction_identity",
]

REDUCTIONS: dict[str, np.ufunc] = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}


class Contract(Operation):
    """A reduction over an iteration domain of the product of the operands.

    The domain has the extents `extents`: first the dimensions of the result, in its order, then
    `len(extents) - rank` dimensions that are reduced, where `rank` is the result's.  `maps[i]`
    tells where operand i is read at a point of the domain.  A point at which any read falls outside
    its tensor contributes the identity of the reduction (0 where nothing is reduced).

    `reassociate` allows a lowering to choose the order of the reduction.
    """

    name = "contract"
    attribute_types: ClassVar = {
        "kind": str,
        "rank": int,
        "extents": tuple,
        "maps": tuple,
        "reassociate": bool,
    }
    defaults: ClassVar = {"kind": "sum", "reassociate": True}

    @property
    def kind(self) -> str:
        """The reduction: `sum`, `prod`, `max` or `min`."""
        return str(self.attributes["kind"])

    @property
    def rank(self) -> int:
        """The number of leading dimensions of the domain that are the result's."""
        rank = self.attributes["rank"]
        assert isinstance(rank, int)
        return rank

    @property
    def extents(self) -> tuple[Dim, ...]:
        """The extents of the iteration domain."""
        return dims_of(self, "extents")

    @property
    def maps(self) -> tuple[AffineMap, ...]:
        """For each operand, the position that is read at a point of the domain."""
        maps = self.attributes["maps"]
        assert isinstance(maps, tuple)
        return tuple(m for m in maps if isinstance(m, AffineMap))

    @property
    def reduced(self) -> range:
        """The dimensions of the domain that are reduced."""
        return range(self.rank, len(self.extents))

    def infer(self) -> tuple[TensorType, ...]:
        if not self.operands or len(self.maps) != len(self.operands):
            raise TypeRuleError(f"contract of {len(self.operands)} by {len(self.maps)} maps")
        if self.kind not in REDUCTIONS or not 0 <= self.rank <= len(self.extents):
            raise TypeRuleError(f"contract of kind {self.kind!r} and rank {self.rank}")
        first = self.operands[0].type
        for operand, map_ in zip(self.operands, self.maps, strict=True):
            if operand.dtype != first.dtype:
                raise TypeRuleError(f"contract of {first} and {operand.type}")
            if map_.rank != len(self.extents) or len(map_.results) != operand.type.rank:
                raise TypeRuleError(f"contract reads {operand.type} by {map_}")
        if first.dtype is DType.BOOL and self.reduced:
            raise TypeRuleError("contract of bool: cast first, or use max and min of integers")
        return (first.with_shape(self.extents[: self.rank]),)

    def evaluate(self, *operands: Array) -> Sequence[Array]:
        product = self._as_product(operands)
        if product is not None:
            return (product,)
        extents = [e for e in self.extents if isinstance(e, int)]
        dtype = operands[0].dtype
        total: Array = np.ones((1,) * len(extents), dtype)
        inside: Array = np.asarray(True)
        for operand, map_ in zip(operands, self.maps, strict=True):
            values, valid = _read(operand, map_, extents)
            total, inside = total * values, inside & valid
        if not self.reduced:
            return (np.broadcast_to(np.where(inside, total, 0).astype(dtype), extents),)
        identity = reduction_identity(self.kind, self.operands[0].dtype)
        terms = np.broadcast_to(np.where(inside, total, identity), extents)
        axes = tuple(self.reduced)
        result = REDUCTIONS[self.kind].reduce(terms, axis=axes, initial=identity, dtype=dtype)
        return (np.asarray(result, dtype),)

    def _as_product(self, operands: Sequence[Array]) -> Array | None:
        """The sum of products as one of NumPy's, which takes no memory for the whole domain; None
        where reads are anything but whole axes, or numbers are no floating-point numbers."""
        if self.kind != "sum" or not self.reduced or not self.operands[0].dtype.is_float:
            return None
        if len(operands) < 2 or not all(map(self._reads_whole, operands, self.maps)):
            return None
        places = [[expr.dims[0] for expr in map_.results] for map_ in self.maps]
        if {d for place in places for d in place} != set(range(len(self.extents))):
            return None
        dtype = operands[0].dtype
        wide = [x.astype(np.float32) if dtype == np.float16 else x for x in operands]
        pairs: list[Any] = [part for pair in zip(wide, places, strict=True) for part in pair]
        einsum: Any = np.einsum
        result = einsum(*pairs, list(range(self.rank)), optimize=True)
        return np.asarray(result, dtype)

    def _reads_whole(self, operand: Array, map_: AffineMap) -> bool:
        """Whether each axis of the operand is read at a dimension of its own, over its extent."""
        dims = [expr.single for expr in map_.results]
        known = [d for d in dims if d is not None]
        sizes = [self.extents[d] for d in known]
        return len(set(known)) == len(dims) and sizes == list(operand.shape)

    def jvp(
        self, build: Builder, results: Sequence[Value], tangents: Sequence[Value | None]
    ) -> Sequence[Value | None]:
        from mapsto.ir.ops.contraction_derivative import contract_jvp

        return [contract_jvp(self, build, results[0], tangents)]

    def transpose(
        self, build: Builder, cotangent: Value, linear: Sequence[bool]
    ) -> Sequence[Value | None]:
        from mapsto.ir.ops.contraction_derivative import contract_transpose

        return contract_transpose(self, build, cotangent, linear)


def reduction_identity(kind: str, dtype: DType) -> float | int:
    """The value that leaves a reduction of this kind as it is."""
    if kind in ("sum", "prod"):
        return int(kind == "prod")
    sign = -1 if kind == "max" else 1
    if dtype.is_float:
        return sign * float("inf")
    info: Any = np.iinfo(dtype.numpy)
    return int(info.min if kind == "max" else info.max)


def _read(operand: Array, map_: AffineMap, extents: Sequence[int]) -> tuple[Array, Array]:
    """The operand over the domain (size 1 along dimensions it does not depend on), and validity."""
    grids = np.ogrid[tuple(slice(0, e) for e in extents)] if extents else ()
    valid: Array = np.asarray(True)
    positions = []
    for expr, size in zip(map_.results, operand.shape, strict=True):
        position: Array = np.asarray(expr.constant).reshape((1,) * len(extents))
        for coefficient, grid in zip(expr.coefficients, grids, strict=True):
            if coefficient != 0:
                position = position + coefficient * grid
        valid = valid & (position >= 0) & (position < size)
        positions.append(np.clip(position, 0, max(size - 1, 0)))
    if 0 in operand.shape:
        return np.zeros((1,) * len(extents), operand.dtype), np.asarray(False)
    if not positions:
        return operand.reshape((1,) * len(extents)), valid
    return operand[tuple(positions)], valid


def contract(
    build: Builder,
    operands: Sequence[Value],
    maps: Sequence[AffineMap],
    extents: Sequence[Dim],
    rank: int,
    kind: str = "sum",
) -> Value:
    """Emits a contraction; see `Contract`."""
    return build.emit(
        Contract, *operands, kind=kind, rank=rank, extents=tuple(extents), maps=tuple(maps)
    )


def access(build: Builder, x: Value, exprs: Sequence[AffineExpr], extents: Sequence[Dim]) -> Value:
    """The tensor whose element at d is `x[exprs(d)]`, zero where that is outside."""
    map_ = AffineMap(len(extents), tuple(exprs))
    return contract(build, [x], [map_], extents, len(extents))


def reduce_axes(build: Builder, kind: str, x: Value, axes: Sequence[int]) -> Value:
    """The reduction of x over some of its axes, which the result no longer has."""
    if not axes:
        return x
    kept = [a for a in range(x.type.rank) if a not in axes]
    order = [*kept, *axes]
    extents = [x.shape[a] for a in order]
    map_ = projection([order.index(a) for a in range(x.type.rank)], len(order))
    return contract(build, [x], [map_], extents, len(kept), kind)
