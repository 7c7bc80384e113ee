"""Modules: configuration, parameters and their paths, state, submodules, training."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import Array, call_module, evaluate, initial_slots, run_slots, type_of

from mapsto import ir
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.elaborated import flatten, unflatten
from mapsto.dsl.library import DiagnosticsError
from mapsto.dsl.program import Program
from mapsto.dsl.training import Trainer

rng = np.random.default_rng(3)
N = ir.symbol("n")
F32, I32 = ir.DType.F32, ir.DType.I32

MLP = """
module MLP(hidden: int = 5, activation: map = relu):
    "A small network."
    layers = [Dense(hidden, activation), Dense(3)]

    map (x: f32[n, d]) -> f32[n, 3]:
        chain(layers)(x)

    map hidden_units(x: f32[n, d]):
        layers[0](x)

train Small(net = MLP(), optimizer = Adam(lr=0.05)):
    loss(x: f32[n, 4], y: i32[n]) = cross_entropy(net(x), y)
    metric accuracy(x: f32[n, 4], y: i32[n]) = accuracy(net(x), y)
    metric size(x: f32[n, 4]) = mean(net(x)^2)
"""


def batch_types(batch: ir.Dim = N) -> dict[str, ir.TensorType]:
    return {"x": ir.TensorType(F32, (batch, 4)), "y": ir.TensorType(I32, (batch,))}


def batch(size: int = 30) -> dict[str, Array]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 3, size).astype(np.int32)
    x = rng.normal(size=(size, 4)).astype(np.float32) * 0.5
    x[np.arange(size), y] += 2
    return {"x": x, "y": y}


def test_forward() -> None:
    instance = Program.loads(MLP).instantiate("MLP", {"hidden": 7})
    x = rng.normal(size=(2, 4)).astype(np.float32)
    result = call_module(instance, x=x)
    slots = initial_slots(instance)
    hidden = np.maximum(x @ slots["layers.0.w"] + slots["layers.0.b"], 0)
    np.testing.assert_allclose(
        result, hidden @ slots["layers.1.w"] + slots["layers.1.b"], rtol=1e-5
    )


def test_paths_and_sizes_of_parameters() -> None:
    instance = Program.loads(MLP).instantiate("MLP")
    elaborated = instance.elaborate("", {"x": ir.TensorType(F32, (N, 4))})
    paths = {spec.path: str(spec.type) for spec in elaborated.parameters}
    assert paths == {
        "layers.0.w": "f32[4, 5]",
        "layers.0.b": "f32[5]",
        "layers.1.w": "f32[5, 3]",
        "layers.1.b": "f32[3]",
    }
    assert elaborated.argument_names == (*paths, "x")
    assert str(elaborated.result) == "f32[n, 3]"


def test_named_maps_and_members() -> None:
    instance = Program.loads(MLP).instantiate(
        "MLP", {"activation": Program.loads("").value("tanh")}
    )
    assert instance.maps() == ("", "hidden_units")
    assert instance.parameter_names("hidden_units") == ("x",)
    x = np.ones((1, 4), np.float32)
    assert call_module(instance, "hidden_units", x=x).shape == (1, 5)


def test_names_documentation_and_signatures() -> None:
    program = Program.loads(MLP)
    assert program.names() == ("MLP", "Small")
    assert program.docstring("MLP") == "A small network."
    assert program.signature("MLP") == "MLP(hidden: int = 5, activation: map = relu)"
    assert program.signature("relu") == "relu[T](x: T[...s]) -> T[...s]"
    with pytest.raises(KeyError):
        program.value("nothing")


def test_the_first_use_fixes_sizes() -> None:
    instance = Program.loads(MLP).instantiate("MLP")
    instance.elaborate("", {"x": ir.TensorType(F32, (2, 4))})
    with pytest.raises(DiagnosticsError) as raised:
        instance.elaborate("", {"x": ir.TensorType(F32, (2, 6))})
    (diagnostic,) = raised.value.diagnostics
    assert diagnostic.kind is Kind.WRONG_SHAPE
    assert "`d` is 4 here" in str(raised.value)


def test_a_failed_use_fixes_nothing() -> None:
    instance = Program.loads(MLP).instantiate("MLP")
    with pytest.raises(DiagnosticsError):
        instance.elaborate("", {"x": ir.TensorType(F32, (2, 4)), "z": ir.TensorType(F32)})
    with pytest.raises(DiagnosticsError):
        instance.elaborate("", {"x": ir.TensorType(I32, (2, 4))})
    assert instance.elaborate("", {"x": ir.TensorType(F32, (2, 6))}).parameters


def test_a_parameter_of_symbolic_size_is_reported() -> None:
    instance = Program.loads(MLP).instantiate("MLP")
    with pytest.raises(DiagnosticsError) as raised:
        instance.elaborate("", {"x": ir.TensorType(F32, (2, N))})
    assert raised.value.diagnostics[0].kind is Kind.SYMBOLIC_PARAMETER


def test_a_condition_on_a_symbolic_size_is_reported() -> None:
    program = Program.loads("map f(x: f32[n]): if n > 3 then x else 2 * x")
    with pytest.raises(DiagnosticsError) as raised:
        program.elaborate_map("f", {"x": ir.TensorType(F32, (N,))})
    assert raised.value.diagnostics[0].kind is Kind.SYMBOLIC_NUMBER


def test_state() -> None:
    text = """
module Counter():
    state total: f32[n] = 1
    state calls: i32 = 0

    map (x: f32[n], twice: bool = false) -> f32[n]:
        calls <- calls + 1
        total <- total + x
        if twice:
            total <- total + x
        total * f32(calls)
"""
    instance = Program.loads(text).instantiate("Counter")
    x = np.array([1.0, 2.0], np.float32)
    elaborated = instance.elaborate("", {"x": type_of(x)}, {"twice": True})
    assert [spec.path for spec in elaborated.updated] == ["total", "calls"]
    assert elaborated.function.attributes["aliases"] == ((1, 0), (2, 1))
    slots = initial_slots(instance)
    np.testing.assert_allclose(run_slots(elaborated, slots, {"x": x}), [3, 5])
    np.testing.assert_allclose(run_slots(elaborated, slots, {"x": x}), [10, 18])
    assert slots["calls"] == 2


def test_shared_submodules_have_one_set_of_parameters() -> None:
    text = """
shared = Dense(4)
module Twice():
    layer = Dense(4)
    layers = [layer, layer]
    map (x: f32[n, 4]): chain(layers)(x) + shared(x)
"""
    instance = Program.loads(text).instantiate("Twice")
    elaborated = instance.elaborate("", {"x": ir.TensorType(F32, (2, 4))})
    assert [spec.path for spec in elaborated.parameters] == [
        "layer.w",
        "layer.b",
        "Dense.w",
        "Dense.b",
    ]


def test_gradients_of_module_parameters() -> None:
    text = """
map objective(net: module, x: f32[n, d], scale: f32) -> f32: sum(net(x)) * scale
map f(net: module, x: f32[n, d]):
    let (value, slopes) = value_and_grad(objective)(net, x, 2)
    (value, slopes, slopes.b)
"""
    program = Program.loads(text)
    net = program.instantiate("Dense", {"units": 3})
    x = rng.normal(size=(5, 4)).astype(np.float32)
    elaborated = program.elaborate_map("f", {"x": type_of(x)}, {"net": net})
    slots = {f"net.{path}": value for path, value in initial_slots(net).items()}
    _, slopes, bias = run_slots(elaborated, slots, {"x": x})
    np.testing.assert_allclose(slopes["w"], 2 * np.repeat(x.sum(0)[:, None], 3, 1), rtol=1e-5)
    np.testing.assert_allclose(bias, [10, 10, 10])


def test_state_updates_inside_a_differentiated_map_are_kept() -> None:
    text = """
module Counting():
    state calls: i32 = 0
    param w: f32[3] ~ ones
    map (x: f32[3]) -> f32:
        calls <- calls + 1
        sum(x * w)
map apply(net: module, x: f32[3]) -> f32: net(x)
map f(net: module, x: f32[3]): grad(apply)(net, x).w
"""
    program = Program.loads(text)
    net = program.instantiate("Counting")
    x = np.arange(3, dtype=np.float32)
    elaborated = program.elaborate_map("f", {"x": type_of(x)}, {"net": net})
    slots = {f"net.{path}": value for path, value in initial_slots(net).items()}
    np.testing.assert_allclose(run_slots(elaborated, slots, {"x": x}), x)
    assert slots["net.calls"] == 1


def trained(trainer: Trainer, steps: int) -> tuple[dict[str, Array], list[float]]:
    step = trainer.elaborate_step(batch_types(30))
    slots = initial_slots(trainer)
    data = batch()
    return slots, [float(run_slots(step, slots, data)) for _ in range(steps)]


def test_a_step_updates_parameters_and_optimizer_states() -> None:
    trainer = Program.loads(MLP).trainer("Small")
    step = trainer.elaborate_step(batch_types())
    assert [spec.path for spec in step.states][:3] == [
        "optimizer.layers.0.w.m",
        "optimizer.layers.0.w.v",
        "optimizer.layers.0.w.t",
    ]
    assert step.updated == (*step.parameters, *step.states)
    assert str(step.result) == "f32[]"
    assert [loss.name for loss in trainer.losses] == ["loss"]
    assert list(trainer.closures()) == ["loss", "accuracy", "size"]


def test_training_learns() -> None:
    trainer = Program.loads(MLP).trainer("Small")
    slots, losses = trained(trainer, 40)
    assert losses[-1] < 0.5 * losses[0]
    evaluation = trainer.elaborate_evaluate(batch_types())
    figures = run_slots(evaluation, slots, batch())
    assert list(figures) == ["loss", "accuracy", "size"]
    assert figures["accuracy"] > 0.8
    assert not evaluation.updated


def test_training_repeats_bit_for_bit() -> None:
    first, _ = trained(Program.loads(MLP).trainer("Small"), 5)
    second, _ = trained(Program.loads(MLP).trainer("Small"), 5)
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path])


def test_the_net_and_the_optimizer_can_be_given() -> None:
    program = Program.loads(MLP)
    net = program.instantiate("MLP", {"hidden": 2})
    optimizer = program.instantiate("SGD", {"lr": 0.1})
    trainer = program.trainer("Small", {"net": net, "optimizer": optimizer})
    assert dict(trainer.modules())[""] is net.value
    step = trainer.elaborate_step(batch_types())
    assert {str(spec.type) for spec in step.parameters} >= {"f32[4, 2]"}
    assert {spec.path.rpartition(".")[2] for spec in step.states} == {"t"}


def test_an_optimizer_of_ones_own() -> None:
    text = """
module Lion[T](lr: T = 1e-2, beta: T = 0.9):
    state m: T[...s] = 0
    map (p: T[...s], g: T[...s]) -> T[...s]:
        let u = sign(beta * m + (1 - beta) * g)
        m <- beta * m + (1 - beta) * g
        p - lr * u
""" + MLP.replace("Adam(lr=0.05)", "Lion(lr=0.02)")
    _, losses = trained(Program.loads(text).trainer("Small"), 40)
    assert losses[-1] < 0.7 * losses[0]


def test_unflatten_reverses_flatten() -> None:
    structure = (ir.scalar(F32), {"a": ir.scalar(F32), "b": (ir.scalar(I32), ir.scalar(F32))})
    assert len(flatten(structure)) == 4
    assert unflatten(structure, [1, 2, 3, 4]) == (1, {"a": 2, "b": (3, 4)})


def test_imports_of_files(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "helpers.mto").write_text("map twice(x: f32[n]): 2 * x\nhalf = 0.5\n")
    (tmp_path / "main.mto").write_text(
        'import "helpers.mto" as h\nfrom "helpers.mto" import twice\n'
        "map f(x: f32[n]): twice(x) + h.twice(x) * h.half\n"
    )
    program = Program.load(tmp_path / "main.mto")
    elaborated = program.elaborate_map("f", {"x": ir.TensorType(F32, (2,))})
    (result,) = evaluate(elaborated, [np.ones(2, np.float32)])
    np.testing.assert_allclose(result, 3)


def test_missing_and_broken_imports_are_reported(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "broken.mto").write_text("map (\n")
    for name, kind in (("missing", Kind.UNREADABLE_FILE), ("broken", Kind.UNCLOSED_BRACKET)):
        text = f'from "{name}.mto" import f\nmap g(x: f32[n]): f(x)\n'
        program = Program.loads(text, directory=str(tmp_path))
        with pytest.raises(DiagnosticsError) as raised:
            program.elaborate_map("g", {"x": ir.TensorType(F32, (2,))})
        assert raised.value.diagnostics[0].kind is kind
