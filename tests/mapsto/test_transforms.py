"""`grad`, `value_and_grad`, `jvp` and `vmap` from Python."""

import numpy as np
import pytest

import mapsto as mt

LIB = mt.loads("""
map weighted(x: f64[n], y: f64, k: int = 2) -> f64:
    y * sum(x^k)

map wave(x: f64[n]) -> f64[n]:
    sin(x)

map cube(x: f64) -> f64:
    x^3

map single(x: f32) -> f32:
    x^2

map along(x: f64[n], dx: f64[n]) -> f64:
    sum(x * dx^2)

module Net():
    layers = [Dense(4, tanh), Dense(2)]
    state calls: f64 = 0

    map (x: f64[n, d]) -> f64[n, 2]:
        chain(layers)(x)

    map energy(x: f64[n, d]) -> f64:
        sum(chain(layers)(x)^2)

    map counted(x: f64[n, d]) -> f64:
        calls <- calls + 1
        energy(x)

map error(net: module, x: f64[n, d], y: f64[n, k]) -> f64:
    mse(net(x), y)

map difference(first: module, second: module, x: f64[n, d]) -> f64:
    mse(first(x), second(x))
""")
X = np.array([1.0, 2.0, 3.0])
BATCH = np.random.default_rng(0).normal(size=(6, 3))
TARGET = np.random.default_rng(1).normal(size=(6, 2))
PATHS = ["layers.0.w", "layers.0.b", "layers.1.w", "layers.1.b"]


def differences(function, array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The derivative of a function of nothing by an array that it reads, by central differences."""
    result = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        before = array[index]
        array[index] = before + step
        above = float(function())
        array[index] = before - step
        result[index] = (above - float(function())) / (2 * step)
        array[index] = before
    return result


def test_grad_by_the_first_argument() -> None:
    np.testing.assert_allclose(mt.grad(LIB.weighted)(X, 3.0), 6 * X)


def test_argnums() -> None:
    np.testing.assert_allclose(mt.grad(LIB.weighted, 1)(X, 3.0), 14)
    by_x, by_y = mt.grad(LIB.weighted, (0, 1))(X, 3.0)
    np.testing.assert_allclose(by_x, 6 * X)
    np.testing.assert_allclose(by_y, 14)
    (only,) = mt.grad(LIB.weighted, [0])(X, 3.0)
    np.testing.assert_allclose(only, 6 * X)
    np.testing.assert_allclose(mt.grad(LIB.weighted, -2)(X, 3.0), 14)


def test_static_arguments_and_names() -> None:
    np.testing.assert_allclose(mt.grad(LIB.weighted)(X, 3.0, 3), 9 * X**2)
    np.testing.assert_allclose(mt.grad(LIB.weighted, 1)(k=3, y=5.0, x=X), np.sum(X**3))


def test_value_and_grad() -> None:
    value, slope = mt.value_and_grad(LIB.weighted)(X, 3.0)
    assert value == 42
    np.testing.assert_allclose(slope, 6 * X)
    value, slopes = mt.value_and_grad(LIB.weighted, (0, 1))(X, 3.0)
    assert value == 42 and len(slopes) == 2


def test_jvp() -> None:
    value, slope = mt.jvp(LIB.wave)(X, np.ones(3))
    np.testing.assert_allclose(value, np.sin(X))
    np.testing.assert_allclose(slope, np.cos(X))
    value, slope = mt.jvp(LIB.weighted, (0, 1))(X, 3.0, dx=np.ones(3), dy=1.0)
    np.testing.assert_allclose(slope, 6 * X.sum() + 14)


def test_directions_have_names_of_their_own() -> None:
    names = [p.name for p in mt.jvp(LIB.along, (0, 1)).parameters]
    assert names == ["x", "dx", "ddx", "dddx"]
    _, slope = mt.jvp(LIB.along)(X, X, np.ones(3))
    np.testing.assert_allclose(slope, 14)


def test_numbers_are_differentiated_by_without_compiling_anew() -> None:
    slope = mt.grad(LIB.cube)
    assert [float(slope(x)) for x in (1.0, 2.0, 3.0)] == [3, 12, 27]
    assert len(slope._specializations) == 1
    assert mt.grad(LIB.single)(3.0).dtype == np.float32


def test_nesting() -> None:
    assert mt.grad(mt.grad(LIB.cube))(2.0) == 12
    assert mt.grad(mt.grad(mt.grad(LIB.cube)))(2.0) == 6
    slope, curvature = mt.jvp(mt.grad(LIB.cube))(2.0, 1.0)
    assert (slope, curvature) == (12, 12)


def test_vmap() -> None:
    rows = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(mt.vmap(LIB.weighted)(rows, 2.0), 2 * (rows**2).sum(1))
    np.testing.assert_allclose(mt.vmap(LIB.wave)(rows), np.sin(rows))


def test_by_the_parameters_of_a_module() -> None:
    net = LIB.Net(seed=2)
    value, slopes = mt.value_and_grad(LIB.error)(net, BATCH, TARGET)
    assert value == pytest.approx(np.mean((net(BATCH) - TARGET) ** 2))
    assert list(slopes) == PATHS == list(net.params)
    for path, slope in slopes.items():
        expected = differences(lambda: LIB.error(net, BATCH, TARGET), net.params[path])
        np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-8)


def test_by_a_module_and_a_tensor() -> None:
    net, x = LIB.Net(seed=2), BATCH.copy()
    by_net, by_x = mt.grad(LIB.error, (0, 1))(net, x, TARGET)
    assert list(by_net) == PATHS
    expected = differences(lambda: LIB.error(net, x, TARGET), x)
    np.testing.assert_allclose(by_x, expected, rtol=1e-5, atol=1e-8)


def test_by_two_modules() -> None:
    first, second = LIB.Net(seed=1), LIB.Net(seed=2)
    slopes = mt.grad(LIB.difference, (0, 1))(first, second, BATCH)
    for net, slope in zip((first, second), slopes, strict=True):
        assert list(slope) == PATHS
        weights = net.params["layers.1.w"]
        expected = differences(lambda: LIB.difference(first, second, BATCH), weights)
        np.testing.assert_allclose(slope["layers.1.w"], expected, rtol=1e-5, atol=1e-8)


def test_maps_of_modules() -> None:
    net, x = LIB.Net(seed=3), BATCH.copy()
    expected = differences(lambda: net.energy(x), x)
    np.testing.assert_allclose(mt.grad(net.energy)(x), expected, rtol=1e-5, atol=1e-8)
    value, slope = mt.jvp(net)(x, np.ones_like(x))
    np.testing.assert_allclose(value, net(x))
    ahead, behind = net(x + 1e-6), net(x - 1e-6)
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-8)


def test_states_are_updated() -> None:
    net = LIB.Net()
    slope = mt.grad(net.counted)
    for _ in range(3):
        slope(BATCH)
    assert net.states["calls"] == 3


def test_a_training_loop_by_hand() -> None:
    net = LIB.Net(seed=4)
    step = mt.value_and_grad(LIB.error)
    losses = []
    for _ in range(200):
        loss, slopes = step(net, BATCH, TARGET)
        losses.append(float(loss))
        for path, slope in slopes.items():
            net.params[path][...] -= 0.2 * slope
    assert losses[-1] < losses[0] / 2


def test_passes_and_names() -> None:
    slope = mt.grad(LIB.weighted)
    assert repr(slope).startswith("<grad of <map weighted(x: f64[n]")
    other = slope.with_passes("default,-cse")
    np.testing.assert_allclose(other(X, 3.0), slope(X, 3.0))
    np.testing.assert_allclose(slope.reference(X, 3.0), 6 * X)
    assert slope.ir(x=mt.f64["n"], y=mt.f64[()]).startswith("func @grad.weighted(")


def test_wrong_uses() -> None:
    with pytest.raises(TypeError, match="grad takes a map or a module instance"):
        mt.grad(np.sin)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="grad by argument 3, but the map has 3 arguments"):
        mt.grad(LIB.weighted, 3)
    with pytest.raises(mt.ArgumentError, match="grad by k needs the argument k"):
        mt.grad(LIB.weighted, 2)(X, 3.0)
    with pytest.raises(mt.DiagnosticsError, match="only a map to one floating-point number"):
        mt.grad(LIB.wave)(X)
    with pytest.raises(mt.ArgumentError, match="the argument dx is missing"):
        mt.jvp(LIB.wave)(X)


@pytest.mark.parametrize("axes", ["rows", 1.5, (0, "rows"), {0: 1}])
def test_axes_that_are_none(axes) -> None:
    with pytest.raises(TypeError, match="an axis is a whole number"):
        mt.vmap(LIB.wave, in_axes=axes)
