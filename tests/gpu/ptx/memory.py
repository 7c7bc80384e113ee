"""Memory with checks: bounds, alignment, what was written, what is being copied, races.

A `Memory` is the flat storage of one space; threads' addresses become offsets into it.  Global
memory holds allocations far from one another; shared memory holds a part for each block of the
chunk, with gaps between variables; local memory a part for each thread.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from ptx.errors import CopyInFlight, Misaligned, OutOfBounds, Uninitialized
from ptx.races import Access, Shadow

Array = np.ndarray

GLOBAL_BASE = 0x7F00_0000_0000
VARIABLES_BASE = 0x7E00_0000_0000
"""Where variables of the program in global memory are; only constants have contents there."""
SHARED_WINDOW = 1 << 40
LOCAL_WINDOW = 2 << 40
WINDOW = 1 << 32
"""Generic addresses: a window each for shared and local memory; the rest are global."""

_GARBAGE = 0xCB
_GAP = 256


class Memory:
    """Bytes; `granule`, the size of the smallest access of the program, is the unit of checks."""

    def __init__(self, name: str, data: Array, written: Array, granule: int) -> None:
        self.name = name
        self.data = data
        self.granule = granule
        self.written = written
        self.complete = bool(written.all())
        self.in_flight = np.zeros(len(written), bool)
        self.copies = 0
        self.shadow: Shadow | None = None

    @staticmethod
    def blank(name: str, size: int, granule: int) -> Memory:
        """Memory that nothing has written."""
        padded = max(-(-size // 32) * 32, 32)
        data = np.full(padded, _GARBAGE, np.uint8)
        return Memory(name, data, np.zeros(padded // granule, bool), granule)

    def load(self, offsets: Array, width: int, count: int, access: Access) -> Array:
        """`count` numbers of `width` bytes for each thread: [threads, count], unsigned."""
        granules = self.granules(offsets, width * count)
        if self.copies:
            self.check_arrived(granules, access)
        if not self.complete and not self.written[granules].all():
            gaps = ~self.written[granules]
            self._report(Uninitialized, granules, gaps, "was never written", access)
        if self.shadow is not None and not access.constant:
            self.shadow.read(granules, access)
        if count == 1:
            return self.data.view(f"u{width}")[offsets >> _shift(width)][:, None]
        rows = self.data.view(f"u{width}").reshape(-1, count)
        return rows[offsets >> _shift(width * count)]

    def store(self, offsets: Array, values: Array, access: Access) -> None:
        """Writes [threads, count] numbers."""
        width, count = values.dtype.itemsize, values.shape[1]
        granules = self.granules(offsets, width * count)
        if self.copies:
            self.check_arrived(granules, access)
        if self.shadow is not None:
            self.shadow.write(granules, access)
        self.written[granules] = True
        self.data.view(values.dtype).reshape(-1, count)[offsets >> _shift(width * count)] = values

    def granules(self, offsets: Array, size: int) -> Array:
        """The granules that accesses touch: [threads, size / granule]."""
        first = offsets >> _shift(self.granule)
        count = size // self.granule
        return first[:, None] if count == 1 else first[:, None] + np.arange(count)

    def check_arrived(self, granules: Array, access: Access) -> None:
        """CopyInFlight where an asynchronous copy may still write."""
        if self.in_flight[granules].any():
            what = "is still written by an asynchronous copy that nobody waited for"
            self._report(CopyInFlight, granules, self.in_flight[granules], what, access)

    def _report(
        self, error: type[Exception], granules: Array, wrong: Array, what: str, access: Access
    ) -> None:
        thread, column = (int(x[0]) for x in np.nonzero(wrong))
        place = self.place_of(int(granules[thread, column]))
        raise error(f"{place} {what}; accessed by {access.thread(thread)}")

    def place_of(self, granule: int) -> str:
        """How to call a granule in a message."""
        return self.place(granule * self.granule)

    def place(self, offset: int) -> str:
        """How to call a byte in a message."""
        return f"{self.name} memory at {offset:#x}"


def _shift(size: int) -> int:
    """By how much to shift for a division by a power of two."""
    return size.bit_length() - 1


def check_alignment(addresses: Array, size: int, access: Access) -> None:
    """Misaligned unless all are multiples of the size."""
    if int(np.bitwise_or.reduce(addresses)) & (size - 1):
        thread = int(np.flatnonzero(addresses & addresses.dtype.type(size - 1))[0])
        where = f"{int(addresses[thread]):#x} is no multiple of {size}"
        raise Misaligned(f"address {where}; accessed by {access.thread(thread)}")


class SharedMemory(Memory):
    """A part for each block; `valid` tells which granules of a part belong to a variable."""

    @staticmethod
    def of(ranges: list[tuple[int, int]], blocks: int, granule: int) -> SharedMemory:
        """`ranges`: where variables begin and end."""
        size = max((stop for _, stop in ranges), default=0)
        stride = -(-(size + _GAP) // 256) * 256
        blank = Memory.blank("shared", stride * blocks, granule)
        memory = SharedMemory("shared", blank.data, blank.written, granule)
        memory.stride, memory.ranges = stride, ranges
        memory.valid = np.zeros(stride // granule, bool)
        for start, stop in ranges:
            memory.valid[start // granule : -(-stop // granule)] = True
        memory.shadow = Shadow(len(memory.written), memory.place_of, one_block=True)
        return memory

    stride: int
    valid: Array
    ranges: list[tuple[int, int]]

    def offsets(self, addresses: Array, blocks: Array, size: int, access: Access) -> Array:
        """Where threads of blocks (numbered in the chunk) find their addresses."""
        check_alignment(addresses, size, access)
        local = addresses.astype(np.int64)
        low, high = int(local.min()), int(local.max())
        if not any(start <= low and high + size <= stop for start, stop in self.ranges):
            self._check_each(local, size, access)
        return local + blocks * self.stride

    def _check_each(self, local: Array, size: int, access: Access) -> None:
        inside = (local >= 0) & (local + size <= self.stride)
        ends = np.where(inside, local, 0)
        for step in range(0, size, self.granule):
            inside &= self.valid[(ends + step) // self.granule]
        if not inside.all():
            thread = int(np.flatnonzero(~inside)[0])
            where = f"shared memory at {int(local[thread]):#x} belongs to no variable"
            raise OutOfBounds(f"{where}; {size} bytes accessed by {access.thread(thread)}")

    def pass_barrier(self) -> None:
        """All threads of the chunk have come to a barrier."""
        if self.shadow is not None:
            self.shadow.pass_barrier()
        parts = self.written.reshape(-1, self.stride // self.granule)
        self.complete = bool(parts[:, self.valid].all())

    def place(self, offset: int) -> str:
        return f"shared memory at {offset % self.stride:#x}"


class LocalMemory(Memory):
    """A part for each thread."""

    stride: int

    @staticmethod
    def of(size: int, threads: int, granule: int) -> LocalMemory:
        """`size` bytes for each thread."""
        stride = -(-size // 32) * 32
        blank = Memory.blank("local", stride * threads, granule)
        memory = LocalMemory("local", blank.data, blank.written, granule)
        memory.stride = stride
        return memory

    def offsets(self, addresses: Array, lanes: Array, size: int, access: Access) -> Array:
        """Where the threads of the lanes find their addresses."""
        check_alignment(addresses, size, access)
        local = addresses.astype(np.int64)
        outside = (local < 0) | (local + size > self.stride)
        if outside.any():
            thread = int(np.flatnonzero(outside)[0])
            where = f"local memory at {int(local[thread]):#x} belongs to no variable"
            raise OutOfBounds(f"{where}; accessed by {access.thread(thread)}")
        return local + lanes * self.stride


@dataclass(frozen=True)
class Allocation:
    """`size` bytes of global memory from `start` on, an offset."""

    name: str
    start: int
    size: int


class GlobalMemory:
    """Allocations that outlive a launch."""

    def __init__(self) -> None:
        self.allocations: list[Allocation] = []
        self._parts: list[tuple[Array, Array]] = []
        self.end = 0

    def allocate(
        self, contents: Array | int, name: str | None = None, written: Array | None = None
    ) -> int:
        """The address of a copy of an array, or of so many bytes that nothing has written.
        `written`: which bytes of the array count as written."""
        name = name or f"allocation {len(self.allocations)}"
        if isinstance(contents, int):
            data, known = np.full(contents, _GARBAGE, np.uint8), np.zeros(contents, bool)
        else:
            data = np.ascontiguousarray(contents).reshape(-1).view(np.uint8).copy()
            known = np.ones(len(data), bool) if written is None else written.copy()
        start = self.end
        self.allocations.append(Allocation(name, start, len(data)))
        self._parts.append((data, known))
        self.end = -(-(start + len(data) + _GAP) // 256) * 256
        return GLOBAL_BASE + start

    def read(self, address: int, dtype: np.dtype | str, shape: tuple[int, ...]) -> Array:
        """The contents of an allocation from an address on; Uninitialized where it has gaps."""
        index, inside = self._find(address)
        count = int(np.prod(shape)) * np.dtype(dtype).itemsize
        data, written = (part[inside : inside + count] for part in self._parts[index])
        if not written.all():
            gap = int(np.flatnonzero(~written)[0])
            name = self.allocations[index].name
            raise Uninitialized(f"byte {gap} of the result in `{name}` was never written")
        return data.view(dtype).reshape(shape).copy()

    def contents(self, address: int) -> tuple[Array, Array]:
        """The bytes of an allocation, and which of them were written."""
        index, _ = self._find(address)
        return self._parts[index]

    def _find(self, address: int) -> tuple[int, int]:
        starts = [allocation.start for allocation in self.allocations]
        index = bisect_right(starts, address - GLOBAL_BASE) - 1
        return index, address - GLOBAL_BASE - starts[index]

    def opened(self, granule: int) -> GlobalView:
        """The memory as a launch sees it."""
        blank = Memory.blank("global", self.end, 1)
        for allocation, (data, written) in zip(self.allocations, self._parts, strict=True):
            inside = slice(allocation.start, allocation.start + allocation.size)
            blank.data[inside], blank.written[inside] = data, written
        gaps = np.ones(len(blank.data), bool)
        for allocation in self.allocations:
            gaps[allocation.start : allocation.start + allocation.size] = False
        whole = (blank.written | gaps).reshape(-1, granule).all(axis=1)
        return GlobalView(self, blank.data, whole, granule)

    def close(self, view: GlobalView) -> None:
        """Takes over what a launch wrote."""
        new = np.repeat(view.written, view.granule)
        for allocation, (data, written) in zip(self.allocations, self._parts, strict=True):
            inside = slice(allocation.start, allocation.start + allocation.size)
            data[:] = view.data[inside]
            written |= new[inside]


class GlobalView(Memory):
    """Global memory during a launch."""

    def __init__(self, memory: GlobalMemory, data: Array, written: Array, granule: int) -> None:
        super().__init__("global", data, written, granule)
        self.allocations = memory.allocations
        self.starts = [allocation.start for allocation in self.allocations]
        self.shadow = Shadow(len(written), self.place_of, one_block=False)

    def offsets(self, addresses: Array, size: int, access: Access) -> Array:
        """Offsets of addresses; OutOfBounds outside of allocations."""
        check_alignment(addresses, size, access)
        offsets = (addresses - np.uint64(GLOBAL_BASE)).view(np.int64)
        low, high = int(offsets.min()), int(offsets.max())
        index = bisect_right(self.starts, low) - 1
        if index < 0 or high + size > self.starts[index] + self.allocations[index].size:
            self._check_each(offsets, size, access)
        return offsets

    def _check_each(self, offsets: Array, size: int, access: Access) -> None:
        stops = np.array([a.start + a.size for a in self.allocations] or [0])
        index = np.searchsorted(np.array(self.starts), offsets, side="right") - 1
        outside = (index < 0) | (offsets + size > stops[index])
        if outside.any():
            thread = int(np.flatnonzero(outside)[0])
            count = int(outside.sum())
            where = self.place(int(offsets[thread]))
            others = f" and {count - 1} others" if count > 1 else ""
            raise OutOfBounds(f"{where} is accessed by {access.thread(thread)}{others}")

    def place(self, offset: int) -> str:
        index = bisect_right(self.starts, offset) - 1
        if index < 0:
            return f"global memory at {GLOBAL_BASE + offset:#x}"
        allocation = self.allocations[index]
        inside = offset - allocation.start
        return f"byte {inside} of `{allocation.name}` ({allocation.size} bytes)"
