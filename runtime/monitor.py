"""Watching a figure from evaluation to evaluation: the best so far, and when to give up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mapsto.runtime.errors import TrainingError
from mapsto.runtime.history import Figures

__all__ = ["Monitor"]


@dataclass(slots=True)
class Monitor:
    """The best value of a figure, and how many evaluations have not bettered it.

    `figure` names one of the test data, or of the training where there is no such; `train NAME`
    is always of the training.  A value is better where it is lower (`mode` "min") or higher ("max")
    by more than `min_delta`.  After `patience` evaluations without a better one it is exhausted.
    """

    figure: str = "loss"
    mode: str = "min"
    patience: int | None = None
    min_delta: float = 0.0
    last: float = 0.0
    """The value that was taken last."""
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise TrainingError(f'mode is "{self.mode}", expected "min" or "max"')
        if self.patience is not None and self.patience < 1:
            raise TrainingError(f"patience is {self.patience}, expected at least 1")

    @property
    def exhausted(self) -> bool:
        """Whether the training should end."""
        return self.patience is not None and self.waited >= self.patience

    def take(self, test: Figures, train: Figures, epoch: int) -> bool:
        """Takes the figures of an evaluation; whether they are the best so far.

        Raises TrainingError where the figure is not among them, or is no number.
        """
        value = self.last = self._value(test, train)
        if self._is_better(value):
            self.best, self.best_epoch, self.waited = value, epoch, 0
            return True
        self.waited += 1
        return False

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        best = None if self.best is None else self.best.hex()
        return {"best": best, "best_epoch": self.best_epoch, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state` gave; KeyError, TypeError or ValueError where it did not."""
        self.best = None if state["best"] is None else float.fromhex(state["best"])
        self.best_epoch, self.waited = int(state["best_epoch"]), int(state["waited"])

    def _value(self, test: Figures, train: Figures) -> float:
        known = {**{f"train {name}": value for name, value in train.items()}, **train, **test}
        if self.figure not in known:
            names = ", ".join(dict.fromkeys([*test, *train]))
            raise TrainingError(f"there is no figure `{self.figure}` to monitor; there are {names}")
        value = known[self.figure]
        if not isinstance(value, float):
            raise TrainingError(f"the figure `{self.figure}` is an array and cannot be monitored")
        return value

    def _is_better(self, value: float) -> bool:
        """A value that is not a number is never better."""
        if self.best is None:
            return value == value
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.min_delta
