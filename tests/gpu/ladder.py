"""The ladder that a device has to climb: models whose results, gradients and trainings are compared
with those of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import mapsto as mt
from mapsto.ir.core import Array

STEPS = 10


@dataclass(frozen=True)
class Model:
    """A model of `ladder.mto`: its `train` block, the map of its loss, and a batch."""

    train: str
    loss: str
    batch: Callable[[np.random.Generator], dict[str, Array]]


def _floats(*shape: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: rng.standard_normal(shape, np.float32)


def _integers(bound: int, *shape: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: rng.integers(0, bound, shape, dtype=np.int32)


def _batch(**makers: Callable[[np.random.Generator], Array]) -> Callable[..., dict[str, Array]]:
    return lambda rng: {name: make(rng) for name, make in makers.items()}


def _bits(count: int) -> Callable[[np.random.Generator], Array]:
    return lambda rng: rng.integers(0, 2, count).astype(np.float32)


MODELS = {
    "digits": Model("Digits", "digits_loss", _batch(x=_floats(12, 64), y=_integers(10, 12))),
    "cnn": Model("Cnn", "cnn_loss", _batch(x=_floats(3, 1, 12, 12), y=_integers(5, 3))),
    "gpt": Model("Gpt", "gpt_loss", _batch(x=_integers(11, 2, 8), y=_integers(11, 2, 8))),
    "lstm": Model("Lstm", "lstm_loss", _batch(x=_floats(3, 6, 5), y=_integers(3, 3))),
    "recommender": Model(
        "Dlrm", "dlrm_loss", _batch(dense=_floats(6, 13), ids=_integers(20, 6, 8), y=_bits(6))
    ),
}


@dataclass(frozen=True)
class Climb:
    """What a model gave on a device."""

    output: Array
    loss: float
    gradient: dict[str, Array]
    losses: list[float]
    arrays: dict[str, Array]


@lru_cache
def climb(name: str, device: str, steps: int = STEPS) -> Climb:
    """Result, gradient and training steps of a model on a device."""
    model, lib = MODELS[name], _library()
    batch = model.batch(np.random.default_rng(5))
    run: mt.Trainer = getattr(lib, model.train)(seed=7)
    run.to(device)
    inputs = [array for key, array in batch.items() if key != "y"]
    output = np.asarray(run.net(*inputs))
    loss, gradient = mt.value_and_grad(getattr(lib, model.loss))(run.net, **batch)
    losses = [_number(run.step(**batch)) for _ in range(steps)]
    return Climb(
        output,
        float(loss),
        {path: np.asarray(array) for path, array in gradient.items()},
        losses,
        {path: np.asarray(array) for path, array in run.arrays.items()},
    )


def check(name: str, device: str, tolerance: float = 1e-4, steps: int = STEPS) -> None:
    """Compares a device with the CPU; sums are taken in another order there."""
    expected, found = climb(name, "cpu", steps), climb(name, device, steps)
    _close(found.output, expected.output, tolerance)
    _close(found.loss, expected.loss, tolerance)
    assert found.gradient.keys() == expected.gradient.keys()
    for path, array in expected.gradient.items():
        _close(found.gradient[path], array, tolerance, path)
    _close(found.losses, expected.losses, 10 * tolerance)
    assert found.losses[-1] < found.losses[0]


def _close(found: Any, expected: Any, tolerance: float, what: str = "") -> None:
    """Nearly the same, measured by the largest element."""
    scale = max(1e-3, float(np.max(np.abs(expected))))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale, err_msg=what)


def _number(loss: float | dict[str, float]) -> float:
    assert isinstance(loss, float)
    return loss


@lru_cache(maxsize=1)
def _library() -> mt.Library:
    return mt.load(Path(__file__).with_name("ladder.mto"))
