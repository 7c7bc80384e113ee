"""Chains of ops that are aligned with the same first axes, and what one part of them computes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Operation, Trait, Value
from mapsto.ir.liveness import keep_live
from mapsto.ir.mask_copies import copied, is_of_indices
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.partition import part_type
from mapsto.ir.partitioning import Outer, depths, narrowed
from mapsto.ir.regions import enclosed
from mapsto.ir.stages import is_heavy

__all__ = ["Chain", "find_chains"]

LEAST_USES = 64
"""So often, at least, a part uses each element of what it has in common with other parts, as a
kernel: every part brings it into a cache of its own."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Ops of a block, aligned with axes of the extents `outer`, connected by values that each reads
    at its own index; no path between two of them leads outside."""

    block: Block
    outer: Outer
    cuts: Mapping[Operation, Sequence[int]]
    """For each op of the chain, in order, along how many axes it has its operands cut."""
    free: Mapping[Operation, Sequence[int]]
    """The same of cheap ops on what is the same for all parts, such as broadcasts."""
    stages: frozenset[Value]
    """What is in memory where the block is fused as it is."""

    @property
    def parts(self) -> int:
        """The number of parts."""
        return prod(self.outer)

    @property
    def replaced(self) -> set[Operation]:
        """The ops whose results the parts give; others are cheap, and stay where they are used."""
        return {op for op in self.cuts if op.result in self.stages}

    @cached_property
    def results(self) -> list[Value]:
        """The values of the chain that are needed outside of it."""
        replaced = self.replaced
        others = [op for op in self.block.operations[:-1] if op not in replaced]
        kept = keep_live(others, self.block.returned)
        needed = {*self.block.returned, *(value for op in kept for value in op.operands)}
        return [op.result for op in self.cuts if op in replaced and op.result in needed]

    @cached_property
    def body(self) -> PartBody:
        """What a part computes."""
        return _BodyWriter(self).write()


@dataclass(frozen=True, slots=True, eq=False)
class PartBody:
    """The computation of a part, and what its arguments are cut from: those of depth 0 first."""

    block: Block
    operands: Sequence[tuple[Value, int]]


class _BodyWriter:
    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.rank = len(chain.outer)
        self.inputs: dict[tuple[Value, int], Value] = {}
        self.inside: dict[Value, Value] = {}
        self.operations: list[Operation] = []

    def write(self) -> PartBody:
        """The body."""
        wanted = keep_live(list(self.chain.cuts), self.chain.results)
        for op in wanted:
            self._add(op, self.chain.cuts[op])
        operands = sorted(self.inputs, key=lambda entry: entry[1])
        arguments = [self.inputs[entry] for entry in operands]
        returned = [self.inside[value] for value in self.chain.results]
        return PartBody(enclosed(arguments, self.operations, returned), operands)

    def _add(self, op: Operation, cuts: Sequence[int]) -> Value:
        operands = [self._seen(v, depth) for v, depth in zip(op.operands, cuts, strict=True)]
        made = narrowed(op, operands, self.rank)
        self.operations.append(made)
        self.inside[op.result] = made.result
        return made.result

    def _seen(self, value: Value, depth: int) -> Value:
        """What the body sees of a value."""
        op = value.defining_op
        if depth == self.rank:
            if value in self.inside:
                return self.inside[value]
            if op in self.chain.free and op is not None:
                return self._add(op, self.chain.free[op])
        found = self.inputs.get((value, depth))
        if found is not None:
            return found
        if depth == 0 and is_of_indices(value):
            build = Builder(Block(()))
            made = copied(build, value, {})
            self.operations += build.block.operations
            return made
        seen = Value(part_type(value.type, depth), None, 0, value.hint)
        return self.inputs.setdefault((value, depth), seen)


def _is_cheap(op: Operation) -> bool:
    return op.has(Trait.ELEMENTWISE | Trait.INDEXING) and not op.has(Trait.EXPENSIVE)


# ---- finding them


def find_chains(block: Block, outer: Outer, stages: frozenset[Value]) -> Iterator[Chain]:
    """The chains of a block along these axes."""
    members = _Members(outer)
    for op in block.operations:
        members.add(op)
    for cuts in members.connected():
        yield Chain(block, outer, cuts, members.free, stages)


class _Members:
    """The ops aligned with some axes; each has a level, one more than that of a member that it
    needs but for the same index alone.  Ops of one level are not in each other's way."""

    def __init__(self, outer: Outer) -> None:
        self.outer = outer
        self.cuts: dict[Operation, Sequence[int]] = {}
        self.free: dict[Operation, Sequence[int]] = {}
        self.levels: dict[Value, int] = {}
        self.groups: dict[Operation, list[Operation]] = {}

    def add(self, op: Operation) -> None:
        """Adds the next op of the block, if it is one of them."""
        rank, cuts = len(self.outer), depths(op, self.outer)
        if cuts is not None and not _suits(op, cuts, rank):
            cuts = None
        deep = [cuts is not None and cuts[i] == rank for i in range(len(op.operands))]
        needed = zip(op.operands, deep, strict=True)
        linking = [v for v, is_deep in needed if is_deep and v.defining_op not in self.free]
        if cuts is not None and not linking and _is_cheap(op):
            self.free[op] = cuts
        elif cuts is not None and linking:
            self.cuts[op] = cuts
        inside = deep if op in self.cuts else [False] * len(deep)
        level = max(map(self._level, op.operands, inside), default=0)
        self.levels.update((result, level) for result in op.results)
        if op in self.cuts:
            self._join(op, linking, level)

    def _level(self, value: Value, is_inside: bool) -> int:
        """The least level of what needs a value."""
        return self.levels.get(value, 0) + (value.defining_op in self.cuts and not is_inside)

    def _join(self, op: Operation, linking: Sequence[Value], level: int) -> None:
        group = self.groups[op] = [op]
        for value in linking:
            other = value.defining_op
            if other not in self.cuts or other is None or self.levels[value] != level:
                continue
            if self.groups[other] is not group:
                merged = [*self.groups[other], *group]
                self.groups.update((member, merged) for member in merged)
                group = merged

    def connected(self) -> Iterator[dict[Operation, Sequence[int]]]:
        """The members of each chain, in order."""
        numbers = {op: number for number, op in enumerate(self.cuts)}
        groups = {id(group): group for group in self.groups.values()}
        for group in groups.values():
            yield {op: self.cuts[op] for op in sorted(group, key=numbers.__getitem__)}


def _suits(op: Operation, cuts: Sequence[int], rank: int) -> bool:
    """Whether an op is as good for one part: a contraction uses often enough what it shares with
    other parts, and is computed in the same way."""
    if not all(isinstance(extent, int) for extent in op.result.shape):
        return False
    if not isinstance(op, Contract) or not is_heavy(op):
        return True
    for map_, depth in zip(op.maps, cuts, strict=True):
        unused = [op.extents[d] for d in range(rank, len(op.extents)) if d not in map_.dims]
        if depth < rank and prod(d for d in unused if isinstance(d, int)) < LEAST_USES:
            return False
    pairs = zip(op.operands, cuts, strict=True)
    parts = [Value(part_type(operand.type, depth), None, 0) for operand, depth in pairs]
    return is_heavy(narrowed(op, parts, rank))
