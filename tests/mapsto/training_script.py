"""Trains a perceptron in a process of its own; arguments are JSON (see `main`).

Prints a hash of all arrays that training changes.  The layers are wide enough for the kernels to
run on several threads.
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterator

import numpy as np

import mapsto as mt

PROGRAM = """
module MLP():
    layers = [Dense(256, gelu), Dense(256, relu), Dense(10)]

    map (x: f32[n, d]) -> f32[n, 10]:
        chain(layers)(x)

train Classifier(net = MLP(), optimizer = Adam(lr=2e-3)):
    loss(x: f32[n, d], y: i32[n]) = cross_entropy(net(x), y)
    metric accuracy(x: f32[n, d], y: i32[n]) = mean(argmax(net(x)) == y)
"""


def data() -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    means = random.normal(size=(10, 96))
    y = random.integers(0, 10, 1000).astype(np.int32)
    x = means[y] + random.normal(size=(1000, 96))
    return {"x": x.astype(np.float32), "y": y}


def batches() -> Iterator[dict[str, np.ndarray]]:
    """Random batches without an end."""
    whole, random = data(), np.random.default_rng(5)
    while True:
        chosen = random.integers(0, 1000, 128)
        yield {name: array[chosen] for name, array in whole.items()}


def digest(run: mt.Trainer) -> str:
    """A hash of the names and bits of everything that training changes."""
    found = hashlib.sha256()
    for path in sorted(run.arrays):
        found.update(path.encode() + run.arrays[path].tobytes())
    return found.hexdigest()


class KillAt:
    """Ends the process as a loss of power would, after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_epoch(self, epoch: mt.Epoch) -> None:
        pass


def train(
    threads: int = 1,
    seed: int = 0,
    epochs: int = 2,
    checkpoint: str | None = None,
    resume: bool = False,
    kill_at: int = 0,
    stream: bool = False,
) -> str:
    """A hash of the trained weights; with `kill_at` the process does not live to give it.

    With `stream` batches come from an iterator, gradients are accumulated in mixed precision, and
    the training is evaluated inside epochs.
    """
    mt.set_threads(threads)
    run = mt.loads(PROGRAM).Classifier(seed=seed)
    extras: dict[str, object] = {}
    if stream:
        extras = {"steps_per_epoch": 8, "accumulate": 2, "precision": "f16", "evaluate_every": 3}
        extras |= {"test": {k: v[:200] for k, v in data().items()}, "patience": 9}
    run.fit(
        batches() if stream else data(),
        epochs=epochs,
        batch=128,
        checkpoint=checkpoint,
        checkpoint_steps=3,
        resume=resume,
        progress=False,
        callbacks=[KillAt(kill_at)] if kill_at else [],
        **extras,  # type: ignore[arg-type]
    )
    return digest(run)


if __name__ == "__main__":
    print(train(**json.loads(sys.argv[1])))
