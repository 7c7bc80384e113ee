"""Whole models beside PyTorch: the same weights and batches, the losses of 50 steps of Adam."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

import torch_models  # noqa: E402 (imports PyTorch)
from speed_models import MODELS, PEERS  # noqa: E402
from torch_weights import copy_weights  # noqa: E402

F = torch.nn.functional
HERE = Path(__file__).parent
STEPS = 50

Batch = Mapping[str, np.ndarray]


def classified(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The cross entropy of scores, classes last."""
    *inputs, y = (torch.tensor(array) for array in batch.values())
    scores = model(*inputs)
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1).long())


def segmented(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The cross entropy of images of scores, classes second."""
    return F.cross_entropy(model(torch.tensor(batch["x"])), torch.tensor(batch["y"]).long())


def clicked(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The cross entropy of logits of yes or no."""
    *inputs, y = (torch.tensor(array) for array in batch.values())
    return F.binary_cross_entropy_with_logits(model(*inputs), y)


def given(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The model's result is the loss."""
    return model(*(torch.tensor(array) for array in batch.values()))


@dataclass(frozen=True, slots=True)
class Case:
    """A model here and there; `batch` makes a batch from a random generator."""

    source: Path
    module: str
    train: str
    configuration: Mapping[str, Any]
    peer: Callable[[], torch.nn.Module]
    loss: Callable[[torch.nn.Module, Batch], torch.Tensor]
    batch: Callable[[np.random.Generator], Batch]
    steps: int = STEPS


def images(*shape: int) -> Callable[[np.random.Generator], Batch]:
    """Random inputs and classes that depend on them a little."""

    def make(random: np.random.Generator) -> Batch:
        y = random.integers(0, 10, shape[0]).astype(np.int32)
        x = random.normal(size=shape).astype(np.float32)
        return {"x": x + 0.1 * y.reshape(-1, *[1] * (len(shape) - 1)).astype(np.float32), "y": y}

    return make


def text(vocabulary: int, *shape: int) -> Callable[[np.random.Generator], Batch]:
    """Random walks over an alphabet, and what comes next."""

    def make(random: np.random.Generator) -> Batch:
        steps = random.integers(0, 3, (shape[0], shape[1] + 1)).cumsum(1) % vocabulary
        steps = steps.astype(np.int32)
        return {"ids": steps[:, :-1].copy(), "y": steps[:, 1:].copy()}

    return make


def segments(random: np.random.Generator) -> Batch:
    x = random.normal(size=(4, 1, 16, 16)).astype(np.float32)
    return {"x": x, "y": np.digitize(x[:, 0], [-0.5, 0.5]).astype(np.int32)}


def clicks(random: np.random.Generator) -> Batch:
    dense = random.normal(size=(32, 13)).astype(np.float32)
    ids = random.integers(0, 100, (32, 8)).astype(np.int32)
    y = (dense[:, 0] + 0.01 * ids[:, 0] > 0.5).astype(np.float32)
    return {"dense": dense, "ids": ids, "y": y}


def pixels(random: np.random.Generator) -> Batch:
    x = random.random((16, 64)).astype(np.float32)
    return {"x": x, "noise": random.normal(size=(16, 4)).astype(np.float32)}


OWN = HERE / "whole_models.mto"
GPT = {"vocabulary": 20, "context": 16, "d": 32, "layers": 2, "heads": 4}
CASES = {
    "mlp": Case(OWN, "Perceptron", "Classify", {}, torch_models.MLP, classified, images(32, 64)),
    "cnn": Case(OWN, "CNN", "Classify", {}, torch_models.CNN, classified, images(16, 1, 8, 8)),
    "resnet18": Case(
        MODELS / "resnet18.mto",
        "ResNet18",
        "Step",
        {"width": 8, "classes": 10},
        lambda: PEERS["resnet18"](8, 10),
        classified,
        images(2, 3, 64, 64),
        steps=2,
    ),
    "gpt": Case(
        MODELS / "gpt.mto",
        "GPT",
        "Step",
        GPT,
        lambda: torch_models.GPT(*GPT.values()),
        classified,
        text(20, 4, 16),
    ),
    "bilstm": Case(
        OWN, "BiLSTM", "Classify", {}, torch_models.BiLSTM, classified, images(8, 12, 8)
    ),
    "dlrm": Case(
        MODELS / "dlrm.mto",
        "DLRM",
        "Step",
        {"rows": 100},
        lambda: PEERS["dlrm"](100),
        clicked,
        clicks,
    ),
    "unet": Case(OWN, "UNet", "Segment", {}, torch_models.UNet, segmented, segments),
    "vit": Case(OWN, "ViT", "Classify", {}, torch_models.ViT, classified, images(16, 1, 8, 8)),
    "vae": Case(OWN, "VAE", "Evidence", {}, torch_models.VAE, given, pixels),
}


def losses_here(case: Case, net: Any, batches: list[Batch]) -> Iterator[float]:
    run = getattr(mt.load(case.source), case.train)(net=net)
    for batch in batches:
        yield run.step(**batch)


def losses_there(case: Case, model: torch.nn.Module, batches: list[Batch]) -> Iterator[float]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for batch in batches:
        optimizer.zero_grad()
        loss = case.loss(model, batch)
        loss.backward()
        optimizer.step()
        yield loss.item()


@pytest.mark.parametrize("name", CASES)
def test_losses_agree_at_every_step(name: str) -> None:
    case, random = CASES[name], np.random.default_rng(5)
    batches = [case.batch(random) for _ in range(case.steps)]
    model = case.peer()
    net = getattr(mt.load(case.source), case.module)(**case.configuration)
    inputs = {k: v for k, v in batches[0].items() if k != "y"}
    net(*inputs.values())
    copy_weights(model, net)
    pairs = zip(losses_here(case, net, batches), losses_there(case, model, batches), strict=True)
    here, there = np.array(list(pairs)).T
    np.testing.assert_allclose(here, there, rtol=1e-3)
    if case.steps == STEPS and case.loss is not given:
        assert there[-10:].mean() < there[:10].mean(), "nothing was learned, so little was compared"
