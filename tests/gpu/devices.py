"""The devices that tests run on."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest
from _pytest.mark import MarkDecorator, ParameterSet

from mapsto.runtime.devices.registry import find_device
from mapsto.runtime.errors import DeviceError


def present(name: str) -> str:
    """The name of a device; skips the test where it is not there."""
    try:
        find_device(name)
    except DeviceError as error:
        pytest.skip(str(error))
    return name


SIMULATED = "gpusim"
MARKS = {"cuda:0": pytest.mark.cuda, "opencl:0": pytest.mark.opencl}
DEVICES = (SIMULATED, *(pytest.param(name, marks=mark) for name, mark in MARKS.items()))


def on_devices(names: Iterable[str], quick: Collection[str]) -> MarkDecorator:
    """Runs a test of `name` on `device` for each name, the first of each, on each device.  On the
    simulated one all but the quick names are slow."""

    def case(device: str, name: str) -> ParameterSet:
        slow = [] if name in quick else [pytest.mark.slow]
        return pytest.param(name, device, marks=MARKS.get(device, slow), id=f"{name}-{device}")

    cases = [case(device, name) for name in dict.fromkeys(names) for device in (SIMULATED, *MARKS)]
    return pytest.mark.parametrize(("name", "device"), cases, indirect=["device"])
