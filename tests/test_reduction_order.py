"""`benchmarks/reduction_order.py`: how it divides work otherwise, and its table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "reduction_order.py"

DIVIDES = """
import reduction_order as r
from mapsto.lowering.cpu import scheduling
before, division = scheduling.DIVISION, r.ByThreads(threads=2)
assert before.rows_per_task(1000, 1 << 27) == 1 and division.rows_per_task(1000, 1 << 27) == 500
assert division.rows_per_task(1000, 1000) == before.rows_per_task(1000, 1000) > 1000
with r.divided(division):
    assert scheduling.DIVISION is division
assert scheduling.DIVISION is before
"""


def test_a_table() -> None:
    options = ["--match", "sum of 100,000", "--seconds", "0.01"]
    command = [sys.executable, str(SCRIPT), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    head, _, line = done.stdout.splitlines()
    assert head.endswith("| cost |") and line.startswith("| sum of 100,000 | ")


def test_as_many_tasks_as_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIVIDES], cwd=SCRIPT.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
