"""Which values of a block of ops are computed as wholes, and how they read each other.

A *stage* is a value whose elements are computed once each: results, reductions, and what would be
dear to compute again.  All other values are computed element by element where a stage needs them.
Fusion decides with this which stages share a kernel; lowering finds the same stages in a kernel's
body.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mapsto.ir.bounds import inside_above, inside_below
from mapsto.ir.core import Block, Operation, Trait, Value
from mapsto.ir.dataflow import (
    Place,
    compose_place,
    domain,
    identity_place,
    is_view,
    operand_places,
    takes_loop,
)
from mapsto.ir.dims import Dim, dim_value, product, symbols
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.indexing import Gather
from mapsto.ir.ops.shaping import Concat, Constant, Iota, Pad

__all__ = [
    "Read",
    "Stage",
    "estimate",
    "find_stages",
    "is_external",
    "is_heavy",
    "is_literal",
    "stage_of",
]

UNKNOWN_SIZE = 64
"""Stands for a size that is known only at run time."""

HEAVY_PRODUCTS = 128
"""A contraction with so many multiply-adds for each index of its first dimension has a kernel and a
schedule of its own."""

CHEAP_PROLOGUE = 4
"""So many cheap ops are computed while a contraction reads a function's argument."""

MANY_SITES = 8
"""A value that is read in more ways than this is kept, however cheap it is."""

FEW_OPS = 16
"""What so many ops compute from indices is never kept."""

LONGEST_CHAIN = 48
"""So many ops at most, one computed from the other, are within a stage, so that code which walks
stages may use recursion."""


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """A value and where a point of the stage's domain reads it.  Without a value: indices that are
    used as numbers (an iota, a bounds check)."""

    value: Value | None
    place: Place


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """A value computed over a domain: `extents`, of which the first `rank` are the result's."""

    value: Value
    op: Operation | None
    """What computes it; None for an argument that is a result as it is."""
    extents: tuple[Dim, ...]
    reads: tuple[Read, ...]

    @property
    def rank(self) -> int:
        """The rank of the value."""
        return self.value.type.rank

    @property
    def is_map(self) -> bool:
        """Whether each element is computed on its own, without a loop."""
        return self.op is None or not takes_loop(self.op)


def estimate(dims: Sequence[Dim]) -> int:
    """The number of elements, with a guess for sizes that are not known."""
    total = product(tuple(dims))
    return max(0, dim_value(total, dict.fromkeys(symbols(total), UNKNOWN_SIZE)))


def is_heavy(op: Operation) -> bool:
    """Whether the op is a contraction with its own schedule: a sum of products of two tensors,
    neither of which has all dimensions of the result, long enough to be worth it.

    The first dimension of the result is not counted.  It is the batch as a rule, and the answer, on
    which the order of the sum depends, must not: a program for any batch gives the same bits as one
    for a batch that is known.
    """
    if not isinstance(op, Contract) or op.kind != "sum" or len(op.operands) != 2:
        return False
    if not op.attributes["reassociate"] or not op.operands[0].dtype.is_float:
        return False
    reduced = [d for d in op.reduced if op.extents[d] != 1]
    kept = [d for d in range(op.rank) if d == 0 or op.extents[d] != 1]
    first, second = (map_.dims for map_ in op.maps)
    shared = any(d in first and d in second for d in reduced)
    rows = any(d in first and d not in second for d in kept)
    columns = any(d in second and d not in first for d in kept)
    separate = rows and columns if op.rank > 1 else rows or columns
    counted = op.extents[1:] if op.rank > 1 else op.extents
    return shared and separate and estimate(counted) >= HEAVY_PRODUCTS


def is_external(value: Value) -> bool:
    """Whether a value is in memory before any kernel that reads it runs, and so is not computed
    inside one: an argument, a constant array, another view of a buffer, what an op gives that is
    lowered on its own."""
    op = value.owner
    if not isinstance(op, Operation):
        return True
    return is_view(op) or is_literal(value) or op.has(Trait.APART)


def is_literal(value: Value) -> bool:
    """Whether a value is an array of constants that is part of the program."""
    return isinstance(value.owner, Constant) and value.owner.splat is None


def find_stages(block: Block) -> list[Stage]:
    """The stages of a block, in order; arguments that are returned come first."""
    chosen = _Selection(block).run()
    arguments = [value for value in block.arguments if value in chosen]
    computed = [r for op in block.operations for r in op.results if r in chosen]
    return [stage_of(value, chosen) for value in dict.fromkeys([*arguments, *computed])]


def stage_of(value: Value, stages: frozenset[Value]) -> Stage:
    """The stage that computes a value from those stages and what is external."""
    op = value.owner
    if not isinstance(op, Operation):
        place = identity_place(value.type.rank)
        return Stage(value, None, value.shape, (Read(value, place),))
    extents = domain(op)
    collector = _Collector(len(extents), stages)
    collector.enter(op, identity_place(len(extents)))
    return Stage(value, op, extents, tuple(collector.reads))


@dataclass(slots=True)
class _Collector:
    """Walks from an op to the stages and external values that it reads."""

    rank: int
    stages: frozenset[Value]
    reads: list[Read] = field(default_factory=list)
    seen: set[tuple[Value, Place]] = field(default_factory=set)

    def enter(self, op: Operation, place: Place) -> None:
        """Collects what the op reads; `place` is over its domain."""
        numbers = _used_as_numbers(op)
        if numbers:
            self.reads.append(Read(None, tuple(place[d] for d in numbers)))
        for operand, inner in zip(op.operands, operand_places(op), strict=True):
            self.visit(operand, compose_place(inner, place, self.rank))

    def visit(self, value: Value, place: Place) -> None:
        """Collects what a value at a place comes to."""
        if (value, place) in self.seen:
            return
        self.seen.add((value, place))
        if value in self.stages or is_external(value):
            self.reads.append(Read(value, place))
            return
        assert isinstance(value.owner, Operation)
        self.enter(value.owner, place)


def _used_as_numbers(op: Operation) -> list[int]:
    """The dimensions of an op's domain whose index matters apart from choosing elements."""
    match op:
        case Iota():
            axis = op.attributes["axis"]
            return [axis] if isinstance(axis, int) else []
        case Pad():
            return [i for i, ends in enumerate(zip(op.low, op.high, strict=True)) if ends != (0, 0)]
        case Concat():
            return [op.axis]
        case Contract():
            return _guarded_dims(op)
    chooses = op.has(Trait.ELEMENTWISE | Trait.INDEXING) or takes_loop(op)
    if chooses or isinstance(op, Gather):
        return []
    return list(range(op.result.type.rank))


def _guarded_dims(op: Contract) -> list[int]:
    """The dimensions on which reads depend that may be outside of their tensors."""
    dims: set[int] = set()
    for operand, map_ in zip(op.operands, op.maps, strict=True):
        for expr, size in zip(map_.results, operand.shape, strict=True):
            if not (inside_below(expr, op.extents) and inside_above(expr, op.extents, size)):
                dims.update(expr.dims)
    return sorted(dims)


_Site = tuple[Value, Place, int]
"""A stage, the place in its domain at which it needs a value, and the domain's rank."""


class _Selection:
    """Chooses the stages of a block, from the results back to the arguments."""

    def __init__(self, block: Block) -> None:
        self.block = block
        self.ends = frozenset(_ends_of_long_chains(block))
        self.forced: set[Value] = {*block.returned, *self.ends}
        self.stages: set[Value] = set()
        self.sites: dict[Value, set[_Site]] = {}
        self.uses = Counter(v for op in block.operations for v in op.operands)
        self._leaves: dict[Value, frozenset[Value]] = {}

    def run(self) -> frozenset[Value]:
        """The values that are stages."""
        for op in reversed(self.block.operations[:-1]):
            if op.has(Trait.APART):
                self.forced.update(op.operands)
                continue
            for result in op.results:
                self._decide(op, result)
        self.stages.update(v for v in self.block.arguments if v in self.forced)
        return frozenset(v for v in self.stages if not _is_memory(v))

    def _decide(self, op: Operation, value: Value) -> None:
        if value not in self.forced and value not in self.sites:
            return
        if is_external(value):
            self.forced.update(op.operands)
            return
        if value in self.forced or takes_loop(op) or self._is_worth_keeping(op, value):
            self.stages.add(value)
            if is_heavy(op):
                for operand in op.operands:
                    self._force_operand(operand)
            rank = len(domain(op))
            self._ask(op, [(value, identity_place(rank), rank)])
        else:
            self._ask(op, list(self.sites.get(value, ())))

    def _ask(self, op: Operation, sites: Sequence[_Site]) -> None:
        for operand, inner in zip(op.operands, operand_places(op), strict=True):
            known = self.sites.setdefault(operand, set())
            known.update((s, compose_place(inner, place, rank), rank) for s, place, rank in sites)

    def _is_worth_keeping(self, op: Operation, value: Value) -> bool:
        sites = self.sites.get(value, set())
        if len(sites) > MANY_SITES:
            return bool(op.operands) and not self._is_of_indices(value)
        if op.has(Trait.EXPENSIVE):
            return len(sites) > 1 or any(_repeats(value, site) for site in sites)
        several = len({stage for stage, _, _ in sites}) > 1
        return several and len(self._wide_leaves(value)) > 1

    def _is_of_indices(self, value: Value) -> bool:
        """Whether a few cheap ops compute the value from indices alone, as a causal mask: reading
        it would be no cheaper, and tell less."""
        if self._cone_leaves(value):
            return False
        ops: set[Operation] = set()
        pending = [value.defining_op]
        while pending and len(ops) <= FEW_OPS:
            op = pending.pop()
            if op is not None and op not in ops:
                ops.add(op)
                pending += [operand.defining_op for operand in op.operands]
        return not pending and not any(op.has(Trait.EXPENSIVE) for op in ops)

    def _wide_leaves(self, value: Value) -> list[Value]:
        """The tensors at least as large as the value from which it is computed."""
        size = estimate(value.shape)
        return [leaf for leaf in self._cone_leaves(value) if estimate(leaf.shape) >= size > 1]

    def _cone_leaves(self, value: Value) -> frozenset[Value]:
        found = self._leaves.get(value)
        if found is None:
            op = value.owner
            known = is_external(value) or value in self.ends
            if not isinstance(op, Operation) or known or takes_loop(op):
                found = frozenset({value})
            else:
                found = frozenset().union(*map(self._cone_leaves, op.operands))
            self._leaves[value] = found
        return found

    # ---- operands of heavy contractions

    def _force_operand(self, value: Value) -> None:
        """Makes sure that a contraction reads memory, through index arithmetic at most, or does
        little work on a function's argument as it reads it."""
        op = value.owner
        if not isinstance(op, Operation) or is_external(value) or isinstance(op, Constant):
            return
        if _is_access(op):
            self._force_operand(op.operands[0])
        elif not self._is_cheap_prologue(value):
            self.forced.add(value)

    def _is_cheap_prologue(self, value: Value) -> bool:
        size = estimate(value.shape)
        arguments = all(
            not isinstance(leaf.owner, Operation) or estimate(leaf.shape) < size
            for leaf in self._cone_leaves(value)
        )
        return arguments and self.uses[value] == 1 and self._cheap_ops(value) is not None

    def _cheap_ops(self, value: Value) -> int | None:
        """How many ops compute a value; None where one is not cheap or they are too many."""
        op = value.owner
        if not isinstance(op, Operation) or is_external(value) or value in self.ends:
            return 0
        if op.has(Trait.EXPENSIVE) or takes_loop(op):
            return None
        if not (op.has(Trait.ELEMENTWISE) or _is_access(op) or isinstance(op, Constant)):
            return None
        total = int(op.has(Trait.ELEMENTWISE))
        for operand in op.operands:
            count = self._cheap_ops(operand)
            if count is None or total + count > CHEAP_PROLOGUE:
                return None
            total += count
        return total


def _ends_of_long_chains(block: Block) -> Iterator[Value]:
    """The values at which chains of ops are cut to stay below LONGEST_CHAIN."""
    lengths: dict[Value, int] = {}
    for op in block.operations[:-1]:
        length = 1 + max((lengths.get(operand, 0) for operand in op.operands), default=0)
        for result in op.results:
            ends = takes_loop(op) or is_external(result)
            lengths[result] = 0 if ends else length % LONGEST_CHAIN
            if length == LONGEST_CHAIN and not ends:
                yield result


def _is_memory(value: Value) -> bool:
    return isinstance(value.owner, Operation) and is_external(value)


def _is_access(op: Operation) -> bool:
    """Whether the op only reads its one operand elsewhere."""
    if isinstance(op, Contract):
        return not op.reduced and len(op.operands) == 1
    return op.has(Trait.INDEXING) and len(op.operands) == 1 and not isinstance(op, Concat)


def _repeats(value: Value, site: _Site) -> bool:
    """Whether a stage needs some element of the value for several points of its domain."""
    stage, place, _ = site
    if any(expr is None for expr in place):
        return False
    assert isinstance(stage.owner, Operation)
    extents = domain(stage.owner)
    used = [d for expr in place if expr is not None for d in expr.dims]
    wide = [d for d, extent in enumerate(extents) if extent != 1]
    axes = [extent for extent in value.shape if extent != 1]
    return any(d not in used for d in wide) or len(set(used) & set(wide)) > len(axes)
