"""`benchmarks/operations.py` on a few small programs: checks, tables, the page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.oracle

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "operations.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--seconds", "0.001", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = run("--match", "gelu*", "--output", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Operations\n") and "PyTorch 2" in text
    assert "Written in index notation" not in text
    for line in ("| gelu | memory |", "| gelu, 512 x 256 |", "Geometric means: "):
        assert line in text


def test_every_program_agrees_with_pytorch() -> None:
    """Values and gradients of all of them, which a run compares before it measures."""
    import operation_cases as cases
    import operations

    for case in cases.PROGRAMS:
        operations.values(case)
        operations.gradients(case)
    for case in (case for case in cases.WRITTEN if case.size < 100):
        operations.values(case)


def test_a_wrong_result_is_not_measured() -> None:
    import numpy as np
    import operations

    operations.compare("sum", [np.ones(3, np.float32)], [torch.ones(3)])
    for wrong in (torch.ones(3) * 1.01, torch.ones(3) * float("nan"), torch.ones(1)):
        with pytest.raises(SystemExit, match="sum"):
            operations.compare("sum", [np.ones(3, np.float32)], [wrong])
