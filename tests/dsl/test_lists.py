"""Lists that take in others, and names that take tuples apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from elaborating import run_map

from mapsto.dsl.checking import check
from mapsto.dsl.source import Source

X = np.arange(48.0).reshape(2, 4, 6)
V = np.array([1.0, 2.0, 3.0])

TILES = """
map f(x: f64[...s, 2*h, 2*w]) -> f64[...s, h, w]:
    max(reshape(x, [...s, h, 2, w, 2]), axis=[-1, -3])
"""
SHAPES = """
map f(x: f64[...s, n], extra: list = [2, 3]):
    let noise: f64[...s, 1] = uniform(i64(1), shape=[...s, 1])
    let wide = broadcast(x + 0 * noise, [...extra, ...s, n])
    full([...extra, ...s, n], 0.5, dtype=f64) + wide
"""
POSITIONS = """
map f(x: f64[...s, n]): [...s, i] |-> x[...s, i] + sum_of([...s, i])

map sum_of(items: list):
    let total = 0
    for item in items:
        let total = total + item
    total
"""
GRADIENTS = """
map loss(w: f64[d], b: f64): (w @ w + b^2, w)

map f(x: f64[d]):
    let ((value, same), (dw, db)) = value_and_grad(loss, argnums=[0, 1])(x, f64(3))
    value + sum(dw) + db + sum(same)
"""
ROUNDS = """
map f(x: f64[n]):
    let total = 0
    for (factor, (g, times)) in [(2, (relu, 3)), (5, (tanh, 0))]:
        let total = total + factor * times * g(x)
    let (a, b), c = ((1, 2), 3)
    total * a * b / (b + c - 3)
"""
CASES: list[tuple[str, str, dict[str, Any], Callable[..., Any]]] = [
    ("tiles", TILES, {"x": X}, lambda x: x.reshape(2, 2, 2, 3, 2).max((-1, -3))),
    ("shapes", SHAPES, {"x": X}, lambda x: np.broadcast_to(x + 0.5, (2, 3, 2, 4, 6))),
    ("positions", POSITIONS, {"x": X}, lambda x: x + np.indices(x.shape).sum(0)),
    ("gradients", GRADIENTS, {"x": V}, lambda x: x @ x + 9 + 3 * x.sum() + 6),
    ("rounds", ROUNDS, {"x": V}, lambda x: 6 * x),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_agrees_with_numpy(case: tuple[str, str, dict[str, Any], Callable[..., Any]]) -> None:
    _, text, arguments, reference = case
    assert check(Source("test.mto", text)) == []
    np.testing.assert_allclose(run_map(text, arguments), reference(**arguments))
