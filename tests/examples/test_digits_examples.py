"""The examples that train on handwritten digits, for fewer epochs than their heads say."""

import json
from pathlib import Path

import numpy as np
import pytest

import mapsto as mt
from mapsto.cli import main

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
DATA = EXAMPLES / "data" / "digits.npz"
TRAINED = ("digits", "own_parts", "convolution", "custom_layer", "mnist_cnn", "mnist_rows_lstm")


@pytest.mark.parametrize(
    ("example", "epochs", "accuracy"),
    [
        ("digits", 8, 0.93),
        ("own_parts", 8, 0.93),
        ("convolution", 8, 0.93),
        ("custom_layer", 8, 0.9),
    ],
)
def test_trains(example: str, epochs: int, accuracy: float, capsys) -> None:
    command = ["train", str(EXAMPLES / f"{example}.mto"), "--data", str(DATA), "--json"]
    assert main([*command, "--epochs", str(epochs)]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    reached = [record for record in records if "epoch" in record][-1]
    assert reached["epoch"] == epochs
    assert reached["test"]["accuracy"] >= accuracy


@pytest.mark.parametrize(("example", "accuracy"), [("mnist_cnn", 0.6), ("mnist_rows_lstm", 0.25)])
def test_trains_on_a_part(example: str, accuracy: float, capsys, tmp_path) -> None:
    """On 1,280 digits of MNIST instead of 8,000, for two epochs."""
    data = np.load(EXAMPLES / "data" / "mnist.npz")
    part = {name: data[name][:1280] for name in data.files}
    np.savez(tmp_path / "part.npz", **part)
    command = ["train", str(EXAMPLES / f"{example}.mto"), "--data", str(tmp_path / "part.npz")]
    assert main([*command, "--json", "--epochs", "2"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    reached = [record for record in records if "epoch" in record][-1]
    assert reached["test"]["accuracy"] >= accuracy


@pytest.mark.parametrize("example", [*TRAINED, "custom_pass"])
def test_is_laid_out(example: str) -> None:
    assert main(["fmt", "--check", str(EXAMPLES / f"{example}.mto")]) == 0


@pytest.mark.parametrize("example", TRAINED)
def test_has_no_mistakes(example: str) -> None:
    assert main(["check", str(EXAMPLES / f"{example}.mto")]) == 0


@pytest.mark.parametrize("example", [*TRAINED, "custom_pass"])
def test_tells_how_to_run_it(example: str) -> None:
    path = EXAMPLES / f"{example}.mto"
    text = path.with_suffix(".py").read_text() if example == "custom_pass" else path.read_text()
    assert f"examples/{example}.mto" in text
    assert "rints" in text


def test_own_activation() -> None:
    lib = mt.load(EXAMPLES / "own_parts.mto")
    x = np.linspace(-4, 4, 101, dtype=np.float32)
    np.testing.assert_allclose(lib.snake(x), x + np.sin(x) ** 2, atol=1e-6)
    np.testing.assert_allclose(lib.snake(x, 2.0), x + np.sin(2 * x) ** 2 / 2, atol=1e-6)


def test_own_layer() -> None:
    layer = mt.load(EXAMPLES / "own_parts.mto").Gated(7, seed=1)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    y, p = layer(x), layer.params
    gate = 1 / (1 + np.exp(-(x @ p["v"] + p["c"])))
    np.testing.assert_allclose(y, (x @ p["w"] + p["b"]) * gate, rtol=1e-5, atol=1e-6)
    assert y.shape == (5, 7)


def test_own_loss() -> None:
    lib = mt.load(EXAMPLES / "own_parts.mto")
    random = np.random.default_rng(0)
    logits = random.normal(size=(9, 10)).astype(np.float32)
    y = random.integers(0, 10, 9).astype(np.int32)
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    p = scores[np.arange(9), y]
    np.testing.assert_allclose(
        lib.focal_loss(logits, y), np.mean(-((1 - p) ** 2) * np.log(p)), rtol=1e-5
    )
    # Without focus it is cross entropy, and so is its gradient.
    np.testing.assert_allclose(
        lib.focal_loss(logits, y, 0.0), lib.cross_entropy(logits, y), rtol=1e-5
    )
    slope = mt.grad(lib.focal_loss)(logits, y)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope.sum(1), np.zeros(9), atol=1e-6)


def test_own_optimizer() -> None:
    """Lion's steps, against the same in NumPy."""
    lib = mt.loads(
        (EXAMPLES / "own_parts.mto").read_text()
        + """
module Scale():
    param w: f32[d] ~ ones

    map (x: f32[n, d]) -> f32[n]:
        x @ w

train Fit(net = Scale(), optimizer = Lion(lr=0.01, weight_decay=0.1)):
    loss(x: f32[n, d], y: f32[n]) = mse(net(x), y)
"""
    )
    random = np.random.default_rng(0)
    x, y = random.normal(size=(20, 3)).astype(np.float32), random.normal(size=20)
    run = lib.Fit()
    w, m = np.ones(3), np.zeros(3)
    for _ in range(10):
        run.step(x=x, y=y.astype(np.float32))
        g = 2 / 20 * x.T @ (x @ w - y)
        direction = np.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
        w -= 0.01 * (direction + 0.1 * w)
    np.testing.assert_allclose(run.net.params["w"], w, rtol=1e-5)


def test_convolution_keeps_the_size_and_halves_it() -> None:
    lib = mt.load(EXAMPLES / "convolution.mto")
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 6)).astype(np.float32)
    assert lib.Convolution(5)(x).shape == (2, 5, 8, 6)
    expected = x.reshape(2, 3, 4, 2, 3, 2).max((3, 5))
    np.testing.assert_array_equal(lib.pool(x), expected)
