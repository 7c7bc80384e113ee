"""Operators that a user would write in index notation: values and gradients as PyTorch's."""

from collections.abc import Callable

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional

PROGRAM = """
map depthwise(x: f64[n, c, h, w], k: f64[c, r, s]) -> f64[n, c, h - r + 1, w - s + 1]:
    [n, c, p, q] |-> sum[r, s](x[n, c, p + r, q + s] * k[c, r, s])

map transposed(x: f64[n, c, h, w], k: f64[c, o, r, s]) -> f64[n, o, h + r - 1, w + s - 1]:
    [n, o, p, q] |-> sum[c, r, s](x[n, c, p - r, q - s] * k[c, o, r, s])

map correlate(x: f64[n, c, t], k: f64[o, c, r]) -> f64[n, o, (t - r) / 2 + 1]:
    [n, o, p] |-> sum[c, r](x[n, c, 2*p + r] * k[o, c, r])

map greatest(x: f64[n, c, 2*h, 2*w]) -> f64[n, c, h, w]:
    let blocks = reshape(x, [n, c, h, 2, w, 2])
    [n, c, p, q] |-> max[r, s](blocks[n, c, p, r, q, s])

map average(x: f64[n, c, 3*h]) -> f64[n, c, h]:
    let blocks = reshape(x, [n, c, h, 3])
    [n, c, p] |-> mean[r](blocks[n, c, p, r])

map normalized(x: f64[n, d], scale: f64[d], shift: f64[d]) -> f64[n, d]:
    let center = [i] |-> mean[j](x[i, j])
    let variance = [i] |-> mean[j]((x[i, j] - center[i])^2)
    [i, j] |-> (x[i, j] - center[i]) / sqrt(variance[i] + 1e-5) * scale[j] + shift[j]

map attention(q: f64[n, h, t, d], k: f64[n, h, t, d], v: f64[n, h, t, d]) -> f64[n, h, t, d]:
    let scores = [n, h, i, j] |-> sum[e](q[n, h, i, e] * k[n, h, j, e]) / sqrt(f64(d))
    let weights = softmax([n, h, i, j] |-> if j <= i then scores[n, h, i, j] else -1e30)
    [n, h, i, e] |-> sum[j](weights[n, h, i, j] * v[n, h, j, e])

map embedded(table: f64[m, d], ids: i32[n, t]) -> f64[n, t, d]:
    [n, t, e] |-> table[ids[n, t], e]

map bilinear(a: f64[n, i], w: f64[o, i, j], b: f64[n, j]) -> f64[n, o]:
    [n, o] |-> sum[i, j](a[n, i] * w[o, i, j] * b[n, j])

map distances(a: f64[n, d], b: f64[m, d]) -> f64[n, m]:
    [i, j] |-> sum[e]((a[i, e] - b[j, e])^2)

map traces(x: f64[n, k, k]) -> f64[n]:
    [n] |-> sum[i](x[n, i, i])
"""


def averages(x: "torch.Tensor") -> "torch.Tensor":
    return F.avg_pool1d(x, 3)


def attention(q: "torch.Tensor", k: "torch.Tensor", v: "torch.Tensor") -> "torch.Tensor":
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def depthwise(x: "torch.Tensor", k: "torch.Tensor") -> "torch.Tensor":
    return F.conv2d(x, k[:, None], groups=x.shape[1])


def normalized(x: "torch.Tensor", scale: "torch.Tensor", shift: "torch.Tensor") -> "torch.Tensor":
    return F.layer_norm(x, x.shape[1:], scale, shift)


CASES: dict[str, tuple[Callable, tuple[tuple[int, ...], ...]]] = {
    "depthwise": (depthwise, ((2, 5, 9, 8), (5, 3, 2))),
    "transposed": (F.conv_transpose2d, ((2, 3, 6, 5), (3, 4, 3, 2))),
    "correlate": (lambda x, k: F.conv1d(x, k, stride=2), ((2, 3, 21), (4, 3, 4))),
    "greatest": (lambda x: F.max_pool2d(x, 2), ((2, 3, 8, 6),)),
    "average": (averages, ((2, 3, 12),)),
    "normalized": (normalized, ((7, 19), (19,), (19,))),
    "attention": (attention, ((2, 3, 9, 8), (2, 3, 9, 8), (2, 3, 9, 8))),
    "bilinear": (
        lambda a, w, b: F.bilinear(a, b, w),
        ((6, 5), (4, 5, 7), (6, 7)),
    ),
    "distances": (lambda a, b: torch.cdist(a, b) ** 2, ((6, 5), (9, 5))),
    "traces": (lambda x: x.diagonal(dim1=1, dim2=2).sum(1), ((4, 5, 5),)),
}


def check(name: str, theirs: Callable, arrays: list[np.ndarray]) -> None:
    """The value, and the gradient of the sum weighted by random numbers, by every argument."""
    random = np.random.default_rng(1)
    inner = [torch.tensor(a, requires_grad=a.dtype == np.float64) for a in arrays]
    outer = theirs(*inner)
    u = random.normal(size=outer.shape)
    (outer * torch.tensor(u)).sum().backward()
    names = [f"a{i}" for i in range(len(arrays))]
    types = [f"{mt.ir.DType.of(a.dtype)}[{', '.join(map(str, a.shape))}]" for a in arrays]
    parameters = ", ".join(f"{n}: {t}" for n, t in zip(names, types, strict=True))
    weights = f"u: f64[{', '.join(map(str, u.shape))}]"
    lib = mt.loads(
        f"{PROGRAM}\nmap weighted({parameters}, {weights}) -> f64:\n"
        f"    sum({name}({', '.join(names)}) * u)\n"
    )
    found = getattr(lib, name)(*arrays)
    np.testing.assert_allclose(found, outer.detach().numpy(), rtol=1e-10, atol=1e-10)
    argnums = [i for i, a in enumerate(arrays) if a.dtype == np.float64]
    slopes = mt.grad(lib.weighted, argnums)(*arrays, u)
    for i, slope in zip(argnums, slopes, strict=True):
        np.testing.assert_allclose(slope, inner[i].grad.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_operator(name: str) -> None:
    theirs, shapes = CASES[name]
    random = np.random.default_rng(0)
    check(name, theirs, [random.normal(size=shape) for shape in shapes])


def test_embedding() -> None:
    """An id that occurs several times gets the sum of its gradients."""
    random = np.random.default_rng(0)
    ids = random.integers(0, 6, (4, 5)).astype(np.int32)
    check("embedded", lambda table, ids: F.embedding(ids, table), [random.normal(size=(6, 7)), ids])
