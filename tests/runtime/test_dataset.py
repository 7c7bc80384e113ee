"""Binding arrays to the arguments of a loss, and files that are not what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.ir.dims import symbol
from mapsto.ir.types import DType, TensorType
from mapsto.runtime.dataset import DataError, bind, load_npz

N = symbol("n")
ARGUMENTS = {"x": TensorType(DType.F32, (N, 4)), "y": TensorType(DType.I32, (N,))}


def arrays(**changes: Any) -> dict[str, Any]:
    whole = {"x": np.ones((5, 4), np.uint8), "y": np.arange(5, dtype=np.int64)}
    return {key: value for key, value in {**whole, **changes}.items() if value is not None}


def test_binds_by_name_and_converts_once() -> None:
    data = bind(arrays(), ARGUMENTS, [""])
    assert data.arrays["x"].dtype == np.float32
    assert data.arrays["y"].dtype == np.int32
    assert len(data) == 5


def test_binds_by_suffix() -> None:
    found = {f"{key}_train": value for key, value in arrays().items()}
    assert len(bind(found, ARGUMENTS, ["", "_train"])) == 5


def test_batches_cover_the_data_in_order() -> None:
    batches = list(bind(arrays(), ARGUMENTS, [""]).batches(np.array([4, 3, 2, 1, 0]), 2))
    assert [batch["y"].tolist() for batch in batches] == [[4, 3], [2, 1], [0]]


WRONG = {
    "has no array `y`; it holds `x`": {"y": None},
    r"array `x`: expected f32\[n, 4\], found shape \[5, 3\]": {"x": np.ones((5, 3))},
    r"array `y`: expected i32\[n\], found shape \[5, 1\]": {"y": np.ones((5, 1), np.int32)},
    "different numbers of examples: `x` has 5, `y` has 4": {"y": np.arange(4)},
    "array `y`: float64 does not fit i32 without loss": {"y": np.ones(5)},
    "array `y`: a value does not fit i32": {"y": np.full(5, 2**40)},
    "elements of type <U1 are not numbers": {"x": np.full((5, 4), "a")},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arrays(message: str) -> None:
    with pytest.raises(DataError, match=message):
        bind(arrays(**WRONG[message]), ARGUMENTS, [""])


def test_no_examples() -> None:
    empty = {"x": np.ones((0, 4), np.float32), "y": np.ones(0, np.int32)}
    with pytest.raises(DataError, match="holds no examples"):
        bind(empty, ARGUMENTS, [""])


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(DataError, match="no such file"):
        load_npz(path)
    for endless in (tmp_path, Path("/dev/zero")):
        with pytest.raises(DataError, match="not a file"):
            load_npz(endless)
    for content in (b"", b"not an archive", b"PK\x03\x04 cut short"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a readable"):
            load_npz(path)


def test_truncated_and_pickled_archives(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, x=np.arange(1000))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="not a readable"):
        load_npz(path)
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="not a readable"):
        load_npz(path)
