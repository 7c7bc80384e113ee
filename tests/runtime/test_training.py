"""The training loop: exact resumption, shuffling, and what happens when a training goes wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.runtime.checkpoint import CheckpointError
from mapsto.runtime.dataset import Dataset, shuffled
from mapsto.runtime.errors import TrainingError, TrainingInterrupted
from mapsto.runtime.fit_options import FitOptions
from mapsto.runtime.history import Epoch
from mapsto.runtime.training import evaluate, fit


class Line:
    """Least squares by gradient descent with momentum: state beyond the parameters."""

    def __init__(self, stop_after: int = -1, hook: Callable[[], None] = lambda: None) -> None:
        self.weight, self.velocity = np.zeros(3), np.zeros(3)
        self.left, self.hook = stop_after, hook

    def step(self, batch: Mapping[str, Any], update: bool = True) -> Mapping[str, float]:
        if self.left == 0:
            self.hook()
        self.left -= 1
        residual = batch["x"] @ self.weight - batch["y"]
        self.velocity[:] = 0.9 * self.velocity + batch["x"].T @ residual / len(residual)
        self.weight -= 0.05 * self.velocity
        return {"loss": float((residual**2).mean())}

    def begin_evaluation(self) -> frozenset[str]:
        return frozenset()

    def evaluate(self, batch: Mapping[str, Any]) -> Mapping[str, float]:
        return {"loss": float(((batch["x"] @ self.weight - batch["y"]) ** 2).mean())}

    def observe(self, figure: float) -> None:
        """Nothing: it has no schedule."""

    def arrays(self) -> Mapping[str, Any]:
        return {"weight": self.weight, "velocity": self.velocity}


class Killed(Exception):
    """Stands for the end of the process."""


def kill() -> None:
    raise Killed


@pytest.fixture
def data() -> Dataset:
    generator = np.random.default_rng(1)
    x = generator.normal(size=(50, 3))
    return Dataset({"x": x, "y": x @ [1.0, -2.0, 0.5]})


def options(path: Path, **changes: Any) -> FitOptions:
    settings: dict[str, Any] = {"epochs": 4, "batch": 8, "seed": 3, "checkpoint": path}
    return FitOptions(**{**settings, "checkpoint_steps": 2, "resume": True, **changes})


def test_learns(data: Dataset) -> None:
    trainee = Line()
    history = fit(trainee, data, data, FitOptions(epochs=30, batch=8))
    assert history.losses[-1] < 1e-3 < history.losses[0]
    assert np.allclose(trainee.weight, [1, -2, 0.5], atol=0.05)
    assert history.epochs[-1].test["loss"] < 1e-3


@pytest.mark.parametrize("step", [0, 1, 5, 7, 13, 20])
def test_killed_and_resumed_equals_uninterrupted(data: Dataset, tmp_path: Path, step: int) -> None:
    whole = Line()
    expected = fit(whole, data, data, options(tmp_path / "whole"))
    with pytest.raises(Killed):
        fit(Line(step, kill), data, data, options(tmp_path / "part"))
    resumed = Line()
    history = fit(resumed, data, data, options(tmp_path / "part"))
    assert history == expected
    assert resumed.weight.tobytes() == whole.weight.tobytes()
    assert resumed.velocity.tobytes() == whole.velocity.tobytes()


def test_interrupt_finishes_the_step_and_saves(data: Dataset, tmp_path: Path) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted, match="epoch 1, step 4; saved in"):
        fit(Line(3, interrupt), data, None, options(tmp_path / "c", checkpoint_steps=0))
    resumed, whole = Line(), Line()
    fit(resumed, data, None, options(tmp_path / "c"))
    fit(whole, data, None, FitOptions(epochs=4, batch=8, seed=3))
    assert resumed.weight.tobytes() == whole.weight.tobytes()


def test_nan_loss_stops_and_keeps_the_checkpoint(data: Dataset, tmp_path: Path) -> None:
    trainee = Line(10)

    def spoil() -> None:
        trainee.weight[:] = np.nan

    trainee.hook = spoil
    with pytest.raises(TrainingError, match=r"the loss is nan at epoch 2, step 4; .* is kept in"):
        fit(trainee, data, None, options(tmp_path / "c"))
    assert np.isfinite(fit_again(data, tmp_path / "c"))


def fit_again(data: Dataset, path: Path) -> float:
    return fit(Line(), data, None, options(path)).losses[-1]


def test_resume_refuses_other_settings(data: Dataset, tmp_path: Path) -> None:
    fit(Line(), data, None, options(tmp_path / "c"))
    with pytest.raises(CheckpointError, match="made with seed 3, not 4"):
        fit(Line(), data, None, options(tmp_path / "c", seed=4))


def test_resume_refuses_other_arrays_and_changes_nothing(data: Dataset, tmp_path: Path) -> None:
    fit(Line(), data, None, options(tmp_path / "c"))
    trainee = Line()
    trainee.velocity = np.zeros(4)
    with pytest.raises(CheckpointError, match=r"array `velocity` is float64\[3\], expected"):
        fit(trainee, data, None, options(tmp_path / "c"))
    assert not trainee.weight.any()


def test_evaluation_weights_batches_by_size(data: Dataset) -> None:
    trainee = Line()
    whole = trainee.evaluate(data.arrays)["loss"]
    assert evaluate(trainee, data, 7)["loss"] == pytest.approx(whole)


def test_shuffling_depends_on_seed_and_epoch_only() -> None:
    assert (shuffled(100, 1, 2) == shuffled(100, 1, 2)).all()
    assert (shuffled(100, 1, 2) != shuffled(100, 1, 3)).any()
    assert sorted(shuffled(100, 5, 1)) == list(range(100))


def test_observers_see_every_step_and_epoch(data: Dataset) -> None:
    seen: list[tuple[int, int, int]] = []
    epochs: list[int] = []

    class Observer:
        def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            seen.append((epoch, step, steps))

        def on_epoch(self, epoch: Epoch) -> None:
            epochs.append(epoch.number)

    fit(Line(), data, None, FitOptions(epochs=2, batch=20), [Observer()])
    assert seen == [(1, 1, 3), (1, 2, 3), (1, 3, 3), (2, 1, 3), (2, 2, 3), (2, 3, 3)]
    assert epochs == [1, 2]


def test_the_loss_of_an_epoch_is_the_mean_over_its_examples(data: Dataset) -> None:
    class Constant(Line):
        def step(self, batch: Mapping[str, Any], update: bool = True) -> Mapping[str, float]:
            return {"loss": float(len(batch["x"]))}

    # Batches of 20, 20 and 10 examples, each with its own size as loss.
    history = fit(Constant(), data, None, FitOptions(epochs=2, batch=20))
    assert history.losses == [pytest.approx((20 * 20 + 20 * 20 + 10 * 10) / 50)] * 2
