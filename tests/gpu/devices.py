"""The devices that tests run on."""

from __future__ import annotations

import pytest

from mapsto.runtime.devices.registry import find_device
from mapsto.runtime.errors import DeviceError


def present(name: str) -> str:
    """The name of a device; skips the test where it is not there."""
    try:
        find_device(name)
    except DeviceError as error:
        pytest.skip(str(error))
    return name


DEVICES = (
    "gpusim",
    pytest.param("cuda:0", marks=pytest.mark.cuda),
    pytest.param("opencl:0", marks=pytest.mark.opencl),
)
