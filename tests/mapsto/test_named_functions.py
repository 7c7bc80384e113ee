"""Functions from Python that are no maps of the text: built-in ones, and what names are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mapsto as mt
from mapsto.cli import main

X = np.array([[0.5, -1.0, 2.0], [0.0, 3.0, -0.25]], np.float32)

LIB = mt.loads(
    """
module Net(units: int = 3):
    layer = Dense(units)
    map (x: f32[n, d]) -> f32[n, units]: layer(x)

map scaled(factor: f32, x: f32[n]) -> f32[n]: factor * x
map loss(x: f32[n, d], y: f32[n, d]) -> f32: sum(x^2 * y)

inner = Net()
twice = chain([inner, inner, relu])
noisy = train_mode(chain([inner, Dropout(1.0)]))
half = partial(scaled, 0.5)
slope = grad(loss)
along = jvp(loss, argnums=[0, 1])
rows = vmap(softmax)
layers = [inner, relu]
"""
)


def test_built_in_functions() -> None:
    np.testing.assert_allclose(LIB.tanh(X), np.tanh(X), rtol=1e-6)
    np.testing.assert_allclose(LIB.maximum(X, np.zeros_like(X)), np.maximum(X, 0))
    np.testing.assert_allclose(LIB.sum(X), X.sum(), rtol=1e-6)
    assert mt.grad(LIB.sigmoid)(np.float32(0)) == pytest.approx(0.25)


def test_compositions_share_the_parameters_of_their_instances() -> None:
    first = LIB.twice(X)
    weights = LIB.inner.params["layer.w"]
    expected = np.maximum(X @ weights @ weights, 0)
    np.testing.assert_allclose(first, expected, rtol=1e-5, atol=1e-6)
    weights[...] = np.eye(3)
    np.testing.assert_allclose(LIB.twice(X), np.maximum(X, 0))


def test_modes() -> None:
    assert (LIB.noisy(X) == 0).all()


def test_partial_applications_take_what_is_left() -> None:
    np.testing.assert_array_equal(LIB.half(X[0]), X[0] / 2)
    np.testing.assert_array_equal(LIB.half(x=X[0]), X[0] / 2)
    with pytest.raises(mt.ArgumentError, match="at most 1 arguments"):
        LIB.half(1.0, X[0])


def test_derivatives() -> None:
    y = np.ones_like(X)
    np.testing.assert_allclose(LIB.slope(X, y), 2 * X, rtol=1e-6)
    np.testing.assert_allclose(mt.grad(LIB.loss)(X, y), LIB.slope(X, y))
    value, direction = LIB.along(X, y, X, y)
    assert value == pytest.approx(float((X**2).sum()), rel=1e-6)
    assert direction == pytest.approx(3 * float((X**2).sum()), rel=1e-6)
    np.testing.assert_allclose(LIB.rows(X), LIB.softmax(X), rtol=1e-6)


def test_what_is_no_function() -> None:
    with pytest.raises(TypeError, match="not callable"):
        LIB.layers(X)
    with pytest.raises(TypeError, match="grad takes a map"):
        mt.grad(LIB.layers)


def test_parameters_that_fit_into_no_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = r"first values of layer.w: f32\[3, 100000000000\]"
    with pytest.raises(MemoryError, match=message):
        LIB.Net(10**11)(X)
    program = tmp_path / "large.mto"
    program.write_text("module Large():\n    a = Dense(10^11)\n    map (x: f32[n, 3]): a(x)\n")
    np.save(tmp_path / "x.npy", X)
    given = ["--input", f"x={tmp_path / 'x.npy'}", "--output", str(tmp_path / "y.npy")]
    assert main(["run", f"{program}:Large", *given]) == 1
    assert "error: not enough memory" in capsys.readouterr().err
