"""Factors of matrices against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import initial_slots, run_map

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
