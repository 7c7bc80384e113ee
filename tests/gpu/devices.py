"""The devices that tests run on."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from _pytest.mark import MarkDecorator

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


def on_devices(names: Iterable[str]) -> MarkDecorator:
    """Runs a test of `name` on `device` for each name, the first of each, on each device."""
    cases = [
        pytest.param(name, device, marks=MARKS.get(device, []), id=f"{name}-{device}")
        for name in dict.fromkeys(names)
        for device in (SIMULATED, *MARKS)
    ]
    return pytest.mark.parametrize(("name", "device"), cases, indirect=["device"])
