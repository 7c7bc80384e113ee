"""Activations: values and gradients as PyTorch's."""

from __future__ import annotations

from functools import partial

import pytest
from comparing import compare_map, compare_module

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional

ELEMENTWISE = {
    "relu(a)": F.relu,
    "relu6(4 * a)": lambda x: F.relu6(4 * x),
    "leaky_relu(a)": F.leaky_relu,
    "leaky_relu(a, slope=0.2)": partial(F.leaky_relu, negative_slope=0.2),
    "elu(a, alpha=0.7)": partial(F.elu, alpha=0.7),
    "selu(a)": F.selu,
    "celu(a, alpha=0.7)": partial(F.celu, alpha=0.7),
    "gelu(a)": F.gelu,
    "gelu_tanh(a)": partial(F.gelu, approximate="tanh"),
    "silu(a)": F.silu,
    "mish(a)": F.mish,
    "softplus(a)": F.softplus,
    "softplus(a, beta=3)": partial(F.softplus, beta=3, threshold=1e9),
    "softsign(a)": F.softsign,
    "sigmoid(a)": torch.sigmoid,
    "logsigmoid(a)": F.logsigmoid,
    "tanh(a)": torch.tanh,
    "tanhshrink(a)": F.tanhshrink,
    "softshrink(a, width=0.3)": partial(F.softshrink, lambd=0.3),
    "hardshrink(a)": F.hardshrink,
    "threshold(a, 0.1, 20)": lambda x: F.threshold(x, 0.1, 20),
    "hardtanh(a)": F.hardtanh,
    "hardtanh(a, -0.5, 0.7)": lambda x: F.hardtanh(x, -0.5, 0.7),
    "hardsigmoid(3 * a)": lambda x: F.hardsigmoid(3 * x),
    "hardswish(3 * a)": lambda x: F.hardswish(3 * x),
    "glu(a)": F.glu,
    "swiglu(a)": lambda x: F.silu(x[:, :7]) * x[:, 7:],
    "geglu(a)": lambda x: F.gelu(x[:, :7]) * x[:, 7:],
    "softmax(a)": partial(F.softmax, dim=-1),
    "softmax(a, axis=0)": partial(F.softmax, dim=0),
    "log_softmax(a)": partial(F.log_softmax, dim=-1),
    "log_softmax(a, axis=0)": partial(F.log_softmax, dim=0),
    "softmin(a)": partial(F.softmin, dim=-1),
    "exp(a)": torch.exp,
    "erf(a)": torch.erf,
    "sin(a)": torch.sin,
    "cos(a)": torch.cos,
}


IN_SINGLE_PRECISION = ("celu(a, alpha=0.7)", "hardsigmoid(3 * a)")
"""PyTorch has a constant of these in single precision whatever the element type."""


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("text", ELEMENTWISE)
def test_activation(text: str, dtype: str) -> None:
    if dtype == "f64" and text in IN_SINGLE_PRECISION:
        return
    compare_map(text, [(9, 14)], ELEMENTWISE[text], dtype)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_prelu(dtype: str) -> None:
    compare_map("prelu(a, b)", [(4, 3, 5), (3,)], F.prelu, dtype)
    layout = {"slope": ("weight", lambda w: w)}
    compare_module("PReLU()", torch.nn.PReLU(3), [(4, 3, 5)], layout, dtype)
