"""Factors of matrices against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from elaborating import initial_slots, run_map

import mapsto as mt
from mapsto.dsl.program import Program

rng = np.random.default_rng(31)


@pytest.mark.parametrize("shape", [(5, 5), (12, 4), (3, 9), (1, 1)])
def test_polar(shape: tuple[int, int]) -> None:
    x = rng.normal(size=shape)
    left, _, right = np.linalg.svd(x, full_matrices=False)
    found = run_map("map f(x: f64[n, m]): polar(x)", {"x": x})
    np.testing.assert_allclose(found, left @ right, atol=1e-12)


@pytest.mark.parametrize("shape", [(24, 24), (24, 10), (10, 24), (3, 2, 4, 10)], ids=str)
def test_orthogonal_initializer(shape: tuple[int, ...]) -> None:
    program = Program.loads(f"""
module Layer():
    param w: f32{list(shape)} ~ orthogonal(gain=2)
    map (x: f32): x * w
""")
    first, second = (
        initial_slots(program.instantiate("Layer"), seed)["w"].reshape(-1, shape[-1])
        for seed in (0, 1)
    )
    gram = first.T @ first if first.shape[0] >= first.shape[1] else first @ first.T
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)
    assert np.abs(first - second).max() > 0.1


A = rng.normal(size=(5, 5))
B = rng.normal(size=(5, 2))
SPD = A @ A.T + np.eye(5)
CASES = [
    ("cholesky(a)", SPD, np.linalg.cholesky),
    ("solve_triangular(a, b)", A + 4 * np.eye(5), lambda a: np.linalg.solve(np.tril(a), B)),
    (
        "solve_triangular(a, b, upper=true)",
        A + 4 * np.eye(5),
        lambda a: np.linalg.solve(np.triu(a), B),
    ),
    ("solve(a, b)", A, lambda a: np.linalg.solve(a, B)),
    ("solve(flip(a, axis=0), b)", np.eye(5), lambda a: np.linalg.solve(a[::-1], B)),
    ("inverse(a)", A, np.linalg.inv),
    ("determinant(a)", A, np.linalg.det),
]


@pytest.mark.parametrize(("text", "a", "reference"), CASES, ids=[case[0] for case in CASES])
def test_values_and_derivatives(text: str, a: Any, reference: Any) -> None:
    source = f"""
map g(a: f64[n, n], b: f64[n, m]) -> f64: sum(sin({text}))
map f(a: f64[n, n], b: f64[n, m]): ({text}, g(a, b), grad(g)(a, b))
"""
    found, _, gradient = run_map(source, {"a": a, "b": B})
    np.testing.assert_allclose(found, reference(a), rtol=1e-9, atol=1e-12)
    direction, step = rng.normal(size=(5, 5)), 1e-6
    _, above, _ = run_map(source, {"a": a + step * direction, "b": B})
    _, below, _ = run_map(source, {"a": a - step * direction, "b": B})
    np.testing.assert_allclose(
        (gradient * direction).sum(), (above - below) / (2 * step), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("shape", [(5, 5), (6, 3), (4, 1)], ids=str)
def test_qr(shape: tuple[int, int]) -> None:
    a = rng.normal(size=shape)
    q, r = run_map("map f(a: f64[n, m]): qr(a)", {"a": a})
    np.testing.assert_allclose(q @ r, a, atol=1e-13)
    np.testing.assert_allclose(q.T @ q, np.eye(shape[1]), atol=1e-13)
    np.testing.assert_array_equal(r, np.triu(r))


def test_native_code() -> None:
    library = mt.loads("map f(a: f32[n, n], b: f32[n, m]): (solve(a, b), cholesky(a), qr(b)[0])")
    found = library.f(SPD.astype(np.float32), B.astype(np.float32))
    expected = np.linalg.solve(SPD, B), np.linalg.cholesky(SPD)
    for value, wanted in zip(found, expected, strict=False):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[2].T @ found[2], np.eye(2), atol=1e-5)


def test_rows_are_exchanged_for_large_pivots() -> None:
    a = np.array([[0.0, 2.0], [1.0, 1e-9]])
    x, pivots = run_map("map f(a: f64[n, n]): gauss_jordan(a, eye(n, dtype=f64))", {"a": a})
    np.testing.assert_allclose(x @ a, np.eye(2), atol=1e-15)
    np.testing.assert_allclose(pivots.prod(), -2)
