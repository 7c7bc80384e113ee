"""Data to train on: named arrays of equal length, bound to the arguments of a loss by name."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mapsto.ir.core import Array
from mapsto.ir.types import DType, TensorType

__all__ = ["UNREADABLE", "DataError", "Dataset", "bind", "converted", "load_npz", "shuffled"]


class DataError(Exception):
    """Data cannot be read or does not fit the program; the message says which array and why."""


UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    EOFError,
    MemoryError,
    OverflowError,
    RuntimeError,  # an encrypted member; NotImplementedError: an unknown compression
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What NumPy and zipfile raise on files that are damaged or made to harm."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Arrays by argument name; axis 0 counts the examples and is equally long in all."""

    arrays: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def batches(self, order: Array, size: int) -> Iterator[dict[str, Array]]:
        """Consecutive batches of the examples in this order; the last may be shorter."""
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield {name: array[chosen] for name, array in self.arrays.items()}


def shuffled(count: int, seed: int, epoch: int) -> Array:
    """A permutation of `count` examples that depends on the seed and the epoch alone."""
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(count)


def load_npz(path: str | Path) -> dict[str, Array]:
    """The arrays of a .npz file; DataError where it is not one or holds pickled objects."""
    place = Path(path)
    if place.exists() and not place.is_file():
        kind = "a directory" if place.is_dir() else "a device"
        raise DataError(f"{path}: {kind}, not a file")
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError(f"{path}: not a readable .npz file: not a zip archive")
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: not a readable .npz file: {reason}") from None


def bind(
    arrays: Mapping[str, Array],
    arguments: Mapping[str, TensorType],
    suffixes: Sequence[str],
    source: str = "the data",
) -> Dataset:
    """Finds the array of each argument: under its own name, or with one of the suffixes.

    Arrays are checked against the arguments' types (axis 0 counts examples) and, where the element
    type differs, converted once.  Raises DataError naming the array.
    """
    found = {name: _find(arrays, name, suffixes, source) for name in arguments}
    sizes: dict[str, int] = {}
    bound = {
        name: _fitted(key, array, arguments[name], sizes) for name, (key, array) in found.items()
    }
    lengths = {found[name][0]: len(array) for name, array in bound.items()}
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"`{key}` has {length}" for key, length in lengths.items())
        raise DataError(f"the arrays have different numbers of examples: {described}")
    if not all(lengths.values()):
        raise DataError(f"{source} holds no examples")
    return Dataset(bound)


def _find(
    arrays: Mapping[str, Array], name: str, suffixes: Sequence[str], source: str
) -> tuple[str, Array]:
    candidates = [name + suffix for suffix in suffixes]
    for key in candidates:
        if key in arrays:
            return key, arrays[key]
    expected = " or ".join(f"`{key}`" for key in candidates)
    present = ", ".join(f"`{key}`" for key in arrays) or "nothing"
    raise DataError(f"{source} has no array {expected}; it holds {present}")


def _fitted(key: str, array: Array, type_: TensorType, sizes: dict[str, int]) -> Array:
    if array.ndim != type_.rank or array.ndim == 0:
        raise DataError(f"array `{key}`: expected {type_}, found shape {list(array.shape)}")
    for dim, size in list(zip(type_.shape, array.shape, strict=True))[1:]:
        if isinstance(dim, int):
            expected = dim
        else:
            expected = sizes.setdefault(str(dim), size)
        if expected != size:
            raise DataError(f"array `{key}`: expected {type_}, found shape {list(array.shape)}")
    return converted(key, array, type_.dtype)


def converted(key: str, array: Array, dtype: DType) -> Array:
    """The array in another element type; DataError where that would lose something."""
    if array.dtype == dtype.numpy:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "biuf":
        raise DataError(f"array `{key}`: elements of type {array.dtype} are not numbers")
    if array.dtype.kind == "f" and not dtype.is_float:
        raise DataError(f"array `{key}`: {array.dtype} does not fit {dtype} without loss")
    if dtype.is_integer and array.size:
        info: Any = np.iinfo(dtype.numpy)
        if int(array.min()) < info.min or int(array.max()) > info.max:
            raise DataError(f"array `{key}`: a value does not fit {dtype}")
    return np.ascontiguousarray(array, dtype.numpy)
