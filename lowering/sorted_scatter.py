"""The kernel of a scatter where lanes are many, as on a GPU: updates are brought into order first.

    places[b] = where update b goes, or -1                    for each update
    order, counts = a stable sort of the updates by places    for each update
    y[place] = the sum of the updates in order                for each place with updates

The place of an update in the order is the number of those that come before it, which each lane
counts by itself.  The first of the updates that go to one place has their number in `counts`, the
others have 0.  Each element gets its updates in their order, so results are those of the kernel
that does them one after another (`scatter_kernels.py`), bit by bit.
"""

from __future__ import annotations

from mapsto.ir.dims import product
from mapsto.ir.ops.indexing import Scatter
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import checked_indices
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.indices import Index, flat_offset, split_offset, value_of
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Expression,
    IndexValue,
    LoopKind,
    Reduce,
    Space,
    Store,
    apply,
    cast,
    constant,
    select,
)
from mapsto.lowering.scalar_operations import REDUCTION_OPERATIONS
from mapsto.lowering.whole_loops import branch, loop, nest, whole

__all__ = ["SortedScatter", "is_sorted"]

_NOWHERE = -1
"""The place of an update whose index is out of bounds."""


def is_sorted(op: Scatter, division: Division) -> bool:
    """Whether updates are brought into order: there are enough of them for all lanes, and few
    enough to be compared with each other."""
    updates, places = product(op.indices[0].shape), product(tuple(op.shape[a] for a in op.axes))
    if not isinstance(updates, int) or not isinstance(places, int) or places >= 2**31:
        return False
    return max(1, division.least_row) <= updates <= division.most_sorted_updates


class SortedScatter:
    """Writes the loops behind those that clear the result."""

    def __init__(self, op: Scatter, emitter: IndexedEmitter, output: Buffer) -> None:
        self.op, self.emitter, self.output = op, emitter, output
        self.batch = op.indices[0].shape
        self.extents = [op.shape[a] for a in op.axes]
        updates = product(self.batch)
        assert isinstance(updates, int)
        self.updates = updates
        self.places, self.order, self.counts = map(self._memory, ("places", "order", "counts"))

    def write(self) -> None:
        """All of the loops: each begins when the one before has ended."""
        self._find_places()
        self._sort()
        self._add_up()

    def _memory(self, name: str) -> Buffer:
        buffer = Buffer(self.emitter.fresh(name), DType.I32, (self.updates,), Space.LOCAL)
        self.emitter.append(Allocate(self.emitter.declare(buffer)))
        return buffer

    def _register(self, value: Expression) -> Buffer:
        buffer = Buffer(self.emitter.fresh("total"), value.type, (), Space.REGISTER)
        self.emitter.append(Allocate(self.emitter.declare(buffer)), Store(buffer, (), value))
        return buffer

    def _find_places(self) -> None:
        emitter = self.emitter
        with loop(emitter, "b", (0, self.updates), LoopKind.PARALLEL) as b:
            at = split_offset(b, self.batch)
            computed = [emitter.element(index, at) for index in self.op.indices]
            positions, inside = checked_indices(emitter, computed, self.extents, None)
            place = IndexValue(flat_offset(tuple(positions), tuple(self.extents)), DType.I32)
            nowhere = constant(_NOWHERE, DType.I32)
            emitter.append(Store(self.places, (b,), select(inside, place, nowhere)))

    def _sort(self) -> None:
        emitter, zero = self.emitter, constant(0, DType.I32)
        with loop(emitter, "b", (0, self.updates), LoopKind.PARALLEL) as b:
            place = emitter.let("place", self.places[b])
            before, earlier, later = (self._register(zero) for _ in range(3))
            with loop(emitter, "j", (0, b)) as j:
                other = emitter.let("other", self.places[j])
                self._count(before, apply("le", other, place))
                self._count(earlier, apply("eq", other, place))
            with loop(emitter, "j", (b, self.updates)) as j:
                other = emitter.let("other", self.places[j])
                self._count(before, apply("lt", other, place))
                self._count(later, apply("eq", other, place))
            position = value_of(emitter.let("position", before[()]))
            count = select(apply("eq", earlier[()], zero), later[()], zero)
            emitter.append(Store(self.order, (position,), IndexValue(b, DType.I32)))
            emitter.append(Store(self.counts, (position,), count))

    def _count(self, total: Buffer, condition: Expression) -> None:
        self.emitter.append(Reduce("add", total, (), cast(condition, DType.I32)))

    def _add_up(self) -> None:
        emitter, op = self.emitter, self.op
        kept = [a for a in range(len(op.shape)) if a not in op.axes]
        with loop(emitter, "first", (0, self.updates), LoopKind.PARALLEL) as first:
            count = emitter.let("count", self.counts[first])
            update = value_of(emitter.let("update", self.order[first]))
            place = emitter.let("place", self.places[update])
            some = apply("gt", count, constant(0, DType.I32))
            inside = apply("ne", place, constant(_NOWHERE, DType.I32))
            with branch(emitter, apply("and", some, inside)):
                positions = split_offset(value_of(place), self.extents)
                chosen = dict(zip(op.axes, positions, strict=True))

                def add(at: tuple[Index, ...]) -> None:
                    full = chosen | dict(zip(kept, at, strict=True))
                    self._element(first, value_of(count), at, [full[a] for a in sorted(full)])

                nest(emitter, "k", whole([op.shape[a] for a in kept]), add, vector=True)

    def _element(
        self, first: Index, count: Index, at: tuple[Index, ...], target: list[Index]
    ) -> None:
        """Combines the updates of an element; those from `first` on in the order are for it."""
        emitter, op = self.emitter, self.op
        total = self._register(constant(op.identity, self.output.dtype))
        with loop(emitter, "i", (0, count)) as i:
            number = value_of(emitter.let("update", self.order[first + i]))
            update = emitter.element(op.operands[0], (*split_offset(number, self.batch), *at))
            emitter.append(Reduce(REDUCTION_OPERATIONS[op.kind], total, (), update))
        emitter.append(Store(self.output, tuple(target), total[()]))
