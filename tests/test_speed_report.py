"""The tables that `benchmarks/speed.py` makes of its figures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mapsto.runtime.timing import Timing

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with those beside it importable."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import speed_report

    yield speed_report
    for name in ("speed_report", "speed_rows", "peers"):
        sys.modules.pop(name, None)


def timing(seconds: float) -> Timing:
    return Timing(seconds, 0.9 * seconds, 1.1 * seconds)


@pytest.fixture
def results(report: Any) -> list[Any]:
    """One row in which mapsto is ahead, one in which it is behind and a peer is wrong."""
    from speed_rows import OPERATIONS, ROWS

    first = {
        "mapsto": report.Cell("1", 0.5, timing(1e-3)).again(
            0.1, 2_000_000, {"arena": 1_500_000, "live": 1_000_000}
        ),
        "pytorch": report.Cell("2", 0.1, timing(3e-3), 5_000_000),
        "jax": report.Cell("3", 2.0, timing(2e-3), 6_000_000),
    }
    second = {
        "mapsto": report.Cell("1", 0.5, timing(2e-6)),
        "pytorch": report.Cell("2", 0.1, timing(1e-6)),
        "jax": report.Cell("3", failure="results differ"),
    }
    third = {"mapsto": report.Cell("1", 0.5, timing(3e-7))}
    rows = (ROWS[0], ROWS[-1], OPERATIONS[0])
    return [report.Result(*pair) for pair in zip(rows, (first, second, third), strict=True)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.0, "2000 ms"),
        (0.0123456, "12.3 ms"),
        (0.001, "1.00 ms"),
        (99.94e-6, "99.9 µs"),
        (1.5e-7, "150 ns"),
        (2e-10, "0.200 ns"),
    ],
)
def test_durations(report: Any, seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_ratio_to_the_best_peer(results: list[Any]) -> None:
    assert results[0].best == ("jax", 2e-3)
    assert [result.ratio for result in results] == [2.0, 0.5, None]


def test_tables(report: Any, results: list[Any]) -> None:
    text = report.tables(results, "Nothing else ran.")
    assert "| inference: perceptron 784-512-512-10, batch 1 | 1.00 ms ±10 % | 3.00 ms" in text
    assert "| 2.00 µs ±10 % | 1.00 µs ±10 % | fails | 0.50 |" in text
    assert "Geometric mean of the last column: 1.00. Behind the best peer: training step" in text
    assert "| 0.50 | 0.10 | 2.00 | 0.10 |" in text  # first calls, and with the code on disk
    assert "| 1.50 | 1.00 |" in text  # memory between kernels
    assert "PyTorch 2, JAX 3" in text and "Nothing else ran." in text
    assert "the sum of two vectors, n = 4 | 300 ns" in text


def test_page_keeps_what_is_around_the_tables(report: Any) -> None:
    page = report.page_with("# Speed\n\nBefore.\n", "first\n")
    assert page.startswith("# Speed\n\nBefore.\n\n") and "first" in page
    again = report.page_with(page + "\nAfter.\n", "second\n")
    assert "first" not in again and "second" in again
    assert again.startswith("# Speed\n\nBefore.") and again.endswith("\nAfter.\n")


def test_lines_and_records(results: list[Any]) -> None:
    assert results[0].line().endswith("jax 2.00 ms ±10 %  2.00x")
    record = results[0].record()
    assert record["row"] == "infer-mlp-1" and record["jax"]["timing"]["median"] == 2e-3


def test_plot(report: Any, results: list[Any], tmp_path: Path) -> None:
    report.draw(results, tmp_path / "speed.svg")
    text = (tmp_path / "speed.svg").read_text(encoding="utf-8")
    assert text.startswith("<?xml") and "PyTorch" in text


def test_everything_that_is_asked_for_is_written(
    report: Any, results: list[Any], tmp_path: Path
) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text("# Speed\n", encoding="utf-8")
    options = argparse.Namespace(json=figures, output=page, plot=None, note="")
    report.write_report(results, options)
    assert [row["row"] for row in json.loads(figures.read_text())] == [
        "infer-mlp-1",
        "train-dlrm-512",
        "op-add-4",
    ]
    assert page.read_text(encoding="utf-8").startswith("# Speed\n\n<!--")


def test_cost_of_a_gradient(report: Any) -> None:
    from speed_rows import GRADIENTS

    value, gradient = GRADIENTS[:2]
    results = [
        report.Result(value, {"mapsto": report.Cell("1", 1.0, timing(2e-3))}),
        report.Result(gradient, {"mapsto": report.Cell("1", 1.0, timing(5e-3))}),
    ]
    assert f"| {gradient.text} | 2.50 |" in report.tables(results)


def test_rows(report: Any) -> None:
    from speed_rows import EVERY, MODELS, ROWS

    assert len(ROWS) == 16 and len({row.key for row in EVERY}) == len(EVERY) == 16 + 10 + 11
    for row in EVERY:
        assert (BENCHMARKS / "models" / f"{row.model}.mto").is_file() and row.model in MODELS
        assert row.suits("mapsto") and row.suits("pytorch")
    for row in ROWS:
        assert ("y" in row.inputs()) == row.training
        assert row.suits("onnxruntime") != row.training
