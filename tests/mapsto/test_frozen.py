"""Frozen nets: read-only copies for inference, with the same bits and less work at each call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mapsto as mt
from mapsto.callables import Compilable
from mapsto.compiler import bound_slots, optimized, with_constants
from mapsto.dsl.elaborated import Elaborated
from mapsto.lowering.driver import lower

LIB = mt.loads("""
module Net(units: int = 40):
    layers = [Dense(units, relu), Dense(units, relu)]
    state calls: i32 = 0

    map (x: f32[n, d]) -> f32[n, units]:
        chain(layers)(x)

    map count(x: f32[n, d]) -> f32[n, d]:
        calls <- calls + 1
        x

    map more(x: f32[n, units]) -> f32[n, units]:
        layers[1](x)

module Images():
    first = Conv2d(8, 3, padding=1, activation=relu)
    second = Conv2d(20, 3, padding=1)
    norm = BatchNorm()

    map (x: f32[n, 3, 12, 12]) -> f32[n, 20]:
        mean(norm(second(first(x))), axis=[2, 3])

module Reader(units: int = 24):
    cell = LSTM(units)
    head = Dense(3)

    map (x: f32[n, t, d]) -> f32[n, 3]:
        let (hidden, _, _) = cell(x)
        head(hidden[:, -1])

map distance(one: module, other: module, x: f32[n, d]) -> f32:
    mse(one(x), other(x))

train Fit(net = Net(), optimizer = SGD(lr=0.1)):
    loss(x: f32[n, d], y: f32[n, k]) = mse(net(x), y)
""")

RANDOM = np.random.default_rng(0)
SHAPES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "Net": lambda n: (n, 50),
    "Images": lambda n: (n, 3, 12, 12),
    "Reader": lambda n: (n, 5, 16),
}


def images(n: int, name: str = "Net") -> np.ndarray:
    return RANDOM.normal(size=SHAPES[name](n)).astype(np.float32)


@pytest.fixture(scope="module")
def net() -> mt.Instance:
    made = LIB.Net(seed=1)
    made(images(3))
    return made


def prepared_bytes(net: Compilable, elaborated: Elaborated) -> int:
    """What the frozen net computes once for all calls."""
    arrays = net.own_arrays(bound_slots(elaborated)).values()
    told = with_constants(
        elaborated, [number for number, array in enumerate(arrays) if not array.flags.writeable]
    )
    program = lower(optimized(told.module, net.options), told.entry, net.options.machine)
    return program.prepared_bytes(told.entry)


@pytest.mark.parametrize("name", SHAPES)
def test_bits_are_those_of_the_net(name: str) -> None:
    net = getattr(LIB, name)(seed=1)
    net(images(1, name))
    frozen = net.freeze()
    for n in (1, 19):
        x = images(n, name)
        expected = net(x)
        assert np.array_equal(frozen(x), expected)
        np.testing.assert_allclose(frozen.reference(x), expected, rtol=1e-4, atol=1e-5)
        out = np.empty_like(expected)
        for _ in range(2):
            assert np.array_equal(frozen(x, out=out), expected)


def test_weights_are_read_in_order(net: mt.Instance) -> None:
    """Once, whatever the size of the batch, which a library's program is told at each call."""
    frozen = net.freeze()
    elaborated = frozen.elaborate({"x": mt.f32["n", 50]}, {})
    weights = [array.nbytes for array in net.params.values() if array.ndim == 2]
    assert prepared_bytes(frozen, elaborated) >= sum(weights)
    assert prepared_bytes(net, elaborated) == 0


def test_later_changes_do_not_reach_it(net: mt.Instance) -> None:
    x, path = images(4), "layers.0.w"
    frozen = net.freeze()
    expected, kept = frozen(x), net.params[path].copy()
    net.params[path][...] = 0
    assert np.array_equal(frozen(x), expected)
    assert not np.array_equal(net(x), expected)
    net.params[path][...] = kept


def test_what_makes_no_sense_is_refused(net: mt.Instance, tmp_path: Path) -> None:
    frozen, x = net.freeze(), images(4)
    with pytest.raises(ValueError, match="read-only"):
        frozen.params["layers.0.w"][...] = 0
    with pytest.raises(ValueError, match="WRITEABLE"):
        frozen.params["layers.0.w"].flags.writeable = True
    with pytest.raises(mt.ArgumentError, match="would change calls, a state of a frozen net"):
        frozen.count(x)
    with pytest.raises(mt.ArgumentError, match=r"would change layers\.0\.w, a parameter"):
        LIB.Fit(net=frozen).step(x=x, y=np.zeros((4, 40), np.float32))
    with pytest.raises(mt.ArgumentError, match=r"would change net\.layers\.0\.w, a par"):
        mt.update(LIB.SGD(lr=0.1), frozen, {"layers.0.w": np.zeros((50, 40), np.float32)})
    net.save(tmp_path / "net.safetensors")
    with pytest.raises(mt.CheckpointError, match="Net is frozen: load into a net, then freeze it"):
        frozen.load(tmp_path / "net.safetensors")
    with pytest.raises(mt.ArgumentError, match="Net has no parameters yet"):
        LIB.Net().freeze()


def test_parameters_must_be_there_before() -> None:
    net = LIB.Net()
    net.more(np.zeros((2, 40), np.float32))
    with pytest.raises(mt.ArgumentError, match=r"Net was frozen before it had layers\.0\.w"):
        net.freeze()(images(2))


def test_it_is_another_net_than_the_one_it_came_from(net: mt.Instance) -> None:
    x, frozen = images(4), net.freeze()
    assert LIB.distance(net, frozen, x) == 0
    loss, slopes = mt.value_and_grad(LIB.distance)(net, frozen, x)
    assert loss == 0 and set(slopes) == set(net.params)
    kept = net.params["layers.0.w"].copy()
    net.params["layers.0.w"][...] = 0
    assert LIB.distance(net, frozen, x) > 0
    net.params["layers.0.w"][...] = kept


def test_maps_of_maps(net: mt.Instance) -> None:
    x, frozen = images(4), net.freeze()
    assert np.array_equal(mt.vmap(frozen)(x[:, None]), mt.vmap(net)(x[:, None]))
    assert np.array_equal(frozen.more(frozen(x)), net.more(net(x)))
    assert np.array_equal(frozen.with_passes("default")(x), net(x))
    assert np.array_equal(frozen.freeze()(x), net(x))
    assert set(frozen.states) == set(net.states)
