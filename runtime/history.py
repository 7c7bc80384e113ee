"""What a training reached: figures of its epochs, and of evaluations inside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mapsto.ir.core import Array

__all__ = ["Epoch", "Evaluation", "Figure", "Figures", "History", "plain"]

Figure = float | Array
"""A number, or an array such as a confusion matrix."""
Figures = Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch reached: means over its batches, and figures of the test data where given.

    `loss` is the sum of the losses where there are several; `train` has each by name, and the other
    results of the losses.  `step` counts the steps from the beginning of the training.
    """

    number: int
    loss: float
    test: Figures = field(default_factory=dict)
    train: Figures = field(default_factory=dict)
    step: int = 0
    seconds: float = field(default=0.0, compare=False)
    """How long its steps took, without the evaluation."""
    examples: int = 0

    @property
    def examples_per_second(self) -> float:
        """The throughput of the training steps."""
        return self.examples / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of the test data after some steps, inside an epoch."""

    step: int
    test: Figures


@dataclass(slots=True)
class History:
    """The epochs so far, and the evaluations inside them (`evaluate_every`).

    `stopped` says why the training ended before its last epoch; it is empty where it did not.
    """

    epochs: list[Epoch] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    stopped: str = ""
    best_epoch: int = 0
    """The number of the epoch in which the monitored figure was best."""

    @property
    def losses(self) -> list[float]:
        """The mean training loss of each epoch."""
        return [epoch.loss for epoch in self.epochs]

    def to_json(self) -> dict[str, Any]:
        """Plain records, for files and `--json`; floats survive the way there and back."""
        return {
            "epochs": [_record(epoch) for epoch in self.epochs],
            "evaluations": [_record(evaluation) for evaluation in self.evaluations],
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> History:
        """The history that `to_json` gave; KeyError, TypeError or ValueError for another record."""
        epochs = [Epoch(**_with_arrays(entry)) for entry in record["epochs"]]
        return History(epochs, [Evaluation(**_with_arrays(e)) for e in record["evaluations"]])


def plain(figures: Figures) -> dict[str, Any]:
    """Figures as numbers and lists of numbers."""
    return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in figures.items()}


def _record(entry: Epoch | Evaluation) -> dict[str, Any]:
    return {k: plain(v) if isinstance(v, dict) else v for k, v in asdict(entry).items()}


def _with_arrays(record: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _figures(v) if isinstance(v, Mapping) else v for k, v in record.items()}


def _figures(values: Mapping[str, float | Sequence[Any]]) -> dict[str, Figure]:
    return {name: np.array(v) if isinstance(v, list) else float(v) for name, v in values.items()}  # type: ignore[arg-type]
