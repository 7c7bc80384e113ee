"""A 2-D convolution written by hand in index notation: values and gradients as PyTorch's."""

import itertools

import numpy as np
import pytest

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

PROGRAM = """
map conv2d(x: f64[n, c, h, w], k: f64[o, c, r, s], stride: int, pad: int, step: int)
        -> f64[n, o, (h + 2*pad - step*(r - 1) - 1) / stride + 1,
            (w + 2*pad - step*(s - 1) - 1) / stride + 1]:
    [n, o, p, q] |-> sum[c, r, s](
        x[n, c, stride*p + step*r - pad, stride*q + step*s - pad] * k[o, c, r, s])

map weighted(x: f64[n, c, h, w], k: f64[o, c, r, s], u: f64[n, o, p, q],
        stride: int, pad: int, step: int) -> f64:
    sum(conv2d(x, k, stride, pad, step) * u)
"""
LIBRARIES = {"f64": mt.loads(PROGRAM), "f32": mt.loads(PROGRAM.replace("f64", "f32"))}
TOLERANCE = {"f64": 1e-10, "f32": 1e-5}

STRIDES, PADS, DILATIONS = (1, 2, 3), (0, 1, 2), (1, 2)
CASES = [(*case, "f64") for case in itertools.product(STRIDES, PADS, DILATIONS)] + [
    (1, 1, 1, "f32"),
    (2, 1, 1, "f32"),
    (2, 2, 2, "f32"),
]


@pytest.mark.parametrize(("stride", "pad", "dilation", "dtype"), CASES)
def test_convolution(stride: int, pad: int, dilation: int, dtype: str) -> None:
    lib = LIBRARIES[dtype]
    random = np.random.default_rng(stride * 100 + pad * 10 + dilation)
    x = random.normal(size=(2, 3, 11, 9)).astype(dtype.replace("f", "float"))
    k = random.normal(size=(4, 3, 3, 2)).astype(x.dtype)
    image, kernel = (torch.tensor(a, requires_grad=True) for a in (x, k))
    outer = torch.nn.functional.conv2d(image, kernel, stride=stride, padding=pad, dilation=dilation)
    u = random.normal(size=outer.shape).astype(x.dtype)
    (outer * torch.tensor(u)).sum().backward()
    found = lib.conv2d(x, k, stride, pad, dilation)
    by_x, by_k = mt.grad(lib.weighted, (0, 1))(x, k, u, stride, pad, dilation)
    pairs = ((found, outer.detach()), (by_x, image.grad), (by_k, kernel.grad))
    for ours, theirs in pairs:
        scale = max(1.0, float(theirs.abs().max()))
        limit = TOLERANCE[dtype]
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=limit, atol=limit * scale)
