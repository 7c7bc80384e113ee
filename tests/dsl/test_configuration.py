"""What only elaboration knows: lists made by comprehensions, `none`, numbers as maps, recursion."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import call_module, run_map

import mapsto as mt
from mapsto.dsl.checking import check
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.program import Program
from mapsto.dsl.source import Source

X = np.array([1.0, 2.0, 3.0], np.float32)

STACK = """
module Scale(by: f32):
    param w: f32 ~ ones
    map (x: f32[...s]) -> f32[...s]: by * w * x

module Shift(by: f32):
    map (x: f32[...s]) -> f32[...s]: x + by

module Stack(widths: list = [2, 3], last: module = none):
    layers = [Scale(n) for n in widths if n > 0]
    mixed = [if i % 2 == 0 then Scale(i + 1) else Shift(i) for i in range(3)]

    map (x: f32[n]) -> f32[n]:
        let y = chain(layers)(x)
        for layer in mixed:
            let y = layer(y)
        if last == none then y else last(y)

module Tower(depth: int = 2):
    layer = Scale(depth)
    rest = if depth > 1 then Tower(depth - 1) else none

    map (x: f32[n]) -> f32[n]:
        let y = layer(x)
        if rest == none then y else rest(y)
"""


def test_the_programs_are_right() -> None:
    assert check(Source("test.mto", STACK)) == []


def test_lists_of_modules() -> None:
    stack = Program.loads(STACK).instantiate("Stack", {"widths": [2, 0, 5]})
    np.testing.assert_allclose(call_module(stack, x=X), (10 * X + 1) * 3)
    lib = mt.loads(STACK)
    net = lib.Stack()
    np.testing.assert_allclose(net(X), (6 * X + 1) * 3)
    assert list(net.params) == ["layers.0.w", "layers.1.w", "mixed.0.w", "mixed.2.w"]
    np.testing.assert_allclose(lib.Stack(last=lib.Shift(4))(X), (6 * X + 1) * 3 + 4)
    np.testing.assert_allclose(lib.Stack(last=None)(X), net(X))


def test_lists_are_joined() -> None:
    lib = mt.loads(
        """
layers = [Dense(3)] + [Dense(n) for n in [4, 5]]

module Net():
    all = layers + [Dense(2)]

    map (x: f32[n, d]): chain(all)(x)

map ends(x: f32[n, m]) -> f32[n, 2*m]: concat([x] + [2 * x], axis=1)
"""
    )
    net = lib.Net()
    assert net(np.ones((1, 2), np.float32)).shape == (1, 2)
    assert [net.params[f"all.{i}.b"].size for i in range(4)] == [3, 4, 5, 2]
    assert lib.ends(np.float32([[1, 2]])).tolist() == [[1, 2, 2, 4]]
    with pytest.raises(mt.DiagnosticsError, match="`-` cannot be applied to a list"):
        mt.loads("map f(x: f32[n]): stack([x] - [x])").f(X)


def test_a_module_that_contains_itself() -> None:
    net = mt.loads(STACK).Tower(3)
    np.testing.assert_allclose(net(X), 6 * X)
    assert list(net.params) == ["layer.w", "rest.layer.w", "rest.rest.layer.w"]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("[2 * i for i in range(4)][3]", 6),
        ("len([i for i in range(9) if i % 3 == 0])", 3),
        ("sum([x * i for i in range(3)][2])", 12),
        ("[[i + j for j in range(i)] for i in range(3)][2][1]", 3),
        ("[f for f in [sin, square]][1](3)", 9),
        ("(if x == none then 1 else 2)", 2),
        ("(if none != none then 1 else 2)", 2),
        ("(if x.dtype == f32 then 1 else 2)", 1),
    ],
)
def test_expressions(expression: str, expected: float) -> None:
    assert run_map(f"map f(x: f32[n]): f32({expression})", {"x": X}) == expected


def test_maps_in_a_list_keep_their_names() -> None:
    text = """
map f(x: f32):
    let scales = [scaled(i) for i in range(3)]
    scales[0](x) + scales[2](x)

module scaled(k: int):
    map (x: f32) -> f32: k * x
"""
    assert run_map(text, {"x": np.float32(2)}) == 4


OPTIONAL = """
map f(x: f32[n], bias: f32[n] = none, rate: map = 2, act: map = none, k: int = none):
    let y = if bias == none then x else x + bias
    let z = if act == none then y else act(y)
    let power = if k == none then 1 else k
    rate(z) * z^power
"""


def test_optional_arguments() -> None:
    lib = mt.loads(OPTIONAL)
    assert check(Source("test.mto", OPTIONAL)) == []
    np.testing.assert_allclose(lib.f(X), 2 * X)
    np.testing.assert_allclose(lib.f(X, X), 4 * X)
    np.testing.assert_allclose(lib.f(X, None, 3), 3 * X)
    np.testing.assert_allclose(lib.f(X, rate=lib.square, act=lib.sin, k=2), np.sin(X) ** 4, 1e-6)


def test_defaults_mention_other_parameters() -> None:
    text = """
map f(x: f32[n, d], k: int = 2, half: int = k * n / 2, y: f32[n, d] = 3 * x, scale: f32 = len(x)):
    (x[:half], y, scale)
"""
    assert check(Source("test.mto", text)) == []
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    lib = mt.loads(text)
    first, second, third = lib.f(x, k=1)
    np.testing.assert_allclose(first, x[:2])
    np.testing.assert_allclose(second, 3 * x)
    assert third == 4
    np.testing.assert_allclose(lib.f(x, half=3, y=x)[0], x[:3])


def test_both_cases_of_an_optional_tensor_are_checked() -> None:
    text = "map f(x: f32[n], y: f32[n] = none): if y == none then {} else {}"
    for absent, given in (("x + y", "x"), ("x", "x + y[0:2]")):
        found = check(Source("test.mto", text.format(absent, given)))
        assert [d.kind for d in found] in ([Kind.BAD_OPERAND], [Kind.SHAPES_DIFFER])


def test_none_is_for_optional_parameters_only() -> None:
    text = "map g(f: map, x: f32) -> f32: f(x)\nmap f(x: f32): g(none, x)"
    (diagnostic,) = check(Source("test.mto", text))
    assert diagnostic.kind is Kind.WRONG_KIND
