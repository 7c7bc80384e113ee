"""Training loops of one's own: in Python with `mt.update`, in the language with `update`."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt

PROGRAM = """
module Net():
    first = Dense(6, tanh)
    second = Dense(1)

    map (x: f32[n, 3]) -> f32[n, 1]: second(first(x))

map error(net: module, x: f32[n, 3], y: f32[n, 1]) -> f32: mse(net(x), y)

map step(net: module, optimizer: module, x: f32[n, 3], y: f32[n, 1]) -> f32:
    let (value, gradient) = value_and_grad(error)(net, x, y)
    update(optimizer, net, gradient)
    value

module Clipped(optimizer: module, limit: f32):
    map (p: tree, g: tree) -> tree: optimizer(p, g * minimum(1, limit / norm(g)))

train Fit(net = Net(), optimizer = Adam(lr=0.01)):
    loss(x: f32[n, 3], y: f32[n, 1]) = mse(net(x), y)

train Careful(net = Net(), optimizer = Clipped(SGD(lr=0.1, momentum=0.9), 0.5)):
    loss(x: f32[n, 3], y: f32[n, 1]) = mse(net(x), y)
"""


@pytest.fixture(scope="module")
def library() -> mt.Library:
    return mt.loads(PROGRAM)


def data() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.float32([[1], [2], [3]])}


def optimizer_of(library: mt.Library, block: str) -> mt.Instance:
    if block == "Fit":
        return library.Adam(lr=0.01)
    return library.Clipped(library.SGD(lr=0.1, momentum=0.9), 0.5)


@pytest.mark.parametrize("block", ["Fit", "Careful"])
def test_three_loops_make_the_same_steps(library: mt.Library, block: str) -> None:
    batch = data()
    run = getattr(library, block)(seed=3)
    in_python, in_language = library.Net(seed=3), library.Net(seed=3)
    first, second = optimizer_of(library, block), optimizer_of(library, block)
    gradient_of = mt.value_and_grad(library.error)
    for _ in range(5):
        expected = run.step(**batch)
        value, gradient = gradient_of(in_python, batch["x"], batch["y"])
        mt.update(first, in_python, gradient)
        assert float(value) == pytest.approx(expected, rel=1e-5)
        found = library.step(in_language, second, batch["x"], batch["y"])
        assert float(found) == pytest.approx(expected, rel=1e-5)
    for path, array in run.net.params.items():
        np.testing.assert_allclose(in_python.params[path], array, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(in_language.params[path], array, rtol=1e-4, atol=1e-6)


def test_some_parameters_and_several_nets(library: mt.Library) -> None:
    batch, optimizer = data(), library.Adam(lr=0.01)
    nets = [library.Net(seed=seed) for seed in (1, 2)]
    gradients = [mt.grad(library.error)(net, batch["x"], batch["y"]) for net in nets]
    before = [{path: a.copy() for path, a in net.params.items()} for net in nets]
    part = {path: g for path, g in gradients[0].items() if path.startswith("second")}
    mt.update(optimizer, nets[0], part)
    changed = {path for path, a in nets[0].params.items() if (a != before[0][path]).any()}
    assert changed == {"second.w", "second.b"}
    mt.update(optimizer, nets[1], gradients[1])
    for path, array in nets[1].params.items():
        # The first step of Adam has the size of the rate, whatever another net did before.
        g = gradients[1][path]
        expected = before[1][path] - 0.01 * g / (np.abs(g) + 1e-8)
        np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-6)


def test_what_is_no_gradient_and_no_optimizer(library: mt.Library) -> None:
    net = library.Net(seed=1).init(x=mt.f32[None, 3])
    bias = np.zeros(1, np.float32)
    with pytest.raises(mt.ArgumentError, match=r"no parameter third\.b; there are first\.w"):
        mt.update(library.Adam(), net, {"third.b": bias})
    with pytest.raises(mt.DiagnosticsError):
        mt.update(library.Adam(), net, {"second.b": np.zeros(2, np.float32)})
    with pytest.raises(mt.DiagnosticsError):
        mt.update(library.Net(), net, {"second.b": bias})
