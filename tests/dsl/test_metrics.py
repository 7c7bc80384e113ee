"""Metrics against NumPy: of one batch, and gathered over several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from elaborating import Array, initial_slots, run_map, run_slots, type_of

from mapsto.dsl.program import Program

random = np.random.default_rng(6)
LOGITS = random.normal(size=(30, 5))
LABELS = random.integers(0, 5, 30).astype(np.int32)
GUESSES = np.where(random.uniform(size=30) < 0.6, LABELS, (LABELS + 1) % 5).astype(np.int32)
BINARY = random.integers(0, 2, 30).astype(np.int32)
SCORES = np.round(BINARY + random.normal(size=30), 1)
X, T = random.normal(size=(6, 5)), random.normal(size=(6, 5))
RELEVANCE = random.integers(0, 4, (6, 5)).astype(np.float64)


def ranks(scores: Array, y: Array) -> Array:
    order = np.argsort(-scores, axis=-1, kind="stable")
    return np.argmax(order == y[:, None], axis=-1)


def log_softmax(x: Array) -> Array:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def cross_entropy(x: Array, y: Array) -> float:
    return float(-np.mean(log_softmax(x)[np.arange(len(y)), y]))


def matrix(predicted: Array, y: Array, classes: int) -> Array:
    counts = np.zeros((classes, classes))
    np.add.at(counts, (y, predicted), 1)
    return counts


def averaged(part: Array, whole: Array, average: str) -> float:
    if average == "binary":
        return float(part[1] / whole[1])
    if average == "macro":
        return float(np.mean(part / np.maximum(whole, 1)))
    return float(part.sum() / whole.sum())


def precision(predicted: Array, y: Array, classes: int, average: str) -> float:
    counts = matrix(predicted, y, classes)
    return averaged(np.diag(counts), counts.sum(0), average)


def recall(predicted: Array, y: Array, classes: int, average: str) -> float:
    counts = matrix(predicted, y, classes)
    return averaged(np.diag(counts), counts.sum(1), average)


def f1(predicted: Array, y: Array, classes: int, average: str) -> float:
    counts = matrix(predicted, y, classes)
    return averaged(2 * np.diag(counts), counts.sum(0) + counts.sum(1), average)


def auc(scores: Array, y: Array) -> float:
    """By the sum of ranks (Mann and Whitney), equal scores with their mean rank."""
    rank = np.array([(scores < s).sum() + ((scores == s).sum() + 1) / 2 for s in scores])
    p, n = (y == 1).sum(), (y == 0).sum()
    return float((rank[y == 1].sum() - p * (p + 1) / 2) / (p * n))


def average_precision(scores: Array, y: Array) -> float:
    """The sum over thresholds of precision times the recall that is won."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        now = (y[chosen] == 1).sum() / (y == 1).sum()
        total += (now - before) * (y[chosen] == 1).mean()
        before = now
    return total


def dcg(scores: Array, relevance: Array, k: int) -> Array:
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
    gains = np.take_along_axis(relevance, order, -1)
    return (gains / np.log2(np.arange(gains.shape[1]) + 2)).sum(-1)


def ndcg(scores: Array, relevance: Array, k: int) -> float:
    return float(np.mean(dcg(scores, relevance, k) / dcg(relevance, relevance, k)))


def r2(x: Array, t: Array) -> float:
    return float(1 - ((t - x) ** 2).sum() / ((t - t.mean()) ** 2).sum())


MULTI = {"p": GUESSES, "y": LABELS}
TWO = {"p": (SCORES > 0.5).astype(np.int32), "y": BINARY}
LISTS = {"x": LOGITS, "y": LABELS}
SCORED = {"s": SCORES, "y": BINARY}
PAIR = {"x": X, "t": T}
GRADED = {"x": X, "r": RELEVANCE}

MAPS: dict[str, tuple[dict[str, Array], Callable[..., Any]]] = {
    "accuracy(x, y)": (LISTS, lambda x, y: np.mean(x.argmax(-1) == y)),
    "binary_accuracy(s, y, 0.5)": (SCORED, lambda s, y: np.mean((s > 0.5) == y)),
    "rank_of(x, y)": (LISTS, ranks),
    "top_k_accuracy(x, y, 2)": (LISTS, lambda x, y: np.mean(ranks(x, y) < 2)),
    "hit_rate(x, y, 3)": (LISTS, lambda x, y: np.mean(ranks(x, y) < 3)),
    "reciprocal_rank(x, y)": (LISTS, lambda x, y: np.mean(1 / (ranks(x, y) + 1))),
    "positions(r)": (GRADED, lambda x, r: np.argsort(np.argsort(-r, kind="stable"))),
    "gain_of(x, r)": (GRADED, lambda x, r: dcg(x, r, 5)),
    "ndcg(x, r)": (GRADED, lambda x, r: ndcg(x, r, 5)),
    "ndcg(x, r, k=3)": (GRADED, lambda x, r: ndcg(x, r, 3)),
    "perplexity(x, y)": (LISTS, lambda x, y: math.exp(cross_entropy(x, y))),
    "rmse(x, t)": (PAIR, lambda x, t: math.sqrt(np.mean((x - t) ** 2))),
    "r2(x, t)": (PAIR, r2),
    "area_under_roc(s, y)": (SCORED, auc),
    "average_precision(s, y)": (SCORED, average_precision),
    "confusion_matrix(p, y, 5)": (MULTI, lambda p, y: matrix(p, y, 5)),
    "ratio(x[0], 0 * x[0])": (PAIR, lambda x, t: np.zeros(5)),
    "bins_of(x, 4)": (PAIR, lambda x, t: np.clip(np.floor(4 * x), 0, 3)),
    'averaged_ratio(f32(x[0]), f32(t[0]), average="micro")': (
        PAIR,
        lambda x, t: x[0].sum() / t[0].sum(),
    ),
}
AVERAGES = {"precision": precision, "recall": recall, "f1": f1}
"""Also `precision_of`, `recall_of` and `f1_of`, which these call."""


def parameters(arrays: dict[str, Array]) -> str:
    dtypes = {"f": "f64", "i": "i32"}
    return ", ".join(
        f"{name}: {dtypes[x.dtype.kind]}[{', '.join(map(str, x.shape))}]"
        for name, x in arrays.items()
    )


@pytest.mark.parametrize("text", MAPS)
def test_metric(text: str) -> None:
    arrays, reference = MAPS[text]
    found = run_map(f"map f({parameters(arrays)}): {text}", arrays)
    np.testing.assert_allclose(found, reference(*arrays.values()), rtol=1e-6)


@pytest.mark.parametrize("average", ["binary", "macro", "micro"])
@pytest.mark.parametrize("name", AVERAGES)
def test_averages_of_classes(name: str, average: str) -> None:
    arrays, classes = (TWO, 2) if average == "binary" else (MULTI, 6)
    text = f'{name}(p, y, {classes}, "{average}")'
    found = run_map(f"map f({parameters(arrays)}): {text}", arrays)
    expected = AVERAGES[name](*arrays.values(), classes, average)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


PROBABILITIES = random.integers(0, 50, 30) / 50 + 0.01

GATHERED: dict[str, tuple[dict[str, Array], Callable[..., Any]]] = {
    "ConfusionMatrix(5)": (MULTI, lambda p, y: matrix(p, y, 5)),
    'Precision(5, "macro")': (MULTI, lambda p, y: precision(p, y, 5, "macro")),
    "Recall()": (TWO, lambda p, y: recall(p, y, 2, "binary")),
    'F1(5, "micro")': (MULTI, lambda p, y: f1(p, y, 5, "micro")),
    "F1()": (TWO, lambda p, y: f1(p, y, 2, "binary")),
    "AreaUnderROC(bins=50)": ({"s": PROBABILITIES, "y": BINARY}, auc),
    "RMSE()": (PAIR, lambda x, t: math.sqrt(np.mean((x - t) ** 2))),
    "R2()": (PAIR, r2),
    "Perplexity()": (LISTS, lambda x, y: math.exp(cross_entropy(x, y))),
}


@pytest.mark.parametrize("text", GATHERED)
def test_metric_over_batches(text: str) -> None:
    """The value after the last of three batches is the one over all."""
    arrays, reference = GATHERED[text]
    names = ", ".join(arrays)
    dtypes = {"f": "f64", "i": "i32"}
    declared = ", ".join(
        f"{name}: {dtypes[x.dtype.kind]}[{', '.join(['n', *map(str, x.shape[1:])])}]"
        for name, x in arrays.items()
    )
    source = f"module M():\n    metric = {text}\n    map ({declared}): metric({names})"
    instance = Program.loads(source).instantiate("M")
    size = len(next(iter(arrays.values()))) // 3
    slots: dict[str, Array] = {}
    for i in range(3):
        batch = {name: x[size * i : size * (i + 1)] for name, x in arrays.items()}
        elaborated = instance.elaborate("", {name: type_of(x) for name, x in batch.items()})
        slots = slots or initial_slots(instance)
        found = run_slots(elaborated, slots, batch)
    np.testing.assert_allclose(found, reference(*arrays.values()), rtol=1e-6)
