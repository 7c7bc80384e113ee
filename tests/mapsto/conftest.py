"""Fixtures of the tests of the public face."""

from pathlib import Path

import pytest
from cli_harness import Workspace


@pytest.fixture
def workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Workspace:
    """A folder with `program.mto`, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path, capsys)
