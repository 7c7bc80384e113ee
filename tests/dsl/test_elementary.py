"""Elementary functions of the standard library: values, derivatives, and what is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from elaborating import run_map

rng = np.random.default_rng(23)
WIDE = np.concatenate([rng.normal(size=40) * 3, rng.normal(size=10) * 1e-4, [0.0, 1.0, -1.0]])
POSITIVE = np.abs(WIDE) + 1e-3
OPEN = np.concatenate([rng.uniform(-0.999, 0.999, 40), rng.normal(size=10) * 1e-4, [0.0]])


def each(function: Callable[[float], float]) -> Callable[..., Any]:
    return np.vectorize(function, otypes=[np.float64])


def erfinv(x: float) -> float:
    """By bisection of erf, in the half with the sign of x."""
    low, high = 0.0, 6.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < abs(x) else (low, middle)
    return math.copysign(low, x)


FUNCTIONS = [
    ("tan", np.tan, WIDE, 1e-13),
    ("asin", np.arcsin, OPEN, 1e-13),
    ("acos", np.arccos, OPEN, 1e-13),
    ("sinh", np.sinh, WIDE, 1e-14),
    ("cosh", np.cosh, WIDE, 1e-14),
    ("asinh", np.arcsinh, np.append(WIDE, [1e12, -1e12]), 1e-14),
    ("acosh", np.arccosh, 1 + POSITIVE, 1e-13),
    ("atanh", np.arctanh, OPEN, 1e-12),
    ("log2", np.log2, np.append(POSITIVE, [8, 0.25, 1024]), 1e-14),
    ("log10", np.log10, POSITIVE, 1e-13),
    ("exp2", np.exp2, WIDE, 1e-14),
    ("cbrt", np.cbrt, WIDE, 1e-14),
    ("trunc", np.trunc, WIDE, 0),
    ("erfinv", each(erfinv), OPEN, 1e-10),
    ("lgamma", each(math.lgamma), np.append(POSITIVE * 9, [-0.5, -2.3, 0.2]), 1e-12),
]


@pytest.mark.parametrize(("name", "reference", "x", "bound"), FUNCTIONS, ids=lambda v: str(v)[:8])
def test_values(name: str, reference: Callable[..., Any], x: Any, bound: float) -> None:
    result = run_map(f"map f(x: f64[n]): {name}(x)", {"x": x})
    np.testing.assert_allclose(result, reference(x), rtol=bound, atol=bound)


@pytest.mark.parametrize(("name", "reference", "x", "bound"), FUNCTIONS, ids=lambda v: str(v)[:8])
def test_slopes(name: str, reference: Callable[..., Any], x: Any, bound: float) -> None:
    source = f"map g(x: f64[n]) -> f64: sum({name}(x))\nmap f(x: f64[n]): grad(g)(x)"
    x = x[(np.abs(x) > 1e-2) & (np.abs(np.abs(x) - 1) > 1e-2) & (np.abs(x) < 100)]
    if name == "tan":
        x = x[np.abs(np.cos(x)) > 0.1]
    step = 1e-6 * np.maximum(np.abs(x), 0.01)
    rise = (reference(x + step) - reference(x - step)) / (2 * step)
    np.testing.assert_allclose(run_map(source, {"x": x}), rise, rtol=1e-6, atol=1e-6)


def test_powers_of_two_have_whole_logarithms() -> None:
    x = np.exp2(np.arange(-60, 61)).astype(np.float32)
    found = run_map("map f(x: f32[n]): log2(x)", {"x": x})
    np.testing.assert_array_equal(found, np.arange(-60, 61))


X, Y = rng.normal(size=(2, 30)) * 3
SPECIAL = np.array([0, 1, -2.5, np.nan, np.inf, -np.inf])
PAIRS: list[tuple[str, Callable[..., Any]]] = [
    ("atan2(y, x)", lambda x, y: np.arctan2(y, x)),
    ("atan2(0 * y, 0 * x)", lambda x, y: 0 * x),
    ("hypot(x, y)", np.hypot),
    ("hypot(x * 1e300, y * 1e300)", lambda x, y: np.hypot(x * 1e300, y * 1e300)),
    ("logaddexp(x * 500, y * 500)", lambda x, y: np.logaddexp(x * 500, y * 500)),
    ("logcumsumexp(x * 500)", lambda x, y: np.logaddexp.accumulate(x * 500)),
]


@pytest.mark.parametrize(("text", "reference"), PAIRS, ids=[text for text, _ in PAIRS])
def test_pairs(text: str, reference: Callable[..., Any]) -> None:
    found = run_map(f"map f(x: f64[n], y: f64[n]): {text}", {"x": X, "y": Y})
    np.testing.assert_allclose(found, reference(X, Y), rtol=1e-13, atol=1e-13)


def test_what_is_finite() -> None:
    source = "map f(x: f64[n]): (isnan(x), isinf(x), isfinite(x), nan_to_num(x, limit=9))"
    nan, infinite, finite, replaced = run_map(source, {"x": SPECIAL})
    np.testing.assert_array_equal(nan, np.isnan(SPECIAL))
    np.testing.assert_array_equal(infinite, np.isinf(SPECIAL))
    np.testing.assert_array_equal(finite, np.isfinite(SPECIAL))
    np.testing.assert_array_equal(replaced, np.nan_to_num(SPECIAL, posinf=9, neginf=-9))


@pytest.mark.parametrize(
    "derivative", ["grad(g, argnums=[0, 1])(x, y)", "jvp(g, argnums=[0, 1])(x, y, x + 1, y - 1)"]
)
def test_no_slope_at_the_origin_is_nan(derivative: str) -> None:
    source = f"""
map g(x: f64[n], y: f64[n]) -> f64: sum(hypot(x, y) + atan2(y, x))
map f(x: f64[n], y: f64[n]): {derivative}
"""
    for found in run_map(source, {"x": np.zeros(2), "y": np.zeros(2)}):
        assert np.isfinite(found).all()


def test_lengths_of_what_is_no_number_are_none_and_of_infinite_sides_infinite() -> None:
    found = run_map("map f(x: f64[n]): hypot(x, 1)", {"x": np.array([np.nan, 0.0, -np.inf])})
    np.testing.assert_array_equal(found, [np.nan, 1, np.inf])


def test_the_norm_of_nothing_has_slope_0() -> None:
    source = """
map g(x: f64[n, m]) -> f64: sum(norm(x, axis=1))
map f(x: f64[n, m]): (grad(g)(x), jvp(g)(x, x + 1))
"""
    slope, (_, along) = run_map(source, {"x": np.array([[0.0, 0.0], [3.0, 4.0]])})
    np.testing.assert_allclose(slope, [[0, 0], [0.6, 0.8]])
    np.testing.assert_allclose(along, 0.6 * 4 + 0.8 * 5)
