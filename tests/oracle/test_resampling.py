"""Resampling of images: values and gradients as PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from comparing import compare_map, compare_module

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional
bilinear = partial(F.interpolate, mode="bilinear")

CASES: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "upsample_nearest(a, [2, 3])": (partial(F.interpolate, scale_factor=(2, 3)), (2, 3, 4, 5)),
    "upsample_bilinear(a, 2)": (partial(bilinear, scale_factor=2), (2, 3, 4, 5)),
    "upsample_bilinear(a, [3, 2], align_corners=true)": (
        partial(bilinear, scale_factor=(3, 2), align_corners=True),
        (2, 3, 4, 5),
    ),
    "resize_bilinear(a, [7, 3])": (partial(bilinear, size=(7, 3)), (2, 3, 4, 5)),
    "resize_bilinear(a, [7, 1], align_corners=true)": (
        partial(bilinear, size=(7, 1), align_corners=True),
        (2, 3, 4, 5),
    ),
    "pixel_shuffle(a, 2)": (partial(F.pixel_shuffle, upscale_factor=2), (2, 8, 3, 4)),
    "pixel_unshuffle(a, 2)": (partial(F.pixel_unshuffle, downscale_factor=2), (2, 2, 6, 4)),
}


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("text", CASES)
def test_resampling(text: str, dtype: str) -> None:
    function, shape = CASES[text]
    compare_map(text, [shape], function, dtype)


def test_module() -> None:
    nearest, smooth = (
        torch.nn.Upsample(scale_factor=2),
        torch.nn.UpsamplingBilinear2d(scale_factor=2),
    )
    compare_module("Upsample(2)", nearest, [(2, 3, 4, 5)], {})
    text = 'Upsample(2, "bilinear", align_corners=true)'
    compare_module(text, smooth, [(2, 3, 4, 5)], {})
