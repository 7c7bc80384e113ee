"""Statements of the loop IR to LLVM, except parallel loops and what only GPUs have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mapsto.lowering.indices import Index, atom_index, flat_offset
from mapsto.lowering.llvm.loop_interleave import Strands, find_strands, interleaved
from mapsto.lowering.llvm.loop_scope import Fact, Place, Scope, memory_type
from mapsto.lowering.llvm.loop_transpose import Square, find_square, transpose
from mapsto.lowering.llvm.loop_vectors import VectorLoopEmitter
from mapsto.lowering.llvm.types import Operand
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Comment,
    For,
    If,
    Let,
    Load,
    LoopKind,
    Prefetch,
    Reduce,
    Space,
    Statement,
    Store,
    Together,
)

__all__ = ["LARGEST_STACK_BUFFER", "StatementEmitter", "on_stack"]

LARGEST_STACK_BUFFER = 4096
"""Local buffers of static size up to this many bytes are on the stack, others in scratch memory."""

_LEAST_ROW_PADDING = 16

_MOST_TURNS = 2**31 - 1
"""What LLVM is told of a loop with more."""


def on_stack(buffer: Buffer) -> bool:
    """Whether a declared buffer is on the stack rather than in scratch memory."""
    if buffer.space is Space.REGISTER:
        return True
    sizes = [dim for dim in buffer.shape if isinstance(dim, int)]
    static = len(sizes) == len(buffer.shape)
    return static and math.prod(sizes) * buffer.dtype.bytes <= LARGEST_STACK_BUFFER


class StatementEmitter(VectorLoopEmitter):
    """Emits blocks of statements; `parallel_loop` comes from the kernel emitter."""

    def parallel_loop(self, scope: Scope, loop: For) -> None:
        """Emit a parallel loop."""
        raise NotImplementedError

    def grid_loop(self, scope: Scope, loop: For) -> None:
        """Emit a loop over blocks or threads.  Raises ValueError where there are none."""
        raise ValueError(
            f"the {loop.kind.value} loop `{loop.variable}` outside of a kernel for GPUs"
        )

    def together(self, scope: Scope, statement: Together) -> None:
        """Emit what threads do together.  Raises ValueError where there are no threads."""
        raise ValueError(f"`{type(statement).__name__}` outside of a kernel for GPUs")

    def run_block(self, scope: Scope, body: tuple[Statement, ...]) -> None:
        while body:
            strands = find_strands(self, scope, body)
            if strands is None:
                scope, body = self._run(scope, body[0]), body[1:]
            else:
                self._store_strands(scope, strands)
                body = body[strands.loops :]

    def _store_strands(self, scope: Scope, strands: Strands) -> None:
        """Emit the turns of laid out loops, then one store of what all of them store."""
        lanes = scope.lanes
        assert lanes is not None, "only lanes have strands"
        turn, _, store = strands.turns[0]
        place = scope.places[store.buffer.name]
        values: list[Operand] = []
        for number, lets, each in strands.turns:
            inside = scope.with_index(strands.variable, number)
            for let in lets:
                inside = self._run(inside, let)
            value = self._to_memory(place, self.evaluate(inside, each.value))
            values.append(self.splat(inside, value, lanes.count))
        data = interleaved(self.f, values)
        at = self.split(
            scope.with_index(strands.variable, turn), self.flat_offset(place, store.indices)
        )
        assert at is not None, "as it was found"
        count = lanes.count if lanes.filled is None else lanes.filled
        self._store_first(scope, place, at[0], data, count * len(values))

    def _run(self, scope: Scope, statement: Statement) -> Scope:
        """Emit a statement; returns the scope of those that follow."""
        match statement:
            case Let(name, value):
                return scope.with_let(name, self.evaluate(scope, value))
            case Allocate(buffer):
                return self.allocate(scope, buffer)
            case Store():
                self._guarded_store(scope, statement)
            case Reduce():
                self.reduce(scope, statement)
            case If():
                self._if(scope, statement)
            case For():
                self._for(scope, statement)
            case Prefetch():
                self.prefetch(scope, statement)
            case Comment(text):
                self.f.emit_void(f"; {' '.join(text.split())}")
            case _:
                self.together(scope, statement)
        return scope

    def _guarded_store(self, scope: Scope, statement: Store) -> None:
        uniform, varying = self.split_guard(scope, statement.guard)
        if uniform is not None and uniform.text == "false":
            return
        buffer, indices = statement.buffer, statement.indices
        value = self.evaluate(scope, statement.value)
        if scope.lanes is None or buffer.space is Space.REGISTER:
            condition = self.combine(scope, uniform, varying)
            self.store(scope, buffer, indices, value, condition)
        else:
            inner = scope.nested() if uniform is not None else scope
            self.when(uniform, lambda: self.store(inner, buffer, indices, value, varying))

    # ---- loops

    def _for(self, scope: Scope, loop: For) -> None:
        start, stop = self.resolve(scope, loop.start), self.resolve(scope, loop.stop)
        if isinstance(start, int) and isinstance(stop, int):
            scope = scope.with_range(loop.variable, start, max(start, stop - 1))
        if loop.kind is LoopKind.VECTOR:
            self.vector_loop(scope, loop)
        elif loop.kind is LoopKind.PARALLEL:
            self.parallel_loop(scope, loop)
        elif loop.kind in (LoopKind.BLOCK, LoopKind.THREAD):
            self.grid_loop(scope, loop)
        elif loop.kind is LoopKind.UNROLL:
            self._lay_out(scope, loop)
        else:
            self._serial_loop(scope, loop)

    def _lay_out(self, scope: Scope, loop: For) -> None:
        start = self.resolve(scope, loop.start)
        extent = self.resolve(scope, loop.stop) - start
        if not isinstance(extent, int):
            raise ValueError(f"unrolled loop `{loop.variable}` has no static extent: {extent}")
        square = find_square(self, scope, loop, extent)
        if square is not None:
            self._lay_out_square(scope, loop, start, extent, square)
            return
        for offset in range(0, extent, loop.step):
            self.run_block(scope.with_index(loop.variable, start + offset), loop.body)

    def _lay_out_square(
        self, scope: Scope, loop: For, start: Index, extent: int, square: Square
    ) -> None:
        """Emit a laid out loop in blocks of as many turns as there are lanes, or of all where there
        are fewer; the last one begins early enough to be whole."""
        assert scope.lanes is not None, "only lanes make blocks"
        lanes = scope.lanes.count
        count = min(lanes, extent)
        stored: dict[str, list[Operand]] = {name: [] for name in square.stores}
        for done in range(0, extent, count):
            first = min(done, extent - count)
            at = scope.with_index(loop.variable, start + first)
            loads = square.loads.items()
            blocks = {name: self._read_across(at, load, count) for name, load in loads}
            for turn in range(done, first + count):
                inner = scope.with_index(loop.variable, start + turn)
                for name, rows in blocks.items():
                    inner = inner.with_let(name, rows[turn - first])
                for statement in square.body:
                    inner = self._run(inner, statement)
                for name, values in stored.items():
                    values.append(self.splat(inner, inner.lets[name], lanes))
            for name, values in stored.items():
                self._store_across(at, square.stores[name], values[first:])

    def _read_across(self, scope: Scope, load: Load, turns: int) -> list[Operand]:
        """The block of a load across the lanes: for each of some turns from here on, the vector of
        lanes."""
        lanes = scope.lanes
        assert lanes is not None, "only lanes make blocks"
        place = scope.places[load.buffer.name]
        offset = self.flat_offset(place, load.indices)
        outside, base = scope.with_lanes(None), scope.indices[lanes.variable]
        rows: list[Operand] = []
        pointers: list[Operand] = []
        for lane in range(lanes.count):
            first = self.resolve(outside.with_index(lanes.variable, base + lane), offset)
            pointer = self.address(scope, place, first)
            if pointers and lanes.tail is not None:
                used = self.f.extractelement(lanes.tail, lane)
                pointer = self.f.select(used, pointer, pointers[0])
            pointers.append(pointer)
            type, align = memory_type(place.buffer.dtype, lanes.count), self.alignment(place, first)
            rows.append(self._load_first(type, pointer, align, turns))
        return [self._from_memory(place, column) for column in transpose(self.f, rows)[:turns]]

    def _store_across(self, scope: Scope, store: Store, rows: list[Operand]) -> None:
        """Store the values of a block of turns, each a vector of lanes, across the lanes."""
        lanes = scope.lanes
        assert lanes is not None, "only lanes make blocks"
        place, base = scope.places[store.buffer.name], scope.indices[lanes.variable]
        columns = transpose(self.f, [self._to_memory(place, row) for row in rows])
        outside, offset = scope.with_lanes(None), self.flat_offset(place, store.indices)
        for lane, column in enumerate(columns):
            first = self.resolve(outside.with_index(lanes.variable, base + lane), offset)
            if lane == 0 or lanes.tail is None:
                self._store_first(scope, place, first, column, len(rows))
                continue
            row = partial(self._store_first, scope.nested(), place, first, column, len(rows))
            self.when(self.f.extractelement(lanes.tail, lane), row)

    def _serial_loop(self, scope: Scope, loop: For) -> None:
        start = self.resolve(scope, loop.start)
        stop = self.resolve(scope, loop.stop)
        copies = max(1, loop.unroll)

        def iteration(inner: Scope, index: Index) -> None:
            self.run_block(inner.with_index(loop.variable, index), loop.body)

        def group(inner: Scope, index: Index) -> None:
            for copy in range(copies):
                iteration(inner, index + copy * loop.step)

        with self.common_sums(scope, loop):
            if copies > 1:
                unit = copies * loop.step
                whole = start + self.round_down(scope, stop - start, unit)
                self.counted_loop(scope, start, whole, unit, group)
                start = whole
            self.counted_loop(scope, start, stop, loop.step, iteration)

    def counted_loop(
        self,
        scope: Scope,
        start: Index,
        stop: Index,
        step: int,
        body: Callable[[Scope, Index], None],
    ) -> None:
        extent = stop - start
        if isinstance(extent, int) and extent <= step:
            if extent > 0:
                body(scope, start)
            return
        fact = Fact(math.gcd(self.multiple_of(start), step), self.is_nonnegative(start))

        def emit_body(index: Operand) -> None:
            self.facts[index.text] = fact
            body(scope.nested(), atom_index(index.text))

        first, last = self.index_operand(scope, start), self.index_operand(scope, stop)
        turns = min(-(-extent // step), _MOST_TURNS) if isinstance(extent, int) else None
        self.f.loop(first, last, step, emit_body, metadata=self.loop_metadata(), turns=turns)

    def loop_metadata(self) -> str:
        """Keeps LLVM from vectorizing and unrolling what is already laid out as it should be."""
        module = self.f.module
        width = module.metadata('!{!"llvm.loop.vectorize.width", i32 1}')
        unroll = module.metadata('!{!"llvm.loop.unroll.disable"}')
        return "!llvm.loop " + module.metadata(f"distinct !{{@, {width}, {unroll}}}")

    # ---- the rest

    def _if(self, scope: Scope, statement: If) -> None:
        condition = self.evaluate(scope, statement.condition)
        if condition.text in ("true", "false"):
            self.run_block(
                scope, statement.then if condition.text == "true" else statement.otherwise
            )
        elif condition.type.lanes > 1:
            self._predicated(scope, condition, statement.then)
            if statement.otherwise:
                self._predicated(scope, self.f.not_(condition), statement.otherwise)
        else:
            self._branch(scope, condition, statement)

    def _predicated(self, scope: Scope, condition: Operand, body: tuple[Statement, ...]) -> None:
        assert scope.lanes is not None, "only lanes make a condition vary"
        predicate = self.combine(scope, scope.lanes.predicate, condition)
        self.run_block(scope.with_lanes(replace(scope.lanes, predicate=predicate)), body)

    def _branch(self, scope: Scope, condition: Operand, statement: If) -> None:
        then, after = self.f.block("then"), self.f.block("after")
        otherwise = self.f.block("else") if statement.otherwise else after
        self.f.branch_if(condition, then, otherwise)
        self.f.begin(then)
        self.run_block(scope.nested(), statement.then)
        self.f.branch(after)
        if statement.otherwise:
            self.f.begin(otherwise)
            self.run_block(scope.nested(), statement.otherwise)
            self.f.branch(after)
        self.f.begin(after)

    def prefetch(self, scope: Scope, statement: Prefetch) -> None:
        """Emit a hint, where the address is the same in all lanes or moves along with them."""
        place = scope.places[statement.buffer.name]
        parts = self.split(scope, flat_offset(statement.indices, place.shape))
        if parts is not None:
            self.f.prefetch(self.address(scope, place, parts[0]), statement.writes)

    def allocate(self, scope: Scope, buffer: Buffer) -> Scope:
        """Emit the declaration of a buffer; returns the scope that has it."""
        if not on_stack(buffer):
            return scope
        lanes = scope.lanes.count if scope.lanes and buffer.space is Space.REGISTER else 1
        shape = tuple(dim for dim in buffer.shape if isinstance(dim, int))
        if len(shape) != len(buffer.shape):
            raise ValueError(f"register buffer `{buffer.name}` has no static shape")
        if lanes == 1 and shape:
            shape = (*shape[:-1], self.padded(buffer, shape[-1]))
        pointer = self.f.alloca(memory_type(buffer.dtype, lanes), math.prod(shape))
        alignment = min(64, lanes * buffer.dtype.bytes) if lanes > 1 else 64
        return scope.with_place(Place(buffer, pointer, shape, alignment, lanes))

    def padded(self, buffer: Buffer, extent: int) -> int:
        """Rows of registers hold whole vectors: the tail needs no masks.  Memory is left as is."""
        if buffer.space is not Space.REGISTER or extent == 1:
            return extent
        unit = max(_LEAST_ROW_PADDING, self.machine.lanes(buffer.dtype.bits))
        return -(-extent // unit) * unit
