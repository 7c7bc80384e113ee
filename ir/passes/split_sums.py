"""The pass that divides long sums of products with few results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from mapsto.ir.affine import axis
from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Operation, Value
from mapsto.ir.ops.contraction import Contract, contract, reduce_axes
from mapsto.ir.ops.elementwise import Add
from mapsto.ir.passes.base import BlockPass
from mapsto.ir.stages import estimate, is_heavy
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["SplitSums"]

SLACK = 2.0
"""How many times as long as wanted, or as short, parts may be, so that none is left over and parts
are far from each other in memory."""


@dataclass(frozen=True)
class SplitSums(BlockPass):
    """Divides long sums of products with few results into parts of about `length` terms, which
    tasks compute side by side, and adds these up.

    %1 = contract %x, %y {extents = [8, 8, 65536], ..} : f32[8, 8]
      =>
    %1 = contract %x, %y {extents = [8, 128, 8, 512], ..} : f32[8, 128, 8]
    %2 = contract %1 {extents = [8, 8, 128], ..}          : f32[8, 8]

    Only sums of known length, of `least` parts at least, and of floats that are not summed in a
    wider type.  For each index of the first dimension there are `results` at most, of `work`
    multiply-adds at least; that dimension is the batch as a rule, and the order of a sum must not
    depend on it.  Terms that are left over are a part of their own, added last.
    """

    length: int = 512
    least: int = 8
    results: int = 128
    work: int = 1 << 16

    name = "split-sums"

    def run_on_block(self, block: Block) -> Block:
        copy = Block([a.type for a in block.arguments], [a.hint for a in block.arguments])
        values: Values = dict(zip(block.arguments, copy.arguments, strict=True))
        for op in block.operations:
            cut = self._cut(op)
            if cut is None or not isinstance(op, Contract):
                copy.operations.append(copy_operation(op, values, {}))
                continue
            operands = [values[operand] for operand in op.operands]
            total = cut.total(Builder(copy, op.location), op, operands)
            total.hint = op.result.hint
            values[op.result] = total
        return copy

    def _cut(self, op: Operation) -> _Cut | None:
        """Where the sum of an op is divided; None where it is not."""
        if not isinstance(op, Contract) or not is_heavy(op) or op.result.dtype.bytes < 4:
            return None
        if not all(isinstance(extent, int) for extent in op.extents[1:]):
            return None
        results = estimate(op.extents[1 : op.rank])
        terms = estimate(op.extents[op.rank :])
        if results > self.results or terms < self.least * self.length:
            return None
        if results * terms < self.work:
            return None
        whole: list[int] = []
        inner = terms
        for dim in _from_outside(op):
            extent = estimate((op.extents[dim],))
            inner //= extent
            if inner < self.length:
                break
            whole.append(dim)
        return _Cut(tuple(whole), dim, extent, self._each(extent, inner))

    def _each(self, extent: int, inner: int) -> int:
        """How many indices of so many a part has, with `inner` terms at each: a divisor, if one is
        near."""
        wanted = min(extent, max(1, round(self.length / inner)))
        near = range(ceil(wanted / SLACK), int(wanted * SLACK) + 1)
        even = [each for each in near if extent % each == 0]
        return min(even, key=lambda each: _ratio(each, wanted), default=wanted)


@dataclass(frozen=True, slots=True)
class _Cut:
    """Parts of a sum: one for each index of some dimensions, and `each` indices of one more."""

    whole: tuple[int, ...]
    dim: int
    extent: int
    each: int

    def total(self, build: Builder, op: Contract, operands: Sequence[Value]) -> Value:
        """The sum of the parts."""
        count, done = self.extent // self.each, self.extent // self.each * self.each
        parts = [*(op.extents[dim] for dim in self.whole), count]
        rank, own = len(parts) + len(op.extents), dict.fromkeys(self.whole, 1)
        extents = [(own | {self.dim: self.each}).get(d, n) for d, n in enumerate(op.extents)]
        # Behind the first dimension, so that this still is the batch.
        axes = range(1, 1 + len(parts))
        at = [axis(dim + len(parts) if dim > 0 else 0, rank) for dim in range(len(op.extents))]
        for dim, number in zip(self.whole, axes, strict=False):
            at[dim] = axis(number, rank)
        at[self.dim] += axis(axes[-1], rank).scaled(self.each)
        maps = [map_.compose(at) for map_ in op.maps]
        extents[1:1] = parts
        sums = contract(build, operands, maps, extents, len(parts) + op.rank)
        total = reduce_axes(build, "sum", sums, axes)
        if done == self.extent:
            return total
        return build.emit(Add, total, self._rest(build, op, operands, done))

    def _rest(self, build: Builder, op: Contract, operands: Sequence[Value], done: int) -> Value:
        """The sum of what is left over."""
        at = [axis(dim, len(op.extents)) for dim in range(len(op.extents))]
        at[self.dim] = at[self.dim].shifted(done)
        extents = list(op.extents)
        extents[self.dim] = self.extent - done
        return contract(build, operands, [m.compose(at) for m in op.maps], extents, op.rank)


def _ratio(a: int, b: int) -> float:
    return max(a, b) / min(a, b)


def _from_outside(op: Contract) -> list[int]:
    """The dimensions that are reduced, in the order in which they lie in memory: by the last axis
    along which an operand is read by them."""

    def depth(dim: int) -> int:
        results = (pair for map_ in op.maps for pair in enumerate(map_.results))
        return max((axis for axis, expr in results if expr.coefficients[dim] != 0), default=0)

    return sorted(op.reduced, key=depth)
