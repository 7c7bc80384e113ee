"""Recurrent layers: values, last states and gradients as PyTorch's with the same weights.

PyTorch keeps a bias for the inputs and one for the state; ours is their sum, but for the new gate
of GRU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from comparing import Array, assert_close, numbers

import mapsto as mt

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

KINDS = {"RNN": torch.nn.RNN, "GRU": torch.nn.GRU, "LSTM": torch.nn.LSTM}
UNITS = 3

TEXT = """
module Net():
    inner = {kind}({units}, {options})

    map (x: {T}[n, t, d], {states}): inner(x, {names})

map weighted(net: module, x: {T}[n, t, d], {states}, {weights}) -> {T}:
    let results = net(x, {names})
    {total}
"""


def parts(theirs: Any, suffix: str) -> dict[str, Any]:
    """The four parameters of one layer there."""
    named = dict(theirs.named_parameters())
    return {k: named[f"{k}_{suffix}"] for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}


def ours_of(kind: str, theirs: dict[str, Any], field: str) -> dict[str, Array]:
    """Values or gradients of one layer there as those of our parameters."""

    def array(name: str) -> Array:
        tensor = theirs[name]
        return (tensor.grad if field == "grad" else tensor).detach().numpy()

    found = {"w": array("weight_ih").T, "u": array("weight_hh").T}
    bias, other = array("bias_ih"), array("bias_hh")
    if kind == "GRU":
        gates = 2 * UNITS
        both = bias[:gates] + other[:gates] if field != "grad" else bias[:gates]
        return found | {"b": np.concatenate([both, bias[gates:]]), "c": other[gates:]}
    return found | {"b": bias if field == "grad" else bias + other}


def layers(kind: str, theirs: Any, count: int, ways: int, field: str) -> dict[str, Array]:
    """The parameters of all layers by our paths."""
    found = {}
    for i in range(count):
        for side, suffix in (("ahead", ""), ("back", "_reverse"))[:ways]:
            own = ours_of(kind, parts(theirs, f"l{i}{suffix}"), field)
            found |= {f"inner.{side}.{i}.{name}": value for name, value in own.items()}
    return found


CASES = [
    ("RNN", 1, 1, "f32"),
    ("RNN", 2, 2, "f64"),
    ("GRU", 1, 1, "f32"),
    ("GRU", 2, 2, "f64"),
    ("LSTM", 1, 1, "f32"),
    ("LSTM", 2, 2, "f64"),
]


@pytest.mark.parametrize(("kind", "count", "ways", "dtype"), CASES)
def test_recurrent_layers(kind: str, count: int, ways: int, dtype: str) -> None:
    theirs = KINDS[kind](4, UNITS, count, batch_first=True, bidirectional=ways == 2)
    theirs = theirs.double() if dtype == "f64" else theirs
    names = ("h", "c")[: 2 if kind == "LSTM" else 1]
    results = ("y", *names)
    shapes = {"y": (2, 5, ways * UNITS)} | dict.fromkeys(names, (count * ways, 2, UNITS))
    arrays = {"x": numbers(dtype, (2, 5, 4), 0)}
    arrays |= {n: numbers(dtype, shapes[n], i) for i, n in enumerate(names, 1)}
    weights = {f"u{n}": numbers(dtype, shapes[n], i) for i, n in enumerate(results, 5)}
    inner = {name: torch.tensor(a, requires_grad=True) for name, a in arrays.items()}
    state = tuple(inner[n] for n in names)
    y, last = theirs(inner["x"], state if kind == "LSTM" else state[0])
    outer = (y, *(last if kind == "LSTM" else (last,)))
    pairs = zip(outer, weights.values(), strict=True)
    sum((o * torch.tensor(u)).sum() for o, u in pairs).backward()

    lib = mt.loads(
        TEXT.format(
            kind=kind,
            units=UNITS,
            options=f"layers={count}, bidirectional={str(ways == 2).lower()}",
            T=dtype,
            states=", ".join(f"{n}: {dtype}[m, n, k]" for n in names),
            names=", ".join(names),
            weights=", ".join(f"{n}: {dtype}{list(u.shape)}" for n, u in weights.items()),
            total=" + ".join(f"sum(results[{i}] * {n})" for i, n in enumerate(weights)),
        )
    )
    net = lib.Net(seed=0)
    net(*arrays.values())
    for path, value in layers(kind, theirs, count, ways, "value").items():
        net.params[path][...] = value
    for found, expected in zip(net(*arrays.values()), outer, strict=True):
        assert_close(found, expected, dtype)
    argnums = tuple(range(len(arrays) + 1))
    by_params, *by_inputs = mt.grad(lib.weighted, argnums)(net, *arrays.values(), *weights.values())
    for path, value in layers(kind, theirs, count, ways, "grad").items():
        assert_close(by_params[path], torch.tensor(value), dtype)
    for slope, tensor in zip(by_inputs, inner.values(), strict=True):
        assert_close(slope, tensor.grad, dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_state_it_starts_from_zeros(kind: str) -> None:
    theirs = KINDS[kind](4, UNITS, batch_first=True)
    text = f"module Net():\n    inner = {kind}({UNITS})\n    map (x: f32[n, t, d]): inner(x)"
    lib = mt.loads(text)
    net, x = lib.Net(seed=0), numbers("f32", (2, 5, 4), 0)
    net(x)
    for path, value in layers(kind, theirs, 1, 1, "value").items():
        net.params[path][...] = value
    assert_close(net(x)[0], theirs(torch.tensor(x))[0], "f32")
