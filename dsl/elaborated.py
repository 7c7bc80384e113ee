"""What elaboration gives to the rest of the system: an IR module and what its arguments mean."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from mapsto import ir

__all__ = [
    "Elaborated",
    "InputSpec",
    "ParameterSpec",
    "Record",
    "Structure",
    "flatten",
    "record_class",
    "result_names",
    "unflatten",
]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Record:
    """The structure of a record: its fields in order."""

    names: tuple[str, ...]
    items: tuple[Structure, ...]


Structure = ir.TensorType | tuple["Structure", ...] | Record | dict[str, "Structure"]
"""The shape of a result: one tensor, a tuple, a record, or a tensor for each parameter path."""


@dataclass(frozen=True, slots=True)
class ParameterSpec:
    """A parameter or a state: its path, such as `layers.0.w`, and its type."""

    path: str
    type: ir.TensorType
    is_state: bool = False


@dataclass(frozen=True, slots=True)
class InputSpec:
    """An input that the caller gives with each call."""

    name: str
    type: ir.TensorType


@dataclass(frozen=True, slots=True)
class Elaborated:
    """A function of an IR module.

    Its arguments are the parameters, the states, then the inputs.  Its results are those of
    `result`, flattened, then the new values of `updated`, parameters and states that alias their
    arguments (function attribute `aliases`: pairs of result and argument).
    """

    module: ir.Module
    entry: str
    parameters: tuple[ParameterSpec, ...]
    states: tuple[ParameterSpec, ...]
    inputs: tuple[InputSpec, ...]
    result: Structure
    updated: tuple[ParameterSpec, ...] = ()

    @property
    def argument_names(self) -> tuple[str, ...]:
        """The path or name of each argument."""
        slots = (*self.parameters, *self.states)
        return (*(spec.path for spec in slots), *(spec.name for spec in self.inputs))

    @property
    def function(self) -> ir.Function:
        """The entry function."""
        return self.module[self.entry]


def flatten(structure: Structure) -> list[ir.TensorType]:
    """The tensors of a structure in the order of the function's results."""
    if isinstance(structure, tuple):
        return [type for item in structure for type in flatten(item)]
    if isinstance(structure, Record):
        return flatten(structure.items)
    if isinstance(structure, dict):
        return [type for item in structure.values() for type in flatten(item)]
    return [structure]


def result_names(structure: Structure) -> list[str]:
    """A name for each tensor of a result: that of its field, else `result` or `result0`."""
    found = list(_names(structure, ""))
    if len(found) == 1:
        return [found[0] or "result"]
    return [name or f"result{i}" for i, name in enumerate(found)]


def _names(structure: Structure, prefix: str) -> Iterator[str]:
    if isinstance(structure, ir.TensorType):
        yield prefix
    elif isinstance(structure, Record):
        for name, item in zip(structure.names, structure.items, strict=True):
            yield from _names(item, f"{prefix}_{name}" if prefix else name)
    else:
        items = structure.values() if isinstance(structure, dict) else structure
        for item in items:
            yield from _names(item, prefix)


def unflatten(structure: Structure, values: Sequence[_T]) -> object:
    """Values in the order of the function's results, arranged as the structure: a record is a named
    tuple."""
    return _take(structure, list(values))


def _take(structure: Structure, values: list[_T]) -> object:
    if isinstance(structure, tuple):
        return tuple(_take(item, values) for item in structure)
    if isinstance(structure, Record):
        return record_class(structure.names)(*(_take(item, values) for item in structure.items))
    if isinstance(structure, dict):
        return {path: _take(item, values) for path, item in structure.items()}
    return values.pop(0)


@cache
def record_class(names: tuple[str, ...]) -> Any:
    """The class of records with these fields; names that Python keeps for itself are positions."""
    return namedtuple("Record", names, rename=True)
