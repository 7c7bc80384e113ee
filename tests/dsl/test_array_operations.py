"""Whole-array operators, functions, statements and calls against NumPy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from elaborating import run_map

import mapsto as mt
from mapsto import ir
from mapsto.dsl.library import DiagnosticsError
from mapsto.dsl.program import Program
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.pipeline import DEFAULT

rng = np.random.default_rng(11)
A = rng.normal(size=(4, 5))
V = rng.normal(size=(5,))
P = np.abs(A) + 0.5
T = rng.normal(size=(2, 3, 4))
K = np.array([7, -7, 3], np.int32)

EXPRESSIONS: list[tuple[str, Callable[..., Any]]] = [
    ("x + v", lambda x, v: x + v),
    ("x * 2 - v / 4", lambda x, v: x * 2 - v / 4),
    ("-x^2", lambda x, v: -(x**2)),
    ("x^3 + x^1", lambda x, v: x**3 + x),
    ("abs(x)^0.5", lambda x, v: np.abs(x) ** 0.5),
    ("2.0^x", lambda x, v: 2.0**x),
    ("abs(x)^v", lambda x, v: np.abs(x) ** v),
    ("x % 1", lambda x, v: np.mod(x, 1)),
    ("x @ v", lambda x, v: x @ v),
    ("v @ v", lambda x, v: v @ v),
    ("x @ transpose(x)", lambda x, v: x @ x.T),
    ("transpose(x, [1, 0])", lambda x, v: x.T),
    ("where(x > v, x, v)", lambda x, v: np.where(x > v, x, v)),
    (
        "if x > 0 and not (x > 1) or x == 3 then x else -1",
        lambda x, v: np.where((x > 0) & ~(x > 1), x, -1),
    ),
    ("maximum(x, v) - minimum(x, 0)", lambda x, v: np.maximum(x, v) - np.minimum(x, 0)),
    ("sum(x)", lambda x, v: x.sum()),
    ("sum(x, axis=-1)", lambda x, v: x.sum(-1)),
    ("sum(x, axis=[0, 1])", lambda x, v: x.sum()),
    ("mean(x, axis=0, keepdims=true) + x", lambda x, v: x.mean(0, keepdims=True) + x),
    ("max(x, axis=1)", lambda x, v: x.max(1)),
    ("min(x)", lambda x, v: x.min()),
    ("prod(v)", lambda x, v: v.prod()),
    ("f64(argmax(x))", lambda x, v: x.argmax(-1)),
    ("f64(argmin(x, axis=0))", lambda x, v: x.argmin(0)),
    ("mean(x > 0)", lambda x, v: (x > 0).mean(dtype=np.float32)),
    ("x[1]", lambda x, v: x[1]),
    ("x[-1, 2]", lambda x, v: x[-1, 2]),
    ("x[:, 1:]", lambda x, v: x[:, 1:]),
    ("x[1:3, ::2]", lambda x, v: x[1:3, ::2]),
    ("x[..., -1]", lambda x, v: x[..., -1]),
    ("v[::-1]", lambda x, v: v[::-1]),
    ("v[:-2]", lambda x, v: v[:-2]),
    ("reshape(x, [2, -1])", lambda x, v: x.reshape(2, -1)),
    ("concat([x, x], axis=1)", lambda x, v: np.concatenate([x, x], 1)),
    ("concat([v, v[:2]])", lambda x, v: np.concatenate([v, v[:2]])),
    ("broadcast(v, [3, 5])", lambda x, v: np.broadcast_to(v, (3, 5))),
    ("full([2, 3], 1.5, dtype=f64)", lambda x, v: np.full((2, 3), 1.5)),
    ("iota(3, dtype=f64)", lambda x, v: np.arange(3.0)),
    (
        "exp(x) + log(abs(x)) + log1p(abs(x)) + expm1(x)",
        lambda x, v: np.exp(x) + np.log(np.abs(x)) + np.log1p(np.abs(x)) + np.expm1(x),
    ),
    (
        "sin(x) * cos(x) + tanh(x) - sigmoid(x)",
        lambda x, v: np.sin(x) * np.cos(x) + np.tanh(x) - 1 / (1 + np.exp(-x)),
    ),
    (
        "sqrt(abs(x)) + rsqrt(abs(x)) + sign(x)",
        lambda x, v: np.sqrt(np.abs(x)) + 1 / np.sqrt(np.abs(x)) + np.sign(x),
    ),
    ("floor(x) + ceil(x) + round(x)", lambda x, v: np.floor(x) + np.ceil(x) + np.rint(x)),
    ("erf(x)", lambda x, v: np.vectorize(math.erf)(x)),
    ("stop_gradient(x)", lambda x, v: x),
    ("cast(cast(x * 3, i32), f64)", lambda x, v: np.trunc(x * 3)),
    ("f64(i8(300.0))", lambda x, v: np.float64(127)),
    ("sum(x) / len(x) + len(v)", lambda x, v: x.sum() / 4 + 5),
    ("x * sqrt(2.0) + size(x)", lambda x, v: x * math.sqrt(2) + 20),
    ("x * x.shape[1] + x.rank", lambda x, v: x * 5 + 2),
    ("chain([tanh, exp])(x)", lambda x, v: np.exp(np.tanh(x))),
    ("vmap(g)(x)", lambda x, v: x.sum(1) ** 2),
    ("identity(x)", lambda x, v: x),
    ("(if 2 < 3 then x else 1 / 0)", lambda x, v: x),
]


@pytest.mark.parametrize(("text", "reference"), EXPRESSIONS, ids=[e[0] for e in EXPRESSIONS])
def test_expression(text: str, reference: Callable[..., Any]) -> None:
    source = f"map f(x: f64[n, d], v: f64[d]):\n    {text}\nmap g(a: f64[k]) -> f64: sum(a)^2\n"
    result = run_map(source, {"x": A, "v": V})
    expected = reference(A, V)
    assert result.shape == np.shape(expected)
    np.testing.assert_allclose(result, expected, rtol=1e-6 if "mean(x > 0)" in text else 1e-12)


INTEGERS = [
    ("k / 2", lambda k: k // 2),
    ("k % 4", lambda k: k % 4),
    ("k^2 - 1", lambda k: k**2 - 1),
    ("abs(k) + sign(k)", lambda k: abs(k) + np.sign(k)),
    ("sum(k)", lambda k: k.sum()),
]


@pytest.mark.parametrize(("text", "reference"), INTEGERS, ids=[e[0] for e in INTEGERS])
def test_integers(text: str, reference: Callable[..., Any]) -> None:
    result = run_map(f"map f(k: i32[n]): {text}", {"k": K})
    np.testing.assert_array_equal(result, reference(K))
    assert result.dtype == np.int32


def test_batched_products_broadcast_their_batch_axes() -> None:
    w = rng.normal(size=(1, 4, 2))
    result = run_map("map f(x: f64[b, n, k], w: f64[c, k, m]): x @ w", {"x": T, "w": w})
    np.testing.assert_allclose(result, T @ w, rtol=1e-12)


def test_size_one_axes_stretch() -> None:
    x, y = rng.normal(size=(3, 1)), rng.normal(size=(1, 4))
    result = run_map("map f(x: f64[n, 1], y: f64[1, m]) -> f64[n, m]: x * y", {"x": x, "y": y})
    np.testing.assert_allclose(result, x * y)


def test_gather_with_whole_index_tensors() -> None:
    ids = np.array([[0, 2], [1, 1]], np.int32)
    result = run_map("map f(x: f64[n, d], i: i32[a, b]): x[i]", {"x": A, "i": ids})
    np.testing.assert_allclose(result, A[ids])
    result = run_map("map f(x: f64[n, d], i: i32[a, b]): x[:, i]", {"x": A, "i": ids})
    np.testing.assert_allclose(result, A[:, ids])


def test_statements() -> None:
    source = """
map f(x: f64[n], depth: int = 3) -> f64[n]:
    let y: f64[n] = x
    let (a, b) = (2, 3.0)
    for i in range(depth):
        let y = y * a + i
    if depth == 3:
        let y = y + b
    else:
        let y = y / 0
    map half(v: f64[n]) -> f64[n]: v / a
    half(y)
"""
    expected = (((V * 2 + 0) * 2 + 1) * 2 + 2 + 3) / 2
    np.testing.assert_allclose(run_map(source, {"x": V}), expected)


def test_a_condition_on_a_tensor_selects_what_the_branches_bind() -> None:
    source = """
map f(x: f64[n]) -> f64[n]:
    let y = x
    if sum(x) > 0:
        let y = y * 2
    else:
        let y = y - 1
    y
"""
    for sign in (1, -1):
        x = sign * np.abs(V)
        np.testing.assert_allclose(run_map(source, {"x": x}), x * 2 if sign > 0 else x - 1)


def test_named_and_default_arguments() -> None:
    source = """
map g(x: f64[n], scale: f64 = 2, shift: int = 0, op: map = identity): op(x * scale + shift)
map f(x: f64[n]): g(x, shift=1, op=exp) + g(x, 3.0)
"""
    np.testing.assert_allclose(run_map(source, {"x": V}), np.exp(V * 2 + 1) + V * 3)


def test_generic_maps_take_any_dtype() -> None:
    source = "map f[T](x: T[...s]) -> T[...s]: 0.5 * x"
    for dtype in (np.float32, np.float64):
        assert run_map(source, {"x": A.astype(dtype)}).dtype == dtype


def test_dimensions_are_solved_and_used_as_numbers() -> None:
    source = "map f(x: f64[2*d + 1]) -> f64[d]: [i] |-> x[2*i] * d"
    np.testing.assert_allclose(run_map(source, {"x": V}), V[:4:2] * 2)


def test_tuples() -> None:
    source = """
map g(x: f64[n]) -> (f64[n], f64): (x + 1, sum(x))
map f(x: f64[n]):
    let (a, b) = g(x)
    (a * b, g(x)[1])
"""
    first, second = run_map(source, {"x": V})
    np.testing.assert_allclose(first, (V + 1) * V.sum())
    np.testing.assert_allclose(second, V.sum())


def test_definitions_shadow_the_library_and_imports_name_it() -> None:
    source = """
import math
from activation import relu as rectify
pi = 3
map square(x: f64[n]) -> f64[n]: x
map f(x: f64[n]): square(x) + math.square(x) + rectify(x) * pi + math.pi
"""
    expected = V + V * V + np.maximum(V, 0) * 3 + np.pi
    np.testing.assert_allclose(run_map(source, {"x": V}), expected)


def test_derivatives() -> None:
    source = """
map g(x: f64[n], y: f64[n]) -> f64: sum(x^3 * y)
map f(x: f64[n], y: f64[n]):
    let (value, slope) = value_and_grad(g)(x, y)
    let (dx, dy) = grad(g, argnums=[0, 1])(x, y)
    let (_, curvature) = jvp(grad(g))(x, y, y)
    (value, slope - dx, dy, curvature)
"""
    y = rng.normal(size=5)
    value, zero, dy, curvature = run_map(source, {"x": V, "y": y})
    np.testing.assert_allclose(value, (V**3 * y).sum())
    np.testing.assert_allclose(zero, 0 * V)
    np.testing.assert_allclose(dy, V**3)
    np.testing.assert_allclose(curvature, 6 * V * y * y)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("grad(total)(x)", [4, 4, 4]),
        ("remat(scaled)(x)", [4, 8, 12]),
        ("vmap(grad(norm))(expand_dims(remat(scaled)(x), [1]))[:, 0]", [1, 1, 1]),
        ("jvp(total)(x, x)[1] + x", [25, 26, 27]),
        ("custom(x, n)", [4, 8, 12]),
        ("grad(nested)(x)", [16, 16, 16]),
    ],
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_a_closure_knows_sizes_that_no_argument_has(
    body: str, expected: list[float], symbolic: bool
) -> None:
    """The derived functions of maps that mention n get it from outside."""
    text = f"""
map custom(x: f64[m], k: int) -> f64[m]:
    x * sum(full([k], f64(1)))
gradient (dy):
    dy * sum(full([k], f64(1)))

map f(x: f64[m], z: f64[n]) -> f64[m]:
    map scaled(a: f64[m]) -> f64[m]: a * sum(full([n], f64(1)))

    map total(a: f64[m]) -> f64: sum(a * n)

    map nested(a: f64[m]) -> f64: sum(custom(remat(scaled)(a), n))

    {body}
"""
    x, z = np.arange(1.0, 4), np.zeros(4)
    if not symbolic:
        np.testing.assert_allclose(run_map(text, {"x": x, "z": z}), expected)
        return
    types = {name: ir.TensorType(ir.DType.F64, (ir.symbol(d),)) for name, d in ("xm", "zn")}
    elaborated = Program.loads(text).elaborate_map("f", types)
    module = PassRunner(DEFAULT).run(elaborated.module)
    np.testing.assert_allclose(ir.evaluate(module, "f", [x, z])[0], expected)


def test_a_number_in_a_tensor_takes_the_dtype_that_is_asked_for() -> None:
    text = """
map f(x: f64[3]) -> (f64[3], f16[2], f64[2]):
    let half: f16[2] = full([2], 0.5)
    (x + full([3], 1), half, full([2], 7))
"""
    sums, half, sevens = run_map(text, {"x": np.arange(3.0)})
    assert sums.tolist() == [1, 2, 3] and half.dtype == np.float16
    assert sevens.dtype == np.float64


def test_the_name_of_a_loop_means_what_it_did_before() -> None:
    text = """
i = 3

map f(x: f64) -> f64:
    let y = x
    if x > 0:
        for i in range(2):
            let y = y + i
    for j in range(3):
        let y = y + 0
    y * i
"""
    assert run_map(text, {"x": np.array(1.0)}) == 6


def test_derivatives_of_closures() -> None:
    source = """
map f(x: f64[n], w: f64[n]):
    let s = sum(w)
    map g(v: f64[n]) -> f64: sum(v^2) * s
    grad(g)(x)
"""
    w = rng.normal(size=5)
    np.testing.assert_allclose(run_map(source, {"x": V, "w": w}), 2 * V * w.sum())


def test_an_op_registered_later_is_a_function() -> None:
    name = "test_cube"
    source = f"map f(x: f64[n]): {name}(x)"
    with pytest.raises(DiagnosticsError):
        run_map(source, {"x": V})

    class Cube(ir.FloatUnary):
        """x^3."""

    Cube.name = name
    Cube.evaluate = lambda self, x: (x**3,)
    operations = ir.registered_ops()
    assert isinstance(operations, dict)
    operations[name] = Cube
    try:
        np.testing.assert_allclose(run_map(source, {"x": V}), V**3)
    finally:
        del operations[name]


def test_triangles_of_masks() -> None:
    lib = mt.loads("map f(x: bool[n, n]): (tril(x), triu(x, k=1), diag(x[0]))")
    x = np.ones((3, 3), bool)
    for found, expected in zip(lib.f(x), (np.tril(x), np.triu(x, 1), np.eye(3)), strict=True):
        np.testing.assert_array_equal(found, expected.astype(bool))
