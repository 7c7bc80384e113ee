"""Arrays by name in a safetensors file, with metadata of strings.

Files are written atomically and are the same bytes for the same content.  Reading checks
everything before it returns anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from mapsto.ir.types import DType
from mapsto.runtime.arrays import Array
from mapsto.runtime.errors import CheckpointError
from mapsto.runtime.files import write_atomically

__all__ = ["FORMAT_NAMES", "CheckpointError", "load_checkpoint", "save_checkpoint"]

FORMAT_NAMES = {
    DType.BOOL: "BOOL",
    DType.I8: "I8",
    DType.I16: "I16",
    DType.I32: "I32",
    DType.I64: "I64",
    DType.U8: "U8",
    DType.U32: "U32",
    DType.F16: "F16",
    DType.F32: "F32",
    DType.F64: "F64",
}
"""What safetensors files call our element types."""

_DATA_ALIGNMENT = 64


def save_checkpoint(
    path: Path | str, arrays: Mapping[str, Array], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes the arrays to a safetensors file, atomically.

    Raises CheckpointError if the file cannot be written (an older file is then still intact) or an
    array's element type has no place in it.
    """
    path = Path(path)
    header = _header(path, arrays, metadata or {})
    try:
        write_atomically(path, _chunks(header, arrays))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_checkpoint(path: Path | str) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays and the metadata of a safetensors file.

    Raises CheckpointError if the file is missing, unreadable, truncated or not a safetensors file.
    """
    path = Path(path)
    try:
        with path.open("rb"), safe_open(path, framework="numpy") as file:
            arrays = {name: _native(path, name, file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            return arrays, dict(file.metadata() or {})
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: not a valid safetensors file: {error}") from error


def _header(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """The length and the JSON text at the file's beginning, padded so that the data is aligned."""
    entries: dict[str, object] = {}
    if metadata:
        entries["__metadata__"] = {name: metadata[name] for name in sorted(metadata)}
    offset = 0
    for name in sorted(arrays):
        array = arrays[name]
        dtype = FORMAT_NAMES.get(DType.of(array.dtype) or DType.BF16)
        if dtype is None or name == "__metadata__":
            raise CheckpointError(f"{path}: `{name}` ({array.dtype}) cannot be stored")
        end = offset + array.nbytes
        shape = list(array.shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _DATA_ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _chunks(header: bytes, arrays: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    yield header
    for name in sorted(arrays):
        array = arrays[name]
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        yield little.reshape(-1).view(np.uint8).data


def _native(path: Path, name: str, array: Array) -> Array:
    dtype = DType.of(array.dtype)
    if dtype is None:
        raise CheckpointError(f"{path}: `{name}` has the element type {array.dtype}")
    return np.array(array, dtype.numpy)
