"""Trees of parameters: arithmetic, reductions, maps and modules over them, updates of modules."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt
from mapsto.dsl.checking import check
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.source import Source

TEXT = """
module Net():
    layers = [Dense(3), Dense(1)]
    map (x: f32[n, d]) -> f32[n, 1]: chain(layers)(x)

map error(net: module, x: f32[n, d], y: f32[n, 1]) -> f32: mse(net(x), y)

map arithmetic(net: module, x: f32[n, d], y: f32[n, 1]):
    let g = grad(error)(net, x, y)
    let p = parameters(net)
    let limited = g * minimum(1, 0.5 / norm(g))
    (
        p - 0.1 * g,
        -g / 2 + p^2,
        tree_map(both, p, g),
        (norm(g), norm(limited), sum(abs(g)), max(p * p), all(g == g), mean(g)),
        if sum(g) > 1e9 then p else g,
        g.layers[1].b,
    )

map both(p: f32[...s], g: f32[...s]): (p + g, sum(p))

module Clipped(optimizer: module, limit: f32 = 1.0):
    state steps: i32 = 0

    map (p: tree, g: tree) -> tree:
        steps <- steps + 1
        optimizer(p, g * minimum(1, limit / norm(g)))

map step(net: module, optimizer: module, x: f32[n, d], y: f32[n, 1]) -> f32:
    let (value, gradient) = value_and_grad(error)(net, x, y)
    update(optimizer, net, gradient)
    value
"""
LIB = mt.loads(TEXT)
rng = np.random.default_rng(2)
X = rng.normal(size=(8, 4)).astype(np.float32)
Y = rng.normal(size=(8, 1)).astype(np.float32)


def total(tree: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum((leaf.astype(float) ** 2).sum() for leaf in tree.values())))


def test_the_program_is_right() -> None:
    assert check(Source("test.mto", TEXT)) == []


def test_arithmetic_and_reductions() -> None:
    net = LIB.Net(seed=4)
    g = mt.grad(LIB.error)(net, X, Y)
    moved, other, (added, sums), numbers, chosen, bias = LIB.arithmetic(net, X, Y)
    assert list(g) == ["layers.0.w", "layers.0.b", "layers.1.w", "layers.1.b"]
    for path, p in net.params.items():
        np.testing.assert_allclose(moved[path], p - 0.1 * g[path], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(other[path], -g[path] / 2 + p**2, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(added[path], p + g[path], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(sums[path], p.sum(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(chosen[path], g[path], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bias, g["layers.1.b"], rtol=1e-5)
    size = sum(leaf.size for leaf in g.values())
    expected = [
        total(g),
        min(total(g), 0.5),
        sum(np.abs(leaf).sum() for leaf in g.values()),
        max((p**2).max() for p in net.params.values()),
        True,
        sum(leaf.sum() for leaf in g.values()) / size,
    ]
    np.testing.assert_allclose(np.array(numbers, float), np.array(expected, float), rtol=1e-4)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_an_update_is_the_step_of_a_train_block(name: str) -> None:
    text = (
        TEXT
        + f"""
train Fit(net = Net(), optimizer = {name}(0.05)):
    loss(x: f32[n, 4], y: f32[n, 1]) = mse(net(x), y)
"""
    )
    lib = mt.loads(text)
    net, optimizer = lib.Net(seed=1), getattr(lib, name)(0.05)
    run = lib.Fit(seed=1)
    for _ in range(3):
        assert float(lib.step(net, optimizer, X, Y)) == pytest.approx(run.step(x=X, y=Y), rel=1e-6)
    for path, value in net.params.items():
        np.testing.assert_allclose(run.net.params[path], value, rtol=1e-5, atol=1e-7)
    if name == "Adam":
        assert "layers.0.w.m" in optimizer.states


def test_a_module_over_trees_sees_all_parameters() -> None:
    net, optimizer = LIB.Net(seed=1), LIB.Clipped(LIB.SGD(1.0), 0.25)
    net.init(x=mt.f32[8, 4])
    for _ in range(2):
        moved = {path: p.copy() for path, p in net.params.items()}
        g = mt.grad(LIB.error)(net, X, Y)
        LIB.step(net, optimizer, X, Y)
        change = {path: moved[path] - p for path, p in net.params.items()}
        assert total(change) == pytest.approx(min(0.25, total(g)), rel=1e-4)
    assert optimizer.states["steps"] == 2


def test_an_optimizer_over_trees_trains_a_block() -> None:
    text = (
        TEXT
        + """
train Fit(net = Net(), optimizer = Clipped(Adam(0.05), 0.25)):
    loss(x: f32[n, 4], y: f32[n, 1]) = mse(net(x), y)

train Parts(net = Net(), optimizer = [("layers.0.*", Clipped(SGD(1), 0.25)), ("*", SGD(0.1))]):
    loss(x: f32[n, 4], y: f32[n, 1]) = mse(net(x), y)
"""
    )
    lib = mt.loads(text)
    net, optimizer, run = lib.Net(seed=1), lib.Clipped(lib.Adam(0.05), 0.25), lib.Fit(seed=1)
    for _ in range(3):
        assert float(lib.step(net, optimizer, X, Y)) == pytest.approx(run.step(x=X, y=Y), rel=1e-6)
    assert {"optimizer.steps", "optimizer.optimizer.layers.1.b.v"} <= set(run.arrays)
    parts = lib.Parts(seed=1)
    parts.net.init(x=mt.f32[8, 4])
    before = {path: p.copy() for path, p in parts.net.params.items()}
    g = mt.grad(lib.error)(parts.net, X, Y)
    parts.step(x=X, y=Y)
    change = {path: before[path] - p for path, p in parts.net.params.items()}
    first = {path: c for path, c in change.items() if path.startswith("layers.0")}
    assert total(first) == pytest.approx(0.25, rel=1e-4)
    np.testing.assert_allclose(change["layers.1.w"], 0.1 * g["layers.1.w"], rtol=1e-3, atol=1e-6)


def test_one_optimizer_of_two_nets_has_states_for_each() -> None:
    text = (
        TEXT
        + """
map both_steps(a: module, b: module, optimizer: module, x: f32[n, d], y: f32[n, 1]) -> f32:
    let (first, g) = value_and_grad(error)(a, x, y)
    update(optimizer, a, g)
    let (second, h) = value_and_grad(error)(b, a(x), y)
    update(optimizer, b, h)
    first + second
"""
    )
    lib = mt.loads(text)
    a, b, optimizer = lib.Net(seed=1), lib.Net(seed=2), lib.Adam(0.01)
    first = lib.both_steps(a, b, optimizer, X, Y)
    assert lib.both_steps(a, b, optimizer, X, Y) < first
    assert {"layers.0.w.m", "layers.0.w.2.m"} <= set(optimizer.states)


LOOPS = """
module Line():
    param w: f64 ~ ones

    map (x: f64[n]) -> f64[n]: w * x

map error(net: module, x: f64[n], y: f64[n]) -> f64: mse(net(x), y)

map descent(p: tree, g: tree) -> tree: p - 0.1 * g

map step(net: module, optimizer: module, x: f64[n], y: f64[n]) -> f64:
    let (value, gradient) = value_and_grad(error)(net, x, y)
    update(optimizer, net, gradient)
    value

map steps(net: module, optimizer: module, x: f64[k, n], y: f64[k, n]) -> f64[k]:
    map one(count: i32, batch: (f64[n], f64[n])):
        let (x, y) = batch
        (count + 1, step(net, optimizer, x, y))

    let (_, values) = scan(one, 0, (x, y))
    values

map adapted(net: module, x: f64[n], y: f64[n]) -> f64:
    map one(count: i32, i: i32):
        update(descent, net, grad(error)(net, x, y))
        (count, i)

    let _ = scan(one, 0, length=3)
    error(net, x, y)

map by_start(net: module, x: f64[n], y: f64[n]): value_and_grad(adapted)(net, x, y)

map converge(net: module, x: f64[n], y: f64[n]) -> i32:
    map large(count: i32): error(net, x, y) > 1e-6

    map one(count: i32):
        update(descent, net, grad(error)(net, x, y))
        count + 1

    while(large, one, 0)

map improve(net: module, x: f64[n], y: f64[n]) -> f64:
    let before = error(net, x, y)
    if before > 1:
        update(descent, net, grad(error)(net, x, y))
    else:
        update(descent, net, 2 * grad(error)(net, x, y))
    error(net, x, y) / before
"""
TRAINING = mt.loads(LOOPS)
AT, ON = np.array([1.0, 2.0]), np.array([3.0, 6.0])


def test_a_training_loop_is_one_scan() -> None:
    x = rng.normal(size=(6, 8))
    first, second = TRAINING.Line(seed=0), TRAINING.Line(seed=0)
    adam, other = TRAINING.Adam(0.1), TRAINING.Adam(0.1)
    values = TRAINING.steps(first, adam, x, 3 * x)
    expected = [TRAINING.step(second, other, batch, 3 * batch) for batch in x]
    np.testing.assert_allclose(values, expected)
    np.testing.assert_allclose(first.params["w"], second.params["w"])
    assert adam.states["w.t"] == other.states["w.t"] == 6


def test_a_derivative_through_updates() -> None:
    """A step halves the distance of w from 3, so the error after three of them is known."""
    net = TRAINING.Line(seed=0)
    value, gradient = TRAINING.by_start(net, AT, ON)
    assert value == pytest.approx(2.5 * (2 / 8) ** 2)
    assert gradient["w"] == pytest.approx(2 * 2.5 * (-2 / 8) / 8)
    assert net.params["w"] == pytest.approx(3 - 2 / 8)


def test_updates_in_while_and_if() -> None:
    net = TRAINING.Line(seed=0)
    assert TRAINING.converge(net, AT, ON) == 12
    assert net.params["w"] == pytest.approx(3 - 2 / 2**12)
    assert TRAINING.improve(net, AT, ON) == pytest.approx(0, abs=1e-9)
    net = TRAINING.Line(seed=0)
    assert TRAINING.improve(net, AT, ON) == pytest.approx(1 / 4)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("grad(error)(net, x, y) + grad(error)(other, x, y)", Kind.TREES_DIFFER),
        ("tree_map(tanh, x)", Kind.WRONG_KIND),
        ("tree_map(1, parameters(net))", Kind.NOT_CALLABLE),
        ("parameters(x)", Kind.WRONG_KIND),
        ("update(SGD(), net, parameters(net))", Kind.NO_VALUE),
        ("argmax(parameters(net))", Kind.NOT_A_TENSOR),
        ("parameters(net) + tanh", Kind.BAD_OPERAND),
        ("[i] |-> moved(x, x[i, 0])", Kind.STATE_IN_INDEX),
    ],
)
def test_mistakes(body: str, kind: Kind) -> None:
    text = f"""{TEXT}
net = Net()
other = Net()
map moved(x: f32[4, 4], rate: f32) -> f32:
    update(SGD(), net, rate * grad(error)(net, x, x[:, :1]))
    rate
map f(x: f32[4, 4], y: f32[4, 1]):
    let first = net(x) + other(x)
    {body}
"""
    found = [diagnostic.kind for diagnostic in check(Source("test.mto", text))]
    assert found[:1] == [kind]
