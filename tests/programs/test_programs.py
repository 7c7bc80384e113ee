"""Random programs mean the same as written, after the passes and as native code.

A seed names a program; one that fails is printed, and shows what differs with

    python tests/programs/campaign.py --seed SEED --count 1

which also is the command for as many programs as one likes (docs/testing.md).
"""

from __future__ import annotations

import pytest
from agreement import agree, small_thresholds
from programs import write_program

QUICK = range(40)
MANY = range(100_000, 100_600)


@pytest.mark.parametrize("start", QUICK[::10])
def test_random_programs(start: int) -> None:
    for seed in range(start, start + 10):
        agree(write_program(seed))


@pytest.mark.slow
@pytest.mark.parametrize("start", MANY[::100])
def test_many_random_programs(start: int) -> None:
    stable = [agree(write_program(seed)) for seed in range(start, start + 100)]
    assert stable.count(False) <= 5, "programs are to be well-conditioned"


def test_thresholds_are_restored() -> None:
    with small_thresholds() as changed:
        assert all(getattr(module, name) == value for module, name, value in changed)
    assert not any(getattr(module, name) == value for module, name, value in changed)


def test_a_seed_names_a_program() -> None:
    assert [write_program(seed).text for seed in QUICK] == [
        write_program(seed).text for seed in QUICK
    ]
