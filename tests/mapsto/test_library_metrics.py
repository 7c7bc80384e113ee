"""Metrics of the library in training: over batches of unequal size as over all examples at once."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt

TEXT = """
train Fit(net = Dense(3), optimizer = SGD(ReduceOnPlateau(0.5, patience=0, threshold=0.5))):
    f1_so_far = F1(3, "macro")
    area_so_far = AreaUnderROC(bins=200)
    perplexity_so_far = Perplexity()

    loss(x: f32[n, 4], y: i32[n]) = cross_entropy(net(x), y)
    metric score(x: f32[n, 4], y: i32[n]) = f1_so_far(argmax(net(x)), y)
    metric area(x: f32[n, 4], y: i32[n]) = area_so_far(softmax(net(x))[:, 0], i32(y == 0))
    metric perplexity_of_all(x: f32[n, 4], y: i32[n]) = perplexity_so_far(net(x), y)
    metric top(x: f32[n, 4], y: i32[n]) = top_k_accuracy(net(x), y, 2)

map all_at_once(net: module, x: f32[n, 4], y: i32[n]):
    let scores = net(x)
    let binned = f32(bins_of(softmax(scores)[:, 0], 200))
    (
        f1(argmax(scores), y, 3, "macro"),
        area_under_roc(binned, i32(y == 0)),
        perplexity(scores, y),
        top_k_accuracy(scores, y, 2),
    )
"""


def data() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    y = random.integers(0, 3, 50).astype(np.int32)
    means = random.normal(size=(3, 4))
    return {"x": (means[y] + 2 * random.normal(size=(50, 4))).astype(np.float32), "y": y}


def test_metrics_over_a_data_set() -> None:
    library = mt.loads(TEXT)
    run = library.Fit(seed=1)
    history = run.fit(data(), data(), epochs=3, batch=16, progress=False)
    found = history.epochs[-1].test
    expected = library.all_at_once(run.net, **data())
    names = ("score", "area", "perplexity_of_all", "top")
    assert [found[name] for name in names] == pytest.approx(list(map(float, expected)), rel=1e-5)
    assert 0.3 < found["score"] < 0.95 and 0.5 < found["area"] < 1


def test_the_rate_falls_where_the_loss_stays() -> None:
    """No epoch halves the loss, so each after the first lowers the rate."""
    run = mt.loads(TEXT).Fit(seed=1)
    run.fit(data(), data(), epochs=3, batch=16, progress=False)
    assert float(run.arrays["optimizer.lr.current"]) == pytest.approx(0.5 * 0.1**2)
