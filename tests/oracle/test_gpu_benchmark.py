"""The checks of `benchmarks/gpu.py`: training on a device beside PyTorch's, here on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mapsto as mt
from mapsto.runtime.devices.registry import find_device

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

import gpu  # noqa: E402
from models.torch_models import Residual, weights_by_path  # noqa: E402

PROGRAM = """
module Net(channels: int = 4):
    first = Conv2d(channels, 3, stride=2, padding=1, bias=false)
    first_norm = BatchNorm()
    second = Conv2d(channels, 3, padding=1, bias=false)
    second_norm = BatchNorm()
    shortcut = Conv2d(channels, 1, stride=2, bias=false)
    shortcut_norm = BatchNorm()

    map (x: f32[n, 3, h, w]) -> f32[n, channels]:
        let y = second_norm(second(relu(first_norm(first(x)))))
        mean(relu(y + shortcut_norm(shortcut(x))), axis=[2, 3])

train Step(net = Net(), optimizer = Adam(lr=1e-3)):
    loss(x: f32[n, 3, h, w], y: i32[n]) = cross_entropy(net(x), y)
"""


class Pooled(torch.nn.Module):  # type: ignore[misc]
    """The same in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Residual(3, 4, 2)

    def forward(self, x: Any) -> Any:
        return self.block(x).mean((2, 3))


@pytest.fixture(scope="module")
def bench() -> gpu.Bench:
    return gpu.Bench(torch, find_device("gpusim"), 0.1, False, torch_device="cpu")


@pytest.fixture
def steps(bench: gpu.Bench) -> tuple[Callable[[], Any], Callable[[], Any], Any]:
    """A step of a residual block on either side, from the same weights; and the net here."""
    rng = np.random.default_rng(0)
    batch = {"x": rng.standard_normal((3, 3, 6, 6), np.float32)}
    batch["y"] = rng.integers(0, 4, 3, dtype=np.int32)
    library, peer = mt.loads(PROGRAM), Pooled()
    net = library.Net(seed=0)
    net(batch["x"])
    for path, array in weights_by_path(peer).items():
        net.params[path.removeprefix("block.")][...] = array
    run = library.Step(net=net.to(bench.device)).to(bench.device)
    return lambda: run.step(**batch), gpu.peer_step(bench, peer, batch), net


def test_a_residual_block_trains_as_in_pytorch(bench: gpu.Bench, steps: Any) -> None:
    ours, theirs, _ = steps
    gpu.check_losses(bench, ours, theirs)


def test_other_weights_are_noticed(bench: gpu.Bench, steps: Any) -> None:
    ours, theirs, net = steps
    net.params["second_norm.scale"][...] = np.full(4, 3, np.float32)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        gpu.check_losses(bench, ours, theirs)


def test_a_reason_is_one_line() -> None:
    assert gpu.reason(AssertionError()) == "AssertionError"
    assert gpu.reason(ValueError("\nno\n  such size")) == "ValueError: no such size"


def test_the_rounding_of_pytorch_is_put_back() -> None:
    before = torch.backends.cudnn.allow_tf32
    with gpu.tf32(torch, not before):
        assert torch.backends.cudnn.allow_tf32 is not before
    assert torch.backends.cudnn.allow_tf32 is before
