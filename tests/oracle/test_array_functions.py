"""Array functions and their gradients against PyTorch, in double precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mapsto as mt

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

rng = np.random.default_rng(37)
X = rng.normal(size=(6, 5))
U = rng.normal(size=(4, 5))
IDS = np.array([2, 0, 2, 5], np.int64)


def scattered(kind: str) -> Callable[..., Any]:
    def reference(x: Any, u: Any, i: Any) -> Any:
        return x.scatter_reduce(0, i[:, None].expand(-1, 5), u, kind)

    return reference


FUNCTIONS: list[tuple[str, Callable[..., Any]]] = [
    ("cumsum(x, axis=0)", lambda x, u, i: x.cumsum(0)),
    ("cumprod(x)", lambda x, u, i: x.cumprod(1)),
    ("cummax(x, axis=0)", lambda x, u, i: x.cummax(0).values),
    ("cummin(round(x), axis=0) * x", lambda x, u, i: x.round().cummin(0).values * x),
    ("logcumsumexp(3 * x)", lambda x, u, i: (3 * x).logcumsumexp(1)),
    ("sort(x, axis=0, descending=true)", lambda x, u, i: x.sort(0, descending=True).values),
    ("top_k(x, 3)[0]", lambda x, u, i: x.topk(3).values),
    ("median(x)", lambda x, u, i: x.median(1).values),
    ("quantile(x, 0.3)", lambda x, u, i: x.quantile(0.3, dim=1)),
    ("scatter_add(x, i, u)", lambda x, u, i: x.index_add(0, i, u)),
    ("scatter_max(x, i, u)", scattered("amax")),
    ("scatter_min(x, i, u)", scattered("amin")),
    ("segment_sum(u, i, 6) + x", lambda x, u, i: x + torch.zeros(6, 5).double().index_add(0, i, u)),
    (
        'pad(x, [[2, 1], [0, 3]], mode="reflect")',
        lambda x, u, i: torch.nn.functional.pad(x[None], (0, 3, 2, 1), "reflect")[0],
    ),
    (
        'pad(x, [[2, 1], [0, 3]], mode="edge")',
        lambda x, u, i: torch.nn.functional.pad(x[None], (0, 3, 2, 1), "replicate")[0],
    ),
    ("roll(x, 2) * repeat(x, 1)", lambda x, u, i: x.roll(2, 1) * x),
    ("var(x, axis=0, correction=1)", lambda x, u, i: x.var(0)),
    ("std(x, axis=1)", lambda x, u, i: x.std(1, correction=0)),
    ("atan2(x, broadcast(u[0], x.shape))", lambda x, u, i: torch.atan2(x, u[0])),
    ("asinh(x) + sinh(x) + atan(x)", lambda x, u, i: x.asinh() + x.sinh() + x.atan()),
    ("erfinv(tanh(x)) + lgamma(abs(x) + 1)", lambda x, u, i: erfinv_and_lgamma(x)),
    (
        "hypot(x, x[:, ::-1]) + logaddexp(x, flip(x))",
        lambda x, u, i: x.hypot(x.flip(1)) + x.logaddexp(x.flip(0, 1)),
    ),
    ("cholesky(s(x))", lambda x, u, i: torch.linalg.cholesky(spd(x))),
    ("solve(s(x), transpose(u))", lambda x, u, i: torch.linalg.solve(spd(x), u.T)),
    ("inverse(s(x)) * determinant(s(x))", lambda x, u, i: spd(x).inverse() * spd(x).det()),
]


def erfinv_and_lgamma(x: Any) -> Any:
    return x.tanh().erfinv() + (x.abs() + 1).lgamma()


def spd(x: Any) -> Any:
    return x.T @ x + torch.eye(5).double()


@pytest.mark.parametrize(("text", "reference"), FUNCTIONS, ids=[f[0] for f in FUNCTIONS])
def test_value_and_gradient(text: str, reference: Callable[..., Any]) -> None:
    library = mt.loads(f"""
map s(x: f64[n, d]) -> f64[d, d]: transpose(x) @ x + eye(d, dtype=f64)
map f(x: f64[n, d], u: f64[q, d], i: i64[q]): {text}
map loss(x: f64[n, d], u: f64[q, d], i: i64[q]) -> f64: sum(sin(f(x, u, i)))
""")
    x, u = (torch.tensor(array, requires_grad=True) for array in (X, U))
    value = reference(x, u, torch.tensor(IDS))
    np.testing.assert_allclose(library.f(X, U, IDS), value.detach(), rtol=1e-9, atol=1e-12)
    value.sin().sum().backward()
    slopes = mt.grad(library.loss, argnums=(0, 1))(X, U, IDS)
    for slope, tensor in zip(slopes, (x, u), strict=True):
        expected = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(slope, expected, rtol=1e-7, atol=1e-9)
