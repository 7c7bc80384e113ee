"""The processes of the speed table, as `speed.py` sees them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from speed_rows import Row

__all__ = ["Failed", "PeerProcess", "write_reference"]

SETTLE_SECONDS = 0.25
"""Pause before a turn: threads of the peer before, which wait for work in a busy loop, have left
the processors by then."""

_SCRIPT = str(Path(__file__).with_name("speed_peer.py"))


class Failed(Exception):
    """A peer does not do a row, or wrongly."""


def _environment(folder: Path, threads: int) -> dict[str, str]:
    """Caches of compilers are empty at the first call of a row."""
    return {
        **os.environ,
        "MAPSTO_CACHE": str(folder / "mapsto"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "OMP_NUM_THREADS": str(threads),
    }


def write_reference(row: Row, folder: Path, with_onnx: bool) -> None:
    """Writes weights, expected results and perhaps the ONNX model of a row.  Raises SystemExit."""
    command = [sys.executable, _SCRIPT, "reference", row.key, str(folder), "onnx" * with_onnx]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(folder, 1))
    if done.returncode:
        raise SystemExit(f"{row.key}: the reference fails\n{done.stderr}")


class PeerProcess:
    """A peer on a row.  Raises Failed where it ends before it answers."""

    def __init__(self, name: str, row: Row, folder: Path, threads: int) -> None:
        self.name = name
        self.errors = folder / f"{name}.log"
        command = [sys.executable, _SCRIPT, name, row.key, str(folder), str(threads)]
        with self.errors.open("w", encoding="utf-8") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=_environment(folder, threads),
            )
        self.version = ""

    def __enter__(self) -> PeerProcess:
        try:
            self.version = str(self._answer()["version"])
        except Failed:
            # The first question will say why.
            self.version = ""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.terminate()
        self.process.communicate()

    def ask(self, request: str, seconds: float = 0.0) -> dict[str, Any]:
        """The answer to a request."""
        time.sleep(SETTLE_SECONDS)
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([request, seconds]) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise Failed(self._last_error()) from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Failed(self._last_error())
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_error(self) -> str:
        lines = self.errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a word"
