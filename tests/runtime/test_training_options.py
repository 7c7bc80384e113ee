"""What a training can be asked for: to stop early, to keep the best, to evaluate inside epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.runtime.checkpoint import load_checkpoint
from mapsto.runtime.dataset import Dataset
from mapsto.runtime.errors import CheckpointError, TrainingError
from mapsto.runtime.fit_options import FitOptions
from mapsto.runtime.history import Epoch, Evaluation, History
from mapsto.runtime.monitor import Monitor
from mapsto.runtime.training import fit

DATA = Dataset({"x": np.arange(10.0)})
TEST = Dataset({"x": np.arange(4.0)})


class Counter:
    """Counts its steps; the figure of the test data is a function of the count."""

    def __init__(self, figure: Callable[[int], float] = float) -> None:
        self.count = np.zeros((), np.int64)
        self.figure = figure
        self.updates: list[bool] = []
        self.observed: list[float] = []

    def step(self, batch: Mapping[str, Any], update: bool = True) -> Mapping[str, float]:
        self.count += 1
        self.updates.append(update)
        return {"loss": float(self.count), "second": 2.0}

    def begin_evaluation(self) -> frozenset[str]:
        return frozenset({"last"})

    def evaluate(self, batch: Mapping[str, Any]) -> Mapping[str, float]:
        return {"loss": self.figure(int(self.count)), "last": float(batch["x"][-1])}

    def observe(self, figure: float) -> None:
        self.observed.append(figure)

    def arrays(self) -> Mapping[str, Any]:
        return {"count": self.count}


def run(trainee: Counter, observers: Any = (), **options: Any) -> History:
    settings: dict[str, Any] = {"epochs": 6, "batch": 4, **options}
    return fit(trainee, DATA, TEST, FitOptions(**settings), observers)


def valley(count: int) -> float:
    """Best after 9 steps."""
    return abs(count - 9.0)


def test_patience_ends_the_training() -> None:
    trainee = Counter(valley)
    history = run(trainee, monitor=Monitor(patience=2))
    assert [epoch.test["loss"] for epoch in history.epochs] == [6, 3, 0, 3, 6]
    assert trainee.observed == [6, 3, 0, 3, 6]
    assert (history.best_epoch, history.stopped) == (
        3,
        "`loss` has not become better for 2 evaluations",
    )


def test_the_best_is_kept_and_restored(tmp_path: Path) -> None:
    trainee = Counter(valley)
    run(trainee, monitor=Monitor(), keep_best=tmp_path / "best", restore_best=True)
    assert trainee.count == 9
    assert load_checkpoint(tmp_path / "best")[0]["count"] == 9


def test_what_is_better() -> None:
    rising = run(Counter(), monitor=Monitor(mode="max", patience=1))
    assert (rising.best_epoch, rising.stopped) == (6, "")
    falling = run(Counter(), monitor=Monitor("train loss", mode="max", patience=1))
    assert falling.best_epoch == 6
    little = run(Counter(lambda n: 1 - n / 1000), monitor=Monitor(patience=2, min_delta=0.1))
    assert len(little.epochs) == 3
    level = run(Counter(lambda n: 1.0), monitor=Monitor(patience=2))
    assert (level.best_epoch, len(level.epochs)) == (1, 3)
    strange = run(Counter(lambda n: float("nan") if n > 3 else 1.0), monitor=Monitor(patience=2))
    assert (strange.best_epoch, len(strange.epochs)) == (1, 3)
    with pytest.raises(TrainingError, match="no figure `acc` to monitor; there are loss, last, se"):
        run(Counter(), monitor=Monitor("acc"))


def test_evaluation_inside_epochs() -> None:
    history = run(Counter(valley), epochs=2, evaluate_every=2, monitor=Monitor())
    # Step 6 ends an epoch, which is evaluated anyway.
    assert history.evaluations == [
        Evaluation(2, {"loss": 7.0, "last": 3.0}),
        Evaluation(4, {"loss": 5.0, "last": 3.0}),
    ]
    assert [epoch.test["loss"] for epoch in history.epochs] == [6, 3]


def test_figures_of_an_epoch() -> None:
    (epoch,) = run(Counter(), epochs=1).epochs
    assert epoch == Epoch(
        1, pytest.approx(1.8), {"loss": 3.0, "last": 3.0}, {"second": 2.0}, 3, examples=10
    )
    assert epoch.examples_per_second > 0


@pytest.mark.parametrize("limit", [1, 3, 4])
def test_a_number_of_steps(limit: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"checkpoint": tmp_path / "c", "resume": True, "epochs": 3}
    first = run(Counter(), max_steps=limit, **options)
    assert first.epochs[-1].step == limit
    assert first.stopped == f"it has made {limit} steps"
    again = Counter()
    assert run(again, max_steps=limit, **options).epochs == first.epochs
    whole, resumed = Counter(), Counter()
    expected = run(whole, epochs=3)
    assert run(resumed, **options) == expected
    assert resumed.count == whole.count == 9


def test_accumulation_updates_at_the_end_of_the_epoch_too() -> None:
    trainee = Counter()
    run(trainee, epochs=2, accumulate=2)
    assert trainee.updates == [False, True, True] * 2


def test_callbacks_stop() -> None:
    class AtStep:
        def on_step(self, epoch: int, step: int, steps: int, loss: float) -> bool:
            return loss == 4

    class AtEvaluation:
        def on_evaluation(self, evaluation: Evaluation) -> bool:
            return evaluation.step == 4

    for callback in (AtStep(), AtEvaluation()):
        history = run(Counter(), [callback], evaluate_every=2)
        assert history.epochs[-1].step == 4
        assert history.stopped == "a callback ended it"
    seen: list[Epoch] = []
    assert len(run(Counter(), [seen.append, lambda epoch: epoch.number == 2]).epochs) == 2
    assert len(seen) == 2
    with pytest.raises(TypeError, match="3 is no callback"):
        run(Counter(), [3])


def test_counters_of_monitor_and_observers_resume(tmp_path: Path) -> None:
    class Sum:
        def __init__(self) -> None:
            self.total = 0.0

        def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
            self.total += loss

        def state(self) -> float:
            return self.total

        def restore(self, state: float) -> None:
            self.total = state

    options: dict[str, Any] = {"checkpoint": tmp_path / "c", "resume": True}
    expected, part, resumed = Sum(), Sum(), Sum()
    whole = run(Counter(valley), [expected], monitor=Monitor(patience=2))
    run(Counter(valley), [part], monitor=Monitor(patience=2), max_steps=11, **options)
    history = run(Counter(valley), [resumed], monitor=Monitor(patience=2), **options)
    assert history == whole
    assert resumed.total == expected.total
    # A training that had stopped stays so.
    assert run(Counter(valley), [Sum()], monitor=Monitor(patience=2), **options) == whole


def test_resuming_refuses_another_rhythm(tmp_path: Path) -> None:
    run(Counter(), checkpoint=tmp_path / "c")
    for option, message in (
        ({"shuffle": False}, "was made with shuffle true, not false"),
        ({"drop_last": True}, "was made with last batch kept, not dropped"),
        ({"accumulate": 2}, "was made with accumulate 1, not 2"),
    ):
        with pytest.raises(CheckpointError, match=message):
            run(Counter(), checkpoint=tmp_path / "c", resume=True, **option)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0"),
        ({"accumulate": -1}, "accumulate is -1"),
        ({"restore_best": True}, "name a file: keep_best"),
        ({"keep_best": Path("a"), "checkpoint": Path("a")}, "name the same file"),
        ({"resume": True}, "to resume, name the checkpoint file"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        run(Counter(), **options)


def test_wrong_monitors() -> None:
    with pytest.raises(TrainingError, match='mode is "low"'):
        Monitor(mode="low")
    with pytest.raises(TrainingError, match="patience is 0"):
        Monitor(patience=0)


def test_a_figure_for_each_example_has_no_mean() -> None:
    class Each(Counter):
        def evaluate(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
            return {"loss": 0.0, "each": batch["x"]}

    with pytest.raises(TrainingError, match="`each` has another shape in each batch"):
        run(Each(), batch=3)
