"""Hessians, `vmap` and loops against PyTorch's `torch.func` and its derivatives through loops."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

LIB = mt.loads("""
map score(x: f64[n], w: f64[n, n]) -> f64:
    sum(tanh(x @ w)^2) + prod(cos(x))

map each(x: f64[n, b], w: f64[n, n]) -> f64[b, n, n]:
    vmap(hessian(score), in_axes=(1, none))(x, w)

map recurrent(x: f64[t, d], h: f64[k], w: f64[k, k], u: f64[d, k]) -> f64:
    map step(h: f64[k], x: f64[d]) -> (f64[k], f64):
        let new = if sum(h) > 0 then tanh(h @ w + x @ u) else h @ w - x @ u
        (new, sum(new^2))
    let (last, outputs) = scan(step, h, x, reverse=true)
    sum(last) + sum(outputs)

map solved(a: f64[n, n], b: f64[n]) -> f64:
    map go(state: (f64[n], i32)) -> bool: norm(a @ state[0] - b) > 1e-6
    map step(state: (f64[n], i32)) -> (f64[n], i32):
        (state[0] + 0.3 * (b - a @ state[0]), state[1] + 1)
    let (x, steps) = while(go, step, (b, 0), bound=60)
    sum(x^2)
""")
RANDOM = np.random.default_rng(0)
X, W = RANDOM.normal(size=3), RANDOM.normal(size=(3, 3))


def score(x, w):  # type: ignore[no-untyped-def]
    return (torch.tanh(x @ w) ** 2).sum() + torch.cos(x).prod()


def test_hessian() -> None:
    expected = torch.func.hessian(score)(torch.tensor(X), torch.tensor(W))
    np.testing.assert_allclose(mt.hessian(LIB.score)(X, W), expected, rtol=1e-9, atol=1e-12)


def test_hessian_by_two_arguments() -> None:
    expected = torch.func.hessian(score, (0, 1))(torch.tensor(X), torch.tensor(W))
    found = mt.hessian(LIB.score, (0, 1))(X, W)
    for row, other in zip(found, expected, strict=True):
        for block, wanted in zip(row, other, strict=True):
            np.testing.assert_allclose(block, wanted, rtol=1e-9, atol=1e-12)


def test_hessians_along_an_axis() -> None:
    x = RANDOM.normal(size=(3, 4))
    every = torch.func.vmap(torch.func.hessian(score), in_dims=(1, None))
    expected = every(torch.tensor(x), torch.tensor(W))
    np.testing.assert_allclose(LIB.each(x, W), expected, rtol=1e-9, atol=1e-12)


def test_gradient_of_a_scan() -> None:
    given = (RANDOM.normal(size=(5, 2)), X, W / 2, RANDOM.normal(size=(2, 3)))
    tensors = [torch.tensor(array, requires_grad=True) for array in given]
    x, h, w, u = tensors
    total = torch.zeros((), dtype=torch.float64)
    for row in reversed(x):
        h = torch.tanh(h @ w + row @ u) if h.sum() > 0 else h @ w - row @ u
        total = total + (h**2).sum()
    (h.sum() + total).backward()
    found = mt.grad(LIB.recurrent, (0, 1, 2, 3))(*given)
    for slope, tensor in zip(found, tensors, strict=True):
        np.testing.assert_allclose(slope, tensor.grad, rtol=1e-9, atol=1e-12)


def test_gradient_of_a_bounded_while() -> None:
    a = np.eye(3) + 0.2 * W
    tensor, b = torch.tensor(a, requires_grad=True), torch.tensor(X)
    y = b
    while torch.linalg.norm(tensor @ y - b) > 1e-6:
        y = y + 0.3 * (b - tensor @ y)
    (y**2).sum().backward()
    np.testing.assert_allclose(mt.grad(LIB.solved)(a, X), tensor.grad, rtol=1e-8, atol=1e-10)
