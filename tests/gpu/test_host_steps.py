"""What the host does between kernels: loops, branches, prints, assertions, errors."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt

TEXT = """
map reversed(h: f32[n], xs: f32[t, n]) -> (f32[n], f32[t, n]):
    map step(h: f32[n], x: f32[n]) -> (f32[n], f32[n]):
        let next = tanh(h[::-1] + x)
        (next, 2 * next)

    scan(step, h, xs, reverse=true)

map nested(xs: f32[t, n]) -> f32[t, n]:
    map outer(total: f32[n], x: f32[n]) -> (f32[n], f32[n]):
        map inner(a: f32, b: f32) -> (f32, f32): (a + b, a * b)

        let (last, products) = scan(inner, 0.5, x + total)
        (total + last, products)

    let (total, outputs) = scan(outer, 0 * xs[0], xs)
    outputs

map halvings(x: f32[n]) -> (f32[n], i32):
    map large(s: (f32[n], i32)) -> bool: max(s[0]) > 1

    map half(s: (f32[n], i32)) -> (f32[n], i32): (s[0] / 2, s[1] + 1)

    while(large, half, (x, 0))

map chosen(x: f32[n, n]) -> f32[n, n]:
    if sum(x) > 0 then x @ x @ x else (x + 1) @ (x - 1) @ x

map told(x: f32[n]) -> f32[n]:
    print("x is {} and its sum {}", x, sum(x))
    2 * x

map checked(x: f32[n]) -> f32[n]:
    assert(min(x) > 0, "x is positive")
    log(x)

map picked(x: f32[n], i: i32[m]) -> f32[m]: x[i]
"""

LIB = mt.loads(TEXT)
RNG = np.random.default_rng(3)
X = RNG.standard_normal((6, 4), np.float32)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("reversed", (X[0], X)),
        ("reversed", (X[0], X[:5])),
        ("nested", (X,)),
        ("halvings", (8 * np.abs(X[0]),)),
        ("halvings", (X[0] / 8,)),
        ("chosen", (np.abs(X[:4]),)),
        ("chosen", (-np.abs(X[:4]),)),
    ],
)
def test_control_flow(name: str, arguments: tuple[np.ndarray, ...], device: str) -> None:
    function = getattr(LIB, name)
    expected, found = function(*arguments), function.to(device)(*arguments)
    pairs = (
        zip(expected, found, strict=True) if isinstance(expected, tuple) else [(expected, found)]
    )
    for here, there in pairs:
        np.testing.assert_allclose(there, here, rtol=1e-5, atol=1e-6)


def test_a_loop_is_differentiated(device: str) -> None:
    lib = mt.loads(
        TEXT + "\nmap energy(h: f32[n], xs: f32[t, n]) -> f32: sum(reversed(h, xs)[1]^2)\n"
    )
    slope = mt.grad(lib.energy, argnums=(0, 1))
    for here, there in zip(slope(X[0], X), slope.to(device)(X[0], X), strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)


def test_prints_come_with_the_values(capsys: pytest.CaptureFixture[str], device: str) -> None:
    LIB.told(X[0])
    expected = capsys.readouterr().out
    LIB.told.to(device)(X[0])
    assert capsys.readouterr().out == expected != ""


def test_an_assertion_that_fails(device: str) -> None:
    checked = LIB.checked.to(device)
    np.testing.assert_allclose(checked(np.ones(3, np.float32)), np.zeros(3))
    with pytest.raises(mt.AssertionFailed, match="x is positive"):
        checked(np.zeros(3, np.float32))


def test_an_index_out_of_bounds_and_a_call_after_it(device: str) -> None:
    picked = LIB.picked.to(device)
    x = np.arange(5, dtype=np.float32)
    for _ in range(3):
        with pytest.raises(mt.ExecutionError, match="outside of the tensor"):
            picked(x, np.array([1, 9], np.int32))
        np.testing.assert_array_equal(picked(x, np.array([1, 4], np.int32)), [1, 4])
