"""The ladder of models on each device: results, gradients and training steps against the CPU."""

from __future__ import annotations

import pytest
from devices import present
from ladder import MODELS, check

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
