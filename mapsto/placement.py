"""Where arrays are: in the host's memory or on a device, and how they get there.

Modules and trainings that share parameters move together; what has compiled code on the parameters
is told, and compiles anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from mapsto.ir.core import Array
from mapsto.ir.types import DType
from mapsto.runtime.arrays import aligned_empty
from mapsto.runtime.devices.array import DeviceArray
from mapsto.runtime.devices.device import Device
from mapsto.runtime.devices.registry import CPU, devices, find_device, pool_of

__all__ = [
    "Mover",
    "User",
    "device_name",
    "device_put",
    "devices",
    "is_writeable",
    "move",
    "place_of",
    "placed",
    "read_only",
]


class Mover:
    """Moves arrays; those that are shared stay shared."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._moved: dict[int, tuple[Array, Array]] = {}
        """By identity; the old array is kept, so that no other takes its identity meanwhile."""

    def move(self, arrays: dict[str, Array]) -> None:
        """Puts the arrays' copies on the device in their places."""
        for path, array in arrays.items():
            if id(array) not in self._moved:
                is_there = place_of(array) is find_device(self.device)
                new = array if is_there else placed(array, self.device)
                self._moved[id(array)] = (array, new)
            arrays[path] = self._moved[id(array)][1]


class User(Protocol):
    """What works on arrays that may be moved."""

    def sharers(self) -> Iterable[User]:
        """What has arrays in common with it, and moves when it does."""

    def relocate(self, mover: Mover) -> None:
        """Moves its arrays, and forgets code that was compiled for where they were."""


def move(user: User, device: str | Device) -> None:
    """Moves arrays, and with them everything that shares some of them.  Raises DeviceError."""
    mover = Mover(device_name(device))
    for each in _together(user):
        each.relocate(mover)


def device_name(device: str | Device) -> str:
    """The name of a device.  Raises DeviceError where there is none of the name that is given."""
    found = find_device(device) if isinstance(device, str) else device
    return CPU if found is None else found.name


def _together(user: User) -> Iterator[User]:
    found = {user: None}
    waiting = [user]
    while waiting:
        new = [other for other in waiting.pop().sharers() if other not in found]
        found.update(dict.fromkeys(new))
        waiting += new
    return iter(found)


def placed(array: Array, device: str) -> Array:
    """A dense copy of an array on a device (typed as NumPy's, which it can stand for), or in the
    host's memory, where its data begins at a multiple of 64 bytes."""
    found = find_device(device)
    if found is not None:
        return DeviceArray.of(pool_of(found), np.asarray(array))  # type: ignore[return-value]
    dtype = DType.of(array.dtype)
    assert dtype is not None
    copy = aligned_empty(dtype, array.shape)
    copy[...] = array
    return copy


def read_only(array: Array) -> Array:
    """An array that `placed` made, as one that nobody can write from here on."""
    if isinstance(array, DeviceArray):
        array.writeable = False
        return array
    assert isinstance(array.base, np.ndarray), "a view of memory that is aligned"
    array.base.flags.writeable = False
    array.flags.writeable = False
    return array


def is_writeable(array: Array) -> bool:
    """Whether programs may write the array."""
    return array.writeable if isinstance(array, DeviceArray) else bool(array.flags.writeable)


def device_put(array: object, device: str | Device) -> DeviceArray:
    """A copy of an array on a device: what calls read again and again should be there.

    `mt.device_put(x, "cuda:0")`.  Raises DeviceError where there is no such device, TypeError for
    elements that the language does not have.
    """
    found = find_device(device) if isinstance(device, str) else device
    if found is None:
        raise TypeError("arrays of the CPU are NumPy's: np.asarray(array)")
    dense = np.require(np.asarray(array), requirements=["C", "A"])
    if DType.of(dense.dtype) is None:
        raise TypeError(f"the language has no elements of type {dense.dtype}")
    return DeviceArray.of(pool_of(found), dense)


def place_of(array: object) -> Device | None:
    """The device that an array is on; None for the host's memory."""
    return array.device if isinstance(array, DeviceArray) else None
