"""`print` and `assert` in programs: from Python, on the command line, in C libraries."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from cli_harness import Workspace

import mapsto as mt
from mapsto.runtime import function

TEXT = '''
map f(x: f32[n]) -> f32:
    """The logarithm of the sum."""
    print("x = {}, n = {}", x, n)
    let s = sum(x)
    assert(s > 0, "the sum is positive")
    print("s", s, (s, [1, true]))
    log(s)

map slope(x: f32[n]) -> f32[n]:
    grad(f)(x)

map curvature(x: f32[n]) -> f32[n]:
    map inner(y: f32[n]) -> f32:
        sum(grad(f)(y))
    grad(inner)(x)

map rows(x: f32[m, n]) -> f32[m]:
    vmap(f)(x)

map plain(x: f32[n]) -> f32[n]:
    print(x)
    assert(n > 0 or n == 0)
    assert(all(x == x))
    2 * x
'''
ONES = np.ones(3, np.float32)
PRINTED = "x = [1. 1. 1.], n = 3\ns 3. (3., [1, True])\n"


@pytest.fixture(scope="module")
def lib() -> mt.Library:
    return mt.loads(TEXT)


def test_output_comes_in_order_with_that_of_python(lib: mt.Library, capsys) -> None:
    print("before")
    lib.f(ONES)
    print("after")
    assert capsys.readouterr().out == f"before\n{PRINTED}after\n"


def test_a_derivative_has_the_effects_once(lib: mt.Library, capsys) -> None:
    np.testing.assert_allclose(lib.slope(ONES), ONES / 3, rtol=1e-6)
    assert capsys.readouterr().out == PRINTED
    _, gradient = mt.value_and_grad(lib.f)(ONES)
    assert capsys.readouterr().out == PRINTED
    np.testing.assert_allclose(gradient, ONES / 3, rtol=1e-6)
    np.testing.assert_allclose(lib.curvature(ONES), -ONES / 3, rtol=1e-6)
    assert capsys.readouterr().out == PRINTED
    with pytest.raises(mt.AssertionFailed, match="the sum is positive"):
        lib.slope(-ONES)


def test_a_failed_assertion_has_message_and_place(lib: mt.Library) -> None:
    with pytest.raises(mt.AssertionFailed, match="assertion failed: the sum is positive") as caught:
        lib.f(-ONES)
    assert caught.value.message == "the sum is positive"
    assert caught.value.location is not None and caught.value.location.line == 6


def test_an_assertion_without_message_shows_its_condition(lib: mt.Library) -> None:
    with pytest.raises(mt.AssertionFailed, match=r"all\(x == x\)"):
        lib.plain(np.array([1, np.nan], np.float32))


def test_batches_are_printed_and_checked_as_wholes(lib: mt.Library, capsys) -> None:
    lib.rows(np.ones((2, 3), np.float32))
    assert "x = [[1. 1. 1.]\n     [1. 1. 1.]], n = 3\n" in capsys.readouterr().out
    with pytest.raises(mt.AssertionFailed):
        lib.rows(np.array([[1], [-1]], np.float32))


def test_interpreters_without_the_fast_entry(capsys, monkeypatch) -> None:
    monkeypatch.setattr(function, "layout_is_known", lambda: False)
    lib = mt.loads(TEXT)
    lib.f(ONES)
    assert capsys.readouterr().out == PRINTED
    with pytest.raises(mt.AssertionFailed, match="the sum is positive"):
        lib.f(-ONES)


def test_on_the_command_line(workspace: Workspace) -> None:
    workspace.write("effects.mto", TEXT)
    outcome = workspace.run("run", "effects.mto:f", "--input", workspace.array("x.npy", ONES))
    assert outcome.code == 0 and outcome.out.startswith(PRINTED)
    failed = workspace.run("run", "effects.mto:f", "--input", workspace.array("y.npy", -ONES))
    assert failed.code == 1
    assert failed.err == "error: effects.mto:6:5: assertion failed: the sum is positive\n"


def test_in_a_library(lib: mt.Library, tmp_path: Path, capfd) -> None:
    """Output goes to C's standard output; an assertion is an error code that has a message."""
    shared = tmp_path / "liblogs.so"
    mt.build(lib.f, shared, x=mt.f32["n"])
    logs = ctypes.CDLL(str(shared))
    logs.logs_error_message.restype = ctypes.c_char_p
    result = np.zeros((), np.float32)

    def call(x: np.ndarray) -> int:
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, result)]
        size = ctypes.c_int64(x.size)
        one, none = ctypes.c_int64(1), ctypes.c_void_p()
        code: int = logs.logs_f(size, pointers[0], size, pointers[1], one, none, ctypes.c_int64(0))
        return code

    assert call(ONES) == 0
    assert capfd.readouterr().out == PRINTED
    np.testing.assert_allclose(result, np.log(3), rtol=1e-6)
    code = call(-ONES)
    message = logs.logs_error_message(code).decode()
    assert message.endswith(":6: assertion failed: the sum is positive")
    assert f"{code}  {message}" in (tmp_path / "logs.h").read_text()


def test_effects_in_loops_and_branches_and_their_derivatives(capsys) -> None:
    lib = mt.loads("""
map total(xs: f32[n]) -> f32:
    map step(carry: f32, x: f32) -> (f32, f32):
        assert(x < 10, "small steps")
        let next = carry * 0.5 + x * x
        print("{} -> {}", carry, next)
        (next, next)

    let (final, ys) = scan(step, 0.0, xs)
    if final > 1:
        print("large")
    else:
        print("little")
    sum(ys)

map slope(xs: f32[n]) -> f32[n]:
    grad(total)(xs)
""")
    large, little = np.array([1, 2], np.float32), np.array([0.5, 0], np.float32)
    lib.total(large)
    assert capsys.readouterr().out == "0. -> 1.\n1. -> 4.5\nlarge\n"
    lib.total(little)
    assert capsys.readouterr().out == "0. -> 0.25\n0.25 -> 0.125\nlittle\n"
    np.testing.assert_allclose(lib.slope(large), [3, 4])
    assert capsys.readouterr().out == "0. -> 1.\n1. -> 4.5\nlarge\n"
    with pytest.raises(mt.AssertionFailed, match="small steps"):
        lib.slope(10 * large)


def test_an_assertion_stops_training() -> None:
    lib = mt.loads("""
module Net():
    layer = Dense(2)
    state steps: i64 = 0

    map (x: f32[n, d]) -> f32[n, 2]:
        steps <- steps + 1
        assert(steps < 3, "two steps")
        layer(x)

train Fit(net = Net(), optimizer = SGD(lr=0.1)):
    loss(x: f32[n, 4], y: f32[n, 2]) = mse(net(x), y)
""")
    data = {"x": np.ones((8, 4), np.float32), "y": np.ones((8, 2), np.float32)}
    with pytest.raises(mt.AssertionFailed, match="two steps"):
        lib.Fit().fit(data, batch=2, progress=False)
    lib.Fit().fit(data, batch=4, progress=False)
