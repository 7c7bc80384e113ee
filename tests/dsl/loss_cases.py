"""The losses of the standard library on small inputs: as calls, with the kinds of their arguments.

Each is gradient-checked in double precision (test_losses.py) and compared with PyTorch
(tests/oracle/test_loss_values.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
CLASSES = 5

ROWS, MATRIX = (6,), (6, CLASSES)


def boxes(random: np.random.Generator, shape: Shape) -> Array:
    """Corners of boxes, most of which overlap."""
    corner = random.uniform(0, 1, (*shape[:-1], 2))
    return np.concatenate([corner, corner + random.uniform(0.3, 1.5, corner.shape)], axis=-1)


def simplex(random: np.random.Generator, shape: Shape) -> Array:
    """Distributions along the last axis; one probability of each is 0."""
    x = random.uniform(0.1, 1, shape)
    x[..., 0] = 0
    return x / x.sum(-1, keepdims=True)


KINDS: Mapping[str, Callable[[np.random.Generator, Shape], Array]] = {
    "real": lambda random, shape: 2 * random.normal(size=shape),
    "positive": lambda random, shape: random.uniform(0.2, 3, shape),
    "probability": lambda random, shape: random.uniform(0.05, 0.95, shape),
    "simplex": simplex,
    "boxes": boxes,
    # No derivative is taken by these:
    "distribution": simplex,
    "binary": lambda random, shape: random.integers(0, 2, shape).astype(np.float64),
    "sign": lambda random, shape: random.choice([-1.0, 1.0], shape),
    "count": lambda random, shape: random.integers(0, 6, shape).astype(np.float64),
    "weight": lambda random, shape: random.uniform(0.2, 2, shape),
    "index": lambda random, shape: random.integers(0, CLASSES, shape).astype(np.int32),
    "label": lambda random, shape: random.integers(1, 3, shape).astype(np.int32),
    "length": lambda random, shape: random.integers(8, 13, shape).astype(np.int32),
    "short": lambda random, shape: random.integers(1, 4, shape).astype(np.int32),
}
INTEGERS = ("index", "label", "length", "short")
DIFFERENTIABLE = ("real", "positive", "probability", "simplex", "boxes")

_PAIR = {"x": ("real", MATRIX), "t": ("real", MATRIX)}
_LABELS = {"x": ("real", MATRIX), "y": ("index", ROWS)}
_WEIGHTED = {**_LABELS, "w": ("weight", (CLASSES,))}
_SOFT = {"x": ("real", MATRIX), "t": ("distribution", MATRIX)}
_BINARY = {"x": ("real", MATRIX), "t": ("binary", MATRIX)}
_TARGETED = {"a": ("real", MATRIX), "b": ("real", MATRIX), "t": ("sign", ROWS)}
_TRIPLET = {"a": ("real", MATRIX), "b": ("real", MATRIX), "c": ("real", MATRIX)}
_SCORES = {"x": ("real", ROWS), "z": ("real", ROWS)}
_SEQUENCES = {
    "x": ("real", (12, 6, CLASSES)),
    "y": ("label", (6, 3)),
    "m": ("length", ROWS),
    "k": ("short", ROWS),
}
_BOXES = {"x": ("boxes", (6, 4)), "t": ("boxes", (6, 4))}

CASES: Mapping[str, Mapping[str, tuple[str, Shape]]] = {
    "mse(x, t)": _PAIR,
    'mse(x, t, reduction="sum")': _PAIR,
    'sum(w * mse(x, t, reduction="none"))': {**_PAIR, "w": ("weight", MATRIX)},
    "mae(x, t)": _PAIR,
    "huber(x, t)": _PAIR,
    "huber(x, t, delta=0.7)": _PAIR,
    "smooth_l1(x, t)": _PAIR,
    "smooth_l1(x, t, beta=0.4)": _PAIR,
    "log_cosh(x, t)": _PAIR,
    "quantile_loss(x, t, quantile=0.9)": _PAIR,
    "gaussian_nll(x, t, v)": {**_PAIR, "v": ("positive", MATRIX)},
    "gaussian_nll(x, t, v, eps=0.8, full=true)": {**_PAIR, "v": ("positive", MATRIX)},
    "poisson_nll(x, t)": {"x": ("real", MATRIX), "t": ("count", MATRIX)},
    "binary_cross_entropy(x, t)": {"x": ("real", MATRIX), "t": ("probability", MATRIX)},
    "binary_cross_entropy(x, t, pos_weight=2.5)": _BINARY,
    "binary_cross_entropy(x, t, pos_weight=w)": {**_BINARY, "w": ("weight", MATRIX)},
    "focal(x, t)": _BINARY,
    "focal(x, t, alpha=0.6, gamma=1.5)": _BINARY,
    "cross_entropy(x, y)": _LABELS,
    "cross_entropy(30 * x, y)": _LABELS,
    "cross_entropy(x, y, weight=w)": _WEIGHTED,
    "cross_entropy(x, y, ignore_index=2)": _LABELS,
    "cross_entropy(x, y, label_smoothing=0.2)": _LABELS,
    "cross_entropy(x, y, w, ignore_index=2, label_smoothing=0.2)": _WEIGHTED,
    'cross_entropy(x, y, w, label_smoothing=0.2, reduction="sum")': _WEIGHTED,
    'sum(u * cross_entropy(x, y, reduction="none"))': {**_LABELS, "u": ("weight", ROWS)},
    'sum(u * cross_entropy(x, y, w, 2, 0.1, "none"))': {**_WEIGHTED, "u": ("weight", ROWS)},
    "nll(log_softmax(x), y)": _LABELS,
    "nll(x, y, w, ignore_index=2)": _WEIGHTED,
    "soft_cross_entropy(x, t)": _SOFT,
    "soft_cross_entropy(x, t, label_smoothing=0.1, weight=w)": {
        **_SOFT,
        "w": ("weight", (CLASSES,)),
    },
    "kl_divergence(log_softmax(x), t)": _SOFT,
    "kl_divergence(x, u)": {"x": ("real", MATRIX), "u": ("probability", MATRIX)},
    "hinge(x, t)": {"x": ("real", MATRIX), "t": ("sign", MATRIX)},
    "multi_margin(x, y)": _LABELS,
    "multi_margin(x, y, margin=2, p=2)": _LABELS,
    "dice(x, t)": {"x": ("probability", (3, 4, 5)), "t": ("binary", (3, 4, 5))},
    "ctc(log_softmax(x), y, m, k)": _SEQUENCES,
    'ctc(log_softmax(x), y, m, k, blank=4, reduction="sum")': _SEQUENCES,
    "cosine_loss(a, b)": {"a": ("real", MATRIX), "b": ("real", MATRIX)},
    "cosine_embedding(a, b, t, margin=0.1)": _TARGETED,
    "triplet(a, b, c)": _TRIPLET,
    "triplet(a, b, c, margin=3)": _TRIPLET,
    "contrastive(a, b, t, margin=4)": {**_TARGETED, "t": ("binary", ROWS)},
    "info_nce(a, b)": {"a": ("real", MATRIX), "b": ("real", MATRIX)},
    "info_nce(a, b, temperature=0.5, symmetric=true)": {
        "a": ("real", MATRIX),
        "b": ("real", MATRIX),
    },
    "bayesian_ranking(x, z)": _SCORES,
    "margin_ranking(x, z, t, margin=0.5)": {**_SCORES, "t": ("sign", ROWS)},
    "iou_loss(x, t)": _BOXES,
    "giou_loss(x, t)": _BOXES,
    "giou_loss(x + 2, t)": _BOXES,
    "diou_loss(x, t)": _BOXES,
    "ciou_loss(x, t)": _BOXES,
}


def inputs(text: str) -> dict[str, Array]:
    """The arguments of a case, in double precision."""
    random = np.random.default_rng(3)
    return {name: KINDS[kind](random, shape) for name, (kind, shape) in CASES[text].items()}


def program(text: str, dtype: str) -> str:
    """A program with the case as a map `value`, of tensors of this dtype."""
    parameters = [
        f"{name}: {'i32' if kind in INTEGERS else dtype}[{', '.join(map(str, shape))}]"
        for name, (kind, shape) in CASES[text].items()
    ]
    return f"map value({', '.join(parameters)}) -> {dtype}: {text}"


def differentiable(text: str) -> list[int]:
    """The positions of the arguments by which derivatives are taken."""
    kinds = [kind for kind, _ in CASES[text].values()]
    return [i for i, kind in enumerate(kinds) if kind in DIFFERENTIABLE]
