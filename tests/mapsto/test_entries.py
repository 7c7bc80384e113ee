"""Entries: calls like one before go straight to compiled code, and others do not go wrong by it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import mapsto as mt
from mapsto.callables import Compilable
from mapsto.runtime import function

SOURCE = """
map scaled(x: f32[n], by: f32 = 2.0) -> f32[n]: x * by

map inverse(x: f32[n], by: f32) -> f32[n]: x / by

map total(xs: (a: f32[n], b: (f32[n], f32))) -> (sum: f32[n], parts: (f32[n], f32)):
    (sum = xs.a + xs.b[0] * xs.b[1], parts = xs.b)

module Linear(units: int = 3):
    layer = Dense(units)

    map (x: f32[n, d]) -> f32[n, units]: layer(x)

    map twice(x: f32[n, d]) -> f32[n, units]: 2.0 * layer(x)

map loss(net: module, x: f32[n, d], y: f32[n, e]): mse(net(x), y)

map loss_and_more(net: module, x: f32[n, d], y: f32[n, e]): (loss(net, x, y), net(x))

map sum_of(nets: list, x: f32[n, d]):
    let total = nets[0](x) + nets[1](x)
    sum(total)

map square(x: f32[n], y: f32[n]): sum(x * x * y)
"""

X = np.arange(4, dtype=np.float32)
BATCH = np.ones((2, 5), np.float32)
TARGET = np.zeros((2, 3), np.float32)


@pytest.fixture(scope="module")
def library() -> mt.Library:
    return mt.loads(SOURCE)


@pytest.fixture
def is_quick(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether calls like one before need no sorting of their arguments."""

    def check(call: Any) -> Any:
        first = call()
        with monkeypatch.context() as patch:
            patch.setattr("mapsto.callables.bind_arguments", _slow)
            again = call()
        np.testing.assert_equal(again, first)
        assert type(again) is type(first)
        return again

    return check


def _slow(*arguments: object) -> Any:
    raise AssertionError("the arguments are sorted again")


class Pair(NamedTuple):
    """A record whose fields are in another order than declared."""

    b: object
    a: object


def test_forms_of_arguments_and_results(library: mt.Library, is_quick: Any) -> None:
    for xs in ({"a": X, "b": (X, 3.0)}, (X, [X, np.float32(3)]), Pair((X[::-1][::-1], 3.0), X)):
        found = is_quick(lambda xs=xs: library.total(xs))
        np.testing.assert_array_equal(found.sum, 4 * X)
        assert found.parts[1] == 3
        out = {"sum": np.empty(4, np.float32), "parts": (np.empty_like(X), np.empty((), "f4"))}
        assert is_quick(lambda xs=xs, out=out: library.total(xs, out=out)) is out
        np.testing.assert_array_equal(out["sum"], 4 * X)
    is_quick(lambda: library.scaled(X))
    is_quick(lambda: library.scaled(X, 3.0))
    is_quick(lambda: library.scaled(by=3.0, x=X))
    is_quick(lambda: library.scaled(X[::-1], by=3.0))


def test_nets_and_maps_of_maps(library: mt.Library, is_quick: Any) -> None:
    net, other = library.Linear(seed=0), library.Linear(seed=1)
    is_quick(lambda: net.twice(BATCH))
    gradient = mt.value_and_grad(library.loss)
    for chosen in (net, other, net):
        value, slope = is_quick(lambda chosen=chosen: gradient(chosen, BATCH, TARGET))
        assert set(slope) == {"layer.w", "layer.b"}
        assert value == pytest.approx(np.mean(chosen(BATCH) ** 2))
    (value, more), slope = is_quick(
        lambda: mt.value_and_grad(library.loss_and_more, has_aux=True)(net, BATCH, TARGET)
    )
    np.testing.assert_array_equal(more, net(BATCH))
    out = (np.empty((), np.float32), {path: np.empty_like(a) for path, a in slope.items()})
    assert is_quick(lambda: gradient(net, BATCH, TARGET, out=out)) is out
    np.testing.assert_equal(out, (value, slope))
    is_quick(lambda: mt.value_and_grad(library.square, argnums=(0, 1))(X, X))
    is_quick(lambda: mt.jvp(library.square)(X, X, X))
    is_quick(lambda: mt.hessian(library.square)(X, X))
    is_quick(lambda: mt.vmap(mt.grad(library.square))(BATCH, BATCH))


def test_what_is_made_of_a_map_is_made_once(library: mt.Library) -> None:
    made = mt.grad(library.square, argnums=[0, 1])
    assert mt.grad(library.square, (0, 1)) is made
    assert mt.grad(library.square) is not made
    assert mt.vmap(made, in_axes=[0, None]) is mt.vmap(made, in_axes=(0, None))
    assert mt.remat(library.square) is not mt.train_mode(library.square)


def test_static_arguments_are_told_apart(library: mt.Library) -> None:
    """Equal numbers of other types, zeros of both signs, items of a list that changes."""
    with np.errstate(divide="ignore"):
        for by in (2.0, 2, 0.0, -0.0, 2.0, float("nan"), -0.0):
            np.testing.assert_array_equal(library.inverse(X + 1, by), (X + 1) / np.float32(by))
    count = len(library.inverse._specializations)
    library.inverse(X + 1, float("nan"))
    assert len(library.inverse._specializations) == count

    nets = [library.Linear(seed=0), library.Linear(seed=1)]
    both = library.sum_of(nets, BATCH)
    assert library.sum_of([*nets], BATCH) == both
    assert len(library.sum_of._specializations) == 1
    nets[1] = library.Linear(seed=2)
    assert library.sum_of(nets, BATCH) == pytest.approx(sum(net(BATCH).sum() for net in nets))


def test_many_types_in_turn(library: mt.Library, is_quick: Any) -> None:
    arrays = [np.ones(size, np.float32) for size in range(1, 9)]
    for _ in range(2):
        for array in arrays:
            assert np.array_equal(library.scaled(array, 5.0), 5 * array)
    is_quick(lambda: [library.scaled(array, 5.0) for array in arrays])
    entries = library.scaled._entries
    assert len(entries._kept) == 8, "no call is kept twice"


def test_errors_come_as_before(library: mt.Library) -> None:
    out = np.empty(4, np.float32)
    library.scaled(X, out=out)
    for _ in range(2):
        with pytest.raises(mt.ArgumentError, match="shares memory with the argument x"):
            library.scaled(X, out=X)
        with pytest.raises(mt.ArgumentError, match="there is no parameter z"):
            library.scaled(X, z=3)
        with pytest.raises(mt.ArgumentError, match="the argument x is missing"):
            library.scaled(by=3.0)
        with pytest.raises(mt.ArgumentError, match="given twice"):
            library.scaled(X, x=X)
    assert np.array_equal(library.scaled(X), 2 * X)


def test_an_entry_that_cannot_tell_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where objects are laid out in an unknown way, the entry converts what it is given."""
    monkeypatch.setattr(function, "layout_is_known", lambda: False)
    scaled: Compilable = mt.loads(SOURCE).scaled
    for size in (2, 3, 2):
        x = np.ones(size, np.float32)
        assert np.array_equal(scaled(x), 2 * x)
        assert np.array_equal(scaled(x, out=np.empty_like(x)), 2 * x)


def test_a_dict_of_numbers_may_change_between_calls() -> None:
    scaled = mt.loads("map f(settings: any, x: f32[n]): x * settings.a").f
    settings, x = {"a": 1.0}, np.ones(2, np.float32)
    assert scaled(settings, x).tolist() == [1, 1]
    settings["a"] = 2.0
    assert scaled(settings, x).tolist() == [2, 2]
    assert scaled({"a": 2.0}, x).tolist() == [2, 2]
