"""Loads and stores: scalar, contiguous, strided, gathered; guarded and masked.

In a vector loop every access is classified by how its address moves from lane to lane: not at all
(one scalar access), by one element (a vector access), by a small constant (vector loads and
shuffles), otherwise a gather or scatter.  Addresses that a guard or mask disables are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import gcd

from mapsto.lowering.indices import Index
from mapsto.lowering.llvm.loop_indices import IndexEmitter, is_literal
from mapsto.lowering.llvm.loop_scope import Place, Scope, memory_type, value_type
from mapsto.lowering.llvm.types import I1, I64, LLVMType, Operand, constant, constant_vector
from mapsto.lowering.loops import Apply, Buffer, Expression, Load

__all__ = ["STREAM_BYTES", "AccessEmitter"]

_LARGEST_SHUFFLED_STRIDE = 4
_ZEROS_BYTES = 512

STREAM_BYTES = 16
"""How much is stored past the caches at once: arrays begin at a multiple of so much nearly always,
but of more seldom."""


class AccessEmitter(IndexEmitter):
    """Emits loads and stores.  Masks and guards are i1 scalars or vectors; None is true."""

    has_zeros = True
    """Whether `pointer_instead` gives one to zeros."""

    streamed: frozenset[str] = frozenset()
    """Names of the buffers that are stored to past the caches at this point: they begin at a
    multiple of `STREAM_BYTES`."""

    # ---- masks

    def combine(self, scope: Scope, *conditions: Operand | None) -> Operand | None:
        """The conjunction; a vector where one of the conditions is."""
        result: Operand | None = None
        for condition in conditions:
            if condition is None or condition == _TRUE:
                continue
            if result is None:
                result = condition
                continue
            lanes = max(result.type.lanes, condition.type.lanes)
            left, right = self.splat(scope, result, lanes), self.splat(scope, condition, lanes)
            result = self.f.and_(left, right)
        return result

    def split_guard(
        self, scope: Scope, guard: Expression | None
    ) -> tuple[Operand | None, Operand | None]:
        """A guard as two conditions: one for all lanes, and one of each lane.  They are cheaper
        apart: a branch, and a mask."""
        uniform: Operand | None = None
        varying: Operand | None = None
        for part in _conjuncts(guard):
            value = self.evaluate(scope, part)
            if value.type.lanes > 1:
                varying = self.combine(scope, varying, value)
            else:
                uniform = value if value == _FALSE else self.combine(scope, uniform, value)
                if uniform == _FALSE:
                    break
        return uniform, varying

    def guard_operand(self, scope: Scope, guard: Expression | None) -> Operand | None:
        """The value of a guard, or None where it is certainly true."""
        return self.combine(scope, *self.split_guard(scope, guard))

    def any_lane(self, mask: Operand) -> Operand:
        """Whether a condition holds in some lane."""
        return self.f.reduce("or", mask) if mask.type.lanes > 1 else mask

    def _tail(self, scope: Scope) -> Operand | None:
        return scope.lanes.tail if scope.lanes else None

    def _predicate(self, scope: Scope) -> Operand | None:
        return scope.lanes.predicate if scope.lanes else None

    # ---- loads

    def load(self, scope: Scope, load: Load) -> Operand:
        """The value of a load: of one lane where address and guard are the same in all."""
        uniform, varying = self.split_guard(scope, load.guard)
        otherwise = constant(value_type(load.buffer.dtype), load.otherwise)
        if uniform == _FALSE:
            return otherwise
        place = scope.places[load.buffer.name]
        offset = self.flat_offset(place, load.indices)
        parts = self.split(scope, offset)
        if parts is not None and parts[1] == 1 and place.lanes == 1:
            return self._load_contiguous(scope, place, parts[0], uniform, varying, otherwise)
        guard = self.combine(scope, uniform, varying)
        if parts is None:
            return self._gather(scope, place, offset, guard, otherwise)
        first, slope = parts
        _check_register_of_body(place, slope)
        if slope == 0:
            return self.load_uniform(scope, place, first, guard, otherwise)
        mask = self.combine(scope, self._tail(scope), self._predicate(scope), guard)
        shuffled = isinstance(slope, int) and self._is_shuffled(scope, slope)
        if (
            isinstance(slope, int)
            and shuffled
            and (mask is None or self.has_masks(place.buffer.dtype.bits))
        ):
            return self._load_strided(scope, place, first, slope, mask, otherwise)
        return self._gather(scope, place, offset, guard, otherwise)

    def load_uniform(
        self, scope: Scope, place: Place, first: Index, guard: Operand | None, otherwise: Operand
    ) -> Operand:
        """The element at one address, or `otherwise` where the guard does not hold."""
        pointer = self.address(scope, place, first)
        if not place.is_register:
            needed = self.combine(scope, self._predicate(scope), guard)
            if needed is not None:
                pointer = self.pointer_instead(place, self.any_lane(needed), pointer)
        value = self.read(place, pointer, place.lanes, self.alignment(place, first))
        return self._or_otherwise(scope, guard, value, otherwise)

    def _load_contiguous(
        self,
        scope: Scope,
        place: Place,
        first: Index,
        uniform: Operand | None,
        varying: Operand | None,
        otherwise: Operand,
    ) -> Operand:
        assert scope.lanes is not None, "only lanes make an access contiguous"
        count = scope.lanes.count
        pointer = self.address(scope, place, first)
        align = self.alignment(place, first)
        if place.is_register:
            value = self.read(place, pointer, count, align)
            return self._or_otherwise(
                scope, self.combine(scope, uniform, varying), value, otherwise
            )
        if uniform is not None:
            pointer = self.pointer_instead(place, uniform, pointer)
        mask = self.combine(scope, self._tail(scope), self._predicate(scope), varying)
        if mask is None:
            value = self.read(place, pointer, count, align)
        else:
            value = self._masked_read(scope, place, pointer, mask, otherwise)
        is_zero = self.has_zeros and otherwise == constant(otherwise.type, 0)
        return value if is_zero else self._or_otherwise(scope, uniform, value, otherwise)

    def _or_otherwise(
        self, scope: Scope, guard: Operand | None, value: Operand, otherwise: Operand
    ) -> Operand:
        if guard is None:
            return value
        lanes = max(guard.type.lanes, value.type.lanes)
        value, rest = self.splat(scope, value, lanes), self.splat(scope, otherwise, lanes)
        return self.f.select(guard, value, rest)

    def when(self, condition: Operand | None, emit: Callable[[], None]) -> None:
        """Emit code that runs only where a (scalar) condition holds."""
        if condition is None:
            emit()
            return
        then, after = self.f.block("when"), self.f.block("after")
        self.f.branch_if(condition, then, after)
        self.f.begin(then)
        emit()
        self.f.branch(after)
        self.f.begin(after)

    def pointer_instead(self, place: Place, needed: Operand, pointer: Operand) -> Operand:
        """The pointer, or one to constant zeros where the access is not wanted: no branch."""
        text = f"internal constant [{_ZEROS_BYTES} x i8] zeroinitializer, align 64"
        return self.f.select(needed, pointer, self.f.module.add_global("mapsto.zeros", text))

    def read(self, place: Place, pointer: Operand, lanes: int, align: int) -> Operand:
        """The value at an address, without any condition."""
        return self._from_memory(place, self.f.load(self._type(place, lanes), pointer, align))

    def _masked_read(
        self, scope: Scope, place: Place, pointer: Operand, mask: Operand, otherwise: Operand
    ) -> Operand:
        type = self._type(place, mask.type.lanes)
        rest = self.splat(scope, self._to_memory(place, otherwise), type.lanes)
        return self._from_memory(place, self.f.masked_load(type, pointer, mask, rest))

    def _gather(
        self, scope: Scope, place: Place, offset: Index, guard: Operand | None, otherwise: Operand
    ) -> Operand:
        assert scope.lanes is not None, "only lanes make an address vary"
        count = scope.lanes.count
        mask = self.combine(scope, self._tail(scope), self._predicate(scope), guard)
        lanes_mask = None if mask is None else self.splat(scope, mask, count)
        addresses = self.lane_addresses(scope, place, offset)
        rest = self.splat(scope, self._to_memory(place, otherwise), count)
        value = self.f.masked_gather(self._type(place, count), addresses, lanes_mask, rest)
        return self._from_memory(place, value)

    def _is_shuffled(self, scope: Scope, stride: int) -> bool:
        lanes = scope.lanes.count if scope.lanes else 1
        return 1 < stride <= min(lanes, _LARGEST_SHUFFLED_STRIDE)

    def has_masks(self, element_bits: int) -> bool:
        """Whether masked accesses to elements of so many bits are single instructions."""
        bits = self.machine.vector_bits
        return bits >= 512 or (bits == 256 and element_bits >= 32)

    def _load_strided(
        self,
        scope: Scope,
        place: Place,
        first: Index,
        stride: int,
        mask: Operand | None,
        otherwise: Operand,
    ) -> Operand:
        """Every `stride`-th element from `stride` vectors.  The last one ends at the last element
        that is needed, so nothing beyond it is read; where there is a mask, what it leaves out is
        not read either."""
        assert scope.lanes is not None, "only lanes make an access strided"
        count = scope.lanes.count
        last = (count - 1) * stride
        starts = [part * count for part in range(stride - 1)] + [last - count + 1]
        masks = [self._strided_mask(scope, mask, start, stride) for start in starts]
        vectors = [
            self._strided_part(scope, place, first + start, part, otherwise)
            for start, part in zip(starts, masks, strict=True)
        ]
        result = vectors[0]
        for part, start in enumerate(starts):
            picks = [
                count + lane * stride - start
                if min(lane * stride // count, stride - 1) == part
                else lane
                for lane in range(count)
            ]
            result = self.f.shufflevector(result, vectors[part], picks)
        return self._from_memory(place, result)

    def _strided_part(
        self, scope: Scope, place: Place, first: Index, mask: Operand | None, otherwise: Operand
    ) -> Operand:
        assert scope.lanes is not None, "only lanes make an access strided"
        type, pointer = self._type(place, scope.lanes.count), self.address(scope, place, first)
        if mask is None:
            return self.f.load(type, pointer, self.alignment(place, first))
        rest = self.splat(scope, self._to_memory(place, otherwise), type.lanes)
        return self.f.masked_load(type, pointer, mask, rest)

    def _strided_mask(
        self, scope: Scope, mask: Operand | None, start: int, stride: int
    ) -> Operand | None:
        """Which elements of a part that begins at an offset belong to lanes of the mask."""
        if mask is None:
            return None
        assert scope.lanes is not None, "only lanes make an access strided"
        count = scope.lanes.count
        lanes = self.splat(scope, mask, count)
        none = constant_vector(I1, [False] * count)
        offsets = range(start, start + count)
        picks = [at // stride if at % stride == 0 else count for at in offsets]
        return self.f.shufflevector(lanes, none, picks)

    def _load_first(self, type: LLVMType, pointer: Operand, align: int, count: int) -> Operand:
        """A vector of which so many of the first elements are read, in shorter vectors."""
        value = Operand("poison", type)
        start, width = 0, type.lanes
        while start < count:
            if count - start >= width:
                at = self._element_address(type.vector(1), pointer, constant(I64, start))
                part = self.f.load(type.vector(width), at, gcd(align, start * type.bits // 8))
                value = self._with_part(value, part, start)
                start += width
            width //= 2
        return value

    def _with_part(self, vector: Operand, part: Operand, start: int) -> Operand:
        """The vector with those elements of it replaced that begin at `start`."""
        lanes, width = vector.type.lanes, part.type.lanes
        if width in (1, lanes):
            return part if width == lanes else self.f.insertelement(vector, part, start)
        wide = self.f.shufflevector(part, part, [*range(width), *[-1] * (lanes - width)])
        inside = range(start, start + width)
        picks = [lanes + at - start if at in inside else at for at in range(lanes)]
        return self.f.shufflevector(vector, wide, picks)

    # ---- stores

    def store(
        self,
        scope: Scope,
        buffer: Buffer,
        indices: tuple[Index, ...],
        value: Operand,
        guard: Operand | None = None,
    ) -> None:
        """Store a value where the guard and the conditions around hold."""
        place = scope.places[buffer.name]
        offset = self.flat_offset(place, indices)
        parts = self.split(scope, offset)
        if place.is_register and parts is not None and (place.lanes > 1 or parts[1] in (0, 1)):
            self._store_register(scope, place, *parts, value, guard)
        elif parts is not None and parts[1] == 0:
            self._store_uniform(scope, place, offset, parts[0], value, guard)
        elif parts is not None and parts[1] == 1:
            self._store_contiguous(scope, place, parts[0], value, guard)
        elif parts is not None and guard is None and _counts_lanes(scope):
            self._store_apart(scope, place, *parts, value)
        else:
            self._scatter(scope, place, offset, value, guard)

    def _store_register(
        self,
        scope: Scope,
        place: Place,
        first: Index,
        slope: Index,
        value: Operand,
        guard: Operand | None,
    ) -> None:
        """Registers blend in the new value: they stay promotable."""
        _check_register_of_body(place, slope)
        lanes = place.lanes
        if scope.lanes is not None and slope == 1:
            lanes = scope.lanes.count
        pointer, align = self.address(scope, place, first), self.alignment(place, first)
        mask = self.combine(scope, self._predicate(scope), guard)
        if lanes == 1 and value.type.lanes > 1:
            self._store_uniform(scope, place, 0, first, value, guard)
            return
        value = self.splat(scope, value, lanes)
        if mask is not None:
            condition = mask if lanes > 1 else self.any_lane(mask)
            value = self.f.select(condition, value, self.read(place, pointer, lanes, align))
        self.f.store(self._to_memory(place, value), pointer, align)

    def _store_uniform(
        self,
        scope: Scope,
        place: Place,
        offset: Index,
        first: Index,
        value: Operand,
        guard: Operand | None,
    ) -> None:
        """One address for all lanes: the last lane that stores wins."""
        pointer = self.address(scope, place, first)
        data = self._to_memory(place, value)
        mask = self.combine(scope, self._predicate(scope), guard)
        if value.type.lanes > 1:
            lanes = value.type.lanes
            mask = self.combine(scope, self._tail(scope), mask)
            if mask is not None:
                addresses = self.splat(scope, pointer, lanes)
                self.f.masked_scatter(data, addresses, self.splat(scope, mask, lanes))
                return
            data = self.f.extractelement(data, lanes - 1)
        elif mask is not None and mask.type.lanes > 1:
            mask = self.combine(scope, self._tail(scope), mask)
        needed = None if mask is None else self.any_lane(mask)
        self._store_if(needed, data, pointer, self.alignment(place, first))

    def _store_contiguous(
        self, scope: Scope, place: Place, first: Index, value: Operand, guard: Operand | None
    ) -> None:
        lanes = scope.lanes
        assert lanes is not None, "only lanes make an access contiguous"
        pointer, align = self.address(scope, place, first), self.alignment(place, first)
        data = self._to_memory(place, self.splat(scope, value, lanes.count))
        whole = lanes.predicate is None and guard is None and not self.machine.has_avx512
        if lanes.filled is not None and whole:
            self._store_first(scope, place, first, data, lanes.filled)
            return
        mask = self.combine(scope, self._tail(scope), self._predicate(scope), guard)
        if mask is None and place.buffer.name in self.streamed:
            self._store_past_caches(scope, place, first, data)
        elif mask is None or mask.type.lanes == 1:
            self._store_if(mask, data, pointer, align)
        else:
            self.f.masked_store(data, pointer, mask)

    def _store_first(
        self, scope: Scope, place: Place, first: Index, data: Operand, count: int
    ) -> None:
        """So many of the first lanes, in shorter vectors: without AVX-512 many CPUs take long to
        store through a mask."""
        start, width = 0, data.type.lanes
        while start < count:
            if count - start >= width:
                picks = list(range(start, start + width))
                part = (
                    self.f.shufflevector(data, data, picks)
                    if width > 1
                    else self.f.extractelement(data, start)
                )
                pointer = self.address(scope, place, first + start)
                self.f.store(part, pointer, self.alignment(place, first + start))
                start += width
            width //= 2

    def _store_past_caches(self, scope: Scope, place: Place, first: Index, data: Operand) -> None:
        """A whole vector, in the pieces that the buffer's start is a multiple of, if the vectors'
        places are too."""
        bytes_each = place.buffer.dtype.bytes
        lanes, count = STREAM_BYTES // bytes_each, data.type.lanes
        if count % lanes or self.multiple_of(first) % lanes:
            self.f.store(data, self.address(scope, place, first), self.alignment(place, first))
            return
        hint = "!nontemporal " + self.f.module.metadata("!{i32 1}")
        for start in range(0, count, lanes):
            part = self.f.shufflevector(data, data, list(range(start, start + lanes)))
            self.f.store(part, self.address(scope, place, first + start), STREAM_BYTES, hint)

    def _store_if(
        self, condition: Operand | None, data: Operand, pointer: Operand, align: int
    ) -> None:
        self.when(condition, lambda: self.f.store(data, pointer, align))

    def _store_apart(
        self, scope: Scope, place: Place, first: Index, slope: Index, value: Operand
    ) -> None:
        """Elements evenly apart, one by one: their addresses are one and multiples of a number."""
        lanes = scope.lanes
        assert lanes is not None, "only lanes make an address vary"
        data = self._to_memory(place, self.splat(scope, value, lanes.count))
        align = gcd(self.alignment(place, first), self.alignment(place, slope))
        for lane in range(lanes.count if lanes.filled is None else lanes.filled):
            pointer = self.address(scope, place, first + slope * lane)
            self.f.store(self.f.extractelement(data, lane), pointer, align)

    def _scatter(
        self, scope: Scope, place: Place, offset: Index, value: Operand, guard: Operand | None
    ) -> None:
        assert scope.lanes is not None, "only lanes make an address vary"
        count = scope.lanes.count
        mask = self.combine(scope, self._tail(scope), self._predicate(scope), guard)
        enabled = self.splat(scope, _TRUE if mask is None else mask, count)
        data = self._to_memory(place, self.splat(scope, value, count))
        self.f.masked_scatter(data, self.lane_addresses(scope, place, offset), enabled)

    # ---- memory and value types

    def _type(self, place: Place, lanes: int) -> LLVMType:
        return memory_type(place.buffer.dtype, lanes)

    def _from_memory(self, place: Place, data: Operand) -> Operand:
        if value_type(place.buffer.dtype) != I1:
            return data
        return self.f.icmp("ne", data, constant(data.type, 0))

    def _to_memory(self, place: Place, value: Operand) -> Operand:
        if value_type(place.buffer.dtype) != I1:
            return value
        if is_literal(value) and value.type.lanes == 1:
            return constant(memory_type(place.buffer.dtype), value.text == "true")
        return self.f.zext(value, memory_type(place.buffer.dtype, value.type.lanes))


def _counts_lanes(scope: Scope) -> bool:
    """Whether it is known without running which lanes there are."""
    lanes = scope.lanes
    if lanes is None or lanes.predicate is not None:
        return False
    return lanes.tail is None or lanes.filled is not None


def _conjuncts(guard: Expression | None) -> Iterator[Expression]:
    if isinstance(guard, Apply) and guard.op == "and":
        for operand in guard.operands:
            yield from _conjuncts(operand)
    elif guard is not None:
        yield guard


_TRUE, _FALSE = constant(I1, True), constant(I1, False)


def _check_register_of_body(place: Place, slope: Index) -> None:
    if place.lanes > 1 and slope != 0:
        name = place.buffer.name
        raise ValueError(f"register `{name}` of a vector loop's body is indexed by its variable")
