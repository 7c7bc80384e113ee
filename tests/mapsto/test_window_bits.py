"""Convolutions of each channel, strided and transposed ones and overlapping maxima: the same bits
on any number of threads and for any batch, and derivatives that finite differences confirm."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt
from mapsto.runtime.threads import set_threads, threads

PROGRAM = """
map depthwise(x: T[n, 16, 15, 15], k: T[16, 1, 5, 5]) -> T:
    sum(tanh(conv2d(x, k, padding=2, groups=16)) ^ 2)

map strided(x: T[n, 16, 15, 15], k: T[16, 1, 5, 5]) -> T:
    sum(tanh(conv2d(x, k, stride=2, padding=2, groups=16)) ^ 2)

map pooled(x: T[n, 16, 15, 15], k: T[16, 1, 5, 5]) -> T:
    let y = max_pool2d(x, 3, stride=2, padding=1)
    sum(tanh(conv2d(y, k, padding=2, groups=16)))

map spread(x: T[n, 16, 15, 15], k: T[16, 1, 5, 5]) -> T:
    sum(tanh(conv_transpose2d(x, k[:, :, :2, :2], stride=2)) ^ 2)
"""
NAMES = ("depthwise", "strided", "pooled", "spread")


@pytest.fixture(scope="module")
def single() -> mt.Library:
    return mt.loads(PROGRAM.replace("T", "f32"))


def inputs(dtype: type) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x, kernel = random.standard_normal((3, 16, 15, 15)), random.standard_normal((16, 1, 5, 5))
    return x.astype(dtype), (0.2 * kernel).astype(dtype)


@pytest.mark.parametrize("name", NAMES)
def test_bits(single: mt.Library, name: str) -> None:
    x, kernel = inputs(np.float32)
    gradient = mt.grad(getattr(single, name), argnums=(0, 1))
    results, before = [], threads()
    for count in (1, 2, 5):
        set_threads(count)
        results.append([part.tobytes() for part in gradient(x, kernel)])
    set_threads(before)
    assert results[0] == results[1] == results[2]
    images = [gradient(image[None], kernel)[0] for image in x]
    assert np.array_equal(np.concatenate(images), gradient(x, kernel)[0])


@pytest.mark.parametrize("name", NAMES)
def test_derivatives(name: str) -> None:
    loss = getattr(mt.loads(PROGRAM.replace("T", "f64")), name)
    x, kernel = inputs(np.float64)
    random, step = np.random.default_rng(1), 1e-6
    dx, dk = random.standard_normal(x.shape), random.standard_normal(kernel.shape)
    gx, gk = mt.grad(loss, argnums=(0, 1))(x, kernel)
    ahead, back = loss(x + step * dx, kernel + step * dk), loss(x - step * dx, kernel - step * dk)
    assert (ahead - back) / (2 * step) == pytest.approx(np.sum(gx * dx) + np.sum(gk * dk), rel=1e-6)


@pytest.mark.parametrize(("positions", "channels"), [(16, 1024), (64, 256), (5, 37)])
def test_windows_along_the_first_axis(positions: int, channels: int) -> None:
    """Vectors run over blocks of channels, which a copy of windows would have to know before."""
    causal = mt.loads(
        "map f(x: f32[t, c], k: f32[4, c]) -> f32[t, c]:\n"
        "    [i < t, c] |-> sum[r](x[i - r, c] * k[r, c])"
    ).f
    random = np.random.default_rng(0)
    x = random.standard_normal((positions, channels)).astype(np.float32)
    kernel = random.standard_normal((4, channels)).astype(np.float32)
    padded = np.concatenate([np.zeros((3, channels), np.float32), x])
    expected = sum(padded[3 - r : 3 - r + positions] * kernel[r] for r in range(4))
    np.testing.assert_allclose(causal(x, kernel), expected, rtol=1e-5, atol=1e-5)
