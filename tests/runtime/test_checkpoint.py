"""Safetensors files: exact round trips, and clear errors that leave nothing half done."""

import errno
import os
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from mapsto.runtime import checkpoint, files
from mapsto.runtime.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64"]


def sample() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        f"layers.{k}.{name}": rng.integers(0, 2, (k, 3)).astype(name)
        for k, name in enumerate(DTYPES)
    } | {"scalar": np.array(2.5, np.float32)}


def assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert sorted(left) == sorted(right)
    for name, array in left.items():
        assert right[name].dtype == array.dtype
        assert right[name].shape == array.shape
        assert right[name].tobytes() == array.tobytes()


def test_round_trip_with_metadata(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_checkpoint(path, sample(), {"b": "2", "a": "ä"})
    arrays, metadata = load_checkpoint(path)
    assert_equal(sample(), arrays)
    assert metadata == {"a": "ä", "b": "2"}
    assert all(array.flags.writeable for array in arrays.values())


def test_the_reference_library_reads_and_writes_the_same(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ours", sample())
    assert_equal(sample(), load_file(tmp_path / "ours"))
    save_file(sample(), tmp_path / "theirs", {"epoch": "3"})
    arrays, metadata = load_checkpoint(tmp_path / "theirs")
    assert_equal(sample(), arrays)
    assert metadata == {"epoch": "3"}


def test_same_content_gives_same_bytes(tmp_path: Path) -> None:
    arrays = sample()
    save_checkpoint(tmp_path / "a", arrays, {"x": "1", "y": "2"})
    save_checkpoint(tmp_path / "b", dict(reversed(arrays.items())), {"y": "2", "x": "1"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_strided_and_swapped_arrays_are_stored_by_value(tmp_path: Path) -> None:
    array = np.arange(24, dtype=">f4").reshape(4, 6)[::2, ::3]
    save_checkpoint(tmp_path / "w", {"x": array})
    assert load_checkpoint(tmp_path / "w")[0]["x"].tolist() == array.tolist()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_damaged_files_give_an_error_or_arrays(seed: int, damages: int) -> None:
    rng = random.Random(seed)
    data = bytearray(header_and_data())
    for _ in range(damages):
        data[rng.randrange(len(data) if seed % 2 else 200)] = rng.randrange(256)
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"mapsto-damaged-{os.getpid()}"
    path.write_bytes(bytes(data[: rng.randrange(len(data))] if seed % 3 == 0 else data))
    try:
        load_checkpoint(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    finally:
        path.unlink()


def header_and_data() -> bytes:
    arrays = {"w": np.ones((3, 4), np.float32), "b": np.zeros(7, np.int8)}
    header = checkpoint._header(Path("x"), arrays, {"epoch": "1"})
    return b"".join(bytes(chunk) for chunk in checkpoint._chunks(header, arrays))


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" * 9, b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}x"]
)
def test_other_files_are_named_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a valid safetensors file"):
        load_checkpoint(tmp_path / "w")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        load_checkpoint(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be written: No such file"):
        save_checkpoint(tmp_path / "no" / "w", sample())


def test_types_that_have_no_place(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`x` \(complex64\) cannot be stored"):
        save_checkpoint(tmp_path / "w", {"x": np.zeros(2, np.complex64)})
    assert not list(tmp_path.iterdir())


def test_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w"
    save_checkpoint(path, sample())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        save_checkpoint(path, {"x": np.zeros(3)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]
    assert_equal(sample(), load_checkpoint(path)[0])


def test_interrupt_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w"
    save_checkpoint(path, sample())

    def interrupt(source: str, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, {"x": np.zeros(3)})
    assert [entry.name for entry in tmp_path.iterdir()] == ["w"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        save_checkpoint(tmp_path / "w", sample())
    finally:
        os.umask(old)
    assert (tmp_path / "w").stat().st_mode & 0o777 == 0o640
