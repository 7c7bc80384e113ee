"""Second derivatives of a perceptron's loss in f64: Hessian-vector products as PyTorch's."""

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

PROGRAM = """
map loss(w: f64[d, h], v: f64[h, k], x: f64[n, d], y: i32[n]) -> f64:
    cross_entropy(gelu(x @ w) @ v, y)

map forward_over_reverse(w: f64[d, h], v: f64[h, k], x: f64[n, d], y: i32[n],
        dw: f64[d, h], dv: f64[h, k]) -> (f64[d, h], f64[h, k]):
    map slope(w: f64[d, h], v: f64[h, k]) -> (f64[d, h], f64[h, k]):
        grad(loss, [0, 1])(w, v, x, y)
    let (value, product) = jvp(slope, [0, 1])(w, v, dw, dv)
    product

map reverse_over_reverse(w: f64[d, h], v: f64[h, k], x: f64[n, d], y: i32[n],
        dw: f64[d, h], dv: f64[h, k]) -> (f64[d, h], f64[h, k]):
    map along(w: f64[d, h], v: f64[h, k]) -> f64:
        let (by_w, by_v) = grad(loss, [0, 1])(w, v, x, y)
        sum(by_w * dw) + sum(by_v * dv)
    grad(along, [0, 1])(w, v)

map reverse_over_forward(w: f64[d, h], v: f64[h, k], x: f64[n, d], y: i32[n],
        dw: f64[d, h], dv: f64[h, k]) -> (f64[d, h], f64[h, k]):
    map along(w: f64[d, h], v: f64[h, k]) -> f64:
        let (value, slope) = jvp(loss, [0, 1])(w, v, x, y, dw, dv)
        slope
    grad(along, [0, 1])(w, v)
"""

MODES = ("forward_over_reverse", "reverse_over_reverse", "reverse_over_forward")


def problem() -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(11)
    w, v, dw, dv = (random.normal(size=s) for s in ((6, 8), (8, 4), (6, 8), (8, 4)))
    return w, v, random.normal(size=(12, 6)), random.integers(0, 4, 12).astype(np.int32), dw, dv


def expected(w, v, x, y, dw, dv) -> tuple[np.ndarray, ...]:
    target = torch.tensor(y, dtype=torch.int64)

    def loss(w: "torch.Tensor", v: "torch.Tensor") -> "torch.Tensor":
        scores = torch.nn.functional.gelu(torch.tensor(x) @ w) @ v
        return torch.nn.functional.cross_entropy(scores, target)

    at, along = (torch.tensor(w), torch.tensor(v)), (torch.tensor(dw), torch.tensor(dv))
    _, product = torch.autograd.functional.hvp(loss, at, along)
    return tuple(part.numpy() for part in product)


@pytest.mark.parametrize("mode", MODES)
def test_hessian_vector_product(mode: str) -> None:
    found = getattr(mt.loads(PROGRAM), mode)(*problem())
    for ours, theirs in zip(found, expected(*problem()), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


def test_hessian_vector_product_from_python() -> None:
    w, v, x, y, dw, dv = problem()
    slope = mt.grad(mt.loads(PROGRAM).loss, (0, 1))
    _, found = mt.jvp(slope, (0, 1))(w, v, x, y, dw, dv)
    for ours, theirs in zip(found, expected(*problem()), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
