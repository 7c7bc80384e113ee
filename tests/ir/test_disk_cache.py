"""What is kept on disk: whole or not at all, the last used, and never a reason to fail."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mapsto.ir import disk_cache
from mapsto.ir.disk_cache import DiskCache, Usage, cache_folder, compiled, key_of
from mapsto.ir.errors import SettingError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept"


def random_bytes(seed: int, size: int = 1000) -> bytes:
    """Bytes that no compression makes shorter."""
    import random

    return random.Random(seed).randbytes(size)


def test_what_is_saved_is_loaded() -> None:
    cache = DiskCache("some")
    assert cache.load(key_of("a")) is None
    cache.save(key_of("a"), b"text" * 100)
    cache.save(key_of("b"), b"")
    assert cache.load(key_of("a")) == b"text" * 100
    assert cache.load(key_of("b")) == b""
    assert DiskCache("other").load(key_of("a")) is None


def test_keys_depend_on_each_part() -> None:
    keys = [key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("abc", ""), key_of(b"abc ")]
    assert len(set(keys)) == len(keys)
    assert key_of("abc") == key_of(b"abc")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_damaged_entries_are_not_there(folder: Path, damage: str) -> None:
    cache = DiskCache("some")
    cache.save("k", random_bytes(1))
    (file,) = (folder / "some").iterdir()
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes({"cut": data[:50], "flipped": data, "empty": b""}[damage])
    assert cache.load("k") is None
    cache.save("k", b"new")
    assert cache.load("k") == b"new"


def test_a_folder_is_seldom_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[DiskCache] = []
    monkeypatch.setattr(DiskCache, "_trim", lambda cache: looks.append(cache))
    cache = DiskCache("some", limit=64_000)
    for i in range(256):
        cache.save(str(i), random_bytes(i, 250))
    assert 32 < len(looks) < 96, "a quarter: 250 bytes are that part of a 64th of the limit"


def test_least_recently_used_entries_go_first(folder: Path) -> None:
    cache = DiskCache("some", limit=5000)
    for i in range(4):
        cache.save(str(i), random_bytes(i))
        os.utime(folder / "some" / str(i), (i, i))
    assert cache.load("0") == random_bytes(0)  # used now
    cache.save("4", random_bytes(4))
    found = [i for i in range(5) if cache.load(str(i)) is not None]
    assert found == [0, 3, 4]
    assert cache.usage().bytes <= 5000 * 3 // 4


def test_limit_of_nothing_keeps_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "0")
    compiled().save("k", b"code")
    assert compiled().load("k") is None and not folder.exists()


def test_limit_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "3")
    assert compiled().limit == 3 << 20
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "much")
    with pytest.raises(SettingError, match="whole number of megabytes, not `much`"):
        compiled()


def test_abandoned_files_are_removed(folder: Path) -> None:
    cache = DiskCache("some")
    cache.save("k", b"x")
    for name, age in (("old.tmp", 1), ("new.tmp", 2**31)):
        (folder / "some" / name).write_bytes(b"half")
        os.utime(folder / "some" / name, (age, age))
    cache.save("l", b"y")
    assert sorted(p.name for p in (folder / "some").iterdir()) == ["k", "l", "new.tmp"]


def test_unusable_folder_does_no_harm(folder: Path) -> None:
    folder.write_text("a file where the folder should be")
    cache = DiskCache("some", 100)
    cache.save("k", b"x")
    assert cache.load("k") is None
    assert cache.clear() == Usage(0, 0)


def test_clearing_tells_what_there_was() -> None:
    cache = DiskCache("some")
    cache.save("k", b"x")
    before = cache.usage()
    assert before.files == 1 and cache.clear() == before
    assert cache.usage() == Usage(0, 0)


def test_many_writers_and_readers() -> None:
    cache = DiskCache("some", limit=20_000)

    def work(i: int) -> bool:
        key = str(i % 7)
        cache.save(key, random_bytes(i % 7, 4000))
        return cache.load(key) in (None, random_bytes(i % 7, 4000))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MAPSTO_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/mapsto"),
        ({"HOME": "/c"}, "/c/.cache/mapsto"),
    ],
)
def test_folder(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache.os, "environ", variables)
    assert cache_folder() == Path(expected)
