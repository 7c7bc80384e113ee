"""Files that are written whole, and what killed writers leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from mapsto.runtime.files import write_atomically

KILLED = """
import os, signal, sys
from pathlib import Path
from mapsto.runtime.files import write_atomically

def chunks():
    yield b"first"
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), chunks())
"""


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "weights [1].st"
    write_atomically(path, [b"old"])
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"old"
    write_atomically(path, [b"new"])
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"new"


def test_files_of_live_writers_and_other_files_stay(tmp_path: Path) -> None:
    path = tmp_path / "w"
    alive = tmp_path / f".w.{os.getpid()}.abc.tmp"
    other = tmp_path / ".w.notes.tmp"
    for place in (alive, other):
        place.write_bytes(b"")
    write_atomically(path, [b"new"])
    assert {alive, other, path} == set(tmp_path.iterdir())
