"""The interpreter of PTX computes the same bits as what it stands for.

All of the compiler's arithmetic is rounded as IEEE 754 says, also its exponentials and logarithms,
which are made of such operations; so elements are the same on every device.  Sums are, where they
are taken in the same order, as on a GPU of the architecture that the interpreter is given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ptx_device import open_ptx

import mapsto as mt
from mapsto.runtime.devices.registry import OPENERS, find_device
from mapsto.runtime.errors import DeviceError

Array = np.ndarray

ELEMENTS = """
map exponential(x: f32[n]) -> f32[n]: exp(x)
map logarithm(x: f32[n]) -> f32[n]: log(abs(x) + 1e-3)
map hyperbolic(x: f32[n]) -> f32[n]: tanh(x)
map wave(x: f32[n]) -> f32[n]: sin(x) * cos(3 * x)
map curve(x: f32[n]) -> f32[n]: gelu(x)
map power(x: f32[n]) -> f32[n]: (abs(x) + 0.5)^1.7
map quotient(x: f32[n]) -> f32[n]: sqrt(abs(x)) / (1 + x * x)
map wide(x: f64[n]) -> f64[n]: exp(x) / (1 + sqrt(abs(x)))
"""
SUMS = """
map total(x: f32[n, m]) -> f32[n]: sum(x * x, axis=1)
map columns(x: f32[n, m]) -> f32[m]: sum(x, axis=0)
map soft(x: f32[n, m]) -> f32[n, m]: softmax(x)
map product(x: f32[n, m]) -> f32[n, n]: x @ transpose(x)
"""


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the interpreter known as a device."""
    monkeypatch.setitem(OPENERS, "ptx", open_ptx)


def bits(name: str, program: str, device: str, x: Array) -> Array:
    """The result of a map on a device, bit by bit."""
    function: Callable[..., object] = getattr(mt.loads(program), name).to(device)
    found = np.ascontiguousarray(np.asarray(function(x)))
    return found.view(f"u{found.dtype.itemsize}")


def numbers(name: str) -> Array:
    x = np.random.default_rng(1).standard_normal(600) * 10.0 ** np.linspace(-8, 1.9, 600)
    return x.astype(np.float64 if name == "wide" else np.float32)


def names(program: str) -> list[str]:
    return [line.split()[1].partition("(")[0] for line in program.splitlines() if line]


def a_gpu() -> tuple[str, str]:
    """The name of a GPU, and that of the interpreter for the same architecture."""
    try:
        device = find_device("cuda:0")
    except DeviceError as error:
        pytest.skip(str(error))
    assert device is not None
    return device.name, device.target.name.replace("nvptx64-sm_", "ptx:")


@pytest.mark.parametrize("name", names(ELEMENTS))
def test_elements_as_on_the_simulated_device(name: str) -> None:
    x = numbers(name)
    found, expected = (bits(name, ELEMENTS, device, x) for device in ("ptx:80", "gpusim"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("name", names(ELEMENTS))
def test_elements_as_on_a_gpu(name: str) -> None:
    x = numbers(name)
    found, expected = (bits(name, ELEMENTS, device, x) for device in a_gpu())
    np.testing.assert_array_equal(found, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("name", names(SUMS))
@pytest.mark.parametrize("shape", [(64, 64), (37, 131), (5, 3000)])
def test_sums_as_on_a_gpu(name: str, shape: tuple[int, int]) -> None:
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    found, expected = (bits(name, SUMS, device, x) for device in a_gpu())
    np.testing.assert_array_equal(found, expected)
