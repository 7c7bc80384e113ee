"""Where the batches of each epoch come from: arrays in (shuffled) order, or a stream.

A source can begin an epoch in its middle, which is what resuming needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from itertools import chain, islice
from typing import Protocol

import numpy as np

from mapsto.ir.types import TensorType
from mapsto.runtime.dataset import Batch, Dataset, fitted_batch, shuffled
from mapsto.runtime.errors import DataError

__all__ = ["ArrayBatches", "Source", "Stream", "StreamLike"]

StreamLike = Iterable[object] | Callable[..., Iterable[object]]
"""What gives batches: an iterator, something that gives a new one for each epoch when it is
iterated over (such as a list), or a function of no argument or of the epoch's number that does."""


class Source(Protocol):
    """Gives the batches of an epoch."""

    @property
    def steps(self) -> int | None:
        """How many batches an epoch has; None where that is not known before."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What a training must have in common with the one that it resumes, by name."""

    def epoch(self, number: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch (from 1), from the given one on (from 0).  Raises DataError."""


@dataclass(frozen=True, slots=True)
class ArrayBatches:
    """Batches of a data set; each epoch has an order of its own, which depends on the seed.

    The last batch may be shorter than `size`, unless it is dropped.
    """

    data: Dataset
    size: int
    seed: int = 0
    shuffle: bool = True
    drop_last: bool = False

    def __post_init__(self) -> None:
        if self.steps == 0:
            raise DataError(
                f"a batch of {self.size} is larger than the data, which has {len(self.data)}"
                " examples, and a last batch that is shorter is dropped"
            )

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""
        count = len(self.data)
        return count // self.size if self.drop_last else -(-count // self.size)

    @property
    def identity(self) -> Mapping[str, str]:
        """The sizes, and what decides the order."""
        return {
            "batch": str(self.size),
            "examples": str(len(self.data)),
            "shuffle": str(self.shuffle).lower(),
            "last batch": "dropped" if self.drop_last else "kept",
        }

    def epoch(self, number: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch, from the given one on."""
        count = len(self.data)
        order = shuffled(count, self.seed, number) if self.shuffle else np.arange(count)
        chosen = order[start * self.size : self.steps * self.size]
        return self.data.batches(chosen, self.size)


class Stream:
    """Batches from outside, checked against the types of the arguments that they are for.

    An iterator goes on from epoch to epoch, so that `steps` has to say how long one is; what is
    iterated over anew for each epoch may leave it open.
    """

    def __init__(
        self, source: StreamLike, arguments: Mapping[str, TensorType], steps: int | None = None
    ) -> None:
        self.arguments = arguments
        self._steps = steps
        self._source = source
        self._goes_on = isinstance(source, Iterator)
        self._running: Iterator[object] = iter(source) if isinstance(source, Iterator) else iter(())
        self._taken = 0
        """How many batches were taken from an iterator that goes on."""
        if self._goes_on and steps is None:
            raise DataError("an iterator has no epochs of its own: give steps_per_epoch")

    @property
    def steps(self) -> int | None:
        """How many batches an epoch has, where that was said."""
        return self._steps

    @property
    def identity(self) -> Mapping[str, str]:
        """The length of an epoch; a stream tells nothing else before it is read."""
        return {"steps per epoch": str(self._steps)}

    def first(self) -> Batch:
        """The first batch, which stays the first."""
        iterator = self._open(1)
        for found in iterator:
            if self._goes_on:
                self._running = chain([found], iterator)
            return self._fitted(found, 1, 0)
        raise DataError("the stream gives no batch")

    def epoch(self, number: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch, from the given one on; those before it are read and dropped."""
        iterator = self._open(number)
        skipped = start
        if self._goes_on:
            assert self._steps is not None
            skipped += (number - 1) * self._steps - self._taken
        if skipped < 0:
            raise DataError("the iterator was read further than the training: give a new one")
        position = sum(1 for _ in islice(iterator, skipped))
        self._taken += position
        if position < skipped:
            raise DataError(f"the stream ended after {position} batches, before the training did")
        return self._batches(iterator, number, start)

    def _batches(self, iterator: Iterator[object], number: int, start: int) -> Iterator[Batch]:
        """At most as many as an epoch has; DataError where there are none at all or too few."""
        done = start
        while done != self._steps:
            found = next(iterator, None)
            if found is None:
                break
            self._taken += 1
            yield self._fitted(found, number, done)
            done += 1
        if done == 0 or (self._steps is not None and done < self._steps):
            wanted = "at least 1" if self._steps is None else str(self._steps)
            raise DataError(f"the stream ended in epoch {number}: {done} batches, not {wanted}")

    def _open(self, number: int) -> Iterator[object]:
        if self._goes_on:
            return self._running
        if not callable(self._source):
            return iter(self._source)
        return iter(self._source(number) if _takes_number(self._source) else self._source())

    def _fitted(self, batch: object, number: int, done: int) -> Batch:
        return fitted_batch(batch, self.arguments, f"batch {done + 1} of epoch {number}")


def _takes_number(function: Callable[..., object]) -> bool:
    """Whether a function takes the epoch's number."""
    try:
        parameters = signature(function).parameters.values()
    except ValueError:
        return False
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in positional and p.default is p.empty for p in parameters)
