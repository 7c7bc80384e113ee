"""The argument `out` of a call: an array for each tensor of the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mapsto.dsl.elaborated import Record, Structure
from mapsto.ir.types import TensorType
from mapsto.runtime.errors import ArgumentError

__all__ = ["outputs_of", "parts_of_result"]


def outputs_of(structure: Structure, out: object) -> list[object]:
    """The arrays in the order of the result's tensors.  Raises ArgumentError where `out` has
    another structure than the result."""
    return list(_leaves(structure, out, "out"))


def _leaves(structure: Structure, out: object, name: str) -> Iterator[object]:
    if isinstance(structure, TensorType):
        yield out
        return
    names, items = parts_of_result(structure)
    if hasattr(out, "_asdict"):
        out = out._asdict()
    if isinstance(out, Mapping) and sorted(map(str, out)) == sorted(names):
        out = [out[part] for part in names]
    if not isinstance(out, list | tuple) or len(out) != len(items):
        raise ArgumentError(f"{name} has the parts {', '.join(names)}, as the result")
    for part, item, given in zip(names, items, out, strict=True):
        yield from _leaves(item, given, f"{name}.{part}")


def parts_of_result(structure: Structure) -> tuple[list[str], list[Structure]]:
    """The names and structures of the parts of a result."""
    if isinstance(structure, Record):
        return list(structure.names), list(structure.items)
    if isinstance(structure, dict):
        return list(structure), list(structure.values())
    assert isinstance(structure, tuple)
    return [str(i) for i in range(len(structure))], list(structure)
