"""Banded matrices for one group of rows and the keys that it sees, and what is outside of these.

Outside, a matrix is a number for each row, or such a number times a product; both can be taken out
of a sum.  So what uses a matrix up is as exact, with infinities and NaN too, as long as sums
of values are within the range of their dtype.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.affine import AffineExpr, AffineMap, axis
from mapsto.ir.banded import Banded, is_product, matrix_dims
from mapsto.ir.bands import constant_outside, never_outside
from mapsto.ir.builder import Builder
from mapsto.ir.core import Operation, Trait, Value
from mapsto.ir.dims import Dim
from mapsto.ir.mask_copies import copied, is_of_indices
from mapsto.ir.ops.contraction import Contract, contract
from mapsto.ir.ops.elementwise import Add, Div, Mul, Neg
from mapsto.ir.ops.functions import Max
from mapsto.ir.ops.logic import Select
from mapsto.ir.ops.shaping import Broadcast, Concat, Constant, Reshape, Slice

__all__ = ["GroupWriter", "NoSuchFormError"]


_DEEPEST = 4
"""So many ops on numbers of rows are done again for each group, at most."""


class NoSuchFormError(Exception):
    """A matrix is neither of the two forms outside of the band."""


@dataclass(frozen=True, slots=True)
class _Outside:
    """What a matrix is for keys that a group does not see: `row`, of the rows' shape, times the
    product if there is one; without a row 1 times it."""

    row: Value | None
    product: Contract | None = None


class GroupWriter:
    """Writes what depends on matrices for a group of rows, as it is asked for.

    `moved` maps values of the old block to those of the new one, where they are others.
    """

    def __init__(
        self, build: Builder, banded: Banded, rows: range, keys: range, moved: Mapping[Value, Value]
    ) -> None:
        self.build = build
        self.banded = banded
        self.rows = rows
        self.keys = keys
        self.moved = moved
        self.row_axis, self.key_axis = banded.axes
        size = banded.shape[self.key_axis]
        self.left = [part for part in (range(keys.start), range(keys.stop, size)) if part]
        self.known: dict[Value, Value] = {}
        """Results for the group: of ops that use matrices up, and of those on rows."""
        self._inside: dict[Value, Value] = {}
        self._outside: dict[Value, _Outside | None] = {}
        self._masks: dict[Value, Value] = {}

    def matrix(self, value: Value) -> None:
        """Writes a matrix; those that it is computed from are written."""
        self.inside(value)
        if self.left:
            try:
                self.outside(value)
            except NoSuchFormError:
                self._outside[value] = None

    # ---- what uses matrices up

    def reduced(self, op: Contract) -> Value:
        """A reduction along the keys."""
        matrix = op.operands[0]
        inside = self.inside(matrix)
        extents = (*self.row_shape, len(self.keys))
        result = contract(self.build, [inside], op.maps, extents, op.rank, op.kind)
        for part in self.left:
            result = self._with_part(op, result, self.outside(matrix), part)
        self.known[op.result] = result
        return result

    def _with_part(self, op: Contract, result: Value, outside: _Outside, part: range) -> Value:
        build = self.build
        if op.kind == "max" and outside.product is None and outside.row is not None:
            return build.emit(Max, result, outside.row)
        if op.kind != "sum":
            raise NoSuchFormError
        if outside.product is None:
            assert outside.row is not None, "one of the two"
            more = build.emit(Mul, outside.row, build.like(len(part), outside.row))
        else:
            more = self._summed_product(outside.product, part)
            more = more if outside.row is None else build.emit(Mul, more, outside.row)
        return build.emit(Add, result, more)

    def _summed_product(self, op: Contract, part: range) -> Value:
        """The sum of a product over some keys, for each row: one operand is summed first."""
        side = next(i for i, map_ in enumerate(op.maps) if self.key_axis in map_.dims)
        total, kept = self._summed(op, side, self.key_axis, part)
        order = [d for d in range(len(op.extents)) if d != self.key_axis]
        places = self._places(op, order, {self.row_axis: self.rows.start})
        maps = [map_.compose(places) for map_ in op.maps]
        maps[side] = AffineMap(len(order), tuple(axis(order.index(d), len(order)) for d in kept))
        operands = list(map(self._new, op.operands))
        operands[side] = total
        sizes = {self.row_axis: len(self.rows)}
        extents = [sizes.get(d, op.extents[d]) for d in order]
        return contract(self.build, operands, maps, extents, op.rank - 1)

    def over_keys(self, op: Contract, side: int) -> Value:
        """A sum over the keys of a matrix times values."""
        build, matrix = self.build, op.operands[side]
        row = self._dim(op, side, self.row_axis)
        result = self._product_of(op, side, {row: self.rows, op.rank: self.keys}, {op.rank})
        for part in self.left:
            total, kept = self._summed(op, 1 - side, op.rank, part)
            values = build.emit(Broadcast, total, shape=result.shape, dims=tuple(kept))
            factor = self._spread(op, side, self._row_outside(matrix), result.shape)
            result = build.emit(Add, result, build.emit(Mul, factor, values))
        self.known[op.result] = result
        return result

    def over_rows(self, op: Contract, side: int) -> Value:
        """A sum over the rows of the group, for all keys."""
        build, matrix = self.build, op.operands[side]
        key = self._dim(op, side, self.key_axis)
        inside = self._product_of(op, side, {key: self.keys, op.rank: self.rows}, {op.rank})
        if not self.left:
            return inside
        # Of each key outside the same: rows times their numbers.
        row = self._row_outside(matrix)
        order = [d for d in range(len(op.extents)) if d != key]
        places = self._places(op, order, {op.rank: self.rows.start})
        maps = [map_.compose(places) for map_ in op.maps]
        nowhere = AffineExpr((0,) * len(order))
        dims = [d for a, d in enumerate(matrix_dims(op, side)) if a != self.key_axis]
        reads = [nowhere if d is None else axis(order.index(d), len(order)) for d in dims]
        maps[side] = AffineMap(len(order), tuple(reads))
        operands = list(map(self._new, op.operands))
        operands[side] = row
        sizes = {op.rank: len(self.rows)}
        extents = [sizes.get(d, op.extents[d]) for d in order]
        every = contract(build, operands, maps, extents, op.rank - 1)
        before, after = range(self.keys.start), self.left[-1]
        parts = [self._repeated(every, op, key, part) for part in (before,) if part]
        parts.append(inside)
        if after.start == self.keys.stop:
            parts.append(self._repeated(every, op, key, after))
        return build.emit(Concat, *parts, axis=key)

    def _repeated(self, value: Value, op: Contract, dim: int, part: range) -> Value:
        shape = [*op.result.shape]
        shape[dim] = len(part)
        dims = tuple(d for d in range(op.rank) if d != dim)
        return self.build.emit(Broadcast, value, shape=tuple(shape), dims=dims)

    def _row_outside(self, matrix: Value) -> Value:
        outside = self.outside(matrix)
        if outside.product is not None or outside.row is None:
            raise NoSuchFormError
        return outside.row

    def _dim(self, op: Contract, side: int, place: int) -> int:
        found = matrix_dims(op, side)[place]
        assert found is not None, "rows and keys are dimensions"
        return found

    def _spread(self, op: Contract, side: int, row: Value, shape: Sequence[Dim]) -> Value:
        """Numbers of rows as they are in the result of a contraction over the keys."""
        dims = [d for a, d in enumerate(matrix_dims(op, side)) if a != self.key_axis]
        kept = [d for d in dims if d is not None]
        if kept != sorted(kept):
            raise NoSuchFormError
        if len(kept) < len(dims):
            pairs = zip(dims, row.shape, strict=True)
            narrow = tuple(extent for d, extent in pairs if d is not None)
            row = self.build.emit(Reshape, row, shape=narrow)
        return self.build.emit(Broadcast, row, shape=tuple(shape), dims=tuple(kept))

    # ---- contractions

    def _product_of(
        self, op: Contract, side: int, ranges: Mapping[int, range], shifted: set[int]
    ) -> Value:
        """A contraction of the group's matrix over a part of its domain; the other operand is read
        at the dimensions that are `shifted` from where these begin."""
        extents = [len(ranges[d]) if d in ranges else e for d, e in enumerate(op.extents)]
        offsets = {d: ranges[d].start for d in shifted}
        places = self._places(op, range(len(extents)), offsets)
        maps, operands = list(op.maps), list(map(self._new, op.operands))
        maps[1 - side] = maps[1 - side].compose(places)
        operands[side] = self.inside(op.operands[side])
        return contract(self.build, operands, maps, extents, op.rank)

    def _places(
        self, op: Contract, order: Sequence[int], offsets: Mapping[int, int]
    ) -> list[AffineExpr]:
        """For each dimension of a contraction where it is in a domain of those in the order."""
        count = len(order)
        nowhere = AffineExpr((0,) * count)
        return [
            axis(order.index(d), count).shifted(offsets.get(d, 0)) if d in order else nowhere
            for d in range(len(op.extents))
        ]

    def _summed(self, op: Contract, side: int, dim: int, part: range) -> tuple[Value, list[int]]:
        """An operand of a contraction, summed over a part of a dimension, and those it has left."""
        map_ = op.maps[side]
        kept = sorted(map_.dims - {dim})
        order = [*kept, dim]
        map_ = map_.compose(self._places(op, order, {dim: part.start}))
        extents = [*(op.extents[d] for d in kept), len(part)]
        return contract(
            self.build, [self._new(op.operands[side])], [map_], extents, len(kept)
        ), kept

    def _new(self, value: Value) -> Value:
        return self.moved.get(value, value)

    # ---- matrices, for the keys that the group sees

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of what is one number for each row of the group."""
        shape = self._shape
        return (*shape[: self.key_axis], *shape[self.key_axis + 1 :])

    @property
    def _shape(self) -> tuple[int, ...]:
        sizes = {self.row_axis: len(self.rows), self.key_axis: len(self.keys)}
        return tuple(sizes.get(a, extent) for a, extent in enumerate(self.banded.shape))

    def inside(self, value: Value) -> Value:
        """A tensor of the matrices' shape, for the group and its keys."""
        found = self._inside.get(value)
        if found is None:
            found = self._inside[value] = self._new_inside(value)
        return found

    def _new_inside(self, value: Value) -> Value:
        op, build = value.defining_op, self.build
        offsets = {self.row_axis: self.rows.start, self.key_axis: self.keys.start}
        if value in self.banded.matrices and op is not None:
            if not is_product(value, self.banded.axes):
                return build.append(op.rebuilt(list(map(self.inside, op.operands)))).result
            assert isinstance(op, Contract)
            extents = [*self._shape, *op.extents[op.rank :]]
            places = self._places(op, range(len(extents)), offsets)
            maps = [map_.compose(places) for map_ in op.maps]
            return contract(build, list(map(self._new, op.operands)), maps, extents, op.rank)
        if isinstance(op, Constant) and op.splat is not None:
            return build.constant(op.splat, value.dtype, self._shape)
        if isinstance(op, Broadcast) and op.dims == self._row_axes:
            return build.emit(
                Broadcast, self.row(op.operands[0]), shape=self._shape, dims=self._row_axes
            )
        starts = tuple(offsets.get(a, 0) for a in range(len(self._shape)))
        steps = (1,) * len(starts)
        is_mask = is_of_indices(value)
        given = copied(build, value, self._masks) if is_mask else self._new(value)
        return build.emit(Slice, given, starts=starts, sizes=self._shape, steps=steps)

    @property
    def _row_axes(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.banded.shape)) if a != self.key_axis)

    def row(self, value: Value) -> Value:
        """What is one number for each row, for those of the group."""
        found = self.known.get(value)
        if found is None:
            found = self.known[value] = self._new_row(value)
        return found

    def _new_row(self, value: Value) -> Value:
        op, build = value.defining_op, self.build
        if isinstance(op, Constant) and op.splat is not None:
            return build.constant(op.splat, value.dtype, self.row_shape)
        if op is not None and op.has(Trait.ELEMENTWISE) and self._is_of_group(value):
            return build.append(op.rebuilt(list(map(self.row, op.operands)))).result
        place = self.row_axis - (self.key_axis < self.row_axis)
        starts = tuple(self.rows.start if a == place else 0 for a in range(value.type.rank))
        steps = (1,) * len(starts)
        given = self._new(value)
        return build.emit(Slice, given, starts=starts, sizes=self.row_shape, steps=steps)

    def _is_of_group(self, value: Value, depth: int = _DEEPEST) -> bool:
        """Whether numbers of rows are computed from results for the group, in few steps."""
        op = value.defining_op
        if value in self.known:
            return True
        if op is None or not op.has(Trait.ELEMENTWISE) or depth == 0:
            return False
        return any(self._is_of_group(operand, depth - 1) for operand in op.operands)

    # ---- and for other keys

    def outside(self, value: Value) -> _Outside:
        """What a tensor of the matrices' shape is for keys that the group does not see."""
        if value not in self._outside:
            self._outside[value] = self._new_outside(value)
        found = self._outside[value]
        if found is None:
            raise NoSuchFormError
        return found

    def _new_outside(self, value: Value) -> _Outside:
        op = value.defining_op
        if isinstance(op, Constant) and op.splat is not None:
            return _Outside(self.build.constant(op.splat, value.dtype, self.row_shape))
        if isinstance(op, Broadcast) and op.dims == self._row_axes:
            return _Outside(self.row(op.operands[0]))
        if isinstance(op, Contract) and is_product(value, self.banded.axes):
            return _Outside(None, op)
        if isinstance(op, Select):
            return self._selected_outside(op)
        if op is None or not op.has(Trait.ELEMENTWISE):
            raise NoSuchFormError
        return self._computed_outside(op, [self.outside(operand) for operand in op.operands])

    def _selected_outside(self, op: Select) -> _Outside:
        axes, band = self.banded.axes, self.banded.band
        condition, first, second = op.operands
        for wanted, other in ((True, second), (False, first)):
            if never_outside(condition, axes, wanted, band):
                return self.outside(other)
        found = constant_outside(op.result, axes)
        if found is None or found[1] | band != band:
            raise NoSuchFormError
        return _Outside(self.build.constant(found[0], op.result.dtype, self.row_shape))

    def _computed_outside(self, op: Operation, parts: Sequence[_Outside]) -> _Outside:
        rows = [part.row for part in parts if part.row is not None]
        products = [part.product for part in parts if part.product is not None]
        if not products:
            return _Outside(self.build.append(op.rebuilt(rows)).result)
        if len(products) > 1 or not isinstance(op, Mul | Div | Neg):
            raise NoSuchFormError
        if isinstance(op, Div) and parts[1].product is not None:
            raise NoSuchFormError
        if len(rows) < len(parts):
            one = self.build.constant(1, op.result.dtype, self.row_shape)
            rows = [one if part.row is None else part.row for part in parts]
        return _Outside(self.build.append(op.rebuilt(rows)).result, products[0])
