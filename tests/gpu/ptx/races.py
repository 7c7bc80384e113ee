"""Data races, found by a shadow of each granule of memory: who wrote it last, who read it last.

Each access carries a *key*: the epoch of the thread's block (how many barriers lie behind), the
epoch of its warp (`bar.warp.sync`), and the thread's number in the grid.  Two accesses of
different threads are ordered if they are of one block and of different epochs, or of one warp
and of different warp epochs; nothing orders blocks.  Two readers are remembered, so that a
thread that reads a place before it writes there does not hide the others.  Atomic accesses do
not race with one another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptx.errors import DataRace

Array = np.ndarray

EPOCH_SHIFT = 44
WARP_EPOCH_SHIFT = 32
BLOCK_SHIFT = 10
"""A thread's number: that of its block, then ten bits for the thread in it, of which five are the
lane in the warp."""

_THREAD = np.int64((1 << WARP_EPOCH_SHIFT) - 1)
_NONE = np.int64(-1)
_MOST_NOTES = 1 << 22


@dataclass(frozen=True)
class Access:
    """Who accesses memory and how.  `keys`: of the threads; `constant`: nobody writes there."""

    keys: Array
    name: Callable[[int], str]
    atomic: bool = False
    constant: bool = False

    def thread(self, position: int) -> str:
        """The thread at a position of `keys`, for a message."""
        return self.name(int(self.keys[position] & _THREAD))


class Shadow:
    """`one_block`: only threads of one block can meet here.

    Reads are noted, and entered when somebody writes; most notes are never needed, for a barrier
    comes before.
    """

    def __init__(self, granules: int, place: Callable[[int], str], one_block: bool) -> None:
        self.writer = np.full(granules, _NONE)
        self.reader = np.full(granules, _NONE)
        self.other = np.full(granules, _NONE)
        self.atomic = np.zeros(granules, bool)
        self.any_atomic = False
        self.place = place
        self.one_block = one_block
        self.written = (granules, 0)
        self.notes: list[tuple[Array, Array, tuple[int, int]]] = []
        self.noted = 0

    def read(self, granules: Array, access: Access) -> None:
        """Reads of [threads, n] granules; DataRace if another thread wrote without a barrier."""
        places, keys = _flat(granules, access.keys)
        extent = int(places.min()), int(places.max()) + 1
        if _overlap(extent, self.written):
            self._check(self.writer[places], places, keys, access, "written")
        self.notes.append((places, keys, extent))
        self.noted += len(places)
        if self.noted > _MOST_NOTES:
            self._enter((0, len(self.writer)))

    def pass_barrier(self) -> None:
        """All threads that have been here are ordered before all that come."""
        if self.one_block:
            self.notes.clear()
            self.noted = 0
            self.written = (len(self.writer), 0)

    def _enter(self, extent: tuple[int, int]) -> None:
        """Enters what was noted about some places."""
        kept = []
        for note in self.notes:
            if _overlap(note[2], extent):
                self._remember(note[0], note[1])
                self.noted -= len(note[0])
            else:
                kept.append(note)
        self.notes = kept

    def write(self, granules: Array, access: Access) -> None:
        """Writes; DataRace if another thread read or wrote without a barrier."""
        places, keys = _flat(granules, access.keys)
        low, high = int(places.min()), int(places.max()) + 1
        self._enter((low, high))
        self.written = (min(low, self.written[0]), max(high, self.written[1]))
        self._check(self.writer[places], places, keys, access, "written")
        self._check(self.reader[places], places, keys, access, "read", atomics=False)
        self._check(self.other[places], places, keys, access, "read", atomics=False)
        self.writer[places] = keys
        if access.atomic or self.any_atomic:
            self.atomic[places] = access.atomic
            self.any_atomic = True
        if not access.atomic:
            last = self.writer[places]
            self._report_if(last != keys, last, places, keys, access, "written")

    def _check(
        self,
        old: Array,
        places: Array,
        keys: Array,
        access: Access,
        what: str,
        atomics: bool = True,
    ) -> None:
        both = old ^ keys
        if self.one_block:
            suspect = ((both >> EPOCH_SHIFT) == 0) & (both != 0)
        else:
            suspect = (old >= 0) & ((both & _THREAD) != 0)
        if not suspect.any():
            return
        suspect &= _unordered(both)
        if atomics and access.atomic and self.any_atomic:
            suspect &= ~self.atomic[places]
        self._report_if(suspect, old, places, keys, access, what)

    def _report_if(
        self, wrong: Array, old: Array, places: Array, keys: Array, access: Access, what: str
    ) -> None:
        if not wrong.any():
            return
        i = int(np.flatnonzero(wrong)[0])
        other = access.name(int(old[i] & _THREAD))
        here = access.name(int(keys[i] & _THREAD))
        place = self.place(int(places[i]))
        both = f"is accessed by {here} and {what} by {other}"
        raise DataRace(f"{place} {both}, with no barrier between")

    def _remember(self, places: Array, keys: Array) -> None:
        """A first reader gives way to one that comes after it in order, a second one to any, unless
        it is of another block than the first: then no write is safe, whoever it is by."""
        both = self.reader[places] ^ keys
        fresh = (both >> EPOCH_SHIFT) != 0 if self.one_block else self._replaceable(places, both)
        if fresh.all():
            self.reader[places] = keys
        else:
            self.reader[places[fresh]] = keys[fresh]
        if self.one_block:
            self.other[places[fresh]] = _NONE
        differ = ((self.reader[places] ^ keys) & _THREAD) != 0
        if not self.one_block and differ.any():
            second, first = self.other[places], self.reader[places]
            differ &= (second < 0) | (((second ^ first) & _THREAD) >> BLOCK_SHIFT == 0)
        if differ.any():
            self.other[places[differ]] = keys[differ]

    def _replaceable(self, places: Array, both: Array) -> Array:
        same_block = ((both & _THREAD) >> BLOCK_SHIFT) == 0
        return (self.reader[places] < 0) | (same_block & ((both >> EPOCH_SHIFT) != 0))


def _unordered(both: Array) -> Array:
    """Whether nothing orders accesses, of whose keys these are the differences."""
    thread = both & _THREAD
    same_block = (thread >> BLOCK_SHIFT) == 0
    same_warp = (thread >> 5) == 0
    by_barrier = (both >> EPOCH_SHIFT) != 0
    by_warp = same_warp & ((both >> WARP_EPOCH_SHIFT) != 0)
    return (thread != 0) & ~(same_block & (by_barrier | by_warp))


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


def _flat(granules: Array, keys: Array) -> tuple[Array, Array]:
    count = granules.shape[1]
    if count == 1:
        return granules[:, 0], keys
    return granules.reshape(-1), np.repeat(keys, count)
