"""How a training reports itself: a progress bar on a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
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

from mapsto.runtime.training import Epoch, Observer

__all__ = ["Report", "epoch_text", "report_to"]


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
    """One line of text about an epoch."""
    test = "".join(f"  test {name} {_figure(value)}" for name, value in epoch.test.items())
    return f"epoch {epoch.number:>{len(str(epochs))}}/{epochs}  loss {_figure(epoch.loss)}{test}"


def _figure(value: float) -> str:
    return f"{value:.4f}" if 1e-3 <= abs(value) < 1e4 or value == 0 else f"{value:.3e}"


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
            self.task = self.bar.add_task("", total=steps * self.epochs)
        description = f"epoch {epoch}/{self.epochs}  loss {_figure(loss)}"
        done = (epoch - 1) * steps + step
        self.bar.update(self.task, completed=done, description=description)

    def on_epoch(self, epoch: Epoch) -> None:
        """Prints the epoch above the bar."""
        self.bar.console.print(epoch_text(epoch, self.epochs), highlight=False)


def _record(epoch: Epoch) -> Mapping[str, object]:
    return {"epoch": epoch.number, "loss": epoch.loss, "test": dict(epoch.test)}
