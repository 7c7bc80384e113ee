"""Index notation against NumPy, by the reference evaluator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from elaborating import run_map, type_of

from mapsto import ir
from mapsto.dsl.checking import check
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.program import Program
from mapsto.dsl.source import Source

rng = np.random.default_rng(7)
A = rng.normal(size=(4, 5))
B = rng.normal(size=(5, 3))
V = rng.normal(size=(4,))
T = rng.normal(size=(2, 3, 4))
IDS = np.array([3, 0, 0, 2], np.int32)

CASES: list[tuple[str, str, dict[str, Any], Callable[..., Any]]] = [
    (
        "product",
        "map f(a: f64[n, k], b: f64[k, m]) -> f64[n, m]: [i, j] |-> sum[l](a[i, l] * b[l, j])",
        {"a": A, "b": B},
        lambda a, b: a @ b,
    ),
    (
        "outer sum",
        "map f(x: f64[n], y: f64[n]) -> f64[n, n]: [i, j] |-> x[i] + y[j]",
        {"x": V, "y": V},
        lambda x, y: x[:, None] + y[None, :],
    ),
    (
        "outer product",
        "map f(x: f64[n], y: f64[n]) -> f64[n, n]: [i, j] |-> x[i] * y[j]",
        {"x": V, "y": V},
        np.outer,
    ),
    ("transpose", "map f(x: f64[n, m]) -> f64[m, n]: [i, j] |-> x[j, i]", {"x": A}, np.transpose),
    (
        "permute",
        "map f(x: f64[a, b, c]): [k, i, j] |-> x[i, j, k]",
        {"x": T},
        lambda x: x.transpose(2, 0, 1),
    ),
    ("diagonal", "map f(x: f64[n, n]) -> f64[n]: [i] |-> x[i, i]", {"x": A[:, :4]}, np.diag),
    (
        "shift",
        "map f(x: f64[n]) -> f64[n]: [i] |-> x[i - 1]",
        {"x": V},
        lambda x: np.concatenate([[0], x[:-1]]),
    ),
    ("reverse", "map f(x: f64[n]) -> f64[n]: [i] |-> x[n - 1 - i]", {"x": V}, lambda x: x[::-1]),
    ("stride", "map f(x: f64[n]) -> f64[n / 2]: [i] |-> x[2*i + 1]", {"x": V}, lambda x: x[1::2]),
    ("iota", "map f(x: f64[n]) -> f64[n]: [i] |-> x[i] * i", {"x": V}, lambda x: x * np.arange(4)),
    (
        "constant",
        "map f(x: f64[n]) -> f64[n, 3]: [i, j] |-> x[i]",
        {"x": V},
        lambda x: np.repeat(x[:, None], 3, 1),
    ),
    (
        "literal",
        "map f(x: f64[n]) -> f64[n, 3]: [i, j] |-> 2",
        {"x": V},
        lambda x: np.full((4, 3), 2.0),
    ),
    (
        "triangle",
        "map f(x: f64[n]) -> f64[n, n]: [i, j] |-> if j <= i then x[j] else 0",
        {"x": V},
        lambda x: np.tril(np.broadcast_to(x, (4, 4))),
    ),
    (
        "gather rows",
        "map f(t: f64[v, d], ids: i32[n]) -> f64[n, d]: [i, j] |-> t[ids[i], j]",
        {"t": A, "ids": IDS},
        lambda t, ids: t[ids],
    ),
    (
        "gather transposed",
        "map f(t: f64[v, d], ids: i32[n]): [j, i] |-> t[ids[i], j]",
        {"t": A, "ids": IDS},
        lambda t, ids: t[ids].T,
    ),
    (
        "pick",
        "map f(p: f64[n, c], y: i32[n]) -> f64[n]: [i] |-> p[i, y[i]]",
        {"p": A, "y": IDS},
        lambda p, y: p[np.arange(4), y],
    ),
    (
        "pick outside",
        "map f(p: f64[n, c], y: i32[n]) -> f64[n]: [i] |-> p[i - 1, y[i]]",
        {"p": A, "y": IDS},
        lambda p, y: np.concatenate([[0.0], p[np.arange(3), y[1:]]]),
    ),
    (
        "gather beside an affine read",
        "map f(t: f64[v, d], ids: i32[n]) -> f64[n, d]: [i, j] |-> t[ids[i], j + 1]",
        {"t": A, "ids": IDS},
        lambda t, ids: np.pad(t[ids][:, 1:], ((0, 0), (0, 1))),
    ),
    (
        "computed index",
        "map f(x: f64[n]) -> f64[2*n]: [i] |-> x[i / 2]",
        {"x": V},
        lambda x: np.repeat(x, 2),
    ),
    ("sum of all", "map f(x: f64[n, m]) -> f64: sum[i, j](x[i, j])", {"x": A}, np.sum),
    (
        "scaled sum",
        "map f(x: f64[n, m]) -> f64[n]: [i] |-> sum[j](2 * x[i, j] * x[i, j])",
        {"x": A},
        lambda x: 2 * (x * x).sum(1),
    ),
    (
        "window maximum",
        "map f(x: f64[n]) -> f64[n - 2]: [i] |-> max[k](x[i + k] + w3[k])\nw3 = [0.0, 0.0, 0.0]",
        {"x": V},
        None,
    ),
    (
        "mean",
        "map f(x: f64[n, m]) -> f64[m]: [j] |-> mean[i](x[i, j])",
        {"x": A},
        lambda x: x.mean(0),
    ),
    (
        "prod",
        "map f(x: f64[n, m]) -> f64[n]: [i] |-> prod[j](x[i, j])",
        {"x": A},
        lambda x: x.prod(1),
    ),
    (
        "argmax",
        "map f(x: f64[n, m]) -> i32[m]: [j] |-> argmax[i](x[i, j])",
        {"x": A},
        lambda x: x.argmax(0),
    ),
    (
        "any",
        "map f(x: f64[n, m]) -> bool[n]: [i] |-> any[j](x[i, j] > 1)",
        {"x": A},
        lambda x: (x > 1).any(1),
    ),
    (
        "all",
        "map f(x: f64[n, m]) -> bool[n]: [i] |-> all[j](x[i, j] < 1)",
        {"x": A},
        lambda x: (x < 1).all(1),
    ),
    (
        "count",
        "map f(x: f64[n, m]) -> i32[n]: [i] |-> sum[j](x[i, j] > 0)",
        {"x": A},
        lambda x: (x > 0).sum(1),
    ),
    (
        "spread",
        "map f(x: f64[...s, n]) -> f64[...s]: [...s] |-> sum[i](x[...s, i])",
        {"x": T},
        lambda x: x.sum(-1),
    ),
    (
        "spread last",
        "map f(x: f64[n, ...s]) -> f64[...s, n]: [...s, i] |-> x[i, ...s]",
        {"x": T},
        lambda x: np.moveaxis(x, 0, -1),
    ),
    (
        "row softmax by call",
        "map f(x: f64[n, m]) -> f64[n, m]: [i] |-> softmax(x[i, :])",
        {"x": A},
        lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True),
    ),
    (
        "map in index scope",
        "map g(a: f64) -> f64: a * a + 1\nmap f(x: f64[n]) -> f64[n]: [i] |-> g(x[i])",
        {"x": V},
        lambda x: x * x + 1,
    ),
    (
        "nested lambda",
        "map f(x: f64[n, m]): [i] |-> sum([j] |-> x[i, j] * x[i, j])",
        {"x": A},
        lambda x: (x * x).sum(1),
    ),
    (
        "pairwise distance",
        "map f(a: f64[n, d]): [i, j] |-> sum[k]((a[i, k] - a[j, k])^2)",
        {"a": A},
        lambda a: ((a[:, None] - a[None]) ** 2).sum(-1),
    ),
    (
        "batched product",
        "map f(a: f64[b, n, k], c: f64[b, m, k]): [b, i, j] |-> sum[k](a[b, i, k] * c[b, j, k])",
        {"a": T, "c": T},
        lambda a, c: np.einsum("bik,bjk->bij", a, c),
    ),
    (
        "matmul in index scope",
        "map f(a: f64[b, n, k], w: f64[k, m]): [i] |-> a[i, :, :] @ w",
        {"a": T, "w": rng.normal(size=(4, 2))},
        lambda a, w: a @ w,
    ),
    (
        "choice of positions adapts",
        "map f(x: f64[n, m]): [i, j] |-> (if x[i, j] > 0 then j else i - 1) + x[i, j]",
        {"x": A},
        lambda x: np.where(x > 0, np.arange(5), np.arange(4)[:, None] - 1) + x,
    ),
    ("last element", "map f(x: f64[n, m]): [i] |-> x[i, -1]", {"x": A}, lambda x: x[:, -1]),
]


@pytest.mark.parametrize("case", [c for c in CASES if c[3]], ids=lambda c: c[0].replace(" ", "_"))
def test_agrees_with_numpy(case: tuple[str, str, dict[str, Any], Callable[..., Any]]) -> None:
    _, text, arguments, reference = case
    result = run_map(text, arguments)
    expected = reference(*arguments.values())
    assert result.shape == np.shape(expected)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


CONV = """
map f(x: f64[n, c, h, w], k: f64[o, c, r, s], stride: int = 1, pad: int = 0)
        -> f64[n, o, (h + 2*pad - r) / stride + 1, (w + 2*pad - s) / stride + 1]:
    [n, o, p, q] |-> sum[c, r, s](x[n, c, stride*p + r - pad, stride*q + s - pad] * k[o, c, r, s])
"""


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_convolution(stride: int, pad: int) -> None:
    x, k = rng.normal(size=(2, 3, 7, 8)), rng.normal(size=(4, 3, 3, 2))
    result = run_map(CONV, {"x": x, "k": k}, {"stride": stride, "pad": pad})
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), (2, 3))
    expected = np.einsum("ncpqrs,ocrs->nopq", windows[:, :, ::stride, ::stride], k)
    np.testing.assert_allclose(result, expected, rtol=1e-10)


def operations(text: str, **types: ir.TensorType) -> list[str]:
    elaborated = Program.loads(text).elaborate_map("f", types)
    return [op.name for op in elaborated.function.operations()]


def test_a_sum_of_products_is_one_contraction() -> None:
    text = "map f(a: f64[n, k], b: f64[k, m]): [i, j] |-> sum[l](a[i, l] * b[l, j])"
    assert operations(text, a=type_of(A), b=type_of(B)) == ["contract", "return"]


def test_a_convolution_is_one_contraction() -> None:
    x, k = (ir.TensorType(ir.DType.F64, (2, 3, 7, 8)), ir.TensorType(ir.DType.F64, (4, 3, 3, 2)))
    assert operations(CONV, x=x, k=k) == ["contract", "return"]


def test_elementwise_operations_broadcast_only_to_the_indices_that_they_depend_on() -> None:
    text = "map f(x: f64[n], y: f64[m]): [i, j] |-> exp(x[i]) + y[j]"
    elaborated = Program.loads(text).elaborate_map("f", {"x": type_of(V), "y": type_of(A[0])})
    exponential = next(op for op in elaborated.function.operations() if op.name == "exp")
    assert exponential.results[0].shape == (4,)


def test_max_of_an_access_outside_is_its_identity() -> None:
    text = "map f(x: f64[n], w: f64[k]) -> f64[n]: [i] |-> max[k](x[i + k - 1] * w[k])"
    result = run_map(text, {"x": -np.abs(V), "w": np.ones(3)})
    padded = np.concatenate([[-np.inf], -np.abs(V), [-np.inf]])
    np.testing.assert_allclose(result, [padded[i : i + 3].max() for i in range(4)])


def test_symbolic_sizes_stay_symbolic() -> None:
    n = ir.symbol("n")
    program = Program.loads("map f(x: f32[n, d]) -> f32[n]: [i] |-> mean[j](x[i, j]) / n")
    elaborated = program.elaborate_map("f", {"x": ir.TensorType(ir.DType.F32, (n, 4))})
    assert elaborated.result == ir.TensorType(ir.DType.F32, (n,))
    x = rng.normal(size=(3, 4)).astype(np.float32)
    (result,) = ir.evaluate(elaborated.module, "f", [x])
    np.testing.assert_allclose(result, x.mean(1) / 3, rtol=1e-6)


def test_operations_know_their_source_lines() -> None:
    program = Program.loads(
        "map f(x: f32[n]) -> f32[n]:\n    let y = exp(x)\n    y + 1", "here.mto"
    )
    function = program.elaborate_map("f", {"x": ir.TensorType(ir.DType.F32, (3,))}).function
    lines = {op.name: op.location.line for op in function.operations() if op.location}
    assert lines["exp"] == 2
    assert lines["add"] == 3


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("[i, j] |-> ([j, i] |-> x[j, i] / 2)[j, i]", A.T / 2),
        ("[i] |-> sum[k](([i, k] |-> x[i, k] + 1)[i, k])", (A + 1).sum(1)),
        ("[i] |-> ([j] |-> sum[i](x[i, j]))[i]", A.sum(0)),
    ],
)
def test_names_that_what_is_accessed_binds_itself(body: str, expected: Any) -> None:
    np.testing.assert_allclose(run_map(f"map f(x: f64[n, m]): {body}", {"x": A}), expected)


@pytest.mark.parametrize(
    "body",
    ["[i] |-> x[iota(4, step=2)[i]]", "[i] |-> x[(1 + iota(4, step=2))[i]]"],
)
def test_a_mistake_in_what_is_accessed_is_told_rather_than_that_no_extent_is_known(
    body: str,
) -> None:
    found = check(Source("f.mto", f"map f(x: f64[n]): {body}\n"))
    assert [d.kind for d in found] == [Kind.UNKNOWN_ARGUMENT]


def test_a_tensor_with_a_mistake_leads_to_no_second_one() -> None:
    text = "map f(x: f64[n]):\n    let y: f32[n] = x\n    [...s] |-> max[j](y[...s, j])\n"
    assert [d.kind for d in check(Source("f.mto", text))] == [Kind.WRONG_DTYPE]
