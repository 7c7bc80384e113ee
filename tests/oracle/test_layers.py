"""Dense layers, embeddings and normalizations: values and gradients as PyTorch's with the same
weights, to 1e-5 in f32 and 1e-10 in f64."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import Layout, assert_close, compare_map, compare_module, numbers

import mapsto as mt
from mapsto.dsl.library import library_files

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional
nn = torch.nn
DTYPES = ["f32", "f64"]

LINEAR: Layout = {"w": ("weight", np.transpose), "b": ("bias", np.asarray)}
AFFINE: Layout = {"scale": ("weight", np.asarray), "shift": ("bias", np.asarray)}

MODULES: dict[str, tuple[Any, list[tuple[int, ...]], Layout]] = {
    "Dense(7)": (nn.Linear(5, 7), [(2, 3, 5)], LINEAR),
    "Dense(7, tanh)": (nn.Sequential(nn.Linear(5, 7), nn.Tanh()), [(6, 5)], {}),
    "Bilinear(3)": (
        nn.Bilinear(4, 5, 3),
        [(2, 4), (2, 5)],
        {"w": ("weight", np.asarray), "b": ("bias", np.asarray)},
    ),
    "LayerNorm()": (nn.LayerNorm(5), [(2, 3, 5)], AFFINE),
    "RMSNorm(eps=1e-5)": (
        nn.RMSNorm(5, eps=1e-5),
        [(2, 3, 5)],
        {"scale": ("weight", np.asarray)},
    ),
    "GroupNorm(2)": (nn.GroupNorm(2, 6), [(2, 6, 3, 4)], AFFINE),
    "InstanceNorm()": (nn.InstanceNorm1d(6, affine=True), [(2, 6, 5)], AFFINE),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", MODULES)
def test_module(text: str, dtype: str) -> None:
    theirs, shapes, layout = MODULES[text]
    if isinstance(theirs, nn.Sequential):
        layout = {name: (f"0.{source}", arrange) for name, (source, arrange) in LINEAR.items()}
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    compare_module(text, theirs, shapes, layout, dtype)


def test_norms_of_tensors() -> None:
    compare_map("standardize(a)", [(4, 6)], lambda x: F.layer_norm(x, (6,)))
    compare_map("group_norm(a, 3, b, c)", [(2, 6, 4), (6,), (6,)], group_norm)
    compare_map("instance_norm(a, b, c)", [(2, 6, 4), (6,), (6,)], instance_norm)
    compare_map(
        "layer_norm(a, b, c)", [(4, 6), (6,), (6,)], lambda x, s, b: F.layer_norm(x, (6,), s, b)
    )
    compare_map("rms_norm(a, b)", [(4, 6), (6,)], lambda x, s: F.rms_norm(x, (6,), s, eps=1e-6))


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    return F.layer_norm(x, (6,), scale, shift)


def group_norm(x: Any, scale: Any, shift: Any) -> Any:
    return F.group_norm(x, 3, scale, shift)


def instance_norm(x: Any, scale: Any, shift: Any) -> Any:
    return F.instance_norm(x, weight=scale, bias=shift)


def test_residual_sequential_and_flatten() -> None:
    compare_module("Flatten()", nn.Flatten(), [(2, 3, 4)], {})
    inner = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 5))
    layout = {
        f"inner.layers.{ours}.{name}": (f"{theirs}.{source}", arrange)
        for ours, theirs in ((0, 0), (1, 2))
        for name, (source, arrange) in LINEAR.items()
    }
    text = "Residual(Sequential([Dense(4, relu), Dense(5)]))"
    compare_module(text, inner, [(3, 5)], layout, call=lambda x: x + inner(x))


@pytest.mark.parametrize("padding", [-1, 2])
def test_embedding(padding: int) -> None:
    lib = mt.loads(
        f"module Net():\n    inner = Embedding(6, 3, padding={padding})\n\n"
        "    map (ids: i32[n, t]) -> f32[n, t, 3]: inner(ids)\n\n"
        "map weighted(net: module, ids: i32[n, t], u: f32[n, t, 3]) -> f32: sum(net(ids) * u)\n"
    )
    ids = np.array([[0, 2, 5], [2, 2, 1]], np.int32)
    net, u = lib.Net(seed=0), numbers("f32", (2, 3, 3), 1)
    found = net(ids)
    theirs = nn.Embedding(6, 3, padding_idx=None if padding < 0 else padding)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(net.params["inner.table"]))
        if padding >= 0:
            theirs.weight[padding] = 0
    outer = theirs(torch.tensor(ids, dtype=torch.int64))
    (outer * torch.tensor(u)).sum().backward()
    assert_close(found, outer, "f32")
    assert_close(mt.grad(lib.weighted)(net, ids, u)["inner.table"], theirs.weight.grad, "f32")


HELPERS = {
    "window_count",
    "window_start",
    "transposed_size",
    "kernel_values",
    "add_bias",
    "pool_strides",
    "inside_count",
    "part_weights",
    "scale_channels",
    "batch_statistics",
    "dropped",
    "interpolation",
    "improved",
    "singular_value",
    "unit",
    "rnn",
    "gru",
    "lstm",
    "RNNLayer",
    "GRULayer",
    "LSTMLayer",
    "start_state",
    "layer_state",
    "run_layers",
}
"""Parts of layers, which are compared as wholes."""


FILES = (
    "activation",
    "adapt",
    "attention",
    "conv",
    "dropout",
    "nn",
    "norm",
    "pool",
    "recurrent",
    "resample",
)


@pytest.mark.parametrize("file", FILES)
def test_all_layers_are_compared(file: str) -> None:
    """A layer or activation that joins the standard library has to join these tests."""
    defined = set(re.findall(r"^(?:map|module) (\w+)", library_files()[file], re.MULTILINE))
    tests = " ".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    assert {name for name in defined - HELPERS if not re.search(rf"\b{name}\b", tests)} == set()
