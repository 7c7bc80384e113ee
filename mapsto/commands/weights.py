"""`--weights`: arrays of a safetensors file for the parameters of an entry."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from mapsto.artifacts import arrays_of
from mapsto.commands.entries import Entry
from mapsto.compiler import bound_slots
from mapsto.dsl.elaborated import Elaborated, ParameterSpec
from mapsto.ir.core import Array
from mapsto.ir.types import DType
from mapsto.runtime.checkpoint import load_checkpoint
from mapsto.runtime.errors import CheckpointError

__all__ = ["fill", "read_weights"]


def read_weights(path: Path | None) -> dict[str, Array]:
    """The arrays of the file, none without one.  Raises CheckpointError."""
    return {} if path is None else load_checkpoint(path)[0]


def fill(
    entry: Entry, elaborated: Elaborated, weights: Mapping[str, Array], path: Path | None, seed: int
) -> Mapping[str, Array]:
    """The arrays of an entry, with the values of the weights or else first values from the seed.

    The optimizer's states may be missing in the file; raises CheckpointError for everything else
    that is, or does not fit.
    """
    slots = bound_slots(elaborated)
    if path is not None:
        _check(slots, weights, path)
    arrays = arrays_of(entry.target, elaborated)
    if path is None and slots:
        print(f"{entry.name}: weights from the seed {seed}, as no file gives them", file=sys.stderr)
    for slot in slots:
        if slot.path in weights:
            arrays[slot.path][...] = weights[slot.path]
    return arrays


def _check(slots: Iterable[ParameterSpec], weights: Mapping[str, Array], path: Path) -> None:
    for slot in slots:
        array = weights.get(slot.path)
        if array is None and slot.path.startswith("optimizer."):
            continue
        if array is None:
            known = ", ".join(f"`{name}`" for name in weights) or "none"
            raise CheckpointError(f"{path}: lacks the array `{slot.path}`; its arrays are {known}")
        if array.shape != slot.type.shape or DType.of(array.dtype) is not slot.type.dtype:
            found = f"{DType.of(array.dtype)}{list(array.shape)}"
            raise CheckpointError(
                f"{path}: the array `{slot.path}` is {found}, expected {slot.type}"
            )
