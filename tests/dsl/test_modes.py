"""Training mode: what `training` stands for in calls, derivatives, constants and `train` blocks."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import call_module, initial_slots, run_map, run_slots, type_of

import mapsto as mt
from mapsto.dsl.checking import check
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.program import Program
from mapsto.dsl.source import Source

X = np.array([1.0, 2.0], np.float32)

LAYER = """
factor = if training then 10 else 1

module Layer():
    own = 1 + factor
    param w: f32 ~ ones

    map (x: f32[n]) -> f32[n]:
        if training:
            own * w * x
        else:
            w * x

module Net():
    layer = Layer()

    map (x: f32[n]) -> f32[n]: layer(x)
    map trained(x: f32[n]) -> f32[n]: train_mode(layer)(x) + eval_mode(layer)(x)

train Fit(net = Net(), optimizer = SGD(lr=1)):
    loss(x: f32[n]) = sum(net(x))
    metric value(x: f32[n]) = sum(net(x))
"""


def test_calls_are_no_training() -> None:
    net = Program.loads(LAYER).instantiate("Net")
    np.testing.assert_allclose(call_module(net, x=X), X)


def test_modes_of_maps() -> None:
    net = Program.loads(LAYER).instantiate("Net")
    np.testing.assert_allclose(call_module(net, "trained", x=X), 12 * X)


def test_the_inner_mode_counts_and_derivatives_keep_it() -> None:
    text = "map g(x: f32) -> f32: if training then x^2 else x\nmap f(x: f32): "
    x = {"x": np.float32(3)}
    assert run_map(text + "eval_mode(train_mode(g))(x)", x) == 9
    assert run_map(text + "grad(train_mode(g))(x)", x) == 6
    assert run_map(text + "train_mode(grad(g))(x)", x) == 6
    assert run_map(text + "grad(g)(x)", x) == 1
    assert list(run_map(text + "train_mode(vmap(g))(broadcast(x, [2]))", x)) == [9, 9]


def test_a_step_is_training_and_an_evaluation_is_not() -> None:
    trainer = Program.loads(LAYER).trainer("Fit")
    types = {"x": type_of(X)}
    step, evaluation = trainer.elaborate_step(types), trainer.elaborate_evaluate(types)
    slots = initial_slots(trainer)
    assert run_slots(evaluation, dict(slots), {"x": X}) == {"loss": 3, "value": 3}
    assert run_slots(step, slots, {"x": X}) == 33
    np.testing.assert_allclose(slots["layer.w"], 1 - 33)


def test_modes_from_python() -> None:
    net = mt.loads(LAYER).Net()
    for _ in range(2):
        np.testing.assert_allclose(net(X), X)
        np.testing.assert_allclose(mt.train_mode(net)(X), 11 * X)
        np.testing.assert_allclose(mt.eval_mode(mt.train_mode(net))(X), 11 * X)
    lib = mt.loads("map g(x: f32) -> f32: if training then x^2 else x")
    assert mt.grad(mt.train_mode(lib.g))(np.float32(3)) == 6
    assert mt.grad(lib.g)(np.float32(3)) == 1


def test_a_definition_of_ones_own_hides_the_name() -> None:
    assert run_map("map f(training: f32): training + 1", {"training": np.float32(1)}) == 2


def test_both_modes_are_checked() -> None:
    text = "map f(x: f32[n], y: f32[m]): if training then x + y else x"
    (diagnostic,) = check(Source("test.mto", text))
    assert diagnostic.kind is Kind.SHAPES_DIFFER


@pytest.mark.parametrize("value", ["{}", "[Dense(2), {}]", "chain([{}])", "vmap({})"])
def test_modules_do_not_depend_on_the_mode(value: str) -> None:
    layer = value.format("Dense(if training then 2 else 3)")
    text = f"module A():\n    layer = {layer}\n    map (x: f32[n, d]): x\n"
    kinds = [diagnostic.kind for diagnostic in check(Source("test.mto", text))]
    assert kinds == [Kind.MODULE_BY_MODE]


def test_a_mode_from_python_is_an_argument() -> None:
    lib = mt.loads("""
module Doubled():
    inner = Dense(2)

    map (x: f32[n, d]):
        if training then 2 * inner(x) else inner(x)

start = Doubled()
rate = StepDecay(1.0, 2)

map call(f: map, x: f32[n, d]): f(x)

map by(f: map, x: f32[n, d]) -> f32[n, d]: grad(total)(x, f)

map total(x: f32[n, d], f: map) -> f32: sum(f(x))
""")
    x = np.ones((3, 4), np.float32)
    net = lib.Doubled(seed=0)
    training = mt.train_mode(net)
    np.testing.assert_allclose(lib.call(training, x), 2 * lib.call(net, x))
    np.testing.assert_allclose(lib.by(training, x), 2 * lib.by(net, x))
    np.testing.assert_allclose(lib.call(mt.eval_mode(training), x), lib.call(training, x))
    assert set(net.params) == {"inner.w", "inner.b"}
    assert lib.call(lib.start, x).shape == (3, 2)
    assert set(lib.start.params) == set(net.params)
    assert lib.rate(0) == 1
    assert lib.rate(2) < 1
