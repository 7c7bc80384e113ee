"""Tensors in a device's memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from mapsto.ir.core import Array
from mapsto.ir.types import DType
from mapsto.runtime.devices.device import Copy, Device
from mapsto.runtime.devices.memory import Block, Pool

__all__ = ["DeviceArray"]


class DeviceArray(NDArrayOperatorsMixin):
    """A dense array on a device: what calls on a device give, and what parameters there are.

    It stays there until NumPy asks for it: `np.asarray(array)` and `float(loss)` wait for the
    device and copy.  Operators and NumPy's functions do so too, and give NumPy arrays.
    `array[...] = values` writes to the device; ValueError where the array is not `writeable`.
    """

    def __init__(self, pool: Pool, dtype: DType, shape: tuple[int, ...]) -> None:
        self._pool = pool
        self._block: Block = pool.allocate(math.prod(shape) * dtype.bytes)
        self.element = dtype
        self.shape = shape
        self.dtype: np.dtype[Any] = dtype.numpy
        self.writeable = True

    @classmethod
    def of(cls, pool: Pool, array: Array) -> DeviceArray:
        """A copy of an array."""
        dtype = DType.of(array.dtype)
        assert dtype is not None
        made = cls(pool, dtype, array.shape)
        made[...] = array
        return made

    @property
    def device(self) -> Device:
        """The device that it is on."""
        return self._pool.device

    @property
    def address(self) -> int:
        """Where it is there."""
        return self._block.address

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return self.size * self.dtype.itemsize

    def numpy(self) -> Array:
        """A copy in the host's memory."""
        array = np.empty(self.shape, self.dtype)
        self.device.read(self.address, array)
        return array

    def copy(self) -> DeviceArray:
        """A copy on the device."""
        made = DeviceArray(self._pool, self.element, self.shape)
        made[...] = self
        return made

    def _is_like(self, other: DeviceArray) -> bool:
        same = self.element is other.element and self.shape == other.shape
        return same and self.device is other.device and self.size > 0

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(f"an array on {self.device.name} cannot be had without a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if any(isinstance(target, DeviceArray) for target in options.get("out", ())):
            return NotImplemented
        hosted = [x.numpy() if isinstance(x, DeviceArray) else x for x in inputs]
        return getattr(ufunc, method)(*hosted, **options)

    def __setitem__(self, key: Any, value: Any) -> None:
        if not self.writeable:
            raise ValueError("assignment destination is read-only")
        if key is Ellipsis and isinstance(value, DeviceArray) and self._is_like(value):
            if value.address != self.address:  # to copy memory onto itself is an error
                self.device.run([Copy(self.address, value.address, self.nbytes)])
            return
        if key is Ellipsis:
            whole = np.broadcast_to(np.asarray(value, self.dtype), self.shape)
        else:
            whole = self.numpy()
            whole[key] = np.asarray(value)
        self.device.write(self.address, np.require(whole, requirements=["C", "A"]))

    def __getitem__(self, key: Any) -> Any:
        return self.numpy()[key]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.numpy())

    def __float__(self) -> float:
        return float(self.numpy())

    def __int__(self) -> int:
        return int(self.numpy())

    def __bool__(self) -> bool:
        return bool(self.numpy())

    def __format__(self, specification: str) -> str:
        return format(self.numpy()[()], specification)

    def __repr__(self) -> str:
        return f"<{self.element}{list(self.shape)} on {self.device.name}: {self.numpy()}>"
