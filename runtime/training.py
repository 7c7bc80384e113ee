"""The training loop: epochs of batches, evaluation, early stopping, exact resumption.

The loop knows nothing of models: a `Trainee` runs a step and exposes its arrays.  Everything that
determines the result (arrays, position, seed, what the monitor has seen) is in a checkpoint, so a
training that was killed and resumed ends in the same bits as one that ran through.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from mapsto.ir.core import Array
from mapsto.runtime.batches import ArrayBatches, Source
from mapsto.runtime.checkpoint import load_checkpoint, save_checkpoint
from mapsto.runtime.dataset import Batch, Dataset
from mapsto.runtime.errors import TrainingError, TrainingInterrupted
from mapsto.runtime.fit_options import FitOptions
from mapsto.runtime.history import Epoch, Evaluation, Figure, Figures, History
from mapsto.runtime.observers import Callback, Observers
from mapsto.runtime.resuming import Position, read_position, restore, write_position

__all__ = ["Trainee", "evaluate", "fit"]


class Trainee(Protocol):
    """What the loop trains."""

    def step(self, batch: Batch, update: bool = True) -> Mapping[str, float]:
        """A step on a batch: the losses before it and what else the losses give, by name.

        `loss` is among them, the sum of all.  Without `update` the gradients are kept for the next
        step that updates, which uses the mean.
        """

    def begin_evaluation(self) -> frozenset[str]:
        """Forgets what metrics have gathered; the names of those whose value after the last batch
        is the value over all.  All others are means.  Of a figure `a.b` the name is `a`."""

    def evaluate(self, batch: Batch) -> Figures:
        """Loss and metrics on a batch."""

    def observe(self, figure: float) -> None:
        """Tells schedules that look at it the monitored figure of an evaluation."""

    def arrays(self) -> Mapping[str, Array]:
        """Parameters, states and optimizer states by unique name; the live arrays."""


def fit(
    trainee: Trainee,
    train: Dataset | Source,
    test: Dataset | Source | None,
    options: FitOptions,
    observers: Iterable[Callback] = (),
) -> History:
    """Trains for the epochs of the options; gives what each reached.

    Raises TrainingError where the loss is not finite, TrainingInterrupted after ctrl-C, DataError
    where a stream gives something wrong, and CheckpointError where a checkpoint cannot be read or
    written.
    """
    run = _Run(trainee, train, test, options, Observers(observers))
    run.resume()
    with _deferred_interrupt() as interrupted:
        return run.all_epochs(interrupted)


def evaluate(trainee: Trainee, data: Dataset | Source, batch: int = 256) -> dict[str, Figure]:
    """Loss and metrics over a data set.

    Figures are means weighted by the size of each batch, except those that gather what they need
    from all batches.
    """
    source = ArrayBatches(data, batch, shuffle=False) if isinstance(data, Dataset) else data
    gathered = trainee.begin_evaluation()
    totals: dict[str, Figure] = {}
    examples = 0
    for part in source.epoch(1, 0):
        count = _examples(part)
        examples += count
        for name, value in trainee.evaluate(part).items():
            is_mean = name.partition(".")[0] not in gathered
            totals[name] = _sum(name, totals.get(name), value * count) if is_mean else value
    return {
        name: total / (1 if name.partition(".")[0] in gathered else examples)
        for name, total in totals.items()
    }


def _sum(name: str, total: Figure | None, more: Figure) -> Figure:
    """The sum of a figure over batches; TrainingError where its shape depends on the batch."""
    if total is None:
        return more
    if np.shape(total) != np.shape(more):
        shapes = f"{list(np.shape(total))} and {list(np.shape(more))}"
        raise TrainingError(f"the figure `{name}` has another shape in each batch: {shapes}")
    return total + more


def _examples(batch: Batch) -> int:
    return len(next(iter(batch.values())))


class _Run:
    """One call of `fit`."""

    def __init__(
        self,
        trainee: Trainee,
        train: Dataset | Source,
        test: Dataset | Source | None,
        options: FitOptions,
        observers: Observers,
    ) -> None:
        self.trainee, self.options, self.observers = trainee, options, observers
        self.train = _source(train, options)
        self.test = test
        self.position = Position()
        self.stopped = ""

    @property
    def history(self) -> History:
        """The epochs so far."""
        return self.position.history

    @property
    def monitor_exhausted(self) -> bool:
        """Whether the monitored figure has not become better for too long."""
        return self.options.monitor.exhausted

    def resume(self) -> None:
        """Goes to where the checkpoint stands, if that is wanted and there is one."""
        options = self.options
        if not options.resume:
            return
        if options.checkpoint is None:
            raise TrainingError("to resume, name the checkpoint file")
        if not options.checkpoint.exists():
            return
        arrays, metadata = load_checkpoint(options.checkpoint)
        self.position = read_position(metadata, self.train.identity, options, self.observers)
        restore(self.trainee.arrays(), arrays, str(options.checkpoint))

    def all_epochs(self, interrupted: Callable[[], bool]) -> History:
        """Trains to the end, whatever brings it about."""
        while len(self.history.epochs) < self.options.epochs:
            if self.monitor_exhausted:
                self.stopped = self._patience_is_over()
            if self.stopped:
                break
            self._epoch(interrupted)
        self.history.stopped = self.stopped
        self.history.best_epoch = self.options.monitor.best_epoch
        if self.options.restore_best:
            assert self.options.keep_best is not None
            arrays, _ = load_checkpoint(self.options.keep_best)
            restore(self.trainee.arrays(), arrays, str(self.options.keep_best))
        return self.history

    def _epoch(self, interrupted: Callable[[], bool]) -> None:
        """An epoch, or the rest of one; its figures join the history."""
        position = self.position
        number = len(self.history.epochs) + 1
        begin = time.perf_counter()
        self._stop_after_steps()
        if not self.stopped:
            for part in self.train.epoch(number, position.step):
                self._step(number, part)
                position.seconds += time.perf_counter() - begin
                if self._after_step(number, interrupted):
                    break
                begin = time.perf_counter()
        complete = not self.stopped or position.step == self.train.steps
        if not complete:
            self._save()
        self._close(number, complete)

    def _step(self, number: int, batch: Batch) -> None:
        position = self.position
        position.step += 1
        last = position.step == self.train.steps
        update = last or position.step % self.options.accumulate == 0
        figures = self.trainee.step(batch, update)
        self._check_finite(figures["loss"], number)
        position.add(figures, _examples(batch))

    def _after_step(self, number: int, interrupted: Callable[[], bool]) -> bool:
        """Evaluates, saves and tells where it is time to; whether to leave the epoch."""
        position, options = self.position, self.options
        at_end = position.step == self.train.steps
        loss = position.last_loss
        if self.observers.on_step(number, position.step, self.train.steps or 0, loss):
            self.stopped = "a callback ended it"
        if _due(options.evaluate_every, position.steps) and not at_end:
            self._evaluate_inside(number)
        self._stop_after_steps()
        if _due(options.checkpoint_steps, position.step) and not at_end:
            self._save()
        if interrupted():
            self._save()
            raise TrainingInterrupted(_interruption(number, position.step, options))
        return bool(self.stopped)

    def _stop_after_steps(self) -> None:
        limit = self.options.max_steps
        if limit is not None and self.position.steps >= limit:
            self.stopped = f"it has made {limit} steps"

    def _evaluate_inside(self, number: int) -> None:
        if self.test is None:
            return
        test = evaluate(self.trainee, self.test, self.options.batch)
        evaluation = Evaluation(self.position.steps, test)
        self.history.evaluations.append(evaluation)
        self._watch(number, test, self.position.means())
        if self.observers.on_evaluation(evaluation):
            self.stopped = "a callback ended it"
        if self.monitor_exhausted:
            self.stopped = self._patience_is_over()

    def _close(self, number: int, complete: bool) -> None:
        """Evaluates at the end of an epoch; a complete one is where a resumed training begins."""
        position = self.position
        if not position.examples:
            return
        test = {}
        if self.test is not None:
            test = evaluate(self.trainee, self.test, self.options.batch)
        means = position.means()
        loss = means.pop("loss")
        facts = (position.steps, position.seconds, position.examples)
        epoch = Epoch(number, loss, test, means, *facts)
        self.history.epochs.append(epoch)
        self._watch(number, test, {"loss": loss, **means})
        stop = self.observers.on_epoch(epoch)
        if complete:
            position.begin_epoch()
            self._save()
        if stop:
            self.stopped = self.stopped or "a callback ended it"

    def _watch(self, number: int, test: Figures, train: Figures) -> None:
        """Shows figures to the monitor; keeps the arrays where they are the best; tells schedules
        the figure."""
        monitor = self.options.monitor
        is_best = monitor.take(test, train, number)
        if is_best and self.options.keep_best is not None:
            save_checkpoint(self.options.keep_best, dict(self.trainee.arrays()))
        self.trainee.observe(monitor.last)

    def _patience_is_over(self) -> str:
        monitor = self.options.monitor
        return f"`{monitor.figure}` has not become better for {monitor.waited} evaluations"

    def _save(self) -> None:
        if self.options.checkpoint is None:
            return
        metadata = write_position(self.position, self.train.identity, self.options, self.observers)
        save_checkpoint(self.options.checkpoint, dict(self.trainee.arrays()), metadata)

    def _check_finite(self, loss: float, epoch: int) -> None:
        if math.isfinite(loss):
            return
        kept, checkpoint = "", self.options.checkpoint
        if checkpoint is not None and checkpoint.exists():
            kept = f"; the last checkpoint is kept in {checkpoint}"
        where = f"epoch {epoch}, step {self.position.step}"
        raise TrainingError(f"the loss is {loss} at {where}{kept}")


def _source(data: Dataset | Source, options: FitOptions) -> Source:
    if not isinstance(data, Dataset):
        return data
    return ArrayBatches(data, options.batch, options.seed, options.shuffle, options.drop_last)


def _due(every: int | None, steps: int) -> bool:
    return bool(every) and steps % (every or 1) == 0


def _interruption(epoch: int, step: int, options: FitOptions) -> str:
    where = f"interrupted at epoch {epoch}, step {step}"
    if options.checkpoint is None:
        return f"{where}; nothing was saved, as no checkpoint file was named"
    return f"{where}; saved in {options.checkpoint}, resume to continue"


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
