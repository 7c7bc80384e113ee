"""Data to train on: named arrays of equal length, bound to the arguments of a loss by name.

Arrays in memory are converted to the declared element types once.  Files that are mapped into
memory, and views such as windows over a sequence, stay as they are: each batch of them is read,
checked and converted when its turn comes.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mapsto.ir.core import Array
from mapsto.ir.types import DType, TensorType
from mapsto.runtime.errors import DataError

__all__ = [
    "UNREADABLE",
    "Batch",
    "DataError",
    "Dataset",
    "as_array",
    "bind",
    "converted",
    "fitted_batch",
    "load_arrays",
    "load_npy",
    "load_npz",
    "shuffled",
    "windows",
]

Batch = Mapping[str, Array]
"""Arrays by name; axis 0 counts the examples and is equally long in all."""


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
    """Arrays by argument name; axis 0 counts the examples and is equally long in all.

    `converted_late` are the element types of those that are converted batch by batch.
    """

    arrays: Mapping[str, Array]
    converted_late: Mapping[str, DType] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def batches(self, order: Array, size: int) -> Iterator[dict[str, Array]]:
        """Consecutive batches of the examples in this order; the last may be shorter."""
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield {name: self._chosen(name, chosen) for name in self.arrays}

    def _chosen(self, name: str, chosen: Array) -> Array:
        part: Array = self.arrays[name][chosen]
        late = self.converted_late.get(name)
        return part if late is None else converted(name, part, late)


def shuffled(count: int, seed: int, epoch: int) -> Array:
    """A permutation of `count` examples that depends on the seed and the epoch alone."""
    key = np.array([seed % 2**64, epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(count)


def windows(sequence: Array, length: int, stride: int = 1) -> Array:
    """Pieces of a long sequence as examples: a view of shape [count, length, ...] that copies
    nothing.  Example i begins at i * stride; a rest shorter than `length` is left out.

    For the next token as target: `{"x": windows(text[:-1], 64), "y": windows(text[1:], 64)}`.
    Raises DataError where the sequence is shorter than one piece, or a number is below 1.
    """
    if length < 1 or stride < 1:
        raise DataError(f"windows of length {length}, stride {stride}: expected at least 1 of each")
    if sequence.ndim == 0 or len(sequence) < length:
        found = list(sequence.shape)
        raise DataError(f"a sequence of shape {found} has no window of length {length}")
    view = np.lib.stride_tricks.sliding_window_view(sequence, length, axis=0)
    return np.moveaxis(view, -1, 1)[::stride]


def load_arrays(path: str | Path) -> dict[str, Array]:
    """The arrays of a .npz file, or of the .npy files in a folder, which are mapped into memory.

    Raises DataError where there is nothing to read, or a file is not what its name says.
    """
    place = Path(path)
    if not place.is_dir():
        return load_npz(place)
    files = sorted(place.glob("*.npy"))
    if not files:
        raise DataError(f"{path}: the folder has no .npy files")
    return {file.stem: load_npy(file) for file in files}


def load_npy(path: str | Path) -> Array:
    """The array of a .npy file, mapped into memory; DataError where it is none."""
    place = Path(path)
    if place.exists() and not place.is_file():
        raise DataError(f"{path}: not a file")
    try:
        return np.lib.format.open_memmap(place, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: not a readable .npy file: {reason}") from None


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
    bound: dict[str, Array] = {}
    late: dict[str, DType] = {}
    for name, (key, array) in found.items():
        dtype = arguments[name].dtype
        _check_shape(key, array, arguments[name], sizes)
        if _is_late(array):
            converted(key, array[:0], dtype)
            late[name] = dtype
        bound[name] = array if name in late else converted(key, array, dtype)
    lengths = {found[name][0]: len(array) for name, array in bound.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the arrays have different numbers of examples: {_described(lengths)}")
    if not all(lengths.values()):
        raise DataError(f"{source} holds no examples")
    return Dataset(bound, late)


def fitted_batch(batch: object, arguments: Mapping[str, TensorType], where: str) -> Batch:
    """A batch that came from outside, checked and converted; more arrays than asked for are left
    out.  Raises DataError, which begins with `where`."""
    if not isinstance(batch, Mapping):
        kind = type(batch).__name__
        raise DataError(f"{where}: expected a dict of arrays, found an object of type {kind}")
    try:
        arrays = {str(name): as_array(str(name), value) for name, value in batch.items()}
        return bind(arrays, arguments, [""], "the batch").arrays
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def as_array(key: str, value: object) -> Array:
    """A value, such as a list of numbers, as an array; DataError where it is none."""
    if isinstance(value, np.ndarray):
        return value
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DataError(f"array `{key}`: {error}") from None


def _described(lengths: Mapping[str, int]) -> str:
    return ", ".join(f"`{key}` has {length}" for key, length in lengths.items())


def _is_late(array: Array) -> bool:
    """Whether to convert batch by batch: the whole would not fit into memory, or not be copied."""
    return isinstance(array, np.memmap) or not array.flags.c_contiguous


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


def _check_shape(key: str, array: Array, type_: TensorType, sizes: dict[str, int]) -> None:
    """Raises DataError unless the array has the type's shape; fills in sizes by name."""
    if array.ndim != type_.rank or array.ndim == 0:
        raise DataError(f"array `{key}`: expected {type_}, found shape {list(array.shape)}")
    for dim, size in list(zip(type_.shape, array.shape, strict=True))[1:]:
        if isinstance(dim, int):
            expected = dim
        else:
            expected = sizes.setdefault(str(dim), size)
        if expected != size:
            raise DataError(f"array `{key}`: expected {type_}, found shape {list(array.shape)}")


def converted(key: str, array: Array, dtype: DType) -> Array:
    """The array in another element type, dense; DataError where that would lose something.

    Floats become floats of any width, truth values and integers become numbers of any type that
    holds them.
    """
    if array.dtype == dtype.numpy:
        return np.asarray(array, order="C")
    if array.dtype.kind not in "biuf":
        raise DataError(f"array `{key}`: elements of type {array.dtype} are not numbers")
    if array.dtype.kind == "f" and not dtype.is_float:
        raise DataError(f"array `{key}`: {array.dtype} does not fit {dtype} without loss")
    if dtype.is_integer and array.size:
        info: Any = np.iinfo(dtype.numpy)
        if int(array.min()) < info.min or int(array.max()) > info.max:
            raise DataError(f"array `{key}`: a value does not fit {dtype}")
    return np.asarray(array, dtype.numpy, order="C")
