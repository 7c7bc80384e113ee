"""The training loop: epochs over shuffled batches, evaluation, checkpoints that resume exactly.

The loop knows nothing of models: a `Trainee` runs a step and exposes its arrays.  Everything that
determines the result (arrays, position, seed, batch size) is in a checkpoint, so a training that
was killed and resumed ends in the same bits as one that ran through.
"""

from __future__ import annotations

import json
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mapsto.ir.core import Array
from mapsto.runtime.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mapsto.runtime.dataset import Dataset, shuffled

__all__ = [
    "Epoch",
    "FitOptions",
    "History",
    "Observer",
    "Trainee",
    "TrainingError",
    "TrainingInterrupted",
    "evaluate",
    "fit",
]


class TrainingError(Exception):
    """The training cannot go on; the message says at which step and why."""


class TrainingInterrupted(TrainingError):
    """The user stopped the training; what was reached has been saved where a file was named."""


class Trainee(Protocol):
    """What the loop trains."""

    def step(self, batch: Mapping[str, Array]) -> float:
        """One optimizer step on a batch; the loss before it."""

    def evaluate(self, batch: Mapping[str, Array]) -> Mapping[str, float]:
        """Loss and metrics on a batch, each a mean over its examples."""

    def arrays(self) -> Mapping[str, Array]:
        """Parameters, states and optimizer states by unique name; the live arrays."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch reached: means over its batches, and over the test data where given."""

    number: int
    loss: float
    test: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class History:
    """The epochs so far."""

    epochs: list[Epoch] = field(default_factory=list)

    @property
    def losses(self) -> list[float]:
        """The mean training loss of each epoch."""
        return [epoch.loss for epoch in self.epochs]

    def to_json(self) -> list[dict[str, Any]]:
        """Plain records, for files and `--json`."""
        return [asdict(epoch) for epoch in self.epochs]

    @staticmethod
    def from_json(records: Sequence[Mapping[str, Any]]) -> History:
        """The history that `to_json` gave."""
        return History([Epoch(r["number"], r["loss"], dict(r["test"])) for r in records])


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to train.

    `checkpoint` is written after every epoch and, with `checkpoint_steps`, every so many steps
    inside one; `resume` continues from that file where it exists.
    """

    epochs: int = 1
    batch: int = 64
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_steps: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}, expected at least 1")


class Observer(Protocol):
    """Is told of progress; a progress bar, lines of text, a callback of the user's."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """After each step; steps count from 1."""

    def on_epoch(self, epoch: Epoch) -> None:
        """After each epoch."""


@dataclass(slots=True)
class _Position:
    """Where a run stands: finished epochs are in `history`, `step` counts inside the next one."""

    history: History
    step: int = 0
    total: float = 0.0
    """Sum of losses times examples in the unfinished epoch."""


def fit(
    trainee: Trainee,
    train: Dataset,
    test: Dataset | None,
    options: FitOptions,
    observers: Sequence[Observer] = (),
) -> History:
    """Trains for the epochs of the options; gives what each reached.

    Raises TrainingError where the loss is not finite, TrainingInterrupted after ctrl-C, and
    CheckpointError where a checkpoint cannot be read or written.
    """
    position = _resumed(trainee, train, options) if options.resume else _Position(History())
    with _deferred_interrupt() as interrupted:
        while len(position.history.epochs) < options.epochs:
            loss = _run_epoch(trainee, train, options, position, observers, interrupted)
            metrics = evaluate(trainee, test, options.batch) if test is not None else {}
            epoch = Epoch(len(position.history.epochs) + 1, loss, metrics)
            position.history.epochs.append(epoch)
            position.step, position.total = 0, 0.0
            _save(trainee, train, options, position)
            for observer in observers:
                observer.on_epoch(epoch)
    return position.history


def evaluate(trainee: Trainee, data: Dataset, batch: int) -> dict[str, float]:
    """Loss and metrics over a data set: means weighted by the size of each batch."""
    totals: dict[str, float] = {}
    for part in data.batches(np.arange(len(data)), batch):
        count = len(next(iter(part.values())))
        for name, value in trainee.evaluate(part).items():
            totals[name] = totals.get(name, 0.0) + value * count
    return {name: total / len(data) for name, total in totals.items()}


def _run_epoch(
    trainee: Trainee,
    train: Dataset,
    options: FitOptions,
    position: _Position,
    observers: Sequence[Observer],
    interrupted: Callable[[], bool],
) -> float:
    number = len(position.history.epochs) + 1
    order = shuffled(len(train), options.seed, number)[position.step * options.batch :]
    steps = -(-len(train) // options.batch)
    for part in train.batches(order, options.batch):
        loss = trainee.step(part)
        position.step += 1
        position.total += loss * len(next(iter(part.values())))
        _check_finite(loss, number, position.step, options)
        for observer in observers:
            observer.on_step(number, position.step, steps, loss)
        due = options.checkpoint_steps and position.step % options.checkpoint_steps == 0
        if due and position.step < steps:
            _save(trainee, train, options, position)
        if interrupted():
            _save(trainee, train, options, position)
            raise TrainingInterrupted(_interruption(number, position.step, options))
    return position.total / len(train)


def _check_finite(loss: float, epoch: int, step: int, options: FitOptions) -> None:
    if math.isfinite(loss):
        return
    kept = ""
    if options.checkpoint is not None and options.checkpoint.exists():
        kept = f"; the last checkpoint is kept in {options.checkpoint}"
    raise TrainingError(f"the loss is {loss} at epoch {epoch}, step {step}{kept}")


def _interruption(epoch: int, step: int, options: FitOptions) -> str:
    where = f"interrupted at epoch {epoch}, step {step}"
    if options.checkpoint is None:
        return f"{where}; nothing was saved, as no checkpoint file was named"
    return f"{where}; saved in {options.checkpoint}, resume to continue"


def _save(trainee: Trainee, train: Dataset, options: FitOptions, position: _Position) -> None:
    if options.checkpoint is None:
        return
    metadata = {
        "format": "mapsto training 1",
        "seed": str(options.seed),
        "batch": str(options.batch),
        "examples": str(len(train)),
        "step": str(position.step),
        "total": position.total.hex(),
        "history": json.dumps(position.history.to_json()),
    }
    save_checkpoint(options.checkpoint, dict(trainee.arrays()), metadata)


def _resumed(trainee: Trainee, train: Dataset, options: FitOptions) -> _Position:
    if options.checkpoint is None:
        raise TrainingError("to resume, name the checkpoint file")
    if not options.checkpoint.exists():
        return _Position(History())
    arrays, metadata = load_checkpoint(options.checkpoint)
    position = _read_position(metadata, train, options)
    restore(trainee.arrays(), arrays, str(options.checkpoint))
    return position


def _read_position(metadata: Mapping[str, str], train: Dataset, options: FitOptions) -> _Position:
    if metadata.get("format") != "mapsto training 1":
        raise CheckpointError(f"{options.checkpoint}: not a training checkpoint")
    given = {"seed": options.seed, "batch": options.batch, "examples": len(train)}
    for name, value in given.items():
        if metadata.get(name) != str(value):
            raise CheckpointError(
                f"{options.checkpoint}: was made with {name} {metadata.get(name)}, not {value}"
            )
    try:
        history = History.from_json(json.loads(metadata["history"]))
        return _Position(history, int(metadata["step"]), float.fromhex(metadata["total"]))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{options.checkpoint}: damaged metadata: {error}") from None


def restore(targets: Mapping[str, Array], arrays: Mapping[str, Array], source: str) -> None:
    """Copies arrays into the live ones of the same names; all of them or, on an error, none."""
    for name in sorted(set(targets) ^ set(arrays)):
        verb = "lacks" if name in targets else "has an unknown"
        raise CheckpointError(f"{source}: {verb} array `{name}`")
    for name, target in targets.items():
        found = arrays[name]
        if found.shape != target.shape or found.dtype != target.dtype:
            raise CheckpointError(
                f"{source}: array `{name}` is {found.dtype}{list(found.shape)},"
                f" expected {target.dtype}{list(target.shape)}"
            )
    for name, target in targets.items():
        target[...] = arrays[name]


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within the block ctrl-C sets a flag instead of raising, so that no step is torn apart.

    A second ctrl-C raises at once.  Only the main thread receives signals; elsewhere this does
    nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    pending = threading.Event()

    def note(signum: int, frame: object) -> None:
        if pending.is_set():
            raise KeyboardInterrupt
        pending.set()

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield pending.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
