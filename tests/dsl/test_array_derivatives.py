"""Derivatives of array functions, first and second, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import run_map

rng = np.random.default_rng(29)
X = rng.normal(size=(3, 4))
D = rng.normal(size=(3, 4))

EXPRESSIONS = [
    "stack([x, x * x], axis=1)",
    "concat(split(x, [1, 3], axis=1), axis=1)",
    'pad(x, [1, [2, 0]], mode="reflect")',
    'pad(x, 1, mode="edge")',
    'pad(x, [[0, 2], 1], mode="wrap")',
    "pad(x, 1, value=sum(x))",
    "roll(flip(x), 3)",
    "repeat(x, 2, axis=0) * tile(x, [2, 1])",
    "swap_axes(expand_dims(x, 0), 0, 2)",
    "cumsum(x, exclusive=true)",
    "cumprod(x, reverse=true)",
    "cummax(x, axis=0)",
    "cummin(x)",
    "recurrence(sin(x), x)",
    "logcumsumexp(x)",
    "sort(x, axis=0)",
    "top_k(x, 2)[0]",
    "median(x)",
    "take_along(x, argsort(x, descending=true))",
    "scatter_add(x, [0, 2, 0], 2 * x)",
    "scatter(x, [0, 2, 0], exp(x))",
    "scatter_max(x, [0, 2, 0], exp(x))",
    "segment_min(x, [0, 1, 0], 2)",
    "segment_mean(x, [0, 1, 0], 2)",
    "dynamic_slice(x, [k, 1], [2, 2])",
    "dynamic_update(x, x[:2, :3]^2, [k, 1])",
    "[i] |-> dynamic_update(x[i, :], x[i, :2]^2, k + 1)",
    "var(x, axis=1, correction=1) + std(x, axis=1) + norm(x, axis=1)",
    "kron(x, x)",
    "triu(x)",
]


def with_ids(text: str) -> str:
    """Lists of positions as the tensor `ids`; the language has no list of numbers as a tensor."""
    return text.replace("[0, 2, 0]", "ids").replace("[0, 1, 0]", "ids / 2")


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_derivatives(text: str) -> None:
    source = f"""
map g(x: f64[n, m], k: i32, ids: i32[n]) -> f64: sum(sin({with_ids(text)}))
map slope(x: f64[n, m], k: i32, ids: i32[n]): grad(g)(x, k, ids)
map f(x: f64[n, m], d: f64[n, m], k: i32, ids: i32[n]):
    map along(v: f64[n, m]): slope(v, k, ids)
    let (gradient, change) = jvp(along)(x, d)
    (g(x, k, ids), gradient, change)
"""
    fixed = {"k": np.array(1, np.int32), "ids": np.array([0, 2, 0], np.int32)}
    _, gradient, change = run_map(source, {"x": X, "d": D, **fixed})
    step = 1e-5
    above, slope_above, _ = run_map(source, {"x": X + step * D, "d": D, **fixed})
    below, slope_below, _ = run_map(source, {"x": X - step * D, "d": D, **fixed})
    np.testing.assert_allclose(
        (gradient * D).sum(), (above - below) / (2 * step), rtol=1e-6, atol=1e-8
    )
    rise = (slope_above - slope_below) / (2 * step)
    np.testing.assert_allclose(change, rise, rtol=1e-5, atol=1e-7)
    assert np.abs(gradient).max() > 0
