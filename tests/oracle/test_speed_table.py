"""The models of the speed table at their full sizes: the same scores as PyTorch's to 1e-4."""

from typing import Any

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

import torch_models  # noqa: E402 (imports PyTorch)
from speed_models import MODELS, PEERS  # noqa: E402
from torch_weights import copy_weights  # noqa: E402

RANDOM = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def ids(count: int, *shape: int) -> np.ndarray:
    return RANDOM.integers(0, count, shape).astype(np.int32)


def encoder() -> torch.nn.Module:
    """The blocks of the language model without its mask."""
    model = torch.nn.Module()
    model.inner = torch_models.GPT(30522, 128, 384, 6, 12, causal=False)
    model.forward = model.inner.forward
    return model


MODEL: dict[str, tuple[str, Any, list[np.ndarray]]] = {
    "mlp": ("MLP", PEERS["mlp"], [normal(128, 784)]),
    "cnn": ("CNN", PEERS["cnn"], [normal(4, 1, 28, 28)]),
    "gpt": ("GPT", torch_models.GPT, [ids(65, 2, 64)]),
    "encoder": ("Encoder", encoder, [ids(30522, 1, 128)]),
    "lstm": ("Reader", PEERS["lstm"], [normal(2, 100, 40)]),
    "dlrm": ("DLRM", PEERS["dlrm"], [normal(16, 13), ids(10000, 16, 8)]),
    "resnet18": ("ResNet18", PEERS["resnet18"], [normal(1, 3, 224, 224)]),
}


@pytest.mark.parametrize("name", MODEL)
def test_scores_agree(name: str) -> None:
    module, peer, inputs = MODEL[name]
    model = peer().eval()
    net = getattr(mt.load(MODELS / f"{name}.mto"), module)()
    net(*inputs)
    copy_weights(model, net)
    with torch.inference_mode():
        expected = model(*map(torch.tensor, inputs)).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(net(*inputs) / scale, expected / scale, rtol=0, atol=1e-4)
