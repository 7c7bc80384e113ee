"""How a training reports itself: a progress bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import IO, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from mapsto.runtime.history import Epoch, Evaluation, Figures, plain
from mapsto.runtime.observers import Observer

__all__ = ["Report", "epoch_text", "evaluation_text", "figure_text", "report_to"]


class Report(Observer, Protocol):
    """An observer that is open while the training runs."""

    def __enter__(self) -> Report:
        """Starts reporting."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends reporting, also after an error."""


def report_to(stream: IO[str], epochs: int, as_json: bool = False) -> Report:
    """The report that suits the stream."""
    if as_json:
        return _Lines(stream, epochs, as_json=True)
    return _Bar(stream, epochs) if stream.isatty() else _Lines(stream, epochs, as_json=False)


def epoch_text(epoch: Epoch, epochs: int) -> str:
    """One line of text about an epoch; figures that are arrays are left out."""
    train = "".join(f"  {name} {figure_text(value)}" for name, value in _numbers(epoch.train))
    test = "".join(f"  test {name} {figure_text(value)}" for name, value in _numbers(epoch.test))
    number = f"{epoch.number:>{len(str(epochs))}}/{epochs}"
    return f"epoch {number}  loss {figure_text(epoch.loss)}{train}{test}"


def evaluation_text(evaluation: Evaluation) -> str:
    """One line of text about an evaluation inside an epoch."""
    numbers = _numbers(evaluation.test)
    test = "".join(f"  test {name} {figure_text(value)}" for name, value in numbers)
    return f"step {evaluation.step}{test}"


def figure_text(value: float) -> str:
    """A number with the digits that a reader can use."""
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"


def _numbers(figures: Figures) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in figures.items() if isinstance(value, float))


class _Lines:
    """A line of text, or of JSON, for each epoch."""

    def __init__(self, stream: IO[str], epochs: int, as_json: bool) -> None:
        self.stream, self.epochs, self.as_json = stream, epochs, as_json

    def __enter__(self) -> _Lines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stream.flush()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Nothing: steps are too many for lines."""

    def on_epoch(self, epoch: Epoch) -> None:
        """Prints the epoch."""
        line = json.dumps(_record(epoch)) if self.as_json else epoch_text(epoch, self.epochs)
        print(line, file=self.stream, flush=True)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Prints an evaluation inside an epoch."""
        record = {"step": evaluation.step, "test": plain(evaluation.test)}
        line = json.dumps(record) if self.as_json else evaluation_text(evaluation)
        print(line, file=self.stream, flush=True)


class _Bar:
    """A bar that counts the steps of all epochs, with the epochs' results printed above it."""

    def __init__(self, stream: IO[str], epochs: int) -> None:
        self.epochs = epochs
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=stream),
            transient=True,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Advances the bar."""
        if self.task is None:
            self.task = self.bar.add_task("", total=steps * self.epochs or None)
        description = f"epoch {epoch}/{self.epochs}  loss {figure_text(loss)}"
        done = (epoch - 1) * steps + step
        self.bar.update(self.task, completed=done, description=description)

    def on_epoch(self, epoch: Epoch) -> None:
        """Prints the epoch above the bar."""
        self.bar.console.print(epoch_text(epoch, self.epochs), highlight=False)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """Prints an evaluation inside an epoch above the bar."""
        self.bar.console.print(evaluation_text(evaluation), highlight=False)


def _record(epoch: Epoch) -> Mapping[str, object]:
    record = {"epoch": epoch.number, "loss": epoch.loss, "test": plain(epoch.test)}
    if epoch.train:
        record["train"] = plain(epoch.train)
    speed = round(epoch.examples_per_second, 1)
    timing = {"step": epoch.step, "seconds": epoch.seconds, "examples_per_second": speed}
    return {**record, **timing}
