"""Vector loops: whole vectors, the tail, and reductions with vector accumulators.

The extent is cut into groups of `lanes * unroll` iterations, then single vectors, then a tail of
fewer than `lanes`: one masked vector where the machine has masked loads and stores for the types in
the loop, else a scalar loop.  A short loop of known extent is laid out without branches, so that
register buffers indexed by its variable become registers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product

from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.indices import Index, atom_index, flat_offset
from mapsto.lowering.llvm.loop_access import STREAM_BYTES
from mapsto.lowering.llvm.loop_expressions import ExpressionEmitter
from mapsto.lowering.llvm.loop_plan import LoopPlan, plan_loop, vector_sums
from mapsto.lowering.llvm.loop_scope import Fact, Lanes, Partial, Place, Scope, memory_type
from mapsto.lowering.llvm.scalar_lowering import lower
from mapsto.lowering.llvm.types import I1, I64, Operand, constant, constant_vector
from mapsto.lowering.llvm.writer import FunctionWriter
from mapsto.lowering.loops import (
    Expression,
    For,
    Load,
    Reduce,
    Statement,
    is_product,
)
from mapsto.lowering.scalar_operations import identity

__all__ = ["VectorLoopEmitter"]

_SUMS_AT_ONCE = 8
"""Registers of sums that are under way at one time, where each waits for its last term before the
next."""
_WIDEST = 4
"""Registers of a vector at most."""

_Body = Callable[[Scope, Index], None]


@dataclass(frozen=True, slots=True)
class _Sums:
    """The vector accumulators of a reduction into `target`, in some copies."""

    target: Place
    op: str
    partial: Partial
    copies: int

    @property
    def name(self) -> str:
        return self.target.buffer.name

    def fits(self, lanes: int, copies: int) -> bool:
        """Whether a loop of so many lanes and copies may add to them."""
        return self.partial.place.lanes == lanes and copies <= self.copies


class VectorLoopEmitter(ExpressionEmitter):
    """Emits vector loops; `run_block` comes from the statement emitter."""

    def __init__(self, f: FunctionWriter, machine: Machine) -> None:
        super().__init__(f, machine)
        self._plans: dict[int, LoopPlan] = {}
        self._sums: dict[str, _Sums] = {}
        self.has_streams = False
        """Whether something is stored past the caches."""

    def run_block(self, scope: Scope, body: tuple[Statement, ...]) -> None:
        """Emit statements in order."""
        raise NotImplementedError

    def counted_loop(self, scope: Scope, start: Index, stop: Index, step: int, body: _Body) -> None:
        """Emit a loop; `body` gets the scope inside and the index."""
        raise NotImplementedError

    def vector_loop(self, scope: Scope, loop: For) -> None:
        """Emit a vector loop.  Raises ValueError if it stands inside another one."""
        if scope.lanes is not None:
            raise ValueError(f"vector loop `{loop.variable}` inside `{scope.lanes.variable}`")
        names = self.plan(loop).streamed
        if names:
            self._streaming_loop(scope, loop, names)
        else:
            self._vector_loop(scope, loop)

    def _streaming_loop(self, scope: Scope, loop: For, names: Sequence[str]) -> None:
        """Emit a vector loop twice: as one that stores past the caches, for where the buffers begin
        at multiples of what is stored so, and as any other."""
        addresses = [self.f.ptrtoint(scope.places[name].pointer, I64) for name in names]
        bits = functools.reduce(self.f.or_, addresses)
        rest = self.f.and_(bits, constant(I64, STREAM_BYTES - 1))
        streaming, plain, after = (self.f.block(n) for n in ("streaming", "plain", "after"))
        self.f.branch_if(self.f.icmp("eq", rest, constant(I64, 0)), streaming, plain)
        for block, streamed in ((streaming, frozenset(names)), (plain, frozenset[str]())):
            self.f.begin(block)
            self.streamed = streamed
            self._vector_loop(scope.nested(), loop)
            self.f.branch(after)
        self.streamed = frozenset()
        self.has_streams = True
        self.f.begin(after)

    def _vector_loop(self, scope: Scope, loop: For) -> None:
        start = self.resolve(scope, loop.start)
        extent = self.resolve(scope, loop.stop) - start
        plan = self.plan(loop)
        lanes, copies = self._shape(loop, plan, extent)
        if lanes == 1:
            self._scalar_part(scope, loop, start, 0, extent)
            return
        targets = [(scope.places[name], op) for name, op in plan.reductions]
        names = [name for name, _ in plan.reductions]
        open_sums = {n: s for n, s in self._sums.items() if n in names and s.fits(lanes, copies)}
        targets = [target for target in targets if target[0].buffer.name not in open_sums]
        sums = [self._begin(place, op, lanes, copies) for place, op in targets]
        partials = {s.name: s.partial for s in (*open_sums.values(), *sums)}
        inside = scope.with_lanes(Lanes(loop.variable, lanes, partials=partials))
        if isinstance(extent, int) and plan.is_laid_out(extent // lanes):
            vectors = extent // lanes
            grouped = vectors // copies * copies
            for number in range(vectors):
                copy = number % copies if number < grouped else 0
                self._vector(inside, loop, start + number * lanes, copy)
            whole: Index = vectors * lanes
        else:
            whole = self._whole_vectors(inside, loop, start, extent, copies)
        masked = self.has_masks(plan.narrowest_bits)
        if masked:
            self._masked_tail(inside, loop, start, whole, extent)
        for own in sums:
            self._finish(scope, own)
        if not masked:
            self._scalar_part(scope, loop, start, whole, extent)

    @contextmanager
    def common_sums(self, scope: Scope, loop: For) -> Iterator[None]:
        """Around a serial loop: the vector loops inside add to the same vectors of sums, whose
        lanes are combined once behind the loop."""
        found = vector_sums(loop) if scope.lanes is None else {}
        widest = {n: self._widest(n, loops) for n, loops in found.items() if n not in self._sums}
        sums = [
            self._begin(scope.places[name], op, lanes, copies)
            for name, (op, lanes, copies) in widest.items()
            if lanes > 1
        ]
        self._sums |= {s.name: s for s in sums}
        yield
        for own in sums:
            del self._sums[own.name]
            self._finish(scope, own)

    def _widest(self, name: str, vectors: Sequence[For]) -> tuple[str, int, int]:
        """The operation by which vector loops reduce into a register, in how many lanes at most,
        and in how many copies of those."""
        op = dict(self.plan(vectors[0]).reductions)[name]
        shapes = [self._shape(loop, self.plan(loop), loop.stop - loop.start) for loop in vectors]
        return op, *max(shapes)

    def _shape(self, loop: For, plan: LoopPlan, extent: Index) -> tuple[int, int]:
        """The lanes of a vector loop, and how many of its vectors are interleaved: as many as where
        the extent is not known, or where there are fewer one, so that sums have the same order."""
        lanes, copies = self._choose_lanes(loop, plan, extent), loop.unroll or plan.copies
        if isinstance(extent, int) and extent // lanes < copies:
            copies = 1
        return lanes, copies

    # ---- choices

    def plan(self, loop: For) -> LoopPlan:
        """What a vector loop does, found once."""
        found = self._plans.get(id(loop))
        if found is None:
            found = self._plans[id(loop)] = plan_loop(loop)
        return found

    def _choose_lanes(self, loop: For, plan: LoopPlan, extent: Index) -> int:
        if loop.lanes:
            return loop.lanes
        lanes = max(1, self.machine.vector_bits // plan.widest_bits)
        if not isinstance(extent, int):
            return lanes
        if self._takes_two(plan) and extent > 0 and extent % (2 * lanes) == 0:
            return 2 * lanes
        if extent > lanes and self._takes_more(plan):
            most = max(1, _SUMS_AT_ONCE // plan.lane_sums)
            return lanes * min(1 << (-(-extent // lanes) - 1).bit_length(), most, _WIDEST)
        return min(lanes, 1 << max(0, extent - 1).bit_length())

    def _takes_two(self, plan: LoopPlan) -> bool:
        """Whether vectors of two registers are better than one: of a long chain for one, a core
        would wait for each instruction, as those of the next chain come too far behind.  A register
        of AVX-512 is wide enough, and the order of a reduction depends on the lanes."""
        return plan.is_chain and not plan.reductions and not self.machine.has_avx512

    def _takes_more(self, plan: LoopPlan) -> bool:
        """Whether vectors of several registers are better than one, as sums in each lane would wait
        for each other.  What is left over is a vector too, if there are masks."""
        alone = plan.lane_sums > 0 and not plan.reductions
        return alone and self.has_masks(plan.narrowest_bits)

    # ---- parts

    def _vector(self, scope: Scope, loop: For, first: Index, copy: int = 0) -> None:
        assert scope.lanes is not None, "inside a vector loop"
        lanes = replace(scope.lanes, copy=copy)
        inside = scope.with_index(loop.variable, first).with_lanes(lanes)
        self.run_block(inside, loop.body)

    def _whole_vectors(
        self, scope: Scope, loop: For, start: Index, extent: Index, copies: int
    ) -> Index:
        """Emit the iterations that fill vectors, and where masks cost nothing those after the
        whole groups too: one copy of the body less.  Returns how many were emitted."""
        assert scope.lanes is not None, "inside a vector loop"
        lanes = scope.lanes.count
        grouped = self.round_down(scope, extent, lanes * copies)
        whole = self.round_down(scope, extent, lanes)

        def group(inner: Scope, offset: Index) -> None:
            for copy in range(copies):
                self._vector(inner, loop, start + offset + copy * lanes, copy)

        def single(inner: Scope, offset: Index) -> None:
            self._vector(inner, loop, start + offset)

        def masked(inner: Scope, offset: Index) -> None:
            limit = self.index_operand(inner, extent - offset)
            tail = self.lane_mask(inner, limit, lanes)
            assert scope.lanes is not None, "inside a vector loop"
            self._vector(inner.with_lanes(replace(scope.lanes, tail=tail)), loop, start + offset)

        self.counted_loop(scope, 0, grouped, lanes * copies, group)
        if copies == 1 or grouped == whole:
            return whole
        if self.machine.vector_bits >= 512 and not isinstance(extent, int):
            self.counted_loop(scope, grouped, extent, lanes, masked)
            return extent
        self.counted_loop(scope, grouped, whole, lanes, single)
        return whole

    def round_down(self, scope: Scope, extent: Index, unit: int) -> Index:
        if isinstance(extent, int):
            return max(0, extent) // unit * unit
        count = self.index_operand(scope, extent)
        if not self.is_nonnegative(extent):
            count = self.f.smax(count, constant(self.index_type, 0))
        if unit & (unit - 1):
            rounded = self.f.sub(count, self.f.urem(count, constant(self.index_type, unit)), "nsw")
        else:
            rounded = self.f.and_(count, constant(self.index_type, -unit))
        self.facts[rounded.text] = Fact(unit, nonnegative=True)
        return atom_index(rounded.text)

    def _masked_tail(
        self, scope: Scope, loop: For, start: Index, whole: Index, extent: Index
    ) -> None:
        assert scope.lanes is not None, "inside a vector loop"
        rest, count = extent - whole, scope.lanes.count
        if isinstance(rest, int):
            if rest > 0:
                self._last_vector(scope, loop, start + whole, rest)
            return
        limit = self.index_operand(scope, rest)
        then, after = self.f.block("tail"), self.f.block("after")
        self.f.branch_if(self.f.icmp("sgt", limit, constant(self.index_type, 0)), then, after)
        self.f.begin(then)
        inner = scope.nested()
        mask = self.lane_mask(inner, limit, count, inside=True)
        masked = inner.with_lanes(replace(scope.lanes, tail=mask))
        self._vector(masked, loop, start + whole)
        self.f.branch(after)
        self.f.begin(after)

    def _last_vector(self, scope: Scope, loop: For, first: Index, rest: int) -> None:
        """Emit the last iterations as a vector, of no more registers than they need: the lanes of
        partial sums are those of all vectors."""
        assert scope.lanes is not None, "inside a vector loop"
        count = scope.lanes.count
        least = self.machine.vector_bits // self.plan(loop).widest_bits
        while not scope.lanes.partials and count > least and count >= 2 * rest:
            count //= 2
        lanes = replace(scope.lanes, count=count)
        if rest < count:
            mask = constant_vector(I1, [lane < rest for lane in range(count)])
            lanes = replace(lanes, tail=mask, filled=rest)
        self._vector(scope.with_lanes(lanes), loop, first)

    def _scalar_part(
        self, scope: Scope, loop: For, start: Index, whole: Index, extent: Index
    ) -> None:
        rest = extent - whole
        if isinstance(rest, int) and isinstance(whole, int) and self.plan(loop).is_laid_out(rest):
            for number in range(rest):
                inner = scope.with_index(loop.variable, start + whole + number)
                self.run_block(inner, loop.body)
            return

        def iteration(inner: Scope, offset: Index) -> None:
            self.run_block(inner.with_index(loop.variable, start + offset), loop.body)

        self.counted_loop(scope, whole, extent, 1, iteration)

    # ---- reductions

    def reduce(self, scope: Scope, statement: Reduce) -> None:
        """Emit a `Reduce`, into the vector accumulators of the loop around where it has them."""
        lanes = scope.lanes
        partial = lanes.partials.get(statement.buffer.name) if lanes else None
        if lanes is None or partial is None:
            self._reduce_in_place(scope, statement)
            return
        place = partial.place
        offset = self.resolve(scope, flat_offset(statement.indices, place.shape))
        pointer = self.address(scope, place, offset + lanes.copy * partial.elements)
        type = memory_type(place.buffer.dtype, lanes.count)
        old = self._from_memory(place, self.f.load(type, pointer, place.alignment))
        new = self._combined(scope, statement, old, lanes.count)
        guard = self.guard_operand(scope, statement.guard)
        mask = self.combine(scope, lanes.tail, lanes.predicate, guard)
        if mask is not None:
            new = self.f.select(self.splat(scope, mask, lanes.count), new, old)
        self.f.store(self._to_memory(place, new), pointer, place.alignment)

    def _reduce_in_place(self, scope: Scope, statement: Reduce) -> None:
        buffer = statement.buffer
        old = self.load(scope, Load(buffer, statement.indices, statement.guard))
        new = self._combined(scope, statement, old, old.type.lanes)
        guard = self.guard_operand(scope, statement.guard)
        self.store(scope, buffer, statement.indices, new, guard)

    def _combined(self, scope: Scope, statement: Reduce, old: Operand, lanes: int) -> Operand:
        """The old value with the new one; a product is added in one fused operation."""
        op = statement.op
        parts: tuple[Expression, ...] = (statement.value,)
        if op == "add" and is_product(statement.value):
            op, parts = "fma", statement.value.operands
        values = [self.evaluate(scope, part) for part in parts]
        lanes = max(lanes, *(value.type.lanes for value in values))
        operands = [self.splat(scope, value, lanes) for value in values]
        last = self.splat(scope, old, lanes)
        ordered = (*operands, last) if op == "fma" else (last, *operands)
        return lower(self.f, op, statement.buffer.dtype, ordered)

    def _begin(self, target: Place, op: str, lanes: int, copies: int) -> _Sums:
        """Vector accumulators for a reduction target, set to the identity."""
        buffer = target.buffer
        elements = math.prod(dim for dim in target.shape if isinstance(dim, int))
        type = memory_type(buffer.dtype, lanes)
        pointer = self.f.alloca(type, elements * copies)
        alignment = min(64, lanes * buffer.dtype.bytes)
        place = Place(buffer, pointer, target.shape, alignment, lanes)
        start = constant(type, identity(op, buffer.dtype))
        for copy, offset in product(range(copies), _offsets(target)):
            address = self.f.getelementptr(type, pointer, copy * elements + offset)
            self.f.store(start, address, alignment)
        return _Sums(target, op, Partial(place, elements), copies)

    def _finish(self, scope: Scope, sums: _Sums) -> None:
        """Combine the accumulators, halving, into the target."""
        target, op, partial = sums.target, sums.op, sums.partial
        dtype, place = target.buffer.dtype, partial.place
        type = memory_type(dtype, place.lanes)
        for offset in _offsets(target):
            vectors = []
            for copy in range(sums.copies):
                number = copy * partial.elements + offset
                address = self.f.getelementptr(type, place.pointer, number)
                vectors.append(
                    self._from_memory(place, self.f.load(type, address, place.alignment))
                )
            while len(vectors) > 1:
                half = (len(vectors) + 1) // 2
                pairs = zip(vectors, vectors[half:], strict=False)
                combined = [lower(self.f, op, dtype, pair) for pair in pairs]
                vectors = combined + vectors[len(combined) : half]
            total = self._across_lanes(op, dtype, vectors[0])
            pointer = self.address(scope, target, offset)
            old = self._from_memory(target, self.f.load(memory_type(dtype), pointer))
            new = lower(self.f, op, dtype, (old, total))
            self.f.store(self._to_memory(target, new), pointer)

    def _across_lanes(self, op: str, dtype: DType, vector: Operand) -> Operand:
        """One value from all lanes: lane `l` with lane `l + half`, until one is left.

        The last two are combined as vectors too, of which the second lane does not count: of
        scalars, LLVM makes a choice by several conditions, as a maximum with NaN is, a jump.
        """
        lanes = vector.type.lanes
        while lanes > 2:
            lanes //= 2
            low = self.f.shufflevector(vector, vector, list(range(lanes)))
            high = self.f.shufflevector(vector, vector, list(range(lanes, 2 * lanes)))
            vector = lower(self.f, op, dtype, (low, high))
        swapped = self.f.shufflevector(vector, vector, [1, 0])
        return self.f.extractelement(lower(self.f, op, dtype, (vector, swapped)), 0)


def _offsets(place: Place) -> list[int]:
    """The element offsets of the elements of a register buffer, its padding excluded."""
    extents = [range(dim) for dim in place.buffer.shape if isinstance(dim, int)]
    offsets = (flat_offset(indices, place.shape) for indices in product(*extents))
    return [offset for offset in offsets if isinstance(offset, int)]
