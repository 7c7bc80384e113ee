"""How long something takes: medians, with the spread."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Timing", "samples_of", "time_of"]

SHORTEST = 20e-6
"""Seconds of a sample at least: what is shorter is repeated, so that the clock does not matter."""

LEAST_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of a run: the median of the samples, and the quartiles."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(samples: Sequence[float]) -> Timing:
        """The timing of at least two samples."""
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return Timing(median, low, high)

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, as a part of the median."""
        return (self.high - self.low) / 2 / self.median


def samples_of(
    run: Callable[[], object], seconds: float, least: int = LEAST_SAMPLES
) -> Iterator[float]:
    """The seconds of runs one after another, for about so long in all; the first run, which may
    find caches cold, is not among them."""
    run()
    start = time.perf_counter()
    run()
    count = max(1, math.ceil(SHORTEST / max(time.perf_counter() - start, 1e-9)))
    number = 0
    while number < least or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        for _ in range(count):
            run()
        yield (time.perf_counter() - before) / count
        number += 1


def time_of(run: Callable[[], object], seconds: float = 1.0) -> Timing:
    """Times something for about so long."""
    return Timing.of(list(samples_of(run, seconds)))
