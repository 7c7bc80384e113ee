"""`mapsto run`: a map or a module applied to arrays of .npy files."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mapsto.arguments import Parameter, parts_of
from mapsto.commands.compilation import compile_options
from mapsto.commands.entries import Entry, open_target
from mapsto.commands.settings import Settings, parse_settings
from mapsto.commands.weights import fill, read_weights
from mapsto.errors import MapstoError
from mapsto.ir.core import Array
from mapsto.ir.types import DType, TensorType
from mapsto.runtime.dataset import UNREADABLE, converted
from mapsto.runtime.files import write_atomically

__all__ = ["load_npy", "read_inputs", "run", "type_of"]


def run(options: argparse.Namespace) -> int:
    """Applies the entry; prints the result or writes it."""
    settings = parse_settings(options.static)
    compilation = compile_options(options)
    opened = open_target(options.target, compilation, settings, options.seed)
    if len(opened.entries) != 1:
        raise MapstoError(f"{options.target}: name one entry to run")
    entry = opened.entries[0]
    inputs = read_inputs(entry, options.input)
    static = {p.name: settings[p.name] for p in entry.target.parameters if p.name in settings}
    _prepare(entry, inputs, static, options)
    results = entry.target(**_together(inputs), **static)
    if options.output is None:
        print(_text(results))
        return 0
    _write(options.output, results)
    return 0


def load_npy(path: Path) -> Array:
    """The array of a .npy file.  Raises MapstoError where it is not one or holds objects."""
    try:
        with path.open("rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise MapstoError(f"{path}: no such file") from None
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise MapstoError(f"{path}: not a readable .npy file: {reason}") from error
    assert isinstance(array, np.ndarray)
    return array


def read_inputs(entry: Entry, texts: Sequence[str]) -> dict[str, Array]:
    """The arrays by parameter: `name=path`, or a path for the next parameter that has none."""
    parameters = {p.name: p for whole in entry.target.parameters for p in parts_of(whole)}
    named: dict[str, str] = {}
    positional: list[str] = []
    for text in texts:
        name, equals, path = text.partition("=")
        if equals and name in parameters:
            named[name] = path
        else:
            positional.append(text)
    free = [name for name in parameters if name not in named]
    if len(positional) > len(free):
        names = ", ".join(parameters) or "none"
        raise MapstoError(f"`{entry.name}` takes {names}; there are {len(texts)} inputs")
    named |= dict(zip(free, positional, strict=False))
    return {
        name: _array(parameters[name], Path(named[name])) for name in parameters if name in named
    }


def _together(inputs: Mapping[str, Array]) -> dict[str, Any]:
    """The inputs with those of one tuple or record, such as `r.loss` and `r.rate`, in a dict."""
    found: dict[str, Any] = {}
    for path, array in inputs.items():
        *owners, name = path.split(".")
        place = found
        for owner in owners:
            place = place.setdefault(owner, {})
        place[name] = array
    return found


def _array(parameter: Parameter, path: Path) -> Array:
    array = load_npy(path)
    if parameter.dtype is not None:
        return converted(str(path), array, parameter.dtype)
    if DType.of(array.dtype) is None or not array.dtype.isnative:
        raise MapstoError(f"{path}: the language has no elements of type {array.dtype}")
    return np.asarray(array, order="C")


def _prepare(
    entry: Entry, inputs: Mapping[str, Array], static: Settings, options: argparse.Namespace
) -> None:
    """Fixes the sizes of parameters and gives them their values, before the call does."""
    required = [p for p in entry.target.parameters if not p.has_default]
    missing = [part.name for parameter in required for part in parts_of(parameter)]
    missing = [name for name in missing if name not in inputs and name not in static]
    if missing:
        raise MapstoError(f"`{entry.name}` needs --input {missing[0]}=FILE.npy")
    types = {name: type_of(array) for name, array in inputs.items()}
    elaborated = entry.target.elaborate(types, static)
    fill(entry, elaborated, read_weights(options.weights), options.weights, options.seed)


def type_of(array: Array) -> TensorType:
    """The type of an array that a program takes."""
    dtype = DType.of(array.dtype)
    assert dtype is not None
    return TensorType(dtype, array.shape)


def _text(result: object) -> str:
    """The result as NumPy prints it: long arrays are shortened."""
    if isinstance(result, dict):
        return "\n".join(f"{name}: {_text(value)}" for name, value in result.items())
    if hasattr(result, "_asdict"):
        return _text(result._asdict())
    if isinstance(result, tuple):
        return "\n".join(map(_text, result))
    return repr(np.asarray(result))


def _write(path: Path, result: object) -> None:
    """Writes one array as .npy, several as .npz; all or nothing."""
    arrays = _flat(result)
    wanted = ".npy" if len(arrays) == 1 else ".npz"
    if path.suffix not in (".npz", wanted):
        found = "one array" if len(arrays) == 1 else f"{len(arrays)} arrays"
        raise MapstoError(f"{path}: the result is {found}; name a {wanted} file")
    buffer = io.BytesIO()
    if path.suffix == ".npy":
        np.save(buffer, next(iter(arrays.values())), allow_pickle=False)
    else:
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
    try:
        write_atomically(path, [buffer.getbuffer()])
    except OSError as error:
        raise MapstoError(f"{path}: cannot be written: {error.strerror or error}") from error


def _flat(result: object, prefix: str = "result") -> dict[str, Array]:
    """The arrays of a result by name."""
    if hasattr(result, "_asdict"):
        start = "" if prefix == "result" else f"{prefix}."
        result = {f"{start}{name}": value for name, value in result._asdict().items()}
    if isinstance(result, dict):
        return {k: a for name, v in result.items() for k, a in _flat(v, str(name)).items()}
    if isinstance(result, tuple):
        parts = [_flat(value, f"{prefix}{i}") for i, value in enumerate(result)]
        return {name: array for part in parts for name, array in part.items()}
    return {prefix: np.asarray(result)}
