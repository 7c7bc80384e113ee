"""Where batches come from: arrays in some order, and streams that are right, wrong or too short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.ir.dims import symbol
from mapsto.ir.types import DType, TensorType
from mapsto.runtime.batches import ArrayBatches, Stream
from mapsto.runtime.dataset import DataError, Dataset, bind, load_arrays, load_npy, windows

ARGUMENTS = {"x": TensorType(DType.F32, (symbol("n"), 2))}


def dataset(count: int = 7) -> Dataset:
    return Dataset({"x": np.arange(count)})


def values(source: ArrayBatches, epoch: int = 1, start: int = 0) -> list[list[int]]:
    return [batch["x"].tolist() for batch in source.epoch(epoch, start)]


def batches(count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    for number in range(first, first + count):
        yield {"x": np.full((3, 2), number, np.uint8), "unused": 1}


def firsts(stream: Stream, epoch: int, start: int = 0) -> list[float]:
    return [float(batch["x"][0, 0]) for batch in stream.epoch(epoch, start)]


def test_order_and_last_batch() -> None:
    kept = ArrayBatches(dataset(), 3, shuffle=False)
    assert (kept.steps, values(kept)) == (3, [[0, 1, 2], [3, 4, 5], [6]])
    dropped = ArrayBatches(dataset(), 3, shuffle=False, drop_last=True)
    assert (dropped.steps, values(dropped)) == (2, [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(DataError, match="a batch of 8 is larger than the data, which has 7"):
        ArrayBatches(dataset(), 8, drop_last=True)


def test_an_epoch_begins_in_its_middle() -> None:
    source = ArrayBatches(dataset(), 2, seed=5)
    assert values(source, 3, 2) == values(source, 3)[2:]
    assert values(source, 1) != values(source, 2)


def test_streams_of_functions_and_lists() -> None:
    by_number = Stream(lambda epoch: batches(2, 10 * epoch), ARGUMENTS)
    assert [firsts(by_number, epoch) for epoch in (1, 2)] == [[10, 11], [20, 21]]
    assert firsts(by_number, 2, 1) == [21]
    again = Stream(list(batches(3)), ARGUMENTS, steps=2)
    assert [firsts(again, epoch) for epoch in (1, 2)] == [[0, 1], [0, 1]]
    assert again.first()["x"].dtype == np.float32


def test_an_iterator_goes_on() -> None:
    stream = Stream(batches(6), ARGUMENTS, steps=3)
    assert stream.first()["x"][0, 0] == 0
    assert [firsts(stream, epoch) for epoch in (1, 2)] == [[0, 1, 2], [3, 4, 5]]
    resumed = Stream(batches(6), ARGUMENTS, steps=3)
    assert firsts(resumed, 2, 1) == [4, 5]
    with pytest.raises(DataError, match="read further than the training: give a new one"):
        firsts(resumed, 1)


@pytest.mark.parametrize(
    ("message", "make"),
    [
        ("give steps_per_epoch", lambda: Stream(batches(2), ARGUMENTS)),
        ("ended in epoch 1: 2 batches, not 3", lambda: Stream(batches(2), ARGUMENTS, 3)),
        ("ended in epoch 1: 0 batches, not at least 1", lambda: Stream([], ARGUMENTS)),
        ("batch 1 of epoch 1: expected a dict of arrays, found an object of type int", [1]),
        (r"`x`: expected f32\[n, 2\], found shape \[3\]", [{"x": np.ones(3)}]),
        ("the batch has no array `x`; it holds `y`", [{"y": np.ones(3)}]),
        ("elements of type <U1 are not numbers", [{"x": [["a", "b"]]}]),
        ("the batch holds no examples", [{"x": np.ones((0, 2))}]),
    ],
)
def test_wrong_streams(message: str, make: Any) -> None:
    with pytest.raises(DataError, match=message):
        firsts(make() if callable(make) else Stream(make, ARGUMENTS), 1)


def test_windows() -> None:
    pieces = windows(np.arange(10), 4, stride=3)
    assert pieces.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert windows(np.zeros((10, 5)), 4).shape == (7, 4, 5)
    with pytest.raises(DataError, match="has no window of length 11"):
        windows(np.arange(10), 11)
    with pytest.raises(DataError, match="stride 0: expected at least 1"):
        windows(np.arange(10), 2, stride=0)


def test_memory_maps_are_converted_batch_by_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.int64).reshape(6, 2))
    (tmp_path / "notes.txt").write_text("no array")
    arrays = load_arrays(tmp_path)
    assert isinstance(arrays["x"], np.memmap)
    data = bind(arrays, ARGUMENTS, [""])
    assert isinstance(data.arrays["x"], np.memmap)
    (batch,) = ArrayBatches(data, 6, shuffle=False).epoch(1, 0)
    assert type(batch["x"]) is np.ndarray and batch["x"].dtype == np.float32


def test_files_and_folders_that_are_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder has no \.npy files"):
        load_arrays(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        load_npy(tmp_path / "x.npy")
    with pytest.raises(DataError, match="not a file"):
        load_npy(tmp_path)
    for content in (b"", b"\x93NUMPY\x01\x00", b"not an array"):
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(DataError, match=r"not a readable \.npy file"):
            load_arrays(tmp_path)
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"not a readable \.npy file"):
        load_npy(tmp_path / "x.npy")
