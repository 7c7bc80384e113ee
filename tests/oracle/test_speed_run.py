"""`benchmarks/speed.py` on the smallest rows: processes, checks, pages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "speed.py"


def test_small_rows(tmp_path: Path) -> None:
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    rows = ["--rows", "op-product-16,train-dlrm-512", "--peers", "mapsto,pytorch"]
    brief = ["--seconds", "0.02", "--rounds", "2", "--output", str(page), "--json", str(figures)]
    command = [sys.executable, str(SCRIPT), *rows, *brief]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "fails" not in page.read_text(encoding="utf-8"), done.stderr
    for row in json.loads(figures.read_text(encoding="utf-8")):
        for peer in ("mapsto", "pytorch"):
            assert row[peer]["timing"]["median"] > 0 and row[peer]["first"] > 0
        assert row["mapsto"]["second"] > 0 and row["mapsto"]["memory"] > 0


def test_unknown_names() -> None:
    for option, value in (("--rows", "nothing"), ("--peers", "nobody")):
        command = [sys.executable, str(SCRIPT), option, value]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and value in done.stderr and "Traceback" not in done.stderr
