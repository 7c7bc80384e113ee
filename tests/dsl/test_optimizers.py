"""Optimizers: that each goes downhill, what those around another one do, schedules, copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from elaborating import Array, initial_slots, run_map, run_slots, type_of

from mapsto import ir
from mapsto.dsl.checking import check
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.program import Program
from mapsto.dsl.source import Source

OPTIMIZERS = (
    "SGD(0.1, momentum=0.9, nesterov=true)",
    "Adagrad(0.5)",
    "Adadelta(20)",
    "RMSprop(0.05)",
    "Adam(0.1, amsgrad=true)",
    "AdamW(0.1)",
    "Adamax(0.1)",
    "NAdam(0.1)",
    "RAdam(0.1)",
    "Lion(0.05)",
    "LAMB(0.1)",
    "Adafactor(0.2)",
    "Muon(0.1, weight_decay=0)",
)


def train(optimizer: str, steps: int, p: Array, gradients: Sequence[Array] | None = None) -> Any:
    """The parameter after each step of an optimizer, and the states; without gradients those of
    |p|^2 / 2."""
    text = f"module M():\n    rule = {optimizer}\n    map (p: f64[...s], g: f64[...s]): rule(p, g)"
    instance = Program.loads(text).instantiate("M")
    elaborated = instance.elaborate("", {"p": type_of(p), "g": type_of(p)})
    slots = initial_slots(instance)
    found = []
    for step in range(steps):
        p = run_slots(elaborated, slots, {"p": p, "g": p if gradients is None else gradients[step]})
        found.append(p)
    return found, slots


random = np.random.default_rng(0)
START = random.normal(size=(3, 4))
GRADIENTS = list(random.normal(size=(6, 3, 4)))


@pytest.mark.parametrize("text", OPTIMIZERS)
def test_every_optimizer_goes_downhill(text: str) -> None:
    path, _ = train(text, 30, START)
    assert np.linalg.norm(path[-1]) < 0.6 * np.linalg.norm(START)


def test_frozen_parameters_stay() -> None:
    path, slots = train("Frozen()", 1, START, GRADIENTS)
    np.testing.assert_array_equal(path[0], START)
    assert not slots


def final(optimizer: str, gradients: Sequence[Array]) -> Array:
    return train(optimizer, len(gradients), START, gradients)[0][-1]


def test_weight_decay_around_an_optimizer_is_its_own() -> None:
    found = final("WeightDecay(SGD(0.1, momentum=0.5), 0.2)", GRADIENTS)
    expected = final("SGD(0.1, momentum=0.5, weight_decay=0.2)", GRADIENTS)
    np.testing.assert_allclose(found, expected)


def test_clipping_by_value() -> None:
    expected = final("Adam()", [np.clip(g, -0.5, 0.5) for g in GRADIENTS])
    np.testing.assert_allclose(final("ClipByValue(Adam(), 0.5)", GRADIENTS), expected)


def test_clipping_by_norm() -> None:
    norms = [np.linalg.norm(g) + 1e-6 for g in GRADIENTS]
    limit = float(np.median(norms))
    pairs = zip(GRADIENTS, norms, strict=True)
    expected = final("SGD(0.1)", [g * min(limit / norm, 1) for g, norm in pairs])
    np.testing.assert_allclose(final(f"ClipByNorm(SGD(0.1), {limit})", GRADIENTS), expected)


def test_gradients_are_accumulated() -> None:
    path, _ = train("GradientAccumulation(SGD(0.1, momentum=0.9), 3)", 6, START, GRADIENTS)
    means = [np.mean(GRADIENTS[:3], axis=0), np.mean(GRADIENTS[3:], axis=0)]
    inner, _ = train("SGD(0.1, momentum=0.9)", 2, START, means)
    expected = [START, START, inner[0], inner[0], inner[0], inner[1]]
    np.testing.assert_allclose(path, expected)


def test_the_moving_average_of_a_parameter() -> None:
    path, slots = train("EMA(SGD(0.1), decay=0.9)", 6, START, GRADIENTS)
    average = path[0]
    for p in path[1:]:
        average = 0.9 * average + 0.1 * p
    np.testing.assert_allclose(slots["rule.average"], average)
    np.testing.assert_allclose(path[-1], final("SGD(0.1)", GRADIENTS))


def test_the_mean_of_a_parameter() -> None:
    path, slots = train("SWA(SGD(0.1), start=2, every=2)", 6, START, GRADIENTS)
    np.testing.assert_allclose(slots["rule.average"], (path[1] + path[3] + path[5]) / 3)
    _, early = train("SWA(SGD(0.1), start=9)", 6, START, GRADIENTS)
    np.testing.assert_allclose(early["rule.average"], path[-1])


def test_a_schedule_gives_the_rate_of_each_step() -> None:
    path, _ = train("SGD(StepDecay(0.1, every=2, factor=0.5))", 4, START, [np.ones((3, 4))] * 4)
    moved = -np.diff([START, *path], axis=0)[:, 0, 0]
    np.testing.assert_allclose(moved, [0.1, 0.1, 0.05, 0.05])


NET = """
module Net():
    layers = [Dense(3), Dense(2)]
    map (x: f32[n, d]) -> f32[n, 2]: chain(layers)(x)

train Fit(net = Net(), optimizer = {optimizer}):
    loss(x: f32[n, d]) = mean(net(x)^2)
"""


def state_paths(optimizer: str) -> set[str]:
    trainer = Program.loads(NET.format(optimizer=optimizer)).trainer("Fit")
    step = trainer.elaborate_step({"x": ir.TensorType(ir.DType.F32, (4, 5))})
    return {spec.path for spec in step.states}


def test_each_parameter_has_states_of_its_own_also_of_inner_optimizers() -> None:
    paths = state_paths("EMA(ClipByNorm(Adam(1e-3), 1.0))")
    parameters = [f"layers.{i}.{name}" for i in (0, 1) for name in "wb"]
    states = ("average", "taken", *(f"optimizer.optimizer.{name}" for name in "mvt"))
    assert paths == {f"optimizer.{p}.{state}" for p in parameters for state in states}


def test_what_sees_all_parameters_goes_outside() -> None:
    paths = state_paths("ClipByGlobalNorm(EMA(SGD(0.1)), 1.0)")
    parameters = [f"layers.{i}.{name}" for i in (0, 1) for name in "wb"]
    states = ("average", "taken", "optimizer.t")
    assert paths == {f"optimizer.optimizer.{p}.{state}" for p in parameters for state in states}
    text = NET.format(optimizer="EMA(ClipByGlobalNorm(SGD(0.1), 1.0))")
    (mistake,) = check(Source("test.mto", text))
    assert mistake.kind is Kind.WRONG_KIND


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [
        ("ConstantRate(0.5)", 7, 0.5),
        ("StepDecay(1, every=3)", 7, 0.01),
        ("MultiStepDecay(1, [2, 5, 9])", 7, 0.01),
        ("ExponentialDecay(1, 0.5, every=7)", 14, 0.25),
        ("LinearRamp(0, 1, 10)", 7, 0.7),
        ("LinearRamp(0, 1, 10)", 70, 1),
        ("PolynomialDecay(1, 10, power=2)", 5, 0.25),
        ("CosineDecay(1, 10, end=0.2)", 5, 0.6),
        ("CosineDecay(1, 10, end=0.2)", 11, 0.2),
        ("CosineRestarts(1, 4)", 10, 0.5),
        ("CosineRestarts(1, 4, growth=2, decay=0.5)", 8, 0.25),
        ("LinearWarmup(ConstantRate(2), 8)", 4, 1),
        ("LinearWarmup(0.5, 8)", 12, 0.5),
        ("InverseSquareRoot(1, warmup=4)", 1, 0.5),
        ("InverseSquareRoot(1, warmup=4)", 15, 0.5),
        ("OneCycle(1, 21, warmup=0.5)", 0, 0.04),
        ("OneCycle(1, 22, warmup=0.5)", 10, 1),
        ("ScheduleSequence([ConstantRate(1), StepDecay(2, 3)], [5])", 4, 1),
        ("ScheduleSequence([ConstantRate(1), StepDecay(2, 3)], [5])", 8, 0.2),
        ("ScheduleSequence([StepDecay(2, 3), 0.5], [5])", 3, 0.2),
        ("ScheduleSequence([StepDecay(2, 3), 0.5], [5])", 5, 0.5),
    ],
)
def test_rate(schedule: str, step: int, rate: float) -> None:
    found = run_map(f"map f(step: i32): {schedule}(step)", {"step": np.int32(step)})
    assert found.dtype == np.float64
    assert found == pytest.approx(rate)


PLATEAU = """
module M():
    schedule = ReduceOnPlateau(1, factor=0.5, patience=1)
    map (loss: f32): schedule.observe(loss)
"""


def test_the_rate_falls_on_a_plateau() -> None:
    instance = Program.loads(PLATEAU).instantiate("M")
    elaborated = instance.elaborate("", {"loss": ir.TensorType(ir.DType.F32)})
    slots = initial_slots(instance)
    losses = [3, 2, 2, 2, 1, 1, 1]
    rates = [run_slots(elaborated, slots, {"loss": np.float32(loss)}) for loss in losses]
    assert rates == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]


PIECES = """
map f(x: f64[2, 3]):
    (newton_schulz(x), root_mean_square(x), bias_correction(0.9, 2), adam_direction(x, x^2, 1, 0.9,
        0.99, 0.0))
"""


def test_pieces_of_optimizers() -> None:
    x = random.normal(size=(2, 3))
    orthogonal, size, correction, direction = run_map(PIECES, {"x": x})
    values = np.linalg.svd(orthogonal, compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.3
    assert size == pytest.approx(np.sqrt(np.mean(x**2)))
    assert correction == pytest.approx(0.19)
    np.testing.assert_allclose(direction, np.sign(x) * (1 / 0.1) / np.sqrt(1 / 0.01))


PARTS = """
map f(step: i32): (share_of(step, 8), cosine_between(0, 2, 0.5))
"""


def test_pieces_of_schedules() -> None:
    assert run_map(PARTS, {"step": np.int32(2)}) == (0.25, pytest.approx(1))


AVERAGES = """
module M():
    whole = Average()
    factored = FactoredAverage()
    map (x: f64[n, m]): (whole(x, 1), factored(x, 1))
"""


def test_a_product_stands_for_its_average() -> None:
    """Of a matrix of rank one nothing is lost."""
    x = np.outer([1.0, 2, 3], [4.0, 5])
    instance = Program.loads(AVERAGES).instantiate("M")
    elaborated = instance.elaborate("", {"x": type_of(x)})
    whole, factored = run_slots(elaborated, initial_slots(instance), {"x": x})
    np.testing.assert_allclose(whole, x)
    np.testing.assert_allclose(factored, x)
