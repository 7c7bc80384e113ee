"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["write_atomically"]


def write_atomically(path: Path, chunks: Iterable[bytes | memoryview], mode: int = 0o666) -> None:
    """Writes a file so that at every moment, even after a power cut, the old or the new one exists.

    The bytes go to a temporary file in the same folder, which is synced and renamed.  `mode` is
    subject to the umask.  What is there and no regular file, such as a pipe or a device, is written
    to as it is.  Raises OSError, with the old file intact and the temporary one removed.  What a
    process that was killed has left half-written is removed by the next one that writes.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            stream.writelines(chunks)
        return
    _remove_leftovers(path)
    prefix = f".{path.name}.{os.getpid()}."
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            with contextlib.suppress(OSError):  # Not every file system has locks.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fchmod(file.fileno(), mode & ~_umask())
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def _remove_leftovers(path: Path) -> None:
    """Removes temporary files for `path` whose writers are dead: no process has their number, and
    none, perhaps on another machine that shares the folder, has a lock on them."""
    form = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.\w+\.tmp")
    for name in glob.glob(f".{glob.escape(path.name)}.*.tmp", root_dir=path.parent):
        match = form.fullmatch(name)
        if match is None or _is_alive(int(match[1])):
            continue
        with contextlib.suppress(OSError), open(path.parent / name, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path.parent / name)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # A process of another user, or a number that is none.
    return True


def _umask() -> int:
    """The process's umask; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Makes the rename durable, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
