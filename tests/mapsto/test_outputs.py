"""`out=`: results of a call in arrays of the caller."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt

SOURCE = """
map scaled(x: f32[n, d], by: f32 = 2.0) -> f32[n, d]:
    x * by

map both(x: f32[n]) -> (f32[n], (f32[n], f32)):
    (x + 1, (x * 2, sum(x)))

map named(out: f32[n], x: f32[n]) -> f32[n]:
    out - x

module Linear(units: int = 3):
    layer = Dense(units)

    map (x: f32[n, d]) -> f32[n, units]:
        layer(x)
"""

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(scope="module")
def library() -> mt.Library:
    return mt.loads(SOURCE)


def test_result_is_the_given_array(library: mt.Library) -> None:
    out = np.empty_like(X)
    for arguments, named in (((X,), {}), ((X,), {}), ((), {"x": X}), ((X.tolist(),), {})):
        out[...] = np.nan
        assert library.scaled(*arguments, out=out, **named) is out
        assert np.array_equal(out, 2 * X)
    assert library.scaled(X, by=3.0, out=out) is out
    assert np.array_equal(out, 3 * X)
    assert np.array_equal(library.scaled(X), 2 * X)


def test_other_shapes_later(library: mt.Library) -> None:
    for rows in (1, 4, 2):
        x = np.ones((rows, 3), np.float32)
        out = np.empty_like(x)
        assert library.scaled(x, out=out) is out and (out == 2).all()
    with pytest.raises(mt.ArgumentError, match=r"expected an array for result: f32\[2, 3\], found"):
        library.scaled(X, out=np.empty((3, 2), np.float32))
    with pytest.raises(mt.ArgumentError, match="shares memory with the argument x"):
        library.scaled(X, out=X)


def test_results_of_several_parts(library: mt.Library) -> None:
    x = np.arange(4, dtype=np.float32)
    a, b, c = np.empty(4, np.float32), np.empty(4, np.float32), np.empty((), np.float32)
    out = (a, (b, c))
    assert library.both(x, out=out) is out
    assert np.array_equal(a, x + 1) and np.array_equal(b, 2 * x) and c == 6
    with pytest.raises(mt.ArgumentError, match=r"out\.1 has the parts 0, 1, as the result"):
        library.both(x, out=(a, b))
    with pytest.raises(mt.ArgumentError, match="shares memory with that for result0"):
        library.both(x, out=(a, (a, c)))


def test_parameter_of_that_name(library: mt.Library) -> None:
    x = np.ones(3, np.float32)
    assert np.array_equal(library.named(out=3 * x, x=x), 2 * x)


def test_modules_and_derivatives(library: mt.Library) -> None:
    net = library.Linear()
    expected = net(X)
    out = np.empty((2, 3), np.float32)
    assert net(X, out=out) is out and np.array_equal(out, expected)
    with pytest.raises(mt.ArgumentError, match=r"shares memory with the parameter layer\.w"):
        net(np.ones((3, 3), np.float32), out=net.params["layer.w"])

    loss = mt.value_and_grad(mt.loads("map f(x: f32[n]) -> f32: sum(x * x)").f)
    x, value, slope = np.ones(4, np.float32), np.empty((), np.float32), np.empty(4, np.float32)
    loss(x, out=(value, slope))
    assert value == 4 and (slope == 2).all()
