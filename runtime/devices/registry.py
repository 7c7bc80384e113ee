"""The devices of this machine, by name."""

from __future__ import annotations

import re
from collections.abc import Callable

from mapsto.runtime.devices.cuda import cuda_devices, open_cuda
from mapsto.runtime.devices.device import Device
from mapsto.runtime.devices.memory import Pool
from mapsto.runtime.devices.opencl import open_opencl, opencl_devices
from mapsto.runtime.devices.simulated import open_simulated
from mapsto.runtime.errors import DeviceError

__all__ = ["CPU", "OPENERS", "devices", "find_device", "pool_of"]

CPU = "cpu"
"""The name of the host itself."""

OPENERS: dict[str, Callable[[int], Device]] = {"cuda": open_cuda, "opencl": open_opencl}
"""By kind, how to open the device of a number; a row here makes another kind of device known."""
_NAME = re.compile(r"([a-z]+)(?::(\d+))?")


def find_device(name: str) -> Device | None:
    """The device of a name: `cuda:0`, `opencl:0` (the number may be missing) or `gpusim`; None for
    `cpu`.  Raises DeviceError, which says what is needed, where there is none."""
    if name == CPU:
        return None
    if name == "gpusim":
        return open_simulated()
    found = _NAME.fullmatch(name)
    if found is None or found[1] not in OPENERS:
        raise DeviceError(f"no device `{name}`: write cpu, cuda:0, opencl:0 or gpusim")
    return OPENERS[found[1]](int(found[2] or 0))


def devices() -> tuple[Device, ...]:
    """The devices beside the CPU; the simulated one, which every machine has, is the last."""
    return (*cuda_devices(), *opencl_devices(), open_simulated())


_pools: dict[int, Pool] = {}
"""By the identity of the device, which its pool keeps alive."""


def pool_of(device: Device) -> Pool:
    """The memory that all functions on a device have in common."""
    return _pools.setdefault(id(device), Pool(device))
