"""Models on the interpreter of PTX: results, gradients and training steps as on the CPU, without a
race, an access out of bounds or a read of what nothing wrote."""

from __future__ import annotations

import numpy as np
import ptx
import pytest
from ladder import MODELS, check
from ptx_device import PtxDevice, open_ptx

import mapsto as mt
from mapsto.runtime.devices.registry import OPENERS

SLOW = pytest.mark.slow
FASTEST = "digits"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the device known as `ptx:80` and the like."""
    monkeypatch.setitem(OPENERS, "ptx", open_ptx)


@pytest.mark.parametrize(
    "name", [FASTEST, *(pytest.param(name, marks=SLOW) for name in MODELS if name != FASTEST)]
)
def test_models(name: str) -> None:
    check(name, "ptx:80", steps=2)


@SLOW
@pytest.mark.parametrize("architecture", [75, 90, 100])
def test_other_architectures(architecture: int) -> None:
    check("cnn", f"ptx:{architecture}", steps=2)


SAMPLE = """
map mean_of_exponentials(x: f32[n, m]) -> f32[n]:
    mean(exp(x), axis=1)
"""


def test_a_device_of_its_own_finds_defects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that stores an element further than it should is found, though memory of others lies
    there."""
    device = PtxDevice(80)
    x = np.zeros((3, 5), np.float32)
    expected = mt.loads(SAMPLE).mean_of_exponentials(x)
    monkeypatch.setitem(OPENERS, "ptx", lambda number: device)
    good = mt.loads(SAMPLE).mean_of_exponentials.to("ptx:80")
    np.testing.assert_allclose(np.asarray(good(x)), expected, rtol=1e-6)
    assert device.launched
    device.change = _one_further
    with pytest.raises((ptx.OutOfBounds, ptx.Uninitialized)):
        np.asarray(mt.loads(SAMPLE).mean_of_exponentials.to("ptx:80")(x))


def _one_further(text: str) -> str:
    head, _, tail = text.rpartition("st.global.b32 \t[")
    register, _, rest = tail.partition("]")
    return f"{head}st.global.b32 \t[{register}+4]{rest}"
