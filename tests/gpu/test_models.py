"""The ladder of models on each device: results, gradients and training steps against the CPU."""

from __future__ import annotations

import pytest
from ladder import MODELS, check

from mapsto.runtime.devices.registry import find_device
from mapsto.runtime.errors import DeviceError

QUICK = {"digits", "lstm"}
SIMULATED = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MODELS]


@pytest.mark.parametrize("name", SIMULATED)
def test_on_the_simulated_device(name: str) -> None:
    check(name, "gpusim")


@pytest.mark.cuda
@pytest.mark.parametrize("name", MODELS)
def test_on_a_gpu(name: str) -> None:
    check(name, present("cuda:0"))


@pytest.mark.opencl
@pytest.mark.parametrize("name", MODELS)
def test_on_an_opencl_device(name: str) -> None:
    check(name, present("opencl:0"))


def present(name: str) -> str:
    """The name of a device; skips the test where it is not there."""
    try:
        find_device(name)
    except DeviceError as error:
        pytest.skip(str(error))
    return name
