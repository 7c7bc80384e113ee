"""Sizes of 0 and 1 in every position: native code against NumPy and the reference evaluator."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import mapsto as mt
from mapsto.dsl.program import Program
from mapsto.ir.evaluator import evaluate
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.pipeline import DEFAULT

PROGRAMS = {
    "product": "x @ y",
    "layer": "relu(x @ y + 1)",
    "softmax": "softmax(x) * sum(y)",
    "column sums": "sum(x, axis=0) @ y",
    "transposed": "reshape(transpose(x), [k, n]) + sum(y)",
    "reshaped view": "reshape(transpose(x), [n * k]) + sum(y)",
    "joined": "concat([x[:, ::-1], transpose(y)[:1]], axis=0)",
    "windows": "[a, b] |-> sum[c, d](x[a + c - 1, 2*b - d] * y[c, d] + x[a, b])",
    "outer": "[a, b, c] |-> x[a, b] * y[b, c] + x[a, b]",
    "diagonal": "[a, c] |-> sum[b](x[a, k - 1 - b] * y[b, c])",
}
LIBRARY = {
    name: mt.loads(
        f"map f(x: f64[n, k], y: f64[k, m]):\n    {body}\n"
        "map loss(x: f64[n, k], y: f64[k, m]) -> f64:\n    sum(f(x, y)^2)\n"
    )
    for name, body in PROGRAMS.items()
}
SIZES = [sizes for sizes in itertools.product((0, 1, 3), repeat=3) if 0 in sizes or 1 in sizes]


def arguments(n: int, k: int, m: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(n + 7 * k + 49 * m)
    return rng.normal(size=(n, k)), rng.normal(size=(k, m))


@pytest.mark.parametrize("name", PROGRAMS)
def test_sizes_of_zero_and_one(name: str) -> None:
    library = LIBRARY[name]
    gradient = mt.grad(library.loss, argnums=(0, 1))
    for sizes in SIZES:
        given = arguments(*sizes)
        np.testing.assert_allclose(
            library.f(*given), library.f.reference(*given), rtol=1e-10, err_msg=str(sizes)
        )
        for slope, expected in zip(gradient(*given), gradient.reference(*given), strict=True):
            np.testing.assert_allclose(slope, expected, rtol=1e-10, err_msg=str(sizes))


def test_products_over_nothing_are_zero() -> None:
    product = LIBRARY["product"].f
    np.testing.assert_array_equal(product(np.ones((2, 0)), np.ones((0, 3))), np.zeros((2, 3)))
    assert product(np.ones((0, 4)), np.ones((4, 3))).shape == (0, 3)


def test_there_may_be_no_products() -> None:
    library = mt.loads("map f(x: f32[n, m, k], y: f32[n, k, j]) -> f32[n, m, j]: x @ y")
    nothing = np.zeros((0, 32, 32), np.float32)
    assert library.f(nothing, nothing).shape == (0, 32, 32)


@pytest.mark.parametrize("n", range(6))
def test_sizes_that_divide_to_zero(n: int) -> None:
    library = mt.loads("map f(x: f32[n]) -> f32[n / 2]: [i] |-> x[2*i + 1]")
    x = np.arange(n, dtype=np.float32)
    np.testing.assert_array_equal(library.f(x), x[1::2])


@pytest.mark.parametrize("body", ["argmax(x)", "argmin[i](x[i])", "categorical(7, x)"])
def test_nothing_has_no_greatest_position(body: str) -> None:
    positions = mt.loads(f"map f(x: f32[n]):\n    {body}\n").f
    assert positions(np.zeros(1, np.float32)) == 0
    with pytest.raises(mt.DiagnosticsError, match="searches is 0, expected at least 1"):
        positions(np.zeros(0, np.float32))


@pytest.mark.parametrize("n", range(4))
def test_second_derivatives_of_products_of_named_size(n: int) -> None:
    text = (
        "map product(x: f64[n]) -> f64: prod(x)\n"
        "map slopes(x: f64[n]) -> f64: sum(grad(product)(x))\n"
        "map curvature(x: f64[n]) -> f64[n]: grad(slopes)(x)\n"
    )
    elaborated = Program.loads(text).elaborate_map("curvature", {"x": mt.f64["n"]})
    module = PassRunner(DEFAULT).run(elaborated.module)
    x = np.arange(2.0, 2.0 + n)
    (found,) = evaluate(module, elaborated.entry, [x])
    others = [[np.prod(np.delete(x, [i, j])) for j in range(n) if j != i] for i in range(n)]
    np.testing.assert_allclose(found, [sum(row) for row in others])
