"""The pass that has chains of ops done part by part, so that data stays in a cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod

from mapsto.ir.core import Attribute, Block, Function, Operation, Region, Value
from mapsto.ir.fusion import buffer_of, fuse_function
from mapsto.ir.liveness import live_operations
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.control import Kernel
from mapsto.ir.ops.partition import Partition
from mapsto.ir.part_chains import Chain, find_chains
from mapsto.ir.partitioning import Outer
from mapsto.ir.passes.base import BlockPass
from mapsto.ir.reordering import around
from mapsto.ir.stages import estimate, find_stages, is_heavy
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["MakeParts"]

MOST_AXES = 2
"""Parts lie along so many axes at most: images, or the heads of sequences."""
MOST_OPERATIONS = 1000
"""Longer chains are not tried: fusing one for a trial takes time."""
LEAST_BALANCE = 0.9
"""How much of the time of all threads is used, at least, where each runs whole parts."""


@dataclass(frozen=True)
class MakeParts(BlockPass):
    """Does chains of contractions, and of what is between them, for one image or head at a time.

    %1 = contract %x, %w : f32[64, ..]         %1 = partition %w, %x {outer = [64]} {
    %2 = max %1, %0      : f32[64, ..]    =>       contract, max, contract : f32[1, ..]
    %3 = contract %2     : f32[64, ..]         }

    Only where each op of the chain works on one index of the first axes alone, what is between them
    does not fit a cache of `cache` bytes, what a part needs does, and the parts occupy `threads`.
    Sizes are known.  A part has `work` multiply-adds at least, so that calls of its kernels count
    for nothing.  It is what a batch of one is, and its sums have the same order.
    """

    cache: int = 1 << 19
    threads: int = 1
    work: int = 1 << 17

    name = "parts"

    def run_on_block(self, block: Block) -> Block:
        chain = next(self._chains(block), None)
        while chain is not None:
            block = _with_partition(chain)
            chain = next(self._chains(block), None)
        return block

    def _chains(self, block: Block) -> Iterator[Chain]:
        """The chains that are better done in parts."""
        large = [op for op in block.operations if _is_large(op, self.cache)]
        if not large:
            return
        stages = frozenset(stage.value for stage in find_stages(block))
        for outer in dict.fromkeys(_outer(op, n) for n in range(1, MOST_AXES + 1) for op in large):
            if outer is not None and self._occupies(prod(outer)):
                yield from filter(self._gains, find_chains(block, outer, stages))

    def _occupies(self, parts: int) -> bool:
        """Whether all threads are busy with parts for most of the time."""
        turns = ceil(parts / self.threads)
        return parts > 1 and parts >= LEAST_BALANCE * turns * self.threads

    def _gains(self, chain: Chain) -> bool:
        if len(chain.cuts) > MOST_OPERATIONS:
            return False
        heavy = [op for op in chain.cuts if is_heavy(op)]
        work = sum(estimate(op.extents) for op in heavy if isinstance(op, Contract))
        if work < self.work * chain.parts or not chain.results:
            return False
        fused = fuse_function(Function("part", chain.body.block)).block
        kernels = [op for op in fused.operations if isinstance(op, Kernel)]
        returned = set(map(buffer_of, fused.returned))
        passed = {v for op in kernels for v in op.results if v not in returned}
        needed = max(_bytes((*op.operands, *op.results)) for op in kernels)
        return needed <= self.cache <= chain.parts * _bytes([*passed])


def _is_large(op: Operation, cache: int) -> bool:
    return isinstance(op, Contract) and is_heavy(op) and _bytes([op.result]) >= cache // 2


def _outer(op: Operation, rank: int) -> Outer | None:
    """The extents of the first axes of a result, where they are known and there are more."""
    known = tuple(extent for extent in op.result.shape[:rank] if isinstance(extent, int))
    return known if len(known) == rank < op.result.type.rank else None


def _bytes(values: Sequence[Value]) -> int:
    return sum(estimate(value.shape) * value.dtype.bytes for value in values)


def _with_partition(chain: Chain) -> Block:
    """The block with the chain replaced: what needs its results comes behind it, what has effects
    in its order."""
    results = chain.results
    before, after = around(chain.block, chain.replaced)
    body = chain.body
    operands = [value for value, _ in body.operands]
    constants = sum(depth == 0 for _, depth in body.operands)
    attributes: dict[str, Attribute] = {"constants": constants, "outer": chain.outer}
    location = next(iter(chain.cuts)).location
    made = Partition(operands, attributes, [Region(body.block)], location)
    values: Values = dict(zip(results, made.results, strict=True))
    for old, new in values.items():
        new.hint = old.hint
    moved = [copy_operation(op, values, {}) for op in after]
    return live_operations(chain.block.with_operations([*before, made, *moved]))
