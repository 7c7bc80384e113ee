"""Device code on disk: what was made once is loaded, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import build

from mapsto import ir
from mapsto.ir.core import Module
from mapsto.ir.types import DType
from mapsto.lowering.gpu.program import GpuProgram, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.devices import images
from mapsto.runtime.devices.images import image_of


def program(target: str, extent: int = 5) -> GpuProgram:
    function = build("f", [(DType.F32, (extent,))], lambda b, x: b.emit(ir.Neg, x))
    return lower_gpu(Module.of(function), "f", GpuTarget.named(target))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The targets for which code was made, with a cache of its own."""
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path))
    monkeypatch.delenv("MAPSTO_CACHE_LIMIT", raising=False)
    names: list[str] = []

    def assemble(program: GpuProgram) -> bytes:
        names.append(program.target.name)
        return f"{program.target.name} {len(names)}".encode()

    monkeypatch.setattr(images, "assemble", assemble)
    return names


def test_code_is_made_once(made: list[str]) -> None:
    first = image_of(program("nvptx64-sm_80"))
    assert image_of(program("nvptx64-sm_80")) == first == b"nvptx64-sm_80 1"
    assert made == ["nvptx64-sm_80"]


def test_other_targets_and_programs_have_code_of_their_own(made: list[str]) -> None:
    texts = [image_of(program(name)) for name in ("nvptx64-sm_80", "nvptx64-sm_90", "gpusim")]
    texts.append(image_of(program("nvptx64-sm_80", extent=6)))
    assert len(set(texts)) == len(made) == 4


def test_with_a_limit_of_nothing_nothing_is_kept(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "0")
    assert image_of(program("gpusim")) != image_of(program("gpusim"))
