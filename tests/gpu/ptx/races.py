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
    """`one_block`: only threads of one block can meet here."""

    def __init__(self, granules: int, place: Callable[[int], str], one_block: bool) -> None:
        self.writer = np.full(granules, _NONE)
        self.reader = np.full(granules, _NONE)
        self.other = np.full(granules, _NONE)
        self.atomic = np.zeros(granules, bool)
        self.any_atomic = False
        self.place = place
        self.one_block = one_block

    def read(self, granules: Array, access: Access) -> None:
        """Reads of [threads, n] granules; DataRace if another thread wrote without a barrier."""
        places, keys = _flat(granules, access.keys)
        self._check(self.writer[places], places, keys, access, "written")
        self._remember(places, keys)

    def write(self, granules: Array, access: Access) -> None:
        """Writes; DataRace if another thread read or wrote without a barrier."""
        places, keys = _flat(granules, access.keys)
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


def _flat(granules: Array, keys: Array) -> tuple[Array, Array]:
    count = granules.shape[1]
    if count == 1:
        return granules[:, 0], keys
    return granules.reshape(-1), np.repeat(keys, count)
