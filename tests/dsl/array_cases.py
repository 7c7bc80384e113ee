"""Expressions of array functions beside what NumPy gives for the same arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["ARRAY_CASES"]

rng = np.random.default_rng(17)
M = rng.normal(size=(4, 5))
S = rng.normal(size=(3, 3))
C = rng.normal(size=(2, 3, 4))
IDS = np.array([[0, 1], [2, 2], [4, 3], [1, 1]], np.int32)
SHIFT = np.array(-7, np.int32)

Case = tuple[str, dict[str, Any], Callable[..., Any]]
KEYS = np.array([[3, 1, 2, 1], [0, 5, 0, 5]], np.int32)
NANS = np.where(M > 1, np.nan, np.round(M))
ROWS = rng.normal(size=(3, 5))
AT = np.array([2, 0, 2], np.int32)
ONE = np.array(1, np.int32)


def added(x: Any, i: Any, u: Any) -> Any:
    """The updates added at their places."""
    result = np.array(x)
    np.add.at(result, i, u)
    return result


def replaced(x: Any, i: Any, u: Any) -> Any:
    """The updates in place of elements, in order."""
    result = np.array(x)
    for position, row in zip(i, u, strict=True):
        result[position] = row
    return result


def greatest(x: Any, i: Any, u: Any) -> Any:
    """The elements raised to the updates."""
    result = np.array(x)
    np.maximum.at(result, i, u)
    return result


_X, _C, _S = {"x": M}, {"c": C}, {"s": S}

ARRAY_CASES: list[Case] = [
    ("stack([x, 2 * x])", _X, lambda x: np.stack([x, 2 * x])),
    ("stack([x, 2 * x], axis=-1)", _X, lambda x: np.stack([x, 2 * x], -1)),
    ("split(x, 2)[1]", _X, lambda x: np.split(x, 2)[1]),
    ("split(x, [1, 4], axis=1)[1]", _X, lambda x: x[:, 1:]),
    ("flip(x)", _X, np.flip),
    ("flip(x, axis=1)", _X, lambda x: np.flip(x, 1)),
    ("flip(x[:0])", _X, lambda x: x[:0]),
    ("roll(x, 2)", _X, lambda x: np.roll(x, 2, 1)),
    ("roll(x, -7, axis=0)", _X, lambda x: np.roll(x, -7, 0)),
    ("roll(x, k)", {"x": M, "k": SHIFT}, lambda x, k: np.roll(x, k, 1)),
    ("repeat(x, 3)", _X, lambda x: np.repeat(x, 3, 1)),
    ("repeat(x, 3, axis=0)", _X, lambda x: np.repeat(x, 3, 0)),
    ("tile(x, [2, 3])", _X, lambda x: np.tile(x, (2, 3))),
    ("tile(x, [2, 1, 3])", _X, lambda x: np.tile(x, (2, 1, 3))),
    ("tile(x, 2)", _X, lambda x: np.tile(x, 2)),
    ("squeeze(x[:, :1])", _X, lambda x: x[:, 0]),
    ("squeeze(expand_dims(x, [0, 1]), axis=1)", _X, lambda x: x[None]),
    ("expand_dims(x, [0, -1])", _X, lambda x: x[None, :, :, None]),
    ("swap_axes(c, 0, 2)", _C, lambda c: np.swapaxes(c, 0, 2)),
    ("move_axis(c, 0, -1)", _C, lambda c: np.moveaxis(c, 0, -1)),
    ("move_axis(c, 2, 0)", _C, lambda c: np.moveaxis(c, 2, 0)),
    ("flatten(c)", _C, np.ravel),
    ("flatten(c, start=1)", _C, lambda c: c.reshape(2, -1)),
    ("flatten(c, stop=1)", _C, lambda c: c.reshape(-1, 4)),
    ("flatten(sum(x))", _X, lambda x: np.ravel(x.sum())),
    ("pad(x, 1)", _X, lambda x: np.pad(x, 1)),
    (
        "pad(x, [0, [2, 1]], value=-1.5)",
        _X,
        lambda x: np.pad(x, [(0, 0), (2, 1)], constant_values=-1.5),
    ),
    ("pad(x, 1, value=x[0, 0])", _X, lambda x: np.pad(x, 1, constant_values=x[0, 0])),
    *[
        (
            f'pad(c, [1, [0, 2], [2, 1]], mode="{mode}")',
            _C,
            lambda c, mode=mode: np.pad(c, [(1, 1), (0, 2), (2, 1)], mode),
        )
        for mode in ("reflect", "edge", "wrap")
    ],
    ("[i] |-> sum(roll(x[i, :], 1) * x[i, :])", _X, lambda x: (np.roll(x, 1, 1) * x).sum(1)),
    ("vmap(flip)(x)", _X, lambda x: x[:, ::-1]),
    ("arange(2, 9, step=3)", {}, lambda: np.arange(2, 9, 3)),
    ("arange(9, 2, -3, dtype=f64)", {}, lambda: np.arange(9.0, 2, -3)),
    ("linspace(1, 3, 5, dtype=f64)", {}, lambda: np.linspace(1, 3, 5)),
    ("linspace(1, 3, 1)", {}, lambda: np.array([1])),
    ("eye(3)", {}, lambda: np.eye(3)),
    ("diag(x)", _X, lambda x: np.stack([np.diag(row) for row in x])),
    ("diagonal(s)", _S, np.diagonal),
    ("trace(s)", _S, np.trace),
    ("tril(x, k=1)", _X, lambda x: np.tril(x, 1)),
    ("triu(x, k=-1)", _X, lambda x: np.triu(x, -1)),
    ("outer(x[0], x[1])", _X, lambda x: np.outer(x[0], x[1])),
    ("kron(x, s)", {"x": M, "s": S}, np.kron),
    ("meshgrid(x[0], x[1, :2])[0]", _X, lambda x: np.meshgrid(x[0], x[1, :2], indexing="ij")[0]),
    ("meshgrid(x[0], x[1, :2])[1]", _X, lambda x: np.meshgrid(x[0], x[1, :2], indexing="ij")[1]),
    ("take_along(x, i)", {"x": M, "i": IDS}, lambda x, i: np.take_along_axis(x, i, 1)),
    ("cumsum(x)", _X, lambda x: x.cumsum(1)),
    ("cumsum(x, axis=0, reverse=true)", _X, lambda x: x[::-1].cumsum(0)[::-1]),
    ("cumsum(x, exclusive=true)", _X, lambda x: x.cumsum(1) - x),
    ("cumprod(x, axis=0)", _X, lambda x: x.cumprod(0)),
    ("cummax(x)", _X, lambda x: np.maximum.accumulate(x, 1)),
    ("cummin(x, axis=0)", _X, np.minimum.accumulate),
    ("[i] |-> cumsum(x[i, :])", _X, lambda x: x.cumsum(1)),
    ("recurrence(0.5, v)", {"v": M[0]}, lambda v: np.convolve(v, 0.5 ** np.arange(5))[:5]),
    ("sort(x)", _X, np.sort),
    ("sort(x, axis=0, descending=true)", _X, lambda x: -np.sort(-x, 0)),
    ("sort(x)", {"x": NANS}, np.sort),
    ("argsort(k)", {"k": KEYS}, lambda k: np.argsort(k, kind="stable")),
    ("argsort(k, descending=true)", {"k": KEYS}, lambda k: np.argsort(-k, kind="stable")),
    ("top_k(x, 2)[0]", _X, lambda x: -np.sort(-x)[:, :2]),
    ("top_k(x, 3, axis=0)[1]", _X, lambda x: np.argsort(-x, 0)[:3]),
    ("vmap(sort)(x)", _X, np.sort),
    ("scatter_add(x, i, u)", {"x": M, "i": AT, "u": ROWS}, added),
    ("scatter_add([4, 5], i, u)", {"i": AT, "u": ROWS}, lambda i, u: added(0 * M, i, u)),
    ("scatter_add([4], i, 1)", {"i": AT}, lambda i: np.bincount(i, minlength=4)),
    ("scatter_max(x, i, u)", {"x": M, "i": AT, "u": ROWS}, greatest),
    ("scatter_min(x, i, u)", {"x": M, "i": AT, "u": ROWS}, lambda x, i, u: -greatest(-x, i, -u)),
    ("scatter(x, i, u)", {"x": M, "i": AT, "u": ROWS}, replaced),
    ("scatter(x, i, 0)", {"x": M, "i": AT}, lambda x, i: replaced(x, i, 0 * ROWS)),
    (
        "[n] |-> scatter_add(x[n, :], k[n, :], u[n, :])",
        {"x": M[:2], "k": KEYS % 5, "u": M[2:, :4]},
        lambda x, k, u: np.stack([added(x[n], k[n], u[n]) for n in range(2)]),
    ),
    ("segment_sum(u, i, 4)", {"i": AT, "u": ROWS}, lambda i, u: added(0 * M, i, u)),
    (
        "segment_max(u, i, 3)[2]",
        {"i": AT, "u": ROWS},
        lambda i, u: np.maximum(u[0], u[2]),
    ),
    ("segment_min(u, i, 3)[1]", {"i": AT, "u": ROWS}, lambda i, u: np.full(5, np.inf)),
    (
        "segment_mean(u, i, 3)",
        {"i": AT, "u": ROWS},
        lambda i, u: np.stack([u[1], 0 * u[0], (u[0] + u[2]) / 2]),
    ),
    ("bincount(k[0], 5)", {"k": KEYS}, lambda k: np.bincount(k[0], minlength=5)),
    ("histogram(x, 4, -2, 2)", _X, lambda x: np.histogram(x, 4, (-2, 2))[0]),
    ("searchsorted(sort(v), x)", {"v": M[0], "x": M}, lambda v, x: np.searchsorted(np.sort(v), x)),
    ("quantile(x, 0.3)", _X, lambda x: np.quantile(x, 0.3, axis=1)),
    ("median(x[:, 1:])", _X, lambda x: np.median(x[:, 1:], axis=1)),
    ("dynamic_slice(x, [k, 2], [3, 2])", {"x": M, "k": ONE}, lambda x, k: x[1:4, 2:4]),
    (
        "dynamic_update(x, u[:2, :], [k, 0])",
        {"x": M, "u": ROWS, "k": ONE},
        lambda x, u, k: np.concatenate([x[:1], u[:2], x[3:]]),
    ),
    (
        "[n] |-> dynamic_update(x[n, :], u[n, :2], i[n])",
        {"x": M[:3], "u": ROWS, "i": AT},
        lambda x, u, i: np.stack(
            [np.r_[r[:k], s[:2], r[k + 2 :]] for r, s, k in zip(x, u, i, strict=True)]
        ),
    ),
    ("var(x)", _X, np.var),
    ("var(x, axis=0, correction=1)", _X, lambda x: x.var(0, ddof=1)),
    ("std(c, axis=[0, 2], keepdims=true)", _C, lambda c: c.std((0, 2), keepdims=True)),
    ("norm(x, axis=1)", _X, lambda x: np.linalg.norm(x, axis=1)),
    ("norm(x, axis=none, keepdims=true)", _X, lambda x: np.linalg.norm(x, keepdims=True)),
    ("count_nonzero(k, axis=1)", {"k": KEYS}, lambda k: np.count_nonzero(k, axis=1)),
    ("covariance(x)", _X, lambda x: np.cov(x.T)),
    ("one_hot(k, 4, dtype=i8)", {"k": KEYS % 4}, lambda k: np.eye(4)[k]),
]
