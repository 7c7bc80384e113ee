"""What the machine can do, and times of runs."""

from __future__ import annotations

import itertools

import pytest

from mapsto.runtime import roofline, timing
from mapsto.runtime.roofline import Level, Roofline, measure_roofline

PEAK = Roofline(2, 100e9, (Level("L1", 1000, 200e9, 100e9), Level("memory", 10**9, 20e9, 10e9)))


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        ((1000, 4, 0, 0), 10e-9),
        ((1000, 8, 0, 0), 20e-9),
        ((1000, 2, 0, 0), 10e-9),
        ((0, 4, 600, 400), 3e-9 + 4e-9),
        ((0, 4, 2000, 1000), 100e-9 + 100e-9),
        ((1000, 4, 600, 400), 10e-9),
        ((0, 4, 0, 10**10), 1.0),
    ],
)
def test_least_time(work: tuple[int, int, int, int], seconds: float) -> None:
    assert PEAK.seconds(*work) == pytest.approx(seconds)


def test_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_ROUNDS", 2)
    monkeypatch.setattr(roofline, "_LARGEST", 1 << 20)
    found = measure_roofline()
    assert [level.name for level in found.levels] == ["L1", "L2", "L3", "memory"]
    assert 1e8 < found.operations < 1e14
    for level in found.levels:
        assert 1e7 < level.read < 1e13 and 1e7 < level.written < 1e13
    sizes = [level.bytes for level in found.levels]
    assert sizes == sorted(sizes)


def test_median_and_quartiles(monkeypatch: pytest.MonkeyPatch) -> None:
    found = timing.Timing.of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (found.low, found.median, found.high) == (2, 3, 4)
    assert found.spread == pytest.approx(1 / 3)


def test_short_runs_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    runs = [0]

    def run() -> None:
        runs[0] += 1

    monkeypatch.setattr(timing, "SHORTEST", 3.5)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(clock))
    samples = list(timing.samples_of(run, 0.0, least=3))
    # By this clock a run takes a second, so a sample has four of them.
    assert samples == [0.25] * 3
    assert runs[0] == 2 + 3 * 4
