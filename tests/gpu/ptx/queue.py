"""Asynchronous copies that are under way.

What a copy reads is read when it is issued; what it writes arrives when its thread waits for it,
and until then every access to the place is an error.  A copy counts as a write by its thread,
both when it is issued (so that others' reads need a barrier before) and when it arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptx.memory import SharedMemory
from ptx.races import Access

Array = np.ndarray
Accessing = Callable[[Array], Access]
"""From numbers of threads in the chunk to how they access memory now."""


@dataclass
class Copy:
    """A copy of some threads: where to, what, and each thread's commit group."""

    lanes: Array
    offsets: Array
    values: Array
    groups: Array

    def part(self, chosen: Array) -> Copy:
        """That of some of the threads."""
        parts = (self.lanes, self.offsets, self.values, self.groups)
        return Copy(*(part[chosen] for part in parts))


class CopyQueue:
    """The copies of a chunk to shared memory, and how many groups each thread committed."""

    def __init__(self, memory: SharedMemory, threads: int) -> None:
        self.memory = memory
        self.committed = np.zeros(threads, np.int64)
        self.copies: list[Copy] = []

    def issue(self, lanes: Array, offsets: Array, values: Array, accessing: Accessing) -> None:
        """Begins copies of rows of bytes to offsets of shared memory."""
        granules = self.memory.granules(offsets, values.shape[1])
        access = accessing(lanes)
        self.memory.check_arrived(granules, access)
        assert self.memory.shadow is not None
        self.memory.shadow.write(granules, access)
        self.memory.in_flight[granules] = True
        self.memory.copies += len(offsets)
        self.copies.append(Copy(lanes, offsets, values, self.committed[lanes]))

    def commit(self, lanes: Array) -> None:
        """Closes the group of what each thread issued."""
        self.committed[lanes] += 1

    def wait(self, lanes: Array, open_groups: int, accessing: Accessing) -> None:
        """Lets all but the last groups of the threads arrive; -1: also those not committed."""
        limit = np.full(len(self.committed), -1)
        limit[lanes] = self.committed[lanes] - open_groups
        remaining = []
        for copy in self.copies:
            done = copy.groups < limit[copy.lanes]
            if done.any():
                self._arrive(copy.part(done), accessing)
            if not done.all():
                remaining.append(copy.part(~done))
        self.copies = remaining

    def _arrive(self, copy: Copy, accessing: Accessing) -> None:
        granules = self.memory.granules(copy.offsets, copy.values.shape[1])
        self.memory.in_flight[granules] = False
        self.memory.copies -= len(copy.offsets)
        words = np.ascontiguousarray(copy.values).view(np.uint32)
        self.memory.store(copy.offsets, words, accessing(copy.lanes))
