"""The host's side of CUDA, driven through a stand-in for libcuda."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

import numpy as np
import pytest
from fake_cuda import FakeCuda

import mapsto as mt
from mapsto.compiler import Options, compile_for
from mapsto.runtime.devices.array import DeviceArray
from mapsto.runtime.devices.cuda import target_for
from mapsto.runtime.devices.cuda_driver import Driver, DriverError, open_driver
from mapsto.runtime.devices.device import Copy, Fill
from mapsto.runtime.devices.function import DeviceFunction
from mapsto.runtime.devices.registry import pool_of
from mapsto.runtime.errors import DeviceError

PROGRAM = mt.loads("""
map scaled(x: f32[n, m], w: f32[m, k]) -> (f32[n, k], f32[n]):
    let y = relu(x @ w)
    (y, sum(y, axis=1))

map recurrent(h: f32[n], xs: f32[t, n]) -> (f32[n], f32[t]):
    map step(h: f32[n], x: f32[n]) -> (f32[n], f32):
        let next = 0.5 * h + x
        (next, sum(next * next))

    scan(step, h, xs)
""")


def compiled(name: str, fake: FakeCuda, **shapes: tuple[int, ...]) -> DeviceFunction:
    types = {key: mt.f32[shape] for key, shape in shapes.items()}
    elaborated = getattr(PROGRAM, name).elaborate(types, {})
    return compile_for(fake.device(), elaborated, Options(), {})


def test_a_function_runs_and_its_results_stay_on_the_device(fake_cuda: FakeCuda) -> None:
    function = compiled("scaled", fake_cuda, x=(3, 4), w=(4, 5))
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in ((3, 4), (4, 5)))
    y, sums = function(x, w)
    assert isinstance(y, DeviceArray) and y.device is function.device
    expected = np.maximum(x @ w, 0)
    np.testing.assert_allclose(y, expected, rtol=1e-5)
    np.testing.assert_allclose(np.asarray(sums), expected.sum(axis=1), rtol=1e-5)


def test_what_comes_again_is_a_graph(fake_cuda: FakeCuda) -> None:
    function = compiled("scaled", fake_cuda, x=(3, 4), w=(4, 5))
    x, w = np.ones((3, 4), np.float32), np.ones((4, 5), np.float32)
    before = fake_cuda.library.fake_graph_launches()
    for number in range(5):
        y, sums = function(x * number, w)
        np.testing.assert_allclose(y, 4.0 * number * np.ones((3, 5)))
        del y, sums
    # The memory of results is the same from the second call on at the latest.
    assert fake_cuda.library.fake_graph_launches() - before >= 3


def test_loops_over_sequences_are_in_the_graph(fake_cuda: FakeCuda) -> None:
    function = compiled("recurrent", fake_cuda, h=(4,), xs=(7, 4))
    rng = np.random.default_rng(1)
    h, xs = rng.standard_normal(4, np.float32), rng.standard_normal((7, 4), np.float32)
    before = fake_cuda.library.fake_graph_launches()
    for _ in range(4):
        last, squares = map(np.asarray, function(h, xs))
    assert fake_cuda.library.fake_graph_launches() - before >= 2
    state, found = h, []
    for x in xs:
        state = 0.5 * state + x
        found.append((state * state).sum())
    np.testing.assert_allclose(last, state, rtol=1e-5)
    np.testing.assert_allclose(squares, found, rtol=1e-5)


def test_arrays_on_the_device_are_passed_where_they_are(fake_cuda: FakeCuda) -> None:
    function = compiled("scaled", fake_cuda, x=(3, 4), w=(4, 5))
    pool = function.executable.pool
    x = DeviceArray.of(pool, np.ones((3, 4), np.float32))
    w = DeviceArray.of(pool, np.ones((4, 5), np.float32))
    y, _ = function.fast(x, w)
    np.testing.assert_allclose(y + 1, 5 * np.ones((3, 5)))
    assert function.fast(x, np.ones((4, 6), np.float32)) is NotImplemented
    with pytest.raises(mt.ArgumentError, match="expected w: f32"):
        function(x, np.ones((4, 5), np.float64))


def test_memory_is_used_again(fake_cuda: FakeCuda) -> None:
    device = fake_cuda.device()
    pool = pool_of(device)
    first = pool.allocate(1000)
    address = first.address
    del first
    gc.collect()
    assert pool.allocate(900).address == address
    count = fake_cuda.library.fake_live_blocks()
    pool.release()
    assert fake_cuda.library.fake_live_blocks() < count


def test_an_image_that_the_driver_refuses_shows_its_log(fake_cuda: FakeCuda) -> None:
    driver = Driver(fake_cuda.library)
    fake_cuda.device()
    with pytest.raises(DriverError, match=r"CUDA_ERROR_INVALID_PTX.*\n.*parsing error near"):
        driver.load_module(b"nonsense")


def test_too_much_memory(fake_cuda: FakeCuda) -> None:
    with pytest.raises(DeviceError, match="CUDA_ERROR_OUT_OF_MEMORY"):
        pool_of(fake_cuda.device()).allocate(2**40)


def test_no_device(fake_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_CUDA_INIT", "100")
    with pytest.raises(DeviceError, match="cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device"):
        open_driver([str(fake_library)])


def test_no_driver() -> None:
    with pytest.raises(DeviceError, match=r"^there is no CUDA driver \(.*\); it comes with"):
        open_driver(["libcuda-that-is-not-there.so"])


def test_a_library_without_the_functions() -> None:
    with pytest.raises(DeviceError, match="the CUDA driver is too old: it lacks cuInit"):
        Driver(ctypes.CDLL(None))


def test_targets_by_capability() -> None:
    assert target_for((8, 0)).name == "nvptx64-sm_80"
    assert target_for((9, 0)).name == "nvptx64-sm_90"
    assert target_for((8, 7)).name == "nvptx64-sm_86"
    with pytest.raises(DeviceError, match="a GPU of sm_70 is too old"):
        target_for((7, 0))


def test_events_measure(fake_cuda: FakeCuda) -> None:
    device, before = fake_cuda.device(), fake_cuda.library.fake_live_graphs()
    source, target = device.allocate(4), device.allocate(4)
    device.write(source, np.array([7], np.int32))
    commands = [Copy(target, source, 4), Fill(source, 4)]
    assert device.times(commands) == [pytest.approx(0.0015)] * 2
    found = np.zeros(2, np.int32)
    device.read(target, found[:1])
    device.read(source, found[1:])
    assert found.tolist() == [7, 0]
    gc.collect()
    assert fake_cuda.library.fake_live_graphs() == before


def test_modules_are_unloaded(fake_cuda: FakeCuda) -> None:
    before = fake_cuda.library.fake_live_modules()
    function = compiled("scaled", fake_cuda, x=(3, 4), w=(4, 5))
    assert fake_cuda.library.fake_live_modules() == before + 1
    del function
    gc.collect()
    assert fake_cuda.library.fake_live_modules() == before
