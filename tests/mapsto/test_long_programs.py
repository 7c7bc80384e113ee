"""Programs with long chains of computations: no limit of Python's stack is met."""

from __future__ import annotations

import numpy as np

import mapsto as mt

STEPS = 200
LINES = "".join(f"    let y = sin(y + {i % 7}) * x\n" for i in range(STEPS))
LIBRARY = mt.loads(
    f"map run(x: f64[n]) -> f64[n]:\n    let y = x\n{LINES}    y\n"
    "map loss(x: f64[n]) -> f64: sum(run(x)^2)\n"
)
X = np.linspace(0.3, 0.8, 5)


def expected(x: np.ndarray) -> np.ndarray:
    y = x
    for i in range(STEPS):
        y = np.sin(y + i % 7) * x
    return y


def test_a_long_chain_of_operations() -> None:
    np.testing.assert_allclose(LIBRARY.run(X), expected(X), rtol=1e-8)


def test_the_gradient_of_a_long_chain() -> None:
    slope, step = mt.grad(LIBRARY.loss)(X), 1e-6
    rise = (expected(X + step) ** 2).sum() - (expected(X - step) ** 2).sum()
    np.testing.assert_allclose(slope.sum(), rise / (2 * step), rtol=1e-5)
