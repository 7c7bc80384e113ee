"""Memory of a device that is used again: a call in a loop allocates nothing.

A device does its work in order, so memory that the host has given back may be handed out at once:
what uses it next comes after what used it before.
"""

from __future__ import annotations

import heapq
import threading
from collections import defaultdict

from mapsto.runtime.devices.device import Device
from mapsto.runtime.errors import DeviceError

__all__ = ["Block", "Pool"]

_SMALLEST = 512
_STEPS = 8
"""Sizes are rounded up to one of so many between powers of two."""


class Block:
    """Some memory; it goes back to its pool with the object."""

    __slots__ = ("__weakref__", "_pool", "_size", "address")

    def __init__(self, pool: Pool, address: int, size: int) -> None:
        self._pool = pool
        self._size = size
        self.address = address

    def __del__(self) -> None:
        self._pool.give_back(self.address, self._size)


class Pool:
    """Hands out memory of a device, and keeps what comes back."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._lock = threading.RLock()

    def allocate(self, count: int) -> Block:
        """Memory for so many bytes, with undefined contents.  Raises DeviceError."""
        size = rounded_size(count)
        with self._lock:
            kept = self._free[size]
            # The lowest address: calls in a loop then find the same memory time and again.
            address = heapq.heappop(kept) if kept else self._new(size)
        return Block(self, address, size)

    def give_back(self, address: int, size: int) -> None:
        """Keeps memory for later."""
        with self._lock:
            heapq.heappush(self._free[size], address)

    def release(self) -> None:
        """Gives all memory that is not in use back to the device."""
        with self._lock:
            addresses = [address for kept in self._free.values() for address in kept]
            self._free.clear()
        self.device.synchronize()
        for address in addresses:
            self.device.free(address)

    def _new(self, size: int) -> int:
        try:
            return self.device.allocate(size)
        except DeviceError:
            # What is kept may be of the wrong sizes.
            self.release()
            return self.device.allocate(size)


def rounded_size(count: int) -> int:
    """The next of a few sizes, at most an eighth larger."""
    if count <= _SMALLEST:
        return _SMALLEST
    step = max(_SMALLEST, 1 << max(0, (count - 1).bit_length() - _STEPS.bit_length()))
    return -(-count // step) * step
