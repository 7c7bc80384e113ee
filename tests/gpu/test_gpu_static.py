"""The table of what kernels ask of a GPU (`benchmarks/gpu_static.py`)."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.ptxas import Code

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu_static(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with those beside it importable."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_static

    return gpu_static


def test_the_loop_with_the_most_multiply_adds(gpu_static: ModuleType) -> None:
    opcodes = ("MOV", "LDG.E", "BRA", "FFMA", "LDS.128", "FFMA", "BRA", "STG", "EXIT")
    mix = gpu_static.hot_mix(Code(opcodes, ((1, 2), (3, 6))))
    assert gpu_static.mix_text(mix) == "2 FFMA, 1 LDS, 1 other"
    assert gpu_static.hot_mix(Code(opcodes, ((1, 2),))).total() == len(opcodes)


def test_the_table_goes_between_the_markers(gpu_static: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{gpu_static.BEGIN}\nold\n{gpu_static.END}\nafter\n", "utf-8")
    gpu_static.write(page, "new")
    assert page.read_text("utf-8") == f"before\n{gpu_static.BEGIN}\nnew\n{gpu_static.END}\nafter\n"
    documented = (ROOT / "docs" / "gpu.md").read_text("utf-8")
    table = documented.partition(gpu_static.BEGIN)[2].partition(gpu_static.END)[0]
    assert gpu_static.HEADER in table
    assert all(work in table for work, *_ in gpu_static.WORK)


@pytest.mark.ptxas
def test_rows(gpu_static: ModuleType) -> None:
    target = GpuTarget.named("nvptx64-sm_80")
    (row,) = gpu_static.rows("product", "product_f16", ("m=256", "n=256", "k=256"), target)
    assert row.resources.registers > 16 and 0 < row.occupancy <= 1
    assert row.traffic.multiply_adds >= 256**3
    assert "HMMA" in str(row) and "spilled" not in str(row)
