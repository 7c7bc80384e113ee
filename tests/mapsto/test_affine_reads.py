"""Affine and gathered reads in all combinations, natively, against NumPy: what is outside is zero.

Reads are x[a * i + b * j + c], with slopes and offsets of both signs, over sizes that may be 0.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import mapsto as mt

SLOPES = [(1, 0), (-2, 0), (3, 0), (1, 1), (2, -3), (-1, 2)]
OFFSETS = [3, 1, -2, 5]
SIZES = [(0, 3), (1, 1), (5, 0), (4, 6), (7, 2)]


def position(slope: tuple[int, int], offset: int) -> str:
    return f"{slope[0]}*i + {slope[1]}*j + {offset}".replace("+ -", "- ")


def read(x: Any, slope: tuple[int, int], offset: int, sizes: tuple[int, int]) -> Any:
    """x at the positions, 0 outside."""
    i, j = np.ogrid[: sizes[0], : sizes[1]]
    at = np.broadcast_to(slope[0] * i + slope[1] * j + offset, sizes)
    inside = (at >= 0) & (at < len(x))
    padded = np.append(x, 0)
    return np.where(inside, padded[np.where(inside, at, len(x))], 0)


@pytest.mark.parametrize("slope", SLOPES, ids=str)
def test_reads(slope: tuple[int, int]) -> None:
    """Four offsets in one program: added up, and in a sum over an index."""
    reads = [f"x[{position(slope, offset)}]" for offset in OFFSETS]
    sums = " + ".join(reads)
    library = mt.loads(f"""
map plain(x: f64[k], like: f64[n, m]) -> f64[n, m]: [i, j] |-> {sums}
map total(x: f64[k], like: f64[n, m]) -> f64[n]: [i] |-> sum[j]({reads[2]} * like[i, j])
map loss(x: f64[k], like: f64[n, m]) -> f64: sum(plain(x, like)^2)
""")
    rng = np.random.default_rng(0)
    for sizes, length in itertools.product(SIZES, (0, 1, 6)):
        x, like = rng.normal(size=length), rng.normal(size=sizes)
        parts = [read(x, slope, offset, sizes) for offset in OFFSETS]
        np.testing.assert_allclose(library.plain(x, like), sum(parts), atol=1e-12)
        np.testing.assert_allclose(library.total(x, like), (parts[2] * like).sum(1), atol=1e-12)
    x, like = rng.normal(size=6), rng.normal(size=(4, 6))
    slope_of = mt.grad(library.loss)
    np.testing.assert_allclose(slope_of(x, like), slope_of.reference(x, like), atol=1e-10)


GATHERS = {
    "t[ids]": lambda t, ids, a: t[ids],
    "t[:, a]": lambda t, ids, a: t[:, a],
    "t[ids, a]": lambda t, ids, a: t[ids, a],
    "t[1:, ::-1][ids % 2]": lambda t, ids, a: t[1:, ::-1][ids % 2],
    "[n] |-> t[ids[n], a[n]]": lambda t, ids, a: t[ids, a],
    "[n, j < d] |-> t[ids[n], j + 1]": lambda t, ids, a: np.pad(t[ids][:, 1:], ((0, 0), (0, 1))),
    "[n, j < d] |-> t[ids[n], d - 1 - j]": lambda t, ids, a: t[ids][:, ::-1],
    "[j, n] |-> t[ids[n], j] * t[n, j]": lambda t, ids, a: (t[ids] * t[: len(ids)]).T,
    "[n] |-> sum[j](t[ids[n], j] * t[a[n], j])": lambda t, ids, a: (t[ids] * t[a]).sum(1),
    "[n, m] |-> t[ids[n], a[m]]": lambda t, ids, a: t[np.ix_(ids, a)],
    "[n] |-> t[ids[ids[n] % 3], 0]": lambda t, ids, a: t[ids[ids % 3], 0],
}


def test_gathers() -> None:
    names = list(GATHERS)
    maps = "\n".join(
        f"map f{k}(t: f64[v, d], ids: i32[q], a: i64[q]):\n    {name}"
        for k, name in enumerate(names)
    )
    losses = "\n".join(
        f"map l{k}(t: f64[v, d], ids: i32[q], a: i64[q]) -> f64: sum(f{k}(t, ids, a)^2)"
        for k in range(len(names))
    )
    library = mt.loads(f"{maps}\n{losses}\n")
    rng = np.random.default_rng(1)
    t, ids, a = rng.normal(size=(4, 4)), np.int32([3, 0, 0, 2]), np.int64([1, 3, 0, 1])
    for k, name in enumerate(names):
        found = getattr(library, f"f{k}")(t, ids, a)
        np.testing.assert_allclose(found, GATHERS[name](t, ids, a), err_msg=name)
        gradient = mt.grad(getattr(library, f"l{k}"))
        expected = gradient.reference(t, ids, a)
        np.testing.assert_allclose(gradient(t, ids, a), expected, atol=1e-12, err_msg=name)


def test_gathers_of_nothing() -> None:
    library = mt.loads("map f(t: f64[v, d], ids: i32[q]): t[ids]")
    nothing = np.zeros(0, np.int32)
    assert library.f(np.ones((3, 2)), nothing).shape == (0, 2)
    assert library.f(np.ones((0, 2)), nothing).shape == (0, 2)
    with pytest.raises(mt.ExecutionError):
        library.f(np.ones((0, 2)), np.zeros(1, np.int32))
