"""Initializers: bounds, moments, orthogonality, seeds and streams."""

from __future__ import annotations

import math

import numpy as np
import pytest
from elaborating import Array, initial_slots, run_map

from mapsto import ir
from mapsto.dsl.program import Program

IN, OUT, WINDOW = 100, 200, (3, 2)
SIZE = math.prod(WINDOW)

# The least and greatest value that may occur, and the standard deviation, for [100, 200].
INITIALIZERS = {
    "zeros": (0, 0, 0),
    "ones": (1, 1, 0),
    "constant(0.5)": (0.5, 0.5, 0),
    "uniform": (0, 1, 1 / math.sqrt(12)),
    "uniform(-3, -2)": (-3, -2, 1 / math.sqrt(12)),
    "normal": (-6, 6, 1),
    "normal(std=0.02, mean=1)": (0.8, 1.2, 0.02),
    "glorot_uniform": (-math.sqrt(6 / 300), math.sqrt(6 / 300), math.sqrt(2 / 300)),
    "glorot_uniform(gain=2)": (-math.sqrt(24 / 300), math.sqrt(24 / 300), math.sqrt(8 / 300)),
    "glorot_normal": (-1, 1, math.sqrt(2 / 300)),
    "he_uniform": (-math.sqrt(6 / 100), math.sqrt(6 / 100), math.sqrt(2 / 100)),
    'he_uniform("fan_out")': (-math.sqrt(6 / 200), math.sqrt(6 / 200), math.sqrt(2 / 200)),
    "he_normal": (-1, 1, math.sqrt(2 / 100)),
    "lecun_uniform": (-math.sqrt(3 / 100), math.sqrt(3 / 100), math.sqrt(1 / 100)),
    "lecun_normal": (-1, 1, math.sqrt(1 / 100)),
    'variance_scaling(3, "fan_average", "truncated_normal")': (
        -2 * math.sqrt(3 / 150) / 0.8796,
        2 * math.sqrt(3 / 150) / 0.8796,
        math.sqrt(3 / 150),
    ),
}


def initialized(
    initializer: str, seed: int = 0, dtype: str = "f32", shape: tuple[int, ...] = (IN, OUT)
) -> Array:
    text = (
        f"module M():\n    param w: {dtype}{list(shape)} ~ {initializer}\n"
        f"    map (x: {dtype}): x * w"
    )
    instance = Program.loads(text).instantiate("M")
    instance.elaborate("", {"x": ir.TensorType(ir.DType(dtype))})
    return initial_slots(instance, seed)["w"]


@pytest.mark.parametrize("text", INITIALIZERS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_initializer(text: str, dtype: str) -> None:
    low, high, deviation = INITIALIZERS[text]
    values = initialized(text, dtype=dtype)
    assert values.dtype == ir.DType(dtype).numpy
    slack = 1e-6 * abs(low)
    assert low - slack <= values.min() and values.max() <= high + slack
    np.testing.assert_allclose(values.std(), deviation, rtol=0.03)


@pytest.mark.parametrize(
    ("text", "variance"),
    [
        ("glorot_normal", 2 / (SIZE * 300)),
        ("he_uniform", 2 / (SIZE * 100)),
        ('he_normal("fan_out")', 2 / (SIZE * 200)),
        ("lecun_normal", 1 / (SIZE * 100)),
    ],
)
def test_axes_before_the_last_two_are_a_window(text: str, variance: float) -> None:
    values = initialized(text, shape=(*WINDOW, IN, OUT))
    np.testing.assert_allclose(values.std(), math.sqrt(variance), rtol=0.03)


def test_the_identity() -> None:
    np.testing.assert_array_equal(initialized("identity_matrix", shape=(3, 4)), np.eye(3, 4))
    values = initialized("identity_matrix(2)", shape=(2, 3, 3))
    np.testing.assert_array_equal(values, np.stack([2 * np.eye(3)] * 2))


def test_equal_seeds_give_equal_bits_and_others_do_not() -> None:
    first, again, other = (initialized("normal", seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_parameters_have_streams_of_their_own() -> None:
    text = (
        "module M():\n    layers = [Dense(6), Dense(6)]\n    map (x: f32[n, 6]): chain(layers)(x)"
    )
    instance = Program.loads(text).instantiate("M")
    instance.elaborate("", {"x": ir.TensorType(ir.DType.F32, (2, 6))})
    slots = initial_slots(instance)
    assert not np.any(slots["layers.0.w"] == slots["layers.1.w"])


@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 4), ("fan_out", 6), ("fan_average", 5)])
def test_fans(mode: str, fan: float) -> None:
    assert run_map(f'map f(x: f32): x * fan_of(4, 6, "{mode}")', {"x": np.float32(1)}) == fan


@pytest.mark.parametrize("shape", [(20, 30), (30, 20), (2, 3, 4, 30), (3, 10, 4)])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_orthogonal(shape: tuple[int, ...], dtype: str) -> None:
    matrix = initialized("orthogonal(2)", shape=shape, dtype=dtype).reshape(-1, shape[-1]) / 2
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows < columns else matrix.T @ matrix
    limit = 1e-5 if dtype == "f32" else 1e-13
    np.testing.assert_allclose(product, np.eye(min(rows, columns)), atol=limit)


def test_rows_that_nearly_agree_become_orthogonal() -> None:
    x = np.ones((3, 4)) + 1e-6 * np.random.default_rng(0).normal(size=(3, 4))
    rows = run_map("map f(x: f64[n, m]): orthonormal_rows(x)", {"x": x})
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=1e-13)
