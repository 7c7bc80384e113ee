"""Pooling: values and gradients as PyTorch's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from comparing import compare_map

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional

CASES: dict[str, tuple[Callable[..., Any], tuple[int, ...]]] = {
    "max_pool1d(a, 3)": (partial(F.max_pool1d, kernel_size=3), (2, 3, 10)),
    "max_pool2d(a, 2)": (partial(F.max_pool2d, kernel_size=2), (2, 3, 8, 7)),
    "max_pool2d(a, 3, stride=2, padding=1)": (
        partial(F.max_pool2d, kernel_size=3, stride=2, padding=1),
        (2, 3, 9, 8),
    ),
    "max_pool2d(a, [2, 3], stride=[1, 2], dilation=[2, 1])": (
        partial(F.max_pool2d, kernel_size=(2, 3), stride=(1, 2), dilation=(2, 1)),
        (2, 3, 9, 8),
    ),
    "max_pool3d(a, 2, stride=1, padding=1)": (
        partial(F.max_pool3d, kernel_size=2, stride=1, padding=1),
        (2, 2, 3, 4, 5),
    ),
    "avg_pool1d(a, 3, stride=2)": (partial(F.avg_pool1d, kernel_size=3, stride=2), (2, 3, 10)),
    "avg_pool1d(a, 3, padding=1, count_padding=false)": (
        partial(F.avg_pool1d, kernel_size=3, padding=1, count_include_pad=False),
        (2, 3, 10),
    ),
    "avg_pool2d(a, 2)": (partial(F.avg_pool2d, kernel_size=2), (2, 3, 8, 7)),
    "avg_pool2d(a, 3, stride=2, padding=1)": (
        partial(F.avg_pool2d, kernel_size=3, stride=2, padding=1),
        (2, 3, 9, 8),
    ),
    "avg_pool2d(a, 3, stride=2, padding=1, count_padding=false)": (
        partial(F.avg_pool2d, kernel_size=3, stride=2, padding=1, count_include_pad=False),
        (2, 3, 9, 8),
    ),
    "avg_pool3d(a, 2)": (partial(F.avg_pool3d, kernel_size=2), (2, 2, 4, 4, 5)),
    "adaptive_avg_pool1d(a, 4)": (partial(F.adaptive_avg_pool1d, output_size=4), (2, 3, 10)),
    "adaptive_avg_pool2d(a, [3, 2])": (
        partial(F.adaptive_avg_pool2d, output_size=(3, 2)),
        (2, 3, 7, 8),
    ),
    "adaptive_max_pool1d(a, 4)": (partial(F.adaptive_max_pool1d, output_size=4), (2, 3, 10)),
    "adaptive_max_pool2d(a, [3, 2])": (
        partial(F.adaptive_max_pool2d, output_size=(3, 2)),
        (2, 3, 7, 8),
    ),
    "global_avg_pool(a)": (lambda x: x.mean((2, 3)), (2, 3, 4, 5)),
    "global_max_pool(a)": (lambda x: x.amax((2, 3)), (2, 3, 4, 5)),
}


@pytest.mark.parametrize("text", CASES)
def test_pooling(text: str) -> None:
    function, shape = CASES[text]
    compare_map(text, [shape], function)


@pytest.mark.parametrize("text", ["max_pool2d(a, 2)", "avg_pool2d(a, 2)", "global_avg_pool(a)"])
def test_pooling_in_single_precision(text: str) -> None:
    function, shape = CASES[text]
    compare_map(text, [shape], function, "f32")
