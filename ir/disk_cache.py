"""What is kept on disk between runs: parse tables, compiled code, schedules.

All of it can be made again.  An entry that is damaged, or that cannot be read or written, is as
good as none; several processes may use a folder at once.

The folder is the one that the environment variable MAPSTO_CACHE names, else `mapsto` in
XDG_CACHE_HOME, else `~/.cache/mapsto`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mapsto.ir.errors import SettingError

__all__ = ["GRAMMAR", "DiskCache", "Usage", "cache_folder", "compiled", "key_of", "schedules"]

LIMIT = "MAPSTO_CACHE_LIMIT"
DEFAULT_MEGABYTES = 512
ABANDONED_SECONDS = 3600
"""A temporary file of this age has no writer any more."""

LOOKS = 64
"""How often a folder is looked through while as much as its limit is written: one look takes 20
microseconds a file, of which there may be tens of thousands."""

_DIGEST_BYTES = 32
_TEMPORARY = ".tmp"


def cache_folder() -> Path:
    """The folder of everything that is kept."""
    chosen = os.environ.get("MAPSTO_CACHE")
    if chosen:
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "mapsto"


def key_of(*parts: str | bytes) -> str:
    """A name for what depends on all of the parts and on nothing else."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Usage:
    """Files of a cache, and their bytes."""

    files: int
    bytes: int


@dataclass(frozen=True)
class DiskCache:
    """Bytes by key, a file each in a folder of their own.

    Where they take more than `limit` bytes, by some parts in `LOOKS` of it, what was not used for
    longest goes first; with a limit of 0 nothing is kept or looked for.
    """

    name: str
    limit: int | None = None

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return cache_folder() / self.name

    def load(self, key: str) -> bytes | None:
        """What was saved under the key; None if there is nothing, or it is damaged."""
        if self.limit == 0:
            return None
        try:
            path = self.folder / key
            data = path.read_bytes()
            os.utime(path)
        except (OSError, RuntimeError):  # RuntimeError: there is no home directory.
            return None
        body = data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != data[:_DIGEST_BYTES]:
            return None
        return zlib.decompress(body)

    def save(self, key: str, data: bytes) -> None:
        """Keeps bytes under a key: readers see all of them or nothing."""
        if self.limit == 0:
            return
        body = zlib.compress(data, 1)
        digest = hashlib.sha256(body).digest()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(suffix=_TEMPORARY, dir=self.folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(digest + body)
            os.replace(temporary, self.folder / key)
        except (OSError, RuntimeError):
            return
        if self._is_due(digest, len(body)):
            self._trim()

    def keys(self) -> list[str]:
        """The keys of all that is kept, sorted; none where nothing is looked for."""
        if self.limit == 0:
            return []
        names = (Path(path).name for path, _ in self._files())
        return sorted(name for name in names if not name.endswith(_TEMPORARY))

    def usage(self) -> Usage:
        """What there is."""
        sizes = [status.st_size for _, status in self._files()]
        return Usage(len(sizes), sum(sizes))

    def clear(self) -> Usage:
        """Removes everything; gives what there was."""
        before = self.usage()
        for path, _ in self._files():
            _remove(path)
        return before

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        with contextlib.suppress(OSError, RuntimeError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # Another process may have removed it.
                    yield entry.path, entry.stat()

    def _is_due(self, digest: bytes, size: int) -> bool:
        """Whether to look through the folder: drawn by the digest, the likelier the more is
        written, so that processes need not tell each other what they wrote."""
        if self.limit is None:
            return True
        return int.from_bytes(digest[:8], "big") * self.limit < (size * LOOKS) << 64

    def _trim(self) -> None:
        """Removes what nobody finishes writing, and the oldest files until the rest is a quarter
        below the limit, so that this is not done at every call."""
        files = sorted(self._files(), key=lambda file: file[1].st_mtime)
        excess = 0
        if self.limit is not None:
            excess = sum(status.st_size for _, status in files) - self.limit
            excess += self.limit // 4 if excess > 0 else 0
        now = time.time()
        for path, status in files:
            is_old = path.endswith(_TEMPORARY) and now - status.st_mtime > ABANDONED_SECONDS
            if excess > 0 or is_old:
                _remove(path)
                excess -= status.st_size


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


GRAMMAR = DiskCache("grammar")
"""The parse table of the language."""


def compiled() -> DiskCache:
    """Compiled code; MAPSTO_CACHE_LIMIT says how many megabytes of it are kept, and 0 keeps none.

    Raises SettingError where that is no number.
    """
    return DiskCache("compiled", _limit())


def schedules() -> DiskCache:
    """Schedules that were measured; all are kept, or with a limit of 0 none.

    Raises SettingError as `compiled` does.
    """
    return DiskCache("schedules", 0 if _limit() == 0 else None)


def _limit() -> int:
    """The bytes that compiled code may take."""
    text = os.environ.get(LIMIT, "")
    if text and not text.isdecimal():
        raise SettingError(f"{LIMIT} is a whole number of megabytes, not `{text}`")
    megabytes = int(text) if text else DEFAULT_MEGABYTES
    return megabytes << 20
