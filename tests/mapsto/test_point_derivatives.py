"""Derivatives inside index notation and under `vmap`: one at each point."""

import numpy as np
import pytest

import mapsto as mt

LIB = mt.loads("""
map loss(w: f64[d], x: f64[d], y: f64) -> f64:
    (sum(w * x) - y)^2

map of_each(w: f64[d], x: f64[n, d], y: f64[n]) -> f64[n, d]:
    map one(x: f64[d], y: f64) -> f64[d]:
        grad(loss)(w, x, y)
    vmap(one)(x, y)

map of_each_captured(w: f64[d], x: f64[n, d], y: f64[n]) -> f64[n, d]:
    map one(x: f64[d], y: f64) -> f64[d]:
        map at(w: f64[d]) -> f64:
            loss(w, x, y)
        grad(at)(w)
    vmap(one)(x, y)

map penalty(w: f64[d], x: f64[n, d], y: f64[n]) -> f64:
    map one(x: f64[d], y: f64) -> f64:
        sum(grad(loss)(w, x, y)^2)
    sum(vmap(one)(x, y))

map product(a: f64, b: f64) -> f64:
    a^2 * b^3

map slopes(x: f64[n], y: f64[m]) -> f64[n, m]:
    [i, j] |-> grad(product, 1)(x[i], y[j])

map curvatures(x: f64[n], y: f64[m]) -> f64[n, m]:
    map twice(a: f64, b: f64) -> f64:
        grad(grad(product))(a, b)
    [i, j] |-> twice(x[i] * y[j], y[j])

map jacobian(x: f64[n]) -> f64[n, n]:
    map curve(x: f64[n]) -> f64[n]:
        sin(x) * sum(x)
    map along(dx: f64[n]) -> f64[n]:
        let (value, slope) = jvp(curve)(x, dx)
        slope
    let basis: f64[n, n] = [i, j] |-> if i == j then 1 else 0
    vmap(along)(basis)
""")
RANDOM = np.random.default_rng(0)
W, X, Y = RANDOM.normal(size=3), RANDOM.normal(size=(5, 3)), RANDOM.normal(size=5)
EACH = 2 * (X @ W - Y)[:, None] * X


@pytest.mark.parametrize("name", ["of_each", "of_each_captured"])
def test_gradients_of_each_example(name: str) -> None:
    np.testing.assert_allclose(getattr(LIB, name)(W, X, Y), EACH)


def test_from_python() -> None:
    weights = np.tile(W, (5, 1))
    np.testing.assert_allclose(mt.vmap(mt.grad(LIB.loss))(weights, X, Y), EACH)
    values, slopes = mt.vmap(mt.value_and_grad(LIB.loss))(weights, X, Y)
    np.testing.assert_allclose(values, (X @ W - Y) ** 2)
    np.testing.assert_allclose(slopes, EACH)


def test_at_two_indices() -> None:
    expected = W[:, None] ** 2 * 3 * Y**2
    np.testing.assert_allclose(LIB.slopes(W, Y), expected)
    np.testing.assert_allclose(LIB.curvatures(W, Y), np.broadcast_to(2 * Y**3, (3, 5)))


def test_derivative_of_gradients_of_each_example() -> None:
    steps = 1e-6 * np.eye(3)
    expected = [(LIB.penalty(W + e, X, Y) - LIB.penalty(W - e, X, Y)) / 2e-6 for e in steps]
    np.testing.assert_allclose(mt.grad(LIB.penalty)(W, X, Y), expected, rtol=1e-6)


def test_jacobian_by_directions() -> None:
    expected = np.diag(np.cos(W) * W.sum()) + np.sin(W)[:, None]
    np.testing.assert_allclose(LIB.jacobian(W), expected.T)
