"""Schedules step by step against those of PyTorch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

STEPS = 30
RATE = 0.2

lr_scheduler = torch.optim.lr_scheduler
Factory = Callable[[Any], Any]


def lambda_schedule(rate: Callable[[int], float]) -> Factory:
    return lambda o: lr_scheduler.LambdaLR(o, lambda step: rate(step) / RATE)


def warmed(o: Any) -> Any:
    parts = [lr_scheduler.LinearLR(o, 0.1, total_iters=10), lr_scheduler.CosineAnnealingLR(o, 20)]
    return lr_scheduler.SequentialLR(o, parts, [10])


def straight_cycle(o: Any) -> Any:
    shape = {"div_factor": 10, "final_div_factor": 50, "anneal_strategy": "linear"}
    return lr_scheduler.OneCycleLR(o, RATE, STEPS, pct_start=0.4, **shape)


def steps_of_sequence(step: int) -> float:
    if step < 5:
        return RATE
    return RATE * 0.8 ** (step - 5) if step < 15 else 0.1


CASES: dict[str, Factory] = {
    f"ConstantRate({RATE})": lambda o: lr_scheduler.ConstantLR(o, 1.0),
    f"StepDecay({RATE}, every=7, factor=0.5)": lambda o: lr_scheduler.StepLR(o, 7, 0.5),
    f"MultiStepDecay({RATE}, [4, 9, 20], factor=0.3)": lambda o: lr_scheduler.MultiStepLR(
        o, [4, 9, 20], 0.3
    ),
    f"ExponentialDecay({RATE}, 0.9)": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    f"LinearRamp({RATE / 4}, {RATE}, steps=12)": lambda o: lr_scheduler.LinearLR(o, 0.25, 1, 12),
    f"PolynomialDecay({RATE}, steps=20, power=1.7)": lambda o: lr_scheduler.PolynomialLR(
        o, 20, 1.7
    ),
    f"CosineDecay({RATE}, steps={STEPS}, end=0.01)": lambda o: lr_scheduler.CosineAnnealingLR(
        o, STEPS, 0.01
    ),
    f"CosineRestarts({RATE}, period=7, end=0.01)": lambda o: (
        lr_scheduler.CosineAnnealingWarmRestarts(o, 7, eta_min=0.01)
    ),
    f"CosineRestarts({RATE}, period=3, growth=2)": lambda o: (
        lr_scheduler.CosineAnnealingWarmRestarts(o, 3, 2)
    ),
    f"OneCycle({RATE}, steps={STEPS})": lambda o: lr_scheduler.OneCycleLR(o, RATE, STEPS),
    f'OneCycle({RATE}, {STEPS}, 0.4, start_divisor=10, end_divisor=50, shape="linear")': (
        straight_cycle
    ),
    f"InverseSquareRoot({RATE}, warmup=10)": lambda_schedule(
        lambda step: RATE * min((step + 1) / 10, (10 / (step + 1)) ** 0.5)
    ),
    f"LinearWarmup(CosineDecay({RATE}, 20), steps=10, start=0.1)": warmed,
    f"ScheduleSequence([ConstantRate({RATE}), ExponentialDecay({RATE}, 0.8), ConstantRate(0.1)], "
    "[5, 15])": lambda_schedule(steps_of_sequence),
}


@pytest.fixture(scope="module")
def found() -> np.ndarray:
    """The rates of all schedules, a row for each."""
    lib = mt.loads(f"map rates(step: i32): ({', '.join(f'{text}(step)' for text in CASES)})")
    return np.array([lib.rates(step) for step in range(STEPS)]).T


def rates(make: Factory, losses: list[float] | None = None) -> list[float]:
    """The rate of each step; `losses` are told to the schedule after the steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    schedule = make(optimizer)
    found = []
    for step in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step(*([] if losses is None else [losses[step]]))
    return found


@pytest.mark.filterwarnings("ignore:To get the last learning rate")
@pytest.mark.parametrize("text", CASES)
def test_rates(text: str, found: np.ndarray) -> None:
    ours = found[list(CASES).index(text)]
    np.testing.assert_allclose(ours, rates(CASES[text]), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("cooldown", [0, 3])
def test_rates_on_a_plateau(cooldown: int) -> None:
    losses = [float(x) for x in np.random.default_rng(4).integers(1, 6, STEPS)]
    schedule = mt.loads("").ReduceOnPlateau(
        RATE, factor=0.4, patience=2, cooldown=cooldown, least=1e-3
    )
    found = []
    for step, loss in enumerate(losses):
        found.append(float(schedule(step)))
        schedule.observe(loss)
    expected = rates(
        lambda o: lr_scheduler.ReduceLROnPlateau(
            o, factor=0.4, patience=2, cooldown=cooldown, min_lr=1e-3, eps=0
        ),
        losses,
    )
    assert len(set(expected)) > 3
    np.testing.assert_allclose(found, expected, rtol=1e-12)
