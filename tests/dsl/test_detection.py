"""Metrics of detection against the published procedure in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from elaborating import Array, initial_slots, run_map, run_slots, type_of

from mapsto.dsl.program import Program

IMAGES, BOXES, RIGHT, CLASSES = 6, 5, 4, 3


def scenes(seed: int) -> dict[str, Array]:
    """Detections that are right boxes, moved; some of another class, some missing."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, 8, (IMAGES, RIGHT, 2))
    right = np.concatenate([corner, corner + random.uniform(1, 4, corner.shape)], -1)
    classes = random.integers(0, CLASSES, (IMAGES, RIGHT)).astype(np.int32)
    chosen = random.integers(0, RIGHT, (IMAGES, BOXES))
    found = np.take_along_axis(right, chosen[..., None], 1)
    found = found + random.normal(scale=0.3, size=found.shape)
    kinds = np.take_along_axis(classes, chosen, 1)
    kinds = np.where(random.uniform(size=kinds.shape) < 0.2, (kinds + 1) % CLASSES, kinds)
    absent = random.uniform(size=kinds.shape) < 0.1
    classes[:2, -1] = -1
    scores = random.permutation(IMAGES * BOXES).reshape(IMAGES, BOXES) / (IMAGES * BOXES)
    return {
        "boxes": found,
        "scores": scores + 0.001,
        "classes": np.where(absent, -1, kinds).astype(np.int32),
        "right": right,
        "kinds": classes,
    }


def iou(a: Array, b: Array) -> float:
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = max(width, 0) * max(height, 0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return float(common / (sum(areas) - common))


def is_hit(data: dict[str, Array], image: int, box: int, taken: set[int], threshold: float) -> bool:
    """Whether a detection takes a right box that is free."""
    kind = data["classes"][image, box]
    overlaps = {
        j: iou(data["boxes"][image, box], data["right"][image, j])
        for j in range(data["right"].shape[1])
        if data["kinds"][image, j] == kind and j not in taken
    }
    best = max(overlaps, key=lambda j: overlaps[j], default=None)
    if best is None or overlaps[best] < threshold:
        return False
    taken.add(best)
    return True


def average_precision(data: dict[str, Array], kind: int, threshold: float) -> float:
    places = [p for p in np.ndindex(*data["scores"].shape) if data["classes"][p] == kind]
    places.sort(key=lambda p: -data["scores"][p])
    taken: list[set[int]] = [set() for _ in data["scores"]]
    hits = np.array([is_hit(data, i, b, taken[i], threshold) for i, b in places], float)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((hits * best).sum() / (data["kinds"] == kind).sum())


def expected(data: dict[str, Array], threshold: float) -> float:
    present = [kind for kind in range(CLASSES) if (data["kinds"] == kind).any()]
    return float(np.mean([average_precision(data, kind, threshold) for kind in present]))


DECLARED = (
    "boxes: f64[n, d, 4], scores: f64[n, d], classes: i32[n, d], right: f64[n, t, 4], "
    "kinds: i32[n, t]"
)
NAMES = "boxes, scores, classes, right, kinds"


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.75])
@pytest.mark.parametrize("seed", [0, 1])
def test_mean_average_precision(seed: int, threshold: float) -> None:
    data = scenes(seed)
    text = f"map f({DECLARED}): mean_average_precision({NAMES}, {CLASSES}, {threshold})"
    found = run_map(text, data)
    wanted = expected(data, threshold)
    assert found == pytest.approx(wanted, rel=1e-5)
    assert 0.05 < wanted < 0.95


def test_classes_that_do_not_occur_do_not_count() -> None:
    data = scenes(0)
    data["kinds"] = np.where(data["kinds"] == 1, -1, data["kinds"]).astype(np.int32)
    text = f"map f({DECLARED}): mean_average_precision({NAMES}, {CLASSES + 2})"
    assert run_map(text, data) == pytest.approx(expected(data, 0.5), rel=1e-5)


def test_over_batches() -> None:
    """Scores that lie in bins of their own give the same as all at once."""
    data = scenes(2)
    metric = f"MeanAveragePrecision({CLASSES}, bins={IMAGES * BOXES})"
    text = f"module M():\n    metric = {metric}\n    map ({DECLARED}): metric({NAMES})"
    instance = Program.loads(text).instantiate("M")
    slots: dict[str, Array] = {}
    found: Any = None
    for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
        batch = {name: array[part] for name, array in data.items()}
        elaborated = instance.elaborate("", {name: type_of(x) for name, x in batch.items()})
        slots = slots or initial_slots(instance)
        found = run_slots(elaborated, slots, batch)
    assert found == pytest.approx(expected(data, 0.5), rel=1e-5)


PARTS = """
map f(boxes: f64[d, 4], classes: i32[d], right: f64[t, 4], kinds: i32[t], scores: f64[d]):
    let hits = true_detections(boxes, classes, right, kinds)
    (hits, area_of_precision(scores, classes == 0, hits), occurrences(kinds, 2),
        mean_of_present(full([3], 1.0), f32(iota(3))))
"""


def test_a_box_is_taken_once() -> None:
    box = np.array([[0.0, 0, 2, 2]])
    arrays = {
        "boxes": np.concatenate([box + 0.1, box, box + 9]),
        "classes": np.zeros(3, np.int32),
        "right": np.concatenate([box, box + 4]),
        "kinds": np.array([0, 1], np.int32),
        "scores": np.array([0.9, 0.8, 0.7]),
    }
    hits, area, counts, mean = run_map(PARTS, arrays)
    assert hits.tolist() == [True, False, False]
    assert area == 1
    assert counts.tolist() == [1, 1]
    assert mean == pytest.approx(0.75)


def test_detections_are_sorted_by_score() -> None:
    data = scenes(3)
    scores, classes, _ = run_map(f"map f({DECLARED}): matched_detections({NAMES})", data)
    order = np.argsort(-data["scores"], axis=1)
    np.testing.assert_array_equal(scores, np.take_along_axis(data["scores"], order, 1))
    np.testing.assert_array_equal(classes, np.take_along_axis(data["classes"], order, 1))
