"""Values and gradients of the standard library's layers and activations, as PyTorch has them: to
1e-5 in f32, to 1e-10 in f64."""

import functools
import re

import numpy as np
import pytest

import mapsto as mt
from mapsto.dsl.library import library_files

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional
TOLERANCE = {"f32": 1e-5, "f64": 1e-10}
NUMPY = {"f32": np.float32, "f64": np.float64}
DTYPES = sorted(TOLERANCE)

ACTIVATIONS = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "softplus": F.softplus,
    "elu": F.elu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "exp": torch.exp,
    "erf": torch.erf,
    "sin": torch.sin,
    "cos": torch.cos,
    "softmax": functools.partial(torch.softmax, dim=-1),
    "log_softmax": functools.partial(torch.log_softmax, dim=-1),
}

# The sum with weights u makes a scalar of which every element of the result matters.
ACTIVATION = """
map weighted(x: {T}[n, d], u: {T}[n, d]) -> {T}:
    sum({f}(x) * u)

map derivative(x: {T}[n, d], u: {T}[n, d]) -> {T}[n, d]:
    grad(weighted)(x, u)

map value(x: {T}[n, d]) -> {T}[n, d]:
    {f}(x)
"""

DENSE = """
module Layer():
    inner = Dense(7, {f})

    map (x: {T}[n, d]) -> {T}[n, 7]:
        inner(x)

map weighted(layer: module, x: {T}[n, d], u: {T}[n, 7]) -> {T}:
    sum(layer(x) * u)
"""


def numbers(dtype: str, *shape: int, seed: int = 0, scale: float = 2.0) -> np.ndarray:
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(NUMPY[dtype])


def assert_close(found: np.ndarray, expected: "torch.Tensor", dtype: str) -> None:
    wanted = expected.detach().numpy()
    assert found.dtype == wanted.dtype
    limit = TOLERANCE[dtype] * max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, wanted, rtol=TOLERANCE[dtype], atol=limit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str, dtype: str) -> None:
    lib = mt.loads(ACTIVATION.format(T=dtype, f=name))
    x, u = numbers(dtype, 9, 13), numbers(dtype, 9, 13, seed=1)
    inner = torch.tensor(x, requires_grad=True)
    outer = ACTIVATIONS[name](inner)
    (outer * torch.tensor(u)).sum().backward()
    assert_close(lib.value(x), outer, dtype)
    assert_close(lib.derivative(x, u), inner.grad, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["identity", *ACTIVATIONS])
def test_dense(name: str, dtype: str) -> None:
    lib = mt.loads(DENSE.format(T=dtype, f=name))
    layer = lib.Layer(seed=3)
    x, u = numbers(dtype, 6, 5), numbers(dtype, 6, 7, seed=1)
    layer(x)
    layer.params["inner.b"][...] = numbers(dtype, 7, seed=2)
    inner = torch.tensor(x, requires_grad=True)
    w = torch.tensor(layer.params["inner.w"], requires_grad=True)
    b = torch.tensor(layer.params["inner.b"], requires_grad=True)
    outer = ACTIVATIONS.get(name, lambda y: y)(inner @ w + b)
    (outer * torch.tensor(u)).sum().backward()
    by_params, by_x = mt.grad(lib.weighted, (0, 1))(layer, x, u)
    assert_close(layer(x), outer, dtype)
    assert_close(by_params["inner.w"], w.grad, dtype)
    assert_close(by_params["inner.b"], b.grad, dtype)
    assert_close(by_x, inner.grad, dtype)


def test_all_layers_are_compared() -> None:
    """A layer or activation that joins the standard library has to join this file."""
    defined = set(re.findall(r"^(?:map|module) (\w+)", library_files()["nn"], re.MULTILINE))
    assert defined <= {*ACTIVATIONS, "Dense"}
