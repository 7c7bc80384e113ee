"""Losses in double precision: their gradients against finite differences, and special values."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import run_map
from loss_cases import CASES, differentiable, inputs, program

STEP = 1e-5
NOT_THE_SLOPE = {"gaussian_nll(x, t, v, eps=0.8, full=true)", "ciou_loss(x, t)"}
"""Losses with parts that are constants to derivatives by definition."""


@pytest.mark.parametrize("text", sorted(set(CASES) - NOT_THE_SLOPE))
def test_gradients_are_the_slopes(text: str) -> None:
    """The derivative along a random direction, against a central difference of the loss."""
    arrays = inputs(text)
    names, positions = list(arrays), differentiable(text)
    random = np.random.default_rng(8)
    along = {names[i]: random.normal(size=arrays[names[i]].shape) for i in positions}
    source = program(text, "f64")
    ends = []
    for step in (-STEP, STEP):
        moved = {name: x + step * along[name] for name, x in arrays.items() if name in along}
        ends.append(run_map(source, {**arrays, **moved}, name="value"))
    parameters = source.partition("(")[2].partition(")")[0]
    source += f"\nmap slopes({parameters}): grad(value, {positions})({', '.join(names)})"
    gradients = run_map(source, arrays, name="slopes")
    slope = sum(np.sum(g * d) for g, d in zip(gradients, along.values(), strict=True))
    assert (ends[1] - ends[0]) / (2 * STEP) == pytest.approx(slope, rel=1e-6, abs=1e-8)


PAIRWISE = """
map f(a: f64[n, 4], b: f64[m, 4]): pairwise_iou(a, b)
"""


def test_every_box_is_compared_with_every_other() -> None:
    a = np.array([[0.0, 0, 2, 2], [1, 1, 3, 2]])
    b = np.array([[0.0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 6, 6]])
    found = run_map(PAIRWISE, {"a": a, "b": b})
    np.testing.assert_allclose(found, [[1, 1 / 7, 0], [1 / 5, 1 / 2, 0]], atol=1e-6)


def test_losses_of_large_scores_are_finite() -> None:
    source = """
map f(x: f64[n], t: f64[n]):
    (binary_cross_entropy(x, t), focal(x, t), bayesian_ranking(x, -x), log_cosh(x, t))
"""
    x = np.array([1000.0, -1000.0])
    found = run_map(source, {"x": x, "t": np.array([0.0, 0.0])})
    np.testing.assert_allclose(found, [500, 375, 1000, 1000 - np.log(2)])


def test_a_probability_of_zero_adds_nothing() -> None:
    source = """
map divergence(x: f64[n], p: f64[n]) -> f64: kl_divergence(x, p)
map f(x: f64[n], p: f64[n]): value_and_grad(divergence)(x, p)
"""
    x, p = np.log([0.25, 0.25, 0.5]), np.array([0.0, 0.5, 0.5])
    value, slope = run_map(source, {"x": x, "p": p})
    np.testing.assert_allclose(value, 0.5 * np.log(2))
    np.testing.assert_allclose(slope, -p)


BOXES = """
map f(a: f64[4], b: f64[4]):
    let sizes = (box_area(a), box_overlap(a, b), box_hull(a, b), tan(box_slope(a)))
    (sizes, (iou(a, b), giou(a, b), diou(a, b), ciou(a, b)))

map tan(x: f64) -> f64: sin(x) / cos(x)
"""


def test_figures_of_two_boxes() -> None:
    """A box of 4 by 2, and one of 2 by 2, of which half is in the first."""
    a, b = np.array([0.0, 0, 4, 2]), np.array([2.0, 1, 4, 3])
    sizes, overlaps = run_map(BOXES, {"a": a, "b": b})
    area, overlap, hull, slope = sizes
    assert (area, overlap, hull) == (8, 2, (4, 3))
    assert slope == pytest.approx(2)
    v = 4 / np.pi**2 * (np.arctan(1) - np.arctan(2)) ** 2
    apart = 1 + 1
    diou = 0.2 - apart / 25
    expected = [0.2, 0.2 - 2 / 12, diou, diou - v**2 / (0.8 + v)]
    np.testing.assert_allclose(overlaps, expected, rtol=1e-6)


REDUCTIONS = """
map f(x: f64[n]):
    (reduce_loss(x, "none"), reduce_loss(x, "sum"), reduce_loss(x, "mean"))
"""


def test_reductions() -> None:
    x = np.array([1.0, 2.0, 6.0])
    every, total, average = run_map(REDUCTIONS, {"x": x})
    np.testing.assert_array_equal(every, x)
    assert (total, average) == (9, 3)


def test_distances() -> None:
    source = """
map f(a: f64[d], b: f64[d]):
    (distance_of_pairs(a, b, eps=0), cosine_similarity(a, b), cosine_similarity(a, 0 * b))
"""
    a, b = np.array([3.0, 0, 4]), np.array([3.0, 4, 4])
    np.testing.assert_allclose(
        run_map(source, {"a": a, "b": b}), [4, 25 / (5 * np.sqrt(41)), 0], rtol=1e-12
    )


WEIGHTS = """
map f(x: f64[n], y: i32[n], w: f64[3]):
    let weights: f64[n] = weights_of_labels(y, 3, w, ignore_index=0)
    (weights, reduce_weighted(weights * x, weights, "mean"), reduce_weighted(x, weights, "none"))
"""


def test_labels_have_the_weights_of_their_classes() -> None:
    arrays = {"x": np.array([4.0, 1.0, 9.0]), "y": np.array([1, 2, 0], np.int32)}
    found, mean, every = run_map(WEIGHTS, {**arrays, "w": np.array([5.0, 1.0, 3.0])})
    np.testing.assert_array_equal(found, [1, 3, 0])
    assert mean == pytest.approx((4 + 3) / 4)
    np.testing.assert_array_equal(every, arrays["x"])


def test_a_label_that_is_no_class_makes_a_weighted_loss_nan() -> None:
    source = "map f(x: f64[n, c], y: i32[n], w: f64[c]): cross_entropy(x, y, w)"
    x, w = np.zeros((2, 3)), np.ones(3)
    assert run_map(source, {"x": x, "y": np.array([0, 2], np.int32), "w": w}) == np.log(3)
    assert np.isnan(run_map(source, {"x": x, "y": np.array([0, 3], np.int32), "w": w}))


ALIGNMENT = """
map f(x: f64[t, 1, 3], y: i32[1, 2], m: i32[1], k: i32[1]):
    let symbols = ctc_symbols(y)
    let emitted = [t, i, s] |-> x[t, i, symbols[i, s]]
    (ctc(x, y, m, k), ctc(x, y, m, k, zero_infinity=true), symbols,
        ctc_forward(emitted, symbols, m), log_of_sum(x, x, x))
"""


def test_alignments_of_a_sequence() -> None:
    """Two times leave no room for the blank between equal labels; three times leave one path."""
    x = np.log(np.full((3, 1, 3), 0.2) + np.array([0.0, 0.3, 0.1]))
    y, k = np.array([[1, 1]], np.int32), np.array([2], np.int32)
    for length, loss in ((2, np.inf), (3, -(x[0, 0, 1] + x[1, 0, 0] + x[2, 0, 1]) / 2)):
        arrays = {"x": x, "y": y, "m": np.array([length], np.int32), "k": k}
        found, finite, symbols, _, total = run_map(ALIGNMENT, arrays)
        assert found == pytest.approx(loss)
        assert finite == pytest.approx(0 if length == 2 else loss)
        np.testing.assert_array_equal(symbols, [[0, 1, 0, 1, 0]])
        np.testing.assert_allclose(total, x + np.log(3))
