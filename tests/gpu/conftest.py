"""Devices for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_harness import Workspace
from devices import DEVICES, present
from fake_cuda import COMPILER, FakeCuda, build_library, open_fake


@pytest.fixture(scope="session")
def fake_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for libcuda."""
    if COMPILER is None:
        pytest.skip("no C compiler")
    return build_library(tmp_path_factory.mktemp("cuda"))


@pytest.fixture
def fake_cuda(fake_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A CUDA driver without a GPU."""
    yield from open_fake(fake_library, monkeypatch)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """A device: the simulated one, and those that the machine has."""
    return present(request.param)


@pytest.fixture
def workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Workspace:
    """A folder with a program, where commands run."""
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path, capsys)
