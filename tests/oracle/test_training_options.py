"""Fifty steps of a perceptron from the same weights and on the same batches as in PyTorch: with
schedules, clipped gradients, parameter groups, frozen parameters and averages."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

STEPS = 50

PROGRAM = """
module Net():
    first = Dense(12, tanh)
    second = Dense(4)

    map (x: f32[n, d]) -> f32[n, 4]:
        second(first(x))

train Fit(net = Net(), optimizer = OPTIMIZER):
    loss(x: f32[n, d], y: i32[n]) = cross_entropy(net(x), y, label_smoothing=0.1)
"""
PATHS = ("first.w", "first.b", "second.w", "second.b")
Weights = dict[str, Any]


class Training:
    """A training in PyTorch: an optimizer, and what is done before and after its steps."""

    def __init__(self, optimizer: Any, before: Callable[[], Any], after: Callable[[], Any]) -> None:
        self.optimizer, self.before, self.after = optimizer, before, after


def nothing() -> None:
    return None


def clipped(w: Weights) -> Training:
    optimizer = torch.optim.Adam(w.values(), lr=0.01)
    return Training(
        optimizer, lambda: torch.nn.utils.clip_grad_norm_(list(w.values()), 0.05), nothing
    )


def clipped_apart(w: Weights) -> Training:
    def clip() -> None:
        for tensor in w.values():
            torch.nn.utils.clip_grad_norm_([tensor], 0.05)

    return Training(torch.optim.SGD(w.values(), lr=0.5), clip, nothing)


def scheduled(w: Weights) -> Training:
    optimizer = torch.optim.AdamW(w.values(), lr=0.02)
    parts = [
        torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40),
    ]
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, parts, [10])
    return Training(optimizer, nothing, schedule.step)


def grouped(w: Weights) -> Training:
    decayed = [w["first.w"], w["second.w"]]
    groups = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": [w["first.b"], w["second.b"]], "weight_decay": 0.0},
    ]
    return Training(torch.optim.AdamW(groups, lr=0.01), nothing, nothing)


def frozen(w: Weights) -> Training:
    optimizer = torch.optim.SGD([w["second.w"], w["second.b"]], lr=0.1, momentum=0.9)
    return Training(optimizer, nothing, nothing)


def decayed(w: Weights) -> Training:
    optimizer = torch.optim.SGD(w.values(), lr=0.1, momentum=0.9, weight_decay=0.01)
    return Training(optimizer, nothing, nothing)


CASES = {
    "ClipByGlobalNorm(Adam(0.01), 0.05)": clipped,
    "ClipByNorm(SGD(0.5), 0.05)": clipped_apart,
    "AdamW(LinearWarmup(CosineDecay(0.02, 40), 10, start=0.1))": scheduled,
    '[("*.w", AdamW(0.01, weight_decay=0.1)), ("*.b", AdamW(0.01, weight_decay=0))]': grouped,
    '[("first.*", Frozen()), ("*", SGD(0.1, momentum=0.9))]': frozen,
    "WeightDecay(SGD(0.1, momentum=0.9), 0.01)": decayed,
}


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(3)
    means = random.normal(size=(4, 6))
    labels = [random.integers(0, 4, 16).astype(np.int32) for _ in range(STEPS)]
    return [((means[y] + random.normal(size=(16, 6))).astype(np.float32), y) for y in labels]


def started(optimizer: str) -> tuple[Any, Weights]:
    """A trainer, and its first weights in PyTorch."""
    run = mt.loads(PROGRAM.replace("OPTIMIZER", optimizer)).Fit(seed=2)
    run.net.init(x=mt.f32[16, 6])
    weights = {path: torch.tensor(run.net.params[path], requires_grad=True) for path in PATHS}
    return run, weights


def loss_of(w: Weights, x: np.ndarray, y: np.ndarray) -> Any:
    hidden = torch.tanh(torch.tensor(x) @ w["first.w"] + w["first.b"])
    scores = hidden @ w["second.w"] + w["second.b"]
    target = torch.tensor(y, dtype=torch.int64)
    return torch.nn.functional.cross_entropy(scores, target, label_smoothing=0.1)


@pytest.mark.parametrize("text", CASES)
def test_fifty_steps(text: str) -> None:
    run, weights = started(text)
    first = {path: w.detach().clone() for path, w in weights.items()}
    training = CASES[text](weights)
    for x, y in batches():
        loss = loss_of(weights, x, y)
        training.optimizer.zero_grad()
        loss.backward()
        training.before()
        training.optimizer.step()
        training.after()
        assert run.step(x=x, y=y) == pytest.approx(loss.item(), rel=1e-4)
    for path, w in weights.items():
        np.testing.assert_allclose(run.net.params[path], w.detach(), rtol=1e-3, atol=1e-5)
        stays = text.startswith('[("first') and path.startswith("first")
        assert bool((w == first[path]).all()) == stays


@pytest.mark.parametrize(
    ("text", "average"),
    [
        ("EMA(SGD(0.2), decay=0.9)", torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)),
        ("SWA(SGD(0.2))", None),
    ],
)
def test_averages(text: str, average: Any) -> None:
    run, weights = started(text)
    optimizer = torch.optim.SGD(weights.values(), lr=0.2)
    holder = torch.nn.ParameterList(weights.values())
    averaged = torch.optim.swa_utils.AveragedModel(holder, multi_avg_fn=average)
    for x, y in batches():
        optimizer.zero_grad()
        loss_of(weights, x, y).backward()
        optimizer.step()
        averaged.update_parameters(holder)
        run.step(x=x, y=y)
    for path, mean, w in zip(PATHS, averaged.module, weights.values(), strict=True):
        assert not np.allclose(mean.detach(), w.detach(), rtol=1e-2)
        found = run.arrays[f"optimizer.{path}.average"]
        np.testing.assert_allclose(found, mean.detach(), rtol=1e-4, atol=1e-6)
