"""Fair timing: all candidates take turns in one run, and the medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Timing", "interleaved"]

ROUND_SECONDS = 0.02
"""A candidate runs this long before the next has its turn."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call: the median over rounds, and the spread between the quartiles."""

    median: float
    low: float
    high: float

    @property
    def microseconds(self) -> float:
        """The median in microseconds."""
        return self.median * 1e6

    def __str__(self) -> str:
        spread = (self.high - self.low) / 2 / self.median
        return f"{self.microseconds:.4g} us +- {100 * spread:.0f} %"


SETTLE_SECONDS = 0.15
"""Pause before a turn: threads of the candidate before, which wait for work in a busy loop, have
left the processors by then."""


def interleaved(
    candidates: Mapping[str, Callable[[], object]], seconds: float = 1.0, rounds: int = 9
) -> dict[str, Timing]:
    """Times each candidate in turn, round after round, for about `seconds` each in all.

    A round repeats a candidate so often that the clock's resolution does not matter; its figure is
    the mean of the round.
    """
    for run in candidates.values():
        run()
        run()
    budget = max(ROUND_SECONDS / 10, seconds / rounds)
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            samples[name].append(_round(run, budget))
    return {name: _summary(values) for name, values in samples.items()}


def _round(run: Callable[[], object], budget: float) -> float:
    time.sleep(SETTLE_SECONDS)
    run()
    start = time.perf_counter()
    run()
    once = time.perf_counter() - start
    count = max(1, int(budget / max(once, 1e-9)))
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def _summary(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4)
    return Timing(median, low, high)
