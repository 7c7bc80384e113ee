"""Devices from Python: where functions run, where parameters are, what is said where one is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mapsto as mt
from mapsto.runtime.devices.array import DeviceArray

TEXT = """
map double(x: f32[n]) -> f32[n]: 2 * x

map power(net: module, x: f32[n, d]) -> f32: sum(net(x)^2)

module Net(m: int = 3):
    layer = Dense(m)

    map (x: f32[n, d]) -> f32[n, m]: tanh(layer(x))

module Pair(first: module, second: module):
    map (x: f32[n, d]) -> f32[n, k]: first(x) + second(x)

train Fit(net = Net(), optimizer = Adam(lr=0.1)):
    loss(x: f32[n, d], y: f32[n, m]) = mse(net(x), y)
    metric accuracy(x: f32[n, d], y: f32[n, m]) = mean(abs(net(x) - y))
"""
X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
Y = np.linspace(1, -1, 12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def lib() -> mt.Library:
    """The program, anew."""
    return mt.loads(TEXT)


def test_a_map_on_a_device_is_another_map(lib: mt.Library, device: str) -> None:
    there = lib.double.to(device)
    x = np.arange(5, dtype=np.float32)
    result = there(x)
    assert isinstance(result, DeviceArray) and result.device.name == device
    np.testing.assert_array_equal(result, 2 * x)
    assert isinstance(lib.double(x), np.ndarray)


def test_a_call_runs_where_its_arguments_are(lib: mt.Library, device: str) -> None:
    x = mt.device_put(np.arange(5, dtype=np.float32), device)
    result = lib.double(lib.double(x))
    assert isinstance(result, DeviceArray)
    np.testing.assert_array_equal(result, 4 * np.arange(5))
    here = np.ones(5, np.float32)
    for given in (here, x, here, x):
        assert type(lib.double(given)) is type(given)
    assert len(lib.double._entries._kept) == 2


def test_a_program_is_loaded_for_a_device(device: str) -> None:
    lib = mt.loads(TEXT, mt.Options(device=device))
    net = lib.Net(seed=1)
    assert isinstance(net(X), DeviceArray)
    np.testing.assert_allclose(net(X), mt.loads(TEXT).Net(seed=1)(X), rtol=1e-5)


def test_parameters_move_and_come_back(lib: mt.Library, device: str) -> None:
    net = lib.Net(seed=1)
    expected = net(X)
    weights = net.params["layer.w"].copy()
    assert net.to(device) is net
    assert isinstance(net.params["layer.w"], DeviceArray)
    np.testing.assert_allclose(net(X), expected, rtol=1e-5, atol=1e-6)
    net.params["layer.w"][...] = 2 * weights
    twice = np.asarray(net(X))
    assert not np.allclose(twice, expected)
    power = mt.grad(lib.power)
    assert isinstance(power(net, X)["layer.w"], DeviceArray)
    assert isinstance(power(lib.Net(), X)["layer.w"], np.ndarray)
    double = mt.vmap(net)
    net.to("cpu")
    assert isinstance(net.params["layer.w"], np.ndarray)
    assert isinstance(power(net, X)["layer.w"], np.ndarray)
    assert isinstance(double(X[None]), np.ndarray)
    np.testing.assert_array_equal(net.params["layer.w"], 2 * weights)
    np.testing.assert_allclose(net(X), twice, rtol=1e-5, atol=1e-6)


def test_what_shares_parameters_moves_together(lib: mt.Library, device: str) -> None:
    first, second = lib.Net(seed=1), lib.Net(seed=2)
    pair, run = lib.Pair(first, second), lib.Fit(net=first)
    expected = pair(X)
    loss = run.step(x=X, y=Y)
    second.to(device)
    assert {type(a) for n in (first, pair) for a in n.params.values()} == {DeviceArray}
    assert run.arrays["layer.w"] is first.params["layer.w"]
    assert run.step(x=X, y=Y) < loss
    assert not np.allclose(pair(X), expected)


def test_derivatives_follow_the_net(lib: mt.Library, device: str) -> None:
    net = lib.Net(seed=1)
    slope = mt.value_and_grad(lib.power)
    value, gradient = slope(net, X)
    there, on_device = slope(net.to(device), X)
    assert isinstance(on_device["layer.w"], DeviceArray)
    np.testing.assert_allclose(there, value, rtol=1e-5)
    np.testing.assert_allclose(on_device["layer.w"], gradient["layer.w"], rtol=1e-4, atol=1e-5)
    net.params["layer.w"][...] = 0
    net.params["layer.b"][...] = 0
    assert float(slope(net.to("cpu"), X)[0]) == 0


def test_a_loop_of_ones_own(lib: mt.Library, device: str) -> None:
    losses = []
    for place in ("cpu", device):
        net, optimizer = lib.Net(seed=1).to(place), lib.Adam(lr=0.1)
        for _ in range(4):
            loss, gradient = mt.value_and_grad(lib.power)(net, X)
            mt.update(optimizer, net, gradient)
            losses.append(float(loss))
    np.testing.assert_allclose(losses[4:], losses[:4], rtol=1e-4)
    assert losses[3] < losses[0]


def test_training_is_the_same_there(lib: mt.Library, device: str, tmp_path: Path) -> None:
    found = []
    for place in ("cpu", device):
        run = lib.Fit(seed=3).to(place)
        history = run.fit({"x": X, "y": Y}, {"x": X, "y": Y}, epochs=3, batch=2, progress=False)
        run.save(tmp_path / f"{place}.safetensors")
        found.append((history.losses, history.epochs[-1].test["accuracy"], run))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-4)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-4)
    on_device = found[1][2]
    assert isinstance(on_device.arrays["optimizer.layer.w.m"], DeviceArray)
    on_device.load(tmp_path / "cpu.safetensors")
    for path, array in found[0][2].arrays.items():
        np.testing.assert_array_equal(on_device.arrays[path], array)


def test_a_training_that_is_moved_goes_on(lib: mt.Library, device: str) -> None:
    stays, moves = lib.Fit(seed=3), lib.Fit(seed=3)
    for number in range(6):
        moves.to(device if number % 2 else "cpu")
        assert moves.step(x=X, y=Y) == pytest.approx(stays.step(x=X, y=Y), rel=1e-4)


def test_weights_go_through_files(lib: mt.Library, device: str, tmp_path: Path) -> None:
    net = lib.Net(seed=1).init(x=mt.f32[None, 2]).to(device)
    net.save(tmp_path / "w.safetensors")
    fresh = lib.Net(seed=2).to(device).load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(fresh(X), net(X))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tpu", "no device `tpu`: write cpu, cuda:0, opencl:0 or gpusim"),
        ("cuda:99", "cuda"),
        ("opencl:99", "opencl"),
    ],
)
def test_a_device_that_is_not_there(lib: mt.Library, name: str, message: str) -> None:
    net = lib.Net(seed=1)
    with pytest.raises(mt.DeviceError, match=message) as raised:
        net.to(name)
    assert "\n" not in str(raised.value)
    assert isinstance(net(X), np.ndarray)


def test_arrays_in_two_places(lib: mt.Library, device: str) -> None:
    x = mt.device_put(X, device)
    message = rf"layer\.\w is in the host's memory, not on {device}"
    with pytest.raises(mt.ArgumentError, match=message):
        lib.Net(seed=1)(x)


def test_the_devices_are_listed(device: str) -> None:
    assert device in [found.name for found in mt.devices()]
    assert mt.devices()[-1].name == "gpusim"


def test_a_device_stands_for_its_name(lib: mt.Library, device: str) -> None:
    (found,) = [each for each in mt.devices() if each.name == device]
    np.testing.assert_array_equal(lib.double.to(found)(np.ones(3, np.float32)), [2, 2, 2])
    assert lib.Net(seed=1).to(found)(X).device is found


def test_results_into_arrays(lib: mt.Library, device: str) -> None:
    x, double = np.arange(5, dtype=np.float32), lib.double.to(device)
    out = np.empty(5, np.float32)
    assert double(x, out=out) is out
    np.testing.assert_array_equal(out, 2 * x)
    there = mt.device_put(x, device)
    double(there, out=there)
    np.testing.assert_array_equal(there, 2 * x)
    with pytest.raises(mt.ArgumentError, match=r"expected an array for .*, found float32\[4\]"):
        double(x, out=np.empty(4, np.float32))


def test_the_same_bits_each_time(device: str) -> None:
    def trained() -> list[bytes]:
        run = mt.loads(TEXT).Fit(seed=3).to(device)
        losses = [run.step(x=X, y=Y) for _ in range(5)]
        return [
            np.float64(losses).tobytes(),
            *(np.asarray(a).tobytes() for a in run.arrays.values()),
        ]

    assert trained() == trained()


def test_arrays_there_behave_as_arrays(device: str) -> None:
    array = mt.device_put(np.arange(6, dtype=np.float32).reshape(2, 3), device)
    assert (array.shape, array.ndim, array.size, len(array), array.nbytes) == ((2, 3), 2, 6, 2, 24)
    np.testing.assert_array_equal(array[1], [3, 4, 5])
    np.testing.assert_array_equal(array + 1, np.arange(1, 7).reshape(2, 3))
    np.testing.assert_array_equal(np.exp(array) > 1, np.arange(6).reshape(2, 3) > 0)
    assert [row.sum() for row in array] == [3, 12]
    array[0] = 7
    np.testing.assert_array_equal(array, [[7, 7, 7], [3, 4, 5]])
    copy = array.copy()
    array[...] = 0
    assert float(mt.device_put(np.float32(2.5), device)) == 2.5
    np.testing.assert_array_equal(copy[0], [7, 7, 7])
    assert repr(copy).startswith(f"<f32[2, 3] on {device}: [[7.")
    with pytest.raises(ValueError, match="cannot be had without a copy"):
        np.asarray(array, copy=False)
    with pytest.raises(TypeError, match="no elements of type complex64"):
        mt.device_put(np.ones(1, np.complex64), device)
