"""The kernel of argsort: a stable merge sort, or insertion into a short list where few are wanted.

Rows are independent and divided into tasks.  Keys are copied to scratch memory with their positions
and merged bottom up (runs of 1, 2, 4, ..) between two halves of it, without branches on keys.

Where the lanes of a task are many, as on a GPU, each counts instead what comes before its element:
that is the element's place.
"""

from __future__ import annotations

from mapsto.ir.dims import Dim, product
from mapsto.ir.ops.sequences import ArgSort
from mapsto.ir.stages import estimate
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.indexed import IndexedEmitter, Indices
from mapsto.lowering.indices import Index, floor_div, from_dim, minimum, split_offset, value_of
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loops import (
    FALSE,
    Allocate,
    Buffer,
    Expression,
    IndexValue,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
    apply,
    bitcast,
    cast,
    compare,
    constant,
    select,
)
from mapsto.lowering.whole_loops import branch, loop, tasks

__all__ = ["argsort_body"]

_SHORT_LIST = 64
"""So many positions at most are found by insertion, where the row is several times as long."""

_COMPARE_COST = 8
"""What a step of a merge costs, in scalar operations."""

_MOST_PASSES = 40
"""Enough to merge runs of 1 to any row that memory can hold."""


def argsort_body(
    op: ArgSort, emitter: IndexedEmitter, output: Buffer, division: Division
) -> tuple[Statement, ...]:
    """The statements that compute the op into the buffer."""
    shape, axis = op.operands[0].shape, op.axis
    others = [d for d in range(len(shape)) if d != axis]
    rows = product(tuple(shape[d] for d in others))
    extent = estimate((shape[axis],))
    ranked = isinstance(shape[axis], int) and _is_ranked(extent, division)
    steps = 1 if _is_short(op) else extent.bit_length() * _COMPARE_COST
    with emitter.scope() as statements:
        step = 1 if ranked else division.rows_per_task(rows, estimate(shape) * steps)
        with tasks(emitter, rows, step) as range_:
            sorter = _Ranking(op, emitter) if ranked else _sorter(op, emitter)
            with loop(emitter, "row", range_) as row:
                indices = split_offset(row, [shape[d] for d in others])
                sorter.row(output, dict(zip(others, indices, strict=True)))
    return tuple(statements)


def _is_ranked(extent: int, division: Division) -> bool:
    """Whether lanes count what comes before each element: rows fill them, and are not too long."""
    return max(1, division.least_row) <= extent <= division.most_ranked


def _is_short(op: ArgSort) -> bool:
    extent, count = op.operands[0].shape[op.axis], op.count
    return isinstance(count, int) and count <= min(_SHORT_LIST, estimate((extent,)) // 4)


def _sorter(op: ArgSort, emitter: IndexedEmitter) -> _TwoRows:
    if _is_short(op):
        return _Insertion(op, emitter, op.count)
    return _Merge(op, emitter, op.operands[0].shape[op.axis])


class _Sorter:
    """What all ways have in common; memory is declared once for all rows of a task."""

    def __init__(self, op: ArgSort, emitter: IndexedEmitter) -> None:
        self.op, self.emitter = op, emitter

    def row(self, output: Buffer, at: dict[int, Index]) -> None:
        """Sorts one row and stores its positions."""
        raise NotImplementedError

    @property
    def extent(self) -> Dim:
        """The length of a row."""
        return self.op.operands[0].shape[self.op.axis]

    @property
    def key_type(self) -> DType:
        """The integer type in which elements are compared."""
        wide = sum_type(self.op.operands[0].dtype)
        return DType.I64 if wide.bits == 64 or wide is DType.U32 else DType.I32

    def allocate(self, prefix: str, dtype: DType, shape: tuple[Dim, ...]) -> Buffer:
        """Scratch memory of the task."""
        buffer = Buffer(self.emitter.fresh(prefix), dtype, shape, Space.LOCAL)
        self.emitter.append(Allocate(self.emitter.declare(buffer)))
        return buffer

    def variable(self, value: Expression) -> Buffer:
        """A register that starts with a value."""
        buffer = Buffer(self.emitter.fresh("at"), value.type, (), Space.REGISTER)
        self.emitter.append(Allocate(self.emitter.declare(buffer)), Store(buffer, (), value))
        return buffer

    def place(self, at: dict[int, Index], position: Index) -> Indices:
        """The indices of an element of a row."""
        full = at | {self.op.axis: position}
        return tuple(full[d] for d in range(len(full)))

    def key(self, at: dict[int, Index], position: Index) -> Expression:
        """An integer in place of the element of a row: the one that comes first is less."""
        element = self.emitter.element(self.op.operands[0], self.place(at, position))
        element = self.emitter.let("element", cast(element, sum_type(element.type)))
        key = _ordered_bits(element) if element.type.is_float else cast(element, self.key_type)
        return self.emitter.let("key", apply("not", key) if self.op.descending else key)


def _ordered_bits(x: Expression) -> Expression:
    """The bits of a float as an integer that is ordered as the floats are, nan the greatest: those
    of negative numbers, which grow with their size, are turned around.  Both zeros are equal."""
    dtype = DType.I64 if x.type is DType.F64 else DType.I32
    greatest = constant(2 ** (dtype.bits - 1) - 1, dtype)
    zero = constant(0, x.type)
    bits = bitcast(select(apply("eq", x, zero), zero, x), dtype)
    sign = apply("shift_right", bits, constant(dtype.bits - 1, dtype))
    ordered = apply("xor", bits, apply("and", sign, greatest))
    return select(apply("ne", x, x), greatest, ordered)


class _Ranking(_Sorter):
    """The place of an element is the number of those that come before it."""

    def __init__(self, op: ArgSort, emitter: IndexedEmitter) -> None:
        super().__init__(op, emitter)
        self.keys = self.allocate("keys", self.key_type, (self.extent,))

    def row(self, output: Buffer, at: dict[int, Index]) -> None:
        emitter, whole = self.emitter, (0, from_dim(self.extent))
        with loop(emitter, "j", whole, LoopKind.VECTOR) as j:
            emitter.append(Store(self.keys, (j,), self.key(at, j)))
        with loop(emitter, "j", whole, LoopKind.VECTOR) as j:
            key = emitter.let("key", self.keys[j])
            before = self.variable(constant(0, DType.I32))
            with loop(emitter, "k", whole) as k:
                other = emitter.let("other", self.keys[k])
                earlier = apply("and", apply("eq", other, key), compare("lt", k, j))
                first = apply("or", apply("lt", other, key), earlier)
                emitter.append(Reduce("add", before, (), cast(first, DType.I32)))
            place = value_of(emitter.let("place", before[()]))
            position = IndexValue(j, DType.I32)
            wanted = compare("lt", place, from_dim(self.op.count))
            emitter.append(Store(output, self.place(at, place), position, wanted))


class _TwoRows(_Sorter):
    """Keys and positions in two rows of scratch memory."""

    def __init__(self, op: ArgSort, emitter: IndexedEmitter, length: Dim) -> None:
        super().__init__(op, emitter)
        self.keys = self.allocate("keys", self.key_type, (2, length))
        self.positions = self.allocate("positions", DType.I32, (2, length))


class _Merge(_TwoRows):
    """A bottom-up merge sort of one row after another."""

    def row(self, output: Buffer, at: dict[int, Index]) -> None:
        emitter, extent = self.emitter, from_dim(self.extent)
        with loop(emitter, "j", (0, extent)) as j:
            key = self.key(at, j)
            emitter.append(Store(self.keys, (0, j), key))
            emitter.append(Store(self.positions, (0, j), IndexValue(j, DType.I32)))
        side = self.variable(constant(0, DType.I64))
        passes = max(0, extent - 1).bit_length() if isinstance(extent, int) else _MOST_PASSES
        with loop(emitter, "p", (0, passes)) as number:
            one = constant(1, DType.I64)
            width = emitter.let("width", apply("shift_left", one, IndexValue(number)))
            with branch(emitter, apply("lt", width, IndexValue(extent))):
                source = emitter.let("source", side[()])
                self._merge_runs(value_of(source), value_of(width))
                emitter.append(Store(side, (), one - source))
        final = value_of(emitter.let("side", side[()]))
        with loop(emitter, "j", (0, from_dim(self.op.count))) as j:
            emitter.append(Store(output, self.place(at, j), self.positions[final, j]))

    def _merge_runs(self, source: Index, width: Index) -> None:
        """Merges pairs of runs of this width from one half of the memory to the other."""
        emitter, extent = self.emitter, from_dim(self.extent)
        pairs = floor_div(extent + (2 * width - 1), 2 * width)
        with loop(emitter, "pair", (0, pairs)) as pair:
            start = emitter.let("start", IndexValue(pair * (2 * width)))
            middle = emitter.let("middle", IndexValue(minimum(value_of(start) + width, extent)))
            stop = emitter.let("stop", IndexValue(minimum(value_of(middle) + width, extent)))
            left, right = self.variable(start), self.variable(middle)
            with loop(emitter, "k", (value_of(start), value_of(stop))) as k:
                i, j = emitter.let("i", left[()]), emitter.let("j", right[()])
                first = self._take((i, j), (middle, stop), source, k)
                one, zero = constant(1, DType.I64), constant(0, DType.I64)
                emitter.append(Store(left, (), i + select(first, one, zero)))
                emitter.append(Store(right, (), j + select(first, zero, one)))

    def _take(
        self,
        heads: tuple[Expression, Expression],
        ends: tuple[Expression, Expression],
        source: Index,
        k: Index,
    ) -> Expression:
        """Stores the one of two runs' next elements that comes first; whether the first run's."""
        emitter, last = self.emitter, from_dim(self.extent) - 1
        places = [minimum(value_of(head), last) for head in heads]
        keys = [emitter.let("key", self.keys[source, place]) for place in places]
        left_done, right_done = (
            apply("ge", head, end) for head, end in zip(heads, ends, strict=True)
        )
        in_order = apply("not", apply("lt", keys[1], keys[0]))
        both = apply("and", apply("not", left_done), in_order)
        first = emitter.let("first", apply("or", right_done, both))
        target = 1 - source
        emitter.append(Store(self.keys, (target, k), select(first, keys[0], keys[1])))
        chosen = select(first, *(self.positions[source, place] for place in places))
        emitter.append(Store(self.positions, (target, k), chosen))
        return first


class _Insertion(_TwoRows):
    """Keeps the best so far in order; the second row of the memory is not used."""

    def row(self, output: Buffer, at: dict[int, Index]) -> None:
        emitter, count = self.emitter, self.op.count
        assert isinstance(count, int)
        if count == 0:
            return
        with loop(emitter, "k", (0, count)) as k:
            emitter.append(Store(self.positions, (0, k), constant(-1, DType.I32)))
            emitter.append(Store(self.keys, (0, k), constant(0, self.key_type)))
        with loop(emitter, "j", (0, from_dim(self.extent))) as j:
            key = self.key(at, j)
            with branch(emitter, self._replaces(key, count - 1)):
                self._insert(key, IndexValue(j, DType.I32), count)
        with loop(emitter, "k", (0, count)) as k:
            emitter.append(Store(output, self.place(at, k), self.positions[0, k]))

    def _replaces(self, key: Expression, k: Index) -> Expression:
        """Whether the key comes before the k-th of the list, which may be free."""
        free = apply("lt", self.positions[0, k], constant(0, DType.I32))
        return apply("or", free, apply("lt", key, self.keys[0, k]))

    def _insert(self, key: Expression, position: Expression, count: int) -> None:
        """Carries the new element, then what it pushes out, along the list."""
        emitter = self.emitter
        carried, moving = self.variable(key), self.variable(position)
        inserted = self.variable(FALSE)
        with loop(emitter, "k", (0, count)) as k:
            new, place = emitter.let("new", carried[()]), emitter.let("place", moving[()])
            old, kept = (
                emitter.let("old", self.keys[0, k]),
                emitter.let("kept", self.positions[0, k]),
            )
            now = emitter.let("now", apply("or", inserted[()], self._replaces(new, k)))
            emitter.append(Store(self.keys, (0, k), select(now, new, old)))
            emitter.append(Store(self.positions, (0, k), select(now, place, kept)))
            emitter.append(Store(carried, (), select(now, old, new)))
            emitter.append(Store(moving, (), select(now, kept, place)))
            emitter.append(Store(inserted, (), now))
