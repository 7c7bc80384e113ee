"""How to train."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

from mapsto.runtime.errors import TrainingError
from mapsto.runtime.monitor import Monitor

__all__ = ["FitOptions"]

_AT_LEAST_ONE = ("epochs", "batch", "max_steps", "evaluate_every", "accumulate")


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to train; `batch`, `shuffle` and `drop_last` are about data in arrays.

    `checkpoint` is written after every epoch and, with `checkpoint_steps`, every so many steps
    inside one; `resume` continues from that file where it exists.  `max_steps` ends the training
    inside an epoch; `evaluate_every` evaluates after so many steps, beside the end of each epoch;
    with `accumulate` the parameters change only after so many batches, by their mean gradient.
    `monitor` watches a figure: it may end the training early, and says when to write `keep_best`;
    `restore_best` ends with the arrays of the best evaluation.
    """

    epochs: int = 1
    batch: int = 64
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_steps: int = 0
    resume: bool = False
    shuffle: bool = True
    drop_last: bool = False
    accumulate: int = 1
    max_steps: int | None = None
    evaluate_every: int | None = None
    monitor: Monitor = field(default_factory=Monitor)
    keep_best: Path | None = None
    restore_best: bool = False

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and not isinstance(value, Integral):
                raise TrainingError(f"{name} is {value!r}, expected a whole number")
            if value is not None and value < 1:
                raise TrainingError(f"{name} is {value}, expected at least 1")
            object.__setattr__(self, name, value if value is None else int(value))
        if self.restore_best and self.keep_best is None:
            raise TrainingError("to restore the best weights at the end, name a file: keep_best")
        if self.keep_best is not None and self.keep_best == self.checkpoint:
            raise TrainingError("keep_best and checkpoint name the same file")
