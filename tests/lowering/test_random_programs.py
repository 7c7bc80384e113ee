"""Random programs agree with the reference evaluator when they run natively."""

from __future__ import annotations

from random import Random

import hypothesis.strategies as st
import pytest
from harness import check, machines
from hypothesis import given, settings
from random_programs import ProgramWriter

from mapsto.ir import fusion, stages
from mapsto.lowering.cpu import scheduling
from mapsto.lowering.kernel_work import Division

RANDOM = st.randoms(note_method_calls=False)


def run(random: Random) -> None:
    function = ProgramWriter(random).write()
    machine = random.choice(machines())
    check(function, sizes={"n": random.choice([1, 2, 7, 20])}, on=[machine], tolerance=1e-9)


@settings(max_examples=60, deadline=None)
@given(RANDOM)
def test_random_programs(random: Random) -> None:
    run(random)


@pytest.fixture()
def small_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small programs are divided into tasks, and small products packed, as large ones are."""
    monkeypatch.setattr(scheduling, "DIVISION", Division(task_work=96, column_block=4))
    monkeypatch.setattr(stages, "HEAVY_PRODUCTS", 64)
    monkeypatch.setattr(fusion, "SMALL_WORK", 64)
    monkeypatch.setattr(fusion, "LEAST_COLUMNS", 4)


@pytest.mark.usefixtures("small_thresholds")
def test_random_programs_in_many_tasks() -> None:
    @settings(max_examples=60, deadline=None)
    @given(RANDOM)
    def many(random: Random) -> None:
        run(random)

    many()


@pytest.mark.slow
@pytest.mark.usefixtures("small_thresholds")
def test_many_random_programs() -> None:
    @settings(max_examples=2000, deadline=None)
    @given(RANDOM)
    def many(random: Random) -> None:
        run(random)

    many()
