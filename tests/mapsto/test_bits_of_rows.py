"""The programs of the speed table, at its sizes, give the same bits on 1, 2 and 5 threads, and for
each member of a batch whatever else is in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speed_rows import MODELS, ROWS, Row

import mapsto as mt

FOLDER = Path(__file__).parents[2] / "benchmarks" / "models"

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    before = mt.threads()
    yield
    mt.set_threads(before)


def bits(row: Row, threads: int) -> list[bytes]:
    """What the row computes: scores, or two losses and the parameters after two steps."""
    mt.set_threads(threads)
    library, inputs = mt.load(FOLDER / f"{row.model}.mto"), dict(row.inputs())
    net: Any = getattr(library, MODELS[row.model].module)(seed=0)
    if not row.training:
        scores = net(*inputs.values())
        return [scores.tobytes(), net.freeze()(*inputs.values()).tobytes()]
    step = library.Step(net=net)
    losses = [np.float32(step.step(**inputs)).tobytes() for _ in range(2)]
    return [*losses, *(array.tobytes() for array in net.params.values())]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_the_number_of_threads_changes_no_bit(row: Row) -> None:
    one = bits(row, 1)
    assert all(one)
    for threads in (2, 5):
        assert bits(row, threads) == one


@pytest.mark.parametrize(
    "row", [row for row in ROWS if not row.training and row.batch > 1], ids=lambda row: row.key
)
def test_the_rest_of_a_batch_changes_no_bit(row: Row) -> None:
    library, inputs = mt.load(FOLDER / f"{row.model}.mto"), row.inputs().values()
    net: Any = getattr(library, MODELS[row.model].module)(seed=0)
    net(*inputs)
    frozen = net.freeze()
    whole = frozen(*inputs)
    for number in range(min(4, row.batch)):
        alone = frozen(*(array[number : number + 1] for array in inputs))
        assert alone[0].tobytes() == whole[number].tobytes()
