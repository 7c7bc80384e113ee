"""`hessian`, `vmap` along any axes, `remat`, names of arguments and auxiliary results, in the
language and from Python."""

import numpy as np
import pytest

import mapsto as mt

LIB = mt.loads("""
map energy(x: f64[n], y: f64[m]) -> f64:
    sum(x^3) * sum(y^2) + x[0] * y[0]

map curved(pair: (f64[n], f64)) -> f64:
    let (x, s) = pair
    s^2 * sum(x^2)

map curvatures(x: f64[n], s: f64):
    hessian(curved)((x, s))

map curvature_of_each(x: f64[m, n], y: f64[m, k]) -> f64[m, n, n]:
    vmap(hessian(energy))(x, y)

map third(x: f64[n]):
    map total(x: f64[n]) -> f64:
        sum(hessian(cubes)(x))
    grad(total)(x)

map cubes(x: f64[n]) -> f64: sum(x^3)

map with_rest(w: f64[n], x: f64[n]):
    (sum(w^2 * x), w * x, sum(x))

map slope_and_rest(w: f64[n], x: f64[n]):
    grad(with_rest, argnums="w", has_aux=true)(x=x, w=w)

map by_name(w: f64[n], x: f64[n]):
    map swapped(x: f64[n], w: f64[n]) -> f64: sum(w^2 * x)
    grad(swapped, argnums=["w", "x"])(x, w)

map of_partial(w: f64[n], x: f64[n]) -> f64[n]:
    map weighted(k: f64, x: f64[n], w: f64[n]) -> f64: k * sum(w^2 * x)
    grad(frozen(partial(weighted, 3.0)), argnums="w")(x, w)

map scaled(x: f64[n, m], k: f64) -> (f64[n, m], f64): (k * x, sum(x))

map pairs(given: (f64[n], f64[m]), k: f64[n]) -> f64[m]:
    let (x, y) = given
    (x @ k) * y

map in_pairs(x: f64[n, b], y: f64[b, m], k: f64[n]) -> f64[m, b]:
    vmap(pairs, in_axes=((1, 0), none), out_axes=1)((x, y), k)

map ordered(x: f64[n, m]): vmap(sort, in_axes=-1)(x)

map looped(x: f64[n, t], start: f64):
    map step(h: f64, x: f64) -> (f64, f64): (tanh(h + x), h)
    map run(x: f64[t], start: f64): scan(step, start, x)
    vmap(run, in_axes=(0, none), out_axes=(0, 1))(x, start)

map deep(x: f64[n], w: f64[n]) -> f64:
    map layer(x: f64[n], w: f64[n]) -> f64[n]: sin(exp(sin(w * x)))
    sum(remat(layer)(remat(layer)(x, w), w))

map plain(x: f64[n], w: f64[n]) -> f64:
    map layer(x: f64[n], w: f64[n]) -> f64[n]: sin(exp(sin(w * x)))
    sum(layer(layer(x, w), w))

module Net():
    first = Dense(4, tanh)
    last = Dense(1)

    map (x: f64[n, d]) -> f64[n, 1]: last(first(x))

    map one(x: f64[d]) -> f64: sum(last(first(reshape(x, [1, d]))))

    map saving(x: f64[n, d]) -> f64[n, 1]: last(remat(first)(x))

map error(net: module, x: f64[n, d]) -> f64: sum(net(x)^2)

map error_saving(net: module, x: f64[n, d]) -> f64: sum(net.saving(x)^2)
""")
X, Y = np.array([1.0, 2.0, 3.0]), np.array([0.5, -1.0])
TABLE = np.arange(6.0).reshape(2, 3)


def test_hessian() -> None:
    expected = np.diag(6 * X) * (Y**2).sum()
    np.testing.assert_allclose(mt.hessian(LIB.energy)(X, Y), expected)


def test_hessian_by_several_arguments() -> None:
    found = mt.hessian(LIB.energy, ("x", "y"))(X, Y)
    mixed = 3 * X[:, None] ** 2 * 2 * Y
    mixed[0, 0] += 1
    assert [[block.shape for block in row] for row in found] == [[(3, 3), (3, 2)], [(2, 3), (2, 2)]]
    np.testing.assert_allclose(found[0][1], mixed)
    np.testing.assert_allclose(found[1][0], mixed.T)
    np.testing.assert_allclose(found[1][1], 2 * (X**3).sum() * np.eye(2))


def test_hessian_by_a_structure() -> None:
    (xx, xs), (sx, ss) = LIB.curvatures(X, 2.0)
    np.testing.assert_allclose(xx, 8 * np.eye(3))
    np.testing.assert_allclose(xs, 8 * X)
    np.testing.assert_allclose(sx, 8 * X)
    np.testing.assert_allclose(ss, 28)


def test_hessian_of_each_element() -> None:
    x, y = np.stack([X, 2 * X]), np.stack([Y, Y])
    expected = [mt.hessian(LIB.energy)(*row) for row in zip(x, y, strict=True)]
    np.testing.assert_allclose(LIB.curvature_of_each(x, y), expected)


def test_derivatives_of_hessians() -> None:
    np.testing.assert_allclose(LIB.third(X), [6, 6, 6])


def test_auxiliary_results() -> None:
    for found in (LIB.slope_and_rest(X, X), mt.grad(LIB.with_rest, has_aux=True)(X, X)):
        slope, (product, total) = found
        np.testing.assert_allclose(slope, 2 * X * X)
        np.testing.assert_allclose(product, X * X)
        assert total == 6
    (value, product, total), slope = mt.value_and_grad(LIB.with_rest)(X, X)
    assert value == 36 and total == 6


def test_arguments_by_name() -> None:
    by_w, by_x = LIB.by_name(X, 2 * X)
    np.testing.assert_allclose(by_w, 4 * X * X)
    np.testing.assert_allclose(by_x, X**2)
    np.testing.assert_allclose(mt.grad(LIB.energy, "y")(y=Y, x=X)[1], 2 * Y[1] * 36)
    np.testing.assert_allclose(LIB.of_partial(X, 2 * X), 12 * X * X)
    _, slope = mt.jvp(LIB.cubes, "x")(X, np.ones(3))
    np.testing.assert_allclose(slope, (3 * X**2).sum())


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_vmap_along_any_axis(axis: int) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    values, sums = mt.vmap(LIB.scaled, in_axes=(axis, None), out_axes=(axis, 0))(x, 2.0)
    np.testing.assert_allclose(values, 2 * x)
    others = tuple(i for i in range(3) if i != axis % 3)
    np.testing.assert_allclose(sums, x.sum(others))


def test_results_that_are_the_same_for_every_element() -> None:
    values, total = mt.vmap(LIB.scaled, in_axes=(None, 0), out_axes=(0, None))(TABLE, X)
    np.testing.assert_allclose(values, X[:, None, None] * TABLE)
    assert total == 15


def test_axes_of_structures() -> None:
    x, y, k = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4), np.array([1.0, 10.0])
    np.testing.assert_allclose(LIB.in_pairs(x, y, k), ((k @ x)[:, None] * y).T)


def test_vmap_of_sorting_and_loops() -> None:
    x = np.array([[3.0, 1.0], [2.0, 5.0], [0.0, 4.0]])
    np.testing.assert_allclose(LIB.ordered(x), np.sort(x.T, axis=-1))
    last, outputs = LIB.looped(TABLE, 0.5)
    for i, row in enumerate(TABLE):
        h = 0.5
        for t, element in enumerate(row):
            np.testing.assert_allclose(outputs[t, i], h)
            h = np.tanh(h + element)
        np.testing.assert_allclose(last[i], h)


def test_vmap_nests() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    inner = mt.vmap(LIB.cubes, in_axes=1)
    np.testing.assert_allclose(mt.vmap(inner, in_axes=2)(x), (x**3).sum(0).T)


def test_vmap_of_a_module_shares_its_parameters() -> None:
    net = LIB.Net(seed=1)
    x = np.random.default_rng(0).normal(size=(5, 3))
    expected = net(x)[:, 0]
    np.testing.assert_allclose(mt.vmap(net.one)(x), expected)
    batches = np.stack([x, 2 * x], axis=1)
    np.testing.assert_allclose(mt.vmap(net, in_axes=1)(batches)[0, :, 0], expected)


def test_remat_changes_no_derivative() -> None:
    for function in (mt.grad(LIB.deep, (0, 1)), mt.grad(mt.remat(LIB.plain), (0, 1))):
        for found, expected in zip(
            function(X, X / 4), mt.grad(LIB.plain, (0, 1))(X, X / 4), strict=True
        ):
            np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(mt.hessian(LIB.deep)(X, X), mt.hessian(LIB.plain)(X, X), rtol=1e-9)
    found, expected = (mt.jvp(f)(X, X, np.ones(3)) for f in (LIB.deep, LIB.plain))
    np.testing.assert_allclose(found, expected)


def test_remat_of_a_layer() -> None:
    net = LIB.Net(seed=1)
    x = np.random.default_rng(0).normal(size=(5, 3))
    expected = mt.grad(LIB.error)(net, x)
    found = mt.grad(LIB.error_saving)(net, x)
    assert list(found) == list(expected)
    for path, slope in expected.items():
        np.testing.assert_allclose(found[path], slope)


def test_wrong_uses() -> None:
    with pytest.raises(ValueError, match="grad by z, but the arguments are x, y"):
        mt.grad(LIB.energy, "z")
    with pytest.raises(ValueError, match="in_axes has 3 items, but the map has 2 arguments"):
        mt.vmap(LIB.energy, in_axes=(0, 0, 0))
    with pytest.raises(mt.DiagnosticsError, match="there is no axis 3 in a tensor of rank 2"):
        mt.vmap(LIB.scaled, in_axes=(3, None))(TABLE, 1.0)
