"""Gradients of attention, as text, and as functions of the tensor IR."""

from __future__ import annotations

import re
from collections.abc import Sequence

import mapsto as mt
from mapsto.commands.entries import open_target
from mapsto.commands.settings import parse_settings
from mapsto.compiler import Options, optimized
from mapsto.dsl.elaborated import Elaborated
from mapsto.ir.core import Function

__all__ = ["gradients", "matrices", "program", "training_step"]

_TEXT = """
map causal(q: T[b, t, d], k: T[b, s, d], v: T[b, s, e]) -> T[b, t, e]:
    attention(q, k, v, causal=true)

map near(q: T[b, t, d], k: T[b, s, d], v: T[b, s, e]) -> T[b, t, e]:
    "Scores fall with the distance (Press et al., 2022, ALiBi); sums are divided, not weights."
    let fits = [b, i, j] |-> sum[c](q[b, i, c] * k[b, j, c])
    let scores = [b, i, j] |-> fits[b, i, j] - 0.1 * T(abs(i - j))
    let weights = exp(scores - stop_gradient(max(scores, axis=-1, keepdims=true)))
    let total = sum(weights, axis=-1)
    [b, i, c] |-> sum[j](weights[b, i, j] * v[b, j, c]) / total[b, i]

map shared(q: T[b, 4, t, d], k: T[b, 2, s, d], v: T[b, 2, s, d], w: T[b, 4, t, d]):
    let found = grouped_attention(q, k, v, causal=true)
    (sum(found * w), found)

map of_shared(q: T[b, 4, t, d], k: T[b, 2, s, d], v: T[b, 2, s, d], w: T[b, 4, t, d]):
    value_and_grad(shared, argnums=["q", "k", "v"], has_aux=true)(q, k, v, w)

map cost(f: map, q: T[b, t, d], k: T[b, s, d], v: T[b, s, e], w: T[b, t, e]):
    let found = f(q, k, v)
    (sum(found * w), found)

map gradients(f: map, q: T[b, t, d], k: T[b, s, d], v: T[b, s, e], w: T[b, t, e]):
    value_and_grad(cost, argnums=["q", "k", "v"], has_aux=true)(f, q, k, v, w)

map of_causal(q: T[b, t, d], k: T[b, s, d], v: T[b, s, e], w: T[b, t, e]):
    gradients(causal, q, k, v, w)

map of_near(q: T[b, t, d], k: T[b, s, d], v: T[b, s, e], w: T[b, t, e]):
    gradients(near, q, k, v, w)
"""


def program(dtype: str) -> str:
    """The text for tensors of a type."""
    return re.sub(r"\bT\b", dtype, _TEXT)


def gradients(
    name: str, queries: Sequence[int], keys: Sequence[int], columns: int, dtype: str = "f32"
) -> Function:
    """The value, and the gradients by queries, keys and values, of `of_causal`, `of_near` or
    `of_shared`."""
    library = mt.loads(program(dtype))
    element = getattr(mt, dtype)
    rest = (*keys[:-1], columns), (*queries[:-1], columns)
    shapes = zip("qkvw", (queries, keys, *rest), strict=True)
    types = {n: element[tuple(s)] for n, s in shapes}
    return _optimized(getattr(library, name).elaborate(types, {}))


def training_step(path: str, **settings: int) -> Function:
    """The step of a `train` block, as in "gpt.mto:Step"."""
    static = parse_settings([f"{name}={value}" for name, value in settings.items()])
    entry = open_target(path, Options(), static, 0).entries[0]
    return _optimized(entry.elaborate(static, {}))


def _optimized(elaborated: Elaborated) -> Function:
    return optimized(elaborated.module, Options())[elaborated.entry]


def matrices(function: Function, rows: int, keys: int) -> int:
    """How many kernels write something for all rows and keys."""
    kernels = [op for op in function.block.operations if op.name == "kernel"]
    written = [r.type for op in kernels for r in op.results]
    return sum(set(type_.shape[-2:]) == {rows, keys} for type_ in written)
