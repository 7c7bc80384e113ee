"""Matrices of weights, computed anew for each product that uses one up.

What attention leaves for its gradient is a matrix of weights, as large as queries times keys.
Where a target has one kernel for weighted sums (`weighted_sums`) and one for sums that are weighted
by what is computed from products (`product_sums`), that matrix need not be there: the greatest
score and the total of each row tell all weights, given the scores, and these are a product (Dao et
al., "FlashAttention", 2022).

    weights = exp(fits - top) / total              weights = exp(fits - top) / total
    sums    = contract weights, values             sums    = contract weights, values
    slopes  = contract d_sums, values              slopes' = contract d_sums, values
    d_total = sum[keys] -weights * slopes          d_total = -sum[columns] sums * d_sums
    d_fits  = .. weights, slopes, d_total    =>    fits', weights', d_fits' = ..
    d_rows  = contract d_fits, keys                d_rows  = contract d_fits', keys
    d_keys  = contract d_fits, queries             fits'', slopes'', weights'', d_fits'' = ..
                                                   d_keys  = contract d_fits'', queries

Sums along the keys that a gradient takes of the matrix become sums along the columns, of what is
there: sum[j](sum[c](d[i, c] * v[j, c]) * w[i, j]) = sum[c](d[i, c] * sum[j](w[i, j] * v[j, c])).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mapsto.ir.affine import AffineExpr, AffineMap, axis
from mapsto.ir.banded import (
    Matrices,
    connected_matrices,
    dependent_matrices,
    is_product,
    matrix_side,
)
from mapsto.ir.bands import Axes
from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Function, Operation, Value
from mapsto.ir.liveness import live_operations, users_of
from mapsto.ir.ops.contraction import Contract, contract
from mapsto.ir.ops.elementwise import Div, Mul, Neg
from mapsto.ir.ops.logic import Cast
from mapsto.ir.ops.shaping import Broadcast, Constant
from mapsto.ir.product_sums import TakesSums, find_sums_together
from mapsto.ir.regions import with_regions
from mapsto.ir.stages import is_heavy
from mapsto.ir.substitution import Values, copy_operation
from mapsto.ir.weighted_sums import WeightedSums, along_rows, find_weighted_sums

__all__ = ["recompute_weights"]


def recompute_weights(function: Function, takes: TakesSums) -> Function:
    """The function with matrices of weights recomputed for each of their uses, where the target
    takes all of these and nothing else needs the matrices."""
    return replace(function, block=_inside_out(function.block, takes))


def _inside_out(block: Block, takes: TakesSums) -> Block:
    block = with_regions(block, lambda inner: _inside_out(inner, takes))
    families = list(_families(block))
    while families:
        written = _Writer(block, families)
        taken = {sums.sums for sums in find_sums_together(written.block) if takes(sums)}
        good = [f for f in families if all(written.copies[op] in taken for op in f.kernels)]
        if len(good) == len(families):
            return written.block
        families = good
    return block


@dataclass(frozen=True, slots=True, eq=False)
class _Family:
    """The matrices around weighted sums, with what is computed in place of sums along rows."""

    weighted: WeightedSums
    matrices: frozenset[Value]
    kernels: Sequence[Contract]
    """The products that use matrices up, the weighted sums among them."""
    totals: dict[Contract, _RowTotal]


def _families(block: Block) -> Iterator[_Family]:
    """Those of a block that some other product uses up too."""
    users = users_of(block.operations)
    numbers = {op: number for number, op in enumerate(block.operations)}
    seen: set[Value] = set()
    for sums in find_weighted_sums(block, closed=False):
        axes = _axes(sums)
        if axes is None or sums.scores in seen:
            continue
        known = dependent_matrices(block, sums.scores.shape, axes) - seen
        around = connected_matrices(sums.scores, axes, users, known, True) if known else None
        if around is None:
            continue
        seen |= around.matrices
        found = _family(sums, axes, around, users, numbers)
        if found is not None:
            yield found


def _axes(sums: WeightedSums) -> Axes | None:
    """The axes of the rows, the last one that there are several of, and of the keys."""
    shape, keys = sums.scores.shape, sums.keys
    batch = frozenset.intersection(*(map_.dims for map_ in sums.fits.maps))
    rows = [a for a, n in enumerate(shape) if a != keys and n != 1 and a not in batch]
    return (rows[-1], keys) if rows else None


def _family(
    sums: WeightedSums,
    axes: Axes,
    around: Matrices,
    users: dict[Value, list[Operation]],
    numbers: dict[Operation, int],
) -> _Family | None:
    """The family of weighted sums; None where it has no other product, or something sums rows up
    that cannot be written otherwise."""
    kernels = [op for op in around.users if is_heavy(op)]
    others = [op for op in around.users if op not in (*kernels, *sums.statistics)]
    totals: dict[Contract, _RowTotal] = {}
    for op in others:
        found = _row_total(op, axes, users)
        if found is None or numbers[found.sums] > numbers[op]:
            return None
        totals[op] = found
    is_used_again = sums.sums in kernels and len(kernels) > 1
    return _Family(sums, around.matrices, kernels, totals) if is_used_again else None


# ---- sums along rows


@dataclass(frozen=True, slots=True, eq=False)
class _RowTotal:
    """sum[j](product[i, j] * w[i, j] * f[i]), where `sums` are those of w with what the product has
    of each key; `factors` give f[i]."""

    op: Contract
    product: Contract
    side: int
    """Which operand of the product the rows are."""
    sums: Contract
    places: Sequence[int]
    """For each axis of `sums` the dimension of the product that goes along it."""
    factors: Sequence[tuple[Operation, Value | None]]

    def write(self, build: Builder, values: Values) -> Value:
        """Emits the same as a sum along the columns."""
        rank, keys = self.product.rank, _summed_axis(self.op)
        dims = [d for d in range(len(self.product.extents)) if d != keys]
        moved = {d: axis(number, len(dims)) for number, d in enumerate(dims)}
        zero = AffineExpr((0,) * len(dims))
        inner = [moved.get(d, zero) for d in range(len(self.product.extents))]
        maps = [
            self.product.maps[self.side].compose(inner),
            AffineMap(len(dims), tuple(inner[d] for d in self.places)),
        ]
        dtype = self.op.result.dtype
        operands = [self.product.operands[self.side], self.sums.result]
        factors = [_as(build, values.get(value, value), dtype) for value in operands]
        extents = tuple(self.product.extents[d] for d in dims)
        total = contract(build, factors, maps, extents, rank - 1)
        for op, factor in self.factors:
            total = _scaled(build, total, op, values.get(factor, factor) if factor else None)
        return total


def _summed_axis(op: Contract) -> int:
    singles = [expr.single for expr in op.maps[0].results]
    return singles.index(op.rank)


def _as(build: Builder, value: Value, dtype: object) -> Value:
    return value if value.dtype is dtype else build.emit(Cast, value, dtype=dtype)


def _scaled(build: Builder, total: Value, op: Operation, factor: Value | None) -> Value:
    """The total of rows to which what the op does with each element is done."""
    if factor is None:
        return build.emit(type(op), total)
    if factor.shape != total.shape:
        assert isinstance(factor.owner, Constant) and factor.owner.splat is not None
        factor = build.constant(factor.owner.splat, factor.dtype, total.shape)
    return build.emit(type(op), total, factor)


def _row_total(op: Contract, axes: Axes, users: dict[Value, list[Operation]]) -> _RowTotal | None:
    """A sum along the keys of a product times weights of which there are sums as well."""
    terms = op.operands[0].owner
    if op.kind != "sum" or not isinstance(terms, Mul) or _summed_axis(op) != axes[1]:
        return None
    for first, second in (terms.operands, reversed(terms.operands)):
        product = _product(first, axes)
        found = None if product is None else _with_sums(op, product, second, axes, users)
        if found is not None:
            return found
    return None


def _product(value: Value, axes: Axes) -> Contract | None:
    """The product of rows and keys that a value is, or was made of by a cast."""
    op = value.owner
    op = op.operands[0].owner if isinstance(op, Cast) else op
    return op if isinstance(op, Contract) and is_product(op.result, axes) else None


def _with_sums(
    op: Contract,
    product: Contract,
    weights: Value,
    axes: Axes,
    users: dict[Value, list[Operation]],
) -> _RowTotal | None:
    """The sum of a product times weights, if there are sums of what it has of each key."""
    keys = axes[1]
    side = 0 if keys not in product.maps[0].dims else 1
    for inner, factors in _peeled(weights, keys):
        for sums in _sums_of(inner, axes, users):
            places = _same_values(product, 1 - side, sums, axes)
            if places is not None:
                return _RowTotal(op, product, side, sums, places, factors)
    return None


def _peeled(
    value: Value, keys: int
) -> Iterator[tuple[Value, Sequence[tuple[Operation, Value | None]]]]:
    """A matrix as others that are multiplied by numbers of rows, one after the other; each time the
    ops that do so, the last one first."""
    factors: list[tuple[Operation, Value | None]] = []
    while True:
        yield value, tuple(reversed(factors))
        op = value.owner
        if isinstance(op, Neg):
            factors.append((op, None))
            (value,) = op.operands
        elif isinstance(op, Mul | Div):
            left, right = op.operands
            if isinstance(op, Mul) and _of_rows(right, keys) is None:
                left, right = right, left
            factor = _of_rows(right, keys)
            if factor is None:
                return
            factors.append((op, factor))
            value = left
        else:
            return


def _of_rows(value: Value, keys: int) -> Value | None:
    """A number for each row, or one for all, that a matrix has along the keys."""
    is_one = isinstance(value.owner, Constant) and value.owner.splat is not None
    return value if is_one else along_rows(value, keys)


def _sums_of(weights: Value, axes: Axes, users: dict[Value, list[Operation]]) -> Iterator[Contract]:
    """The products that sum something up with weights, as they are or rounded."""
    rounded = [op.result for op in users.get(weights, ()) if isinstance(op, Cast)]
    for value in (weights, *rounded):
        heavy = (op for op in users.get(value, ()) if isinstance(op, Contract) and is_heavy(op))
        yield from (op for op in heavy if _is_along_keys(op, value, axes))


def _is_along_keys(op: Contract, weights: Value, axes: Axes) -> bool:
    side = matrix_side(op, weights, axes)
    return side is not None and op.maps[side].results[axes[1]].single == op.rank


def _same_values(product: Contract, side: int, sums: Contract, axes: Axes) -> Sequence[int] | None:
    """For each axis of `sums` the dimension of the product that goes along it, if both read the
    same of the same operand at each key."""
    other = next(n for n, v in enumerate(sums.operands) if v is not product.operands[side])
    if product.operands[side] not in sums.operands:
        return None
    weights, read = sums.maps[other].results, sums.maps[1 - other].results
    own = {d: expr.single for d, expr in enumerate(weights)}
    for expr, place in zip(product.maps[side].results, read, strict=True):
        if expr.single is not None and expr.single >= product.rank:
            own[expr.single] = place.single
    rank = len(sums.extents)
    zero = AffineExpr((0,) * rank)
    found = (own.get(d) for d in range(len(product.extents)))
    inner = [zero if d is None else axis(d, rank) for d in found]
    if product.maps[side].compose(inner).results != read:
        return None
    places = {d: number for number, d in own.items() if d is not None}
    return [places[d] for d in range(sums.rank)] if places.keys() >= set(range(sums.rank)) else None


# ---- writing


class _Writer:
    """The block with the matrices of families computed where they are used; `copies` are the
    products that use them up."""

    def __init__(self, block: Block, families: Sequence[_Family]) -> None:
        self.build = Builder(Block(()))
        self.values: Values = {}
        self.copies: dict[Contract, Contract] = {}
        self._homes = {op: f for f in families for op in f.kernels}
        self._totals = {op: total for f in families for op, total in f.totals.items()}
        for op in block.operations:
            self.build.location = op.location
            self._write(op)
        written = block.with_operations(self.build.block.operations)
        self.block = live_operations(written)

    def _write(self, op: Operation) -> None:
        if isinstance(op, Contract) and op in self._totals:
            self.values[op.result] = self._totals[op].write(self.build, self.values)
            return
        family = self._homes.get(op) if isinstance(op, Contract) else None
        again = family is not None and op is not family.weighted.sums
        values = dict(self.values) if again else self.values
        if family is not None and again:
            for operand in op.operands:
                self._write_again(operand, family, values, set())
        changed = any(operand in values for operand in op.operands)
        written = copy_operation(op, values, {}) if changed or op.regions else op
        self.build.append(written)
        if again:
            self.values[op.result] = written.result
        if isinstance(op, Contract) and isinstance(written, Contract):
            self.copies[op] = written

    def _write_again(self, value: Value, family: _Family, values: Values, done: set[Value]) -> None:
        """Copies what computes a matrix, from the products on."""
        op = value.defining_op
        repeats = isinstance(op, Broadcast) and value.shape == family.weighted.scores.shape
        if op is None or value in done or not (value in family.matrices or repeats):
            return
        done.add(value)
        for operand in op.operands:
            self._write_again(operand, family, values, done)
        self.build.append(copy_operation(op, values, {}))
