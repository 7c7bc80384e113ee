"""Normalized weights, low-rank adapters, and layers that differ in training, as PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import Layout, assert_close, compare_map, compare_module, numbers

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

F = torch.nn.functional
nn = torch.nn

WEIGHT = "parametrizations.weight.original1"
GAIN = "parametrizations.weight.original0"


def test_weight_norm() -> None:
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))
    layout: Layout = {
        "w": (WEIGHT, np.transpose),
        "b": ("bias", np.asarray),
        "reparametrization.gain": (GAIN, np.ravel),
    }
    text = "Dense(3, reparametrization=WeightNorm())"
    compare_module(text, theirs, [(2, 4)], layout)
    compare_map("weight_norm(a, b)", [(4, 3), (3,)], lambda v, g: g * v / v.norm(dim=0))


def test_weight_norm_of_channels() -> None:
    theirs = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 2))
    layout: Layout = {
        "w": (WEIGHT, np.asarray),
        "b": ("bias", np.asarray),
        "reparametrization.gain": (GAIN, np.ravel),
    }
    text = "Conv2d(3, 2, reparametrization=ChannelWeightNorm())"
    compare_module(text, theirs, [(2, 2, 4, 4)], layout)


SPECTRAL = """
module Net():
    inner = {layer}
    map (x: f64[...s]): inner(x)

map loss(net: module, x: f64[...s], u: f64[...r]) -> f64: sum(train_mode(net)(x) * u)
"""


@pytest.mark.parametrize(
    ("layer", "module", "shape"),
    [
        ("Dense(3, reparametrization=SpectralNorm())", nn.Linear(4, 3), (2, 4)),
        ("Conv2d(3, 2, reparametrization=ChannelSpectralNorm())", nn.Conv2d(2, 3, 2), (2, 2, 4, 4)),
    ],
)
def test_spectral_norm(layer: str, module: Any, shape: tuple[int, ...]) -> None:
    """In training, with the iteration at the same vector; then in evaluation."""
    module = nn.utils.parametrizations.spectral_norm(module.double())
    lib = mt.loads(SPECTRAL.format(layer=layer))
    net, x = lib.Net(seed=1), numbers("f64", shape, 0)
    net(x)
    weight = module.parametrizations.weight
    turn = np.transpose if "Dense" in layer else np.asarray
    net.params["inner.w"][...] = turn(weight.original.detach().numpy())
    net.params["inner.b"][...] = module.bias.detach().numpy()
    net.states["inner.reparametrization.right"][...] = weight[0]._u.numpy()
    module.train()
    outer = module(torch.tensor(x))
    u = numbers("f64", outer.shape, 1)
    (outer * torch.tensor(u)).sum().backward()
    slopes = mt.grad(lib.loss)(net, x, u)
    assert_close(slopes["inner.w"], torch.tensor(turn(weight.original.grad.numpy())), "f64")


def test_low_rank_adapter() -> None:
    """The change has the gradients of its own factors, and the base has none."""
    lib = mt.loads(
        "module Net():\n    base = Dense(3)\n    inner = LowRank(base, 3, rank=2, scale=4)\n\n"
        "    map (x: f64[n, 5]): inner(x)\n\n"
        "map loss(net: module, x: f64[n, 5], u: f64[n, 3]) -> f64: sum(net(x) * u)"
    )
    net, x, u = lib.Net(seed=0), numbers("f64", (4, 5), 0), numbers("f64", (4, 3), 1)
    net(x)
    net.params["inner.b"][...] = numbers("f64", (2, 3), 2)
    names = ("base.w", "base.b", "inner.a", "inner.b")
    w, bias, a, b = (torch.tensor(net.params[n], requires_grad=True) for n in names)
    outer = torch.tensor(x) @ w + bias + 2 * (torch.tensor(x) @ a) @ b
    (outer * torch.tensor(u)).sum().backward()
    assert_close(net(x), outer, "f64")
    slopes = mt.grad(lib.loss)(net, x, u)
    assert_close(slopes["inner.a"], a.grad, "f64")
    assert_close(slopes["inner.b"], b.grad, "f64")
    assert not slopes["base.w"].any() and not slopes["base.b"].any()


BATCH_NORM = """
module Net():
    inner = BatchNorm(momentum=0.3)
    map (x: {T}[n, c, ...s]): inner(x)

map loss(net: module, x: {T}[n, c, ...s], u: {T}[n, c, ...s]) -> {T}:
    sum(train_mode(net)(x) * u)
"""


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 5), (3, 2, 4, 3)])
def test_batch_norm(dtype: str, shape: tuple[int, ...]) -> None:
    """Two batches in training, then the running statistics in evaluation."""
    lib = mt.loads(BATCH_NORM.format(T=dtype))
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    theirs = kind(shape[1], momentum=0.3)
    theirs = theirs.double() if dtype == "f64" else theirs
    net = lib.Net(seed=0)
    step = mt.train_mode(net)
    for i in range(2):
        x = 2 * numbers(dtype, shape, i) + 1
        assert_close(step(x), theirs(torch.tensor(x)), dtype)
    theirs.eval()
    assert_close(net.states["inner.running_mean"], theirs.running_mean, dtype)
    assert_close(net.states["inner.running_variance"], theirs.running_var, dtype)
    assert_close(net(x), theirs(torch.tensor(x)), dtype)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_gradients_of_batch_norm(dtype: str) -> None:
    lib = mt.loads(BATCH_NORM.format(T=dtype))
    x, u = (numbers(dtype, (4, 3, 5), seed) for seed in (0, 1))
    net = lib.Net(seed=0)
    net(x)
    scale, shift = (numbers(dtype, (3,), seed) for seed in (2, 3))
    net.params["inner.scale"][...], net.params["inner.shift"][...] = scale, shift
    inner, s, b = (torch.tensor(a, requires_grad=True) for a in (x, scale, shift))
    (F.batch_norm(inner, None, None, s, b, training=True) * torch.tensor(u)).sum().backward()
    by_params, by_x = mt.grad(lib.loss, (0, 1))(net, x, u)
    assert_close(by_x, inner.grad, dtype)
    assert_close(by_params["inner.scale"], s.grad, dtype)
    assert_close(by_params["inner.shift"], b.grad, dtype)


def test_batch_norm_with_given_statistics() -> None:
    def theirs(x: Any, mean: Any, variance: Any, scale: Any, shift: Any) -> Any:
        return (x - mean[:, None]) / torch.sqrt(variance[:, None] ** 2 + 1e-5) * scale[:, None] + (
            shift[:, None]
        )

    compare_map("batch_norm(a, b, c^2, d, e)", [(4, 3, 5), (3,), (3,), (3,), (3,)], theirs)


@pytest.mark.parametrize(("layer", "share"), [("Dropout(0.3)", 0.3), ("ChannelDropout(0.4)", 0.4)])
def test_dropout(layer: str, share: float) -> None:
    lib = mt.loads(
        f"module Net():\n    inner = {layer}\n    map (x: f32[n, c, t]): inner(x)\n\n"
        "map loss(net: module, x: f32[n, c, t]) -> f32: sum(train_mode(net)(x) * x)"
    )
    net, x = lib.Net(seed=0), np.ones((50, 40, 30), np.float32)
    np.testing.assert_array_equal(net(x), x)
    first, second = (mt.train_mode(net)(x) for _ in range(2))
    assert (first != second).any()
    kept = first > 0
    np.testing.assert_allclose(first[kept], 1 / (1 - share), rtol=1e-6)
    assert (~kept).mean() == pytest.approx(share, abs=0.03)
    if "Channel" in layer:
        assert (kept.any(-1) == kept.all(-1)).all()


def test_sparsemax() -> None:
    """Against the projection onto the simplex by its definition: no vector of shares is nearer."""

    def theirs(x: Any) -> Any:
        falling = x.sort(dim=-1, descending=True).values
        total = falling.cumsum(-1)
        count = (1 + torch.arange(1, 7) * falling > total).sum(-1, keepdim=True)
        level = (total.gather(-1, count - 1) - 1) / count
        return torch.clamp(x - level, min=0)

    compare_map("sparsemax(a)", [(5, 6)], theirs)
    compare_map("sparsemax(a)", [(5, 6)], theirs, "f32")
