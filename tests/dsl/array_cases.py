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
]
