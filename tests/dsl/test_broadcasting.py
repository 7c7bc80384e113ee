"""Maps of the library whose arguments broadcast, and types that say so."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt
from mapsto.dsl.checking import check
from mapsto.dsl.source import Source

TEXT = """
map angle(y: f64[n, m], x: f64[m]) -> f64[n, m]: atan2(y, x)

map length(x: f64[n, m]) -> f64[n, m]: hypot(x, 1)

map soft(x: f64[n], y: f64[n, 1]) -> f64[n, n]: logaddexp(x, y)

map limited(x: f64[n, m], low: f64[m], high: f64[n, 1]) -> f64[n, m]: clip(x, low, high)

map at_points(x: f64[n], y: f64[m]) -> f64[n, m]: [i, j] |-> atan2(x[i], y[j])

map slope(x: f64[n, m], low: f64[m]) -> f64[m]: grad(total, argnums=1)(x, low)

map total(x: f64[n, m], low: f64[m]) -> f64: sum(clip(x, low, 2))

map own[T](x: T[...], y: T[...], k: T = 2) -> T[...]: k * x - y

map owns(x: f64[n]) -> f64[n]: own(1, x) + own(x, 3.0, 0)
"""
LIB = mt.loads(TEXT)
X = np.array([[-2.0, -1.0, 0.5], [1.0, 2.0, 3.0]])
Y = np.array([1.0, -1.0, 0.25])


def test_the_program_is_right() -> None:
    assert check(Source("test.mto", TEXT)) == []


def test_agrees_with_numpy() -> None:
    high = np.array([[0.0], [1.5]])
    np.testing.assert_allclose(LIB.angle(X, Y), np.arctan2(X, Y))
    np.testing.assert_allclose(LIB.length(X), np.hypot(X, 1))
    np.testing.assert_allclose(LIB.soft(Y, Y[:, None]), np.logaddexp(Y, Y[:, None]))
    np.testing.assert_allclose(LIB.limited(X, Y - 1, high), np.clip(X, Y - 1, high))
    np.testing.assert_allclose(LIB.at_points(Y, X[0]), np.arctan2(Y[:, None], X[0]))
    np.testing.assert_allclose(LIB.owns(Y), 2 - Y - 3)


def test_the_derivative_by_a_bound_is_summed() -> None:
    np.testing.assert_allclose(LIB.slope(X, Y), (X < Y).sum(0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_numbers_in_python_take_the_dtype_of_arrays(dtype: type) -> None:
    x = np.array([1, 5, 9], dtype)
    result = LIB.clip(x, 2, 6)
    assert result.dtype == dtype
    assert result.tolist() == [2, 5, 6]


def test_a_generic_dtype_that_nothing_fixes_is_f32() -> None:
    lib = mt.loads("""
map third[T](a: T = 1) -> T: a / 3

map whole() -> f64: third()

map alone(): third()
""")
    assert lib.alone().dtype == np.float32
    assert lib.whole().dtype == np.float64
