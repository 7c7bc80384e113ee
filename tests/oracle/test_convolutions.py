"""Convolutions of the library, and transposed ones: values and gradients as PyTorch's.

Kernels have PyTorch's layout.
"""

from __future__ import annotations

from typing import Any

import pytest
from comparing import compare_map, compare_module

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional
nn = torch.nn

SHAPES_1D = [(2, 4, 12), (6, 2, 3)]
SHAPES_2D = [(2, 4, 9, 8), (6, 2, 3, 2)]
SHAPES_3D = [(2, 4, 5, 6, 7), (6, 2, 2, 3, 2)]

MAPS: dict[str, tuple[Any, list[tuple[int, ...]], dict[str, Any]]] = {
    "conv1d(a, b, groups=2)": (F.conv1d, SHAPES_1D, {}),
    "conv1d(a, b, stride=2, padding=1, dilation=2, groups=2)": (
        F.conv1d,
        SHAPES_1D,
        {"stride": 2, "padding": 1, "dilation": 2},
    ),
    'conv1d(a, b, padding="same", dilation=3, groups=2)': (
        F.conv1d,
        SHAPES_1D,
        {"padding": "same", "dilation": 3},
    ),
    "conv2d(a, b, groups=2)": (F.conv2d, SHAPES_2D, {}),
    "conv2d(a, b, stride=[2, 3], padding=[2, 1], dilation=[1, 2], groups=2)": (
        F.conv2d,
        SHAPES_2D,
        {"stride": (2, 3), "padding": (2, 1), "dilation": (1, 2)},
    ),
    'conv2d(a, b, padding="same", dilation=[1, 2], groups=2)': (
        F.conv2d,
        SHAPES_2D,
        {"padding": "same", "dilation": (1, 2)},
    ),
    "conv2d(a, b, padding=1, groups=4)": (
        F.conv2d,
        [(2, 4, 7, 6), (8, 1, 3, 3)],
        {"padding": 1, "groups": 4},
    ),
    "conv2d(a, b, stride=2)": (F.conv2d, [(2, 3, 8, 8), (5, 3, 1, 1)], {"stride": 2, "groups": 1}),
    "conv3d(a, b, stride=[1, 2, 1], padding=1, dilation=[2, 1, 1], groups=2)": (
        F.conv3d,
        SHAPES_3D,
        {"stride": (1, 2, 1), "padding": 1, "dilation": (2, 1, 1)},
    ),
    "conv_transpose1d(a, b, stride=3, padding=1, output_padding=2, groups=2)": (
        F.conv_transpose1d,
        [(2, 4, 6), (4, 3, 4)],
        {"stride": 3, "padding": 1, "output_padding": 2},
    ),
    "conv_transpose2d(a, b, groups=2)": (
        F.conv_transpose2d,
        [(2, 4, 5, 6), (4, 3, 3, 2)],
        {},
    ),
    "conv_transpose2d(a, b, stride=[2, 3], padding=[1, 0], output_padding=[1, 2], groups=2)": (
        F.conv_transpose2d,
        [(2, 4, 5, 4), (4, 3, 3, 2)],
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)},
    ),
    "conv_transpose2d(a, b, stride=2, padding=1, dilation=2)": (
        F.conv_transpose2d,
        [(2, 3, 5, 4), (3, 2, 3, 3)],
        {"stride": 2, "padding": 1, "dilation": 2, "groups": 1},
    ),
    "conv_transpose3d(a, b, stride=2, padding=1)": (
        F.conv_transpose3d,
        [(2, 2, 3, 3, 4), (2, 3, 2, 3, 3)],
        {"stride": 2, "padding": 1, "groups": 1},
    ),
}


@pytest.mark.parametrize("text", MAPS)
def test_map(text: str) -> None:
    function, shapes, options = MAPS[text]
    compare_map(text, shapes, lambda x, k: function(x, k, **{"groups": 2, **options}))


@pytest.mark.parametrize(
    ("text", "function", "shapes"),
    [
        ("conv1d(a, b)", F.conv1d, [(2, 3, 12), (5, 3, 3)]),
        ("conv2d(a, b)", F.conv2d, [(2, 3, 12, 11), (5, 3, 3, 3)]),
        ("conv3d(a, b)", F.conv3d, [(2, 3, 5, 6, 7), (5, 3, 2, 2, 2)]),
        ("conv_transpose2d(a, b)", F.conv_transpose2d, [(2, 3, 6, 7), (3, 5, 3, 3)]),
    ],
)
def test_map_in_single_precision(text: str, function: Any, shapes: Any) -> None:
    compare_map(text, shapes, function, "f32")


LAYOUT = {"w": ("weight", lambda w: w), "b": ("bias", lambda b: b)}
MODULES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Conv1d(6, 3, groups=2)": (nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9)),
    "Conv2d(6, [3, 2], stride=2, padding=1)": (nn.Conv2d(4, 6, (3, 2), 2, 1), (2, 4, 9, 8)),
    "Conv3d(3, 2)": (nn.Conv3d(4, 3, 2), (2, 4, 5, 4, 3)),
    "ConvTranspose1d(6, 3, stride=2)": (nn.ConvTranspose1d(4, 6, 3, 2), (2, 4, 5)),
    "ConvTranspose2d(6, 2, stride=2, groups=2)": (
        nn.ConvTranspose2d(4, 6, 2, 2, groups=2),
        (2, 4, 5, 6),
    ),
    "ConvTranspose3d(3, 2)": (nn.ConvTranspose3d(4, 3, 2), (2, 4, 3, 4, 3)),
}


@pytest.mark.parametrize("text", MODULES)
def test_module(text: str) -> None:
    theirs, shape = MODULES[text]
    compare_module(text, theirs, [shape], LAYOUT)


def test_a_layer_without_bias() -> None:
    theirs = nn.Conv2d(4, 6, 3, bias=False)
    compare_module("Conv2d(6, 3, bias=false)", theirs, [(2, 4, 5, 5)], {"w": LAYOUT["w"]}, "f32")
