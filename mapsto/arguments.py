"""Sorting the arguments of a call into tensors and static values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mapsto.dsl import syntax
from mapsto.dsl.dimensions import KINDS
from mapsto.ir.core import Array
from mapsto.ir.dims import Dim, as_dim
from mapsto.ir.types import DType, TensorType
from mapsto.runtime.arrays import as_array
from mapsto.runtime.devices.array import DeviceArray
from mapsto.runtime.errors import ArgumentError
from mapsto.runtime.signature import TensorSpec

_OF_LITERALS = {"b": DType.BOOL, "i": DType.I32, "f": DType.F32}
"""The element type of numbers in Python where no type is declared, by NumPy's kind."""

_LITERALS = (bool, int, float, list, tuple)
"""Python's own numbers and lists, which have no element type."""
_ARRAY_PROTOCOLS = ("__array_interface__", "__dlpack__")

__all__ = [
    "Bound",
    "Parameter",
    "bind_arguments",
    "declared_types",
    "dense_array",
    "parameters_of",
    "parts_of",
    "typed_leaves",
]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a map: its name, whether it is declared as a tensor, and of which type.

    A scalar is declared as a dtype without dimensions, such as `f32`: numbers passed for it are
    static.  A tuple or a record has a parameter for each part, named `r.0` or `r.loss`.
    """

    name: str
    is_tensor: bool
    dtype: DType | None
    has_default: bool
    is_scalar: bool = False
    parts: tuple[Parameter, ...] = ()
    generic: str = ""
    """The name that is declared in place of a dtype."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The arguments of a call by name."""

    tensors: Mapping[str, Array]
    static: Mapping[str, object]

    @property
    def types(self) -> dict[str, TensorType]:
        """The types of the tensors."""
        return {name: _type(name, array) for name, array in self.tensors.items()}


def parameters_of(definition: syntax.MapDefinition) -> tuple[Parameter, ...]:
    """The parameters of a map, in order."""
    return tuple(_parameter(parameter) for parameter in definition.parameters)


def _parameter(parameter: syntax.Parameter) -> Parameter:
    return _typed(parameter.name.name, parameter.type, parameter.default is not None)


def _typed(name: str, declared: syntax.TypeExpression | None, has_default: bool) -> Parameter:
    if isinstance(declared, syntax.TupleType):
        inner = [_typed(part, type, False) for part, type in _parts(name, declared)]
        return Parameter(name, False, None, has_default, parts=tuple(inner))
    if declared is None or declared.name.name in KINDS:
        return Parameter(name, False, None, has_default)
    element, is_scalar = declared.name.name, declared.shape is None
    dtype = DType(element) if element in {d.value for d in DType} else None
    generic = "" if dtype else element
    return Parameter(name, not is_scalar, dtype, has_default, is_scalar, generic=generic)


def _parts(name: str, type: syntax.TupleType) -> Iterator[tuple[str, syntax.TypeExpression]]:
    """The names and types of the parts of an argument."""
    for i, item in enumerate(type.items):
        yield f"{name}.{type.names[i].name if type.names else i}", item


def parts_of(parameter: Parameter) -> Iterator[Parameter]:
    """A parameter, or those of its parts if it is a tuple or a record."""
    if not parameter.parts:
        yield parameter
    for part in parameter.parts:
        yield from parts_of(part)


def typed_leaves(
    name: str, declared: syntax.TypeExpression | None
) -> Iterator[tuple[str, syntax.ValueType]]:
    """The names and types of an argument's tensors."""
    if isinstance(declared, syntax.TupleType):
        for part, type in _parts(name, declared):
            yield from typed_leaves(part, type)
    elif declared is not None:
        yield name, declared


def declared_types(definition: syntax.MapDefinition) -> dict[str, TensorType]:
    """The declared types of the tensors that a map takes.

    Sizes that are not plain numbers or names get names of their own; what may have any rank or
    element type is left out.
    """
    found = {}
    leaves = [leaf for p in definition.parameters for leaf in typed_leaves(p.name.name, p.type)]
    for name, declared in leaves:
        known = _typed(name, declared, False)
        if known.dtype is None or not (known.is_tensor or "." in name):
            continue
        shape = declared.shape or ()
        if not any(isinstance(extent, syntax.Spread) for extent in shape):
            dims = tuple(_extent(name, i, extent) for i, extent in enumerate(shape))
            found[name] = TensorType(known.dtype, dims)
    return found


def _extent(name: str, axis: int, extent: object) -> Dim:
    if isinstance(extent, syntax.Integer):
        return extent.value
    return as_dim(extent.name if isinstance(extent, syntax.Name) else f"{name}_{axis}")


def bind_arguments(
    parameters: Sequence[Parameter], positional: Sequence[object], named: Mapping[str, object]
) -> Bound:
    """Sorts arguments; tensors become dense NumPy arrays.  Raises ArgumentError."""
    if len(positional) > len(parameters):
        names = ", ".join(p.name for p in parameters) or "none"
        raise ArgumentError(
            f"expected at most {len(parameters)} arguments ({names}), found {len(positional)}"
        )
    given = dict(zip((p.name for p in parameters), positional, strict=False))
    for name, value in named.items():
        if name in given:
            raise ArgumentError(f"the argument {name} is given twice")
        given[name] = value
    known = {p.name: p for p in parameters}
    for name in given:
        if name not in known:
            raise ArgumentError(f"there is no parameter {name}; there are {', '.join(known)}")
    missing = [p.name for p in parameters if p.name not in given and not p.has_default]
    if missing:
        raise ArgumentError(f"the argument {missing[0]} is missing")
    ordered = {}
    for parameter in (p for p in parameters if p.name in given):
        for leaf, value in _spread(parameter, given[parameter.name]):
            ordered[leaf.name], known[leaf.name] = value, leaf
    given = {n: v for n, v in ordered.items() if _is_tensor(known[n], v)}
    tensors = _arrays([known[n] for n in given], given)
    static = {n: v for n, v in ordered.items() if n not in tensors}
    return Bound(tensors, static)


def _arrays(parameters: Sequence[Parameter], given: Mapping[str, object]) -> dict[str, Array]:
    """Arguments as arrays; numbers for a generic dtype take the one that an array fixes."""
    found: dict[str, Array] = {}
    generics: dict[str, DType | None] = {}
    for parameter in sorted(parameters, key=lambda p: isinstance(given[p.name], _LITERALS)):
        name, generic = parameter.name, parameter.generic
        if generic in generics and isinstance(given[name], _LITERALS):
            parameter = replace(parameter, dtype=generics[generic])
        found[name] = _array(parameter, given[name])
        if generic:
            generics.setdefault(generic, DType.of(found[name].dtype))
    return {name: found[name] for name in given}


def _spread(parameter: Parameter, value: object) -> Iterator[tuple[Parameter, object]]:
    """The parts of a tuple or a record: of a tuple, a list, or a dict of the fields."""
    if not parameter.parts and not parameter.is_tensor:
        parameter = _with_parts(parameter, value)
    if not parameter.parts or value is None:
        yield parameter, value
        return
    if hasattr(value, "_asdict"):
        value = value._asdict()
    names = [part.name.rpartition(".")[2] for part in parameter.parts]
    if isinstance(value, Mapping) and sorted(map(str, value)) == sorted(names):
        value = [value[name] for name in names]
    if not isinstance(value, list | tuple) or len(value) != len(names):
        raise ArgumentError(f"the argument {parameter.name} has the parts {', '.join(names)}")
    for part, item in zip(parameter.parts, value, strict=True):
        # A number in a tuple is a tensor: only whole arguments are static.
        yield from _spread(replace(part, is_tensor=not part.parts), item)


def _holds_arrays(value: object) -> bool:
    """Whether there are arrays in a dict, a list or a tuple, or in those inside of it."""
    if isinstance(value, Mapping):
        value = list(value.values())
    return isinstance(value, list | tuple) and any(_is_array(v) or _holds_arrays(v) for v in value)


def _with_parts(parameter: Parameter, value: Any) -> Parameter:
    """A parameter that takes any structure, with the parts of what it is given.  Raises
    ArgumentError for keys that are no names."""
    if not _holds_arrays(value):
        return parameter
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        for key in value:
            if not (isinstance(key, str) and key.isidentifier()):
                raise ArgumentError(f"the key {key!r} of the argument {parameter.name} is no name")
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    named = [(Parameter(f"{parameter.name}.{part}", False, None, False), v) for part, v in items]
    return replace(parameter, parts=tuple(_with_parts(part, v) for part, v in named))


def _is_tensor(parameter: Parameter, value: object) -> bool:
    if value is None and parameter.has_default:
        return False
    return parameter.is_tensor or _is_array(value)


def _is_array(value: object) -> bool:
    return isinstance(value, DeviceArray) or any(hasattr(value, n) for n in _ARRAY_PROTOCOLS)


def _array(parameter: Parameter, value: object) -> Array:
    if isinstance(value, np.ndarray) and value.flags.c_contiguous and value.flags.aligned:
        return value
    if isinstance(value, DeviceArray):
        return value  # type: ignore[return-value]
    found = _as_numpy(parameter.name, value)
    dtype = DType.of(found.dtype)
    if isinstance(value, _LITERALS):
        # Python numbers and lists have no element type of their own: they take the declared one.
        dtype = parameter.dtype or _OF_LITERALS.get(found.dtype.kind)
    if dtype is None:
        raise ArgumentError(f"the argument {parameter.name} is an array, found {_kind(value)}")
    spec = TensorSpec(parameter.name, dtype, found.shape)
    return as_array(spec, found if hasattr(value, "dtype") else value)


def dense_array(name: str, value: object) -> Array:
    """An array of any kind as one of NumPy that compiled code takes; a copy only where it must be
    one.  Raises ArgumentError."""
    found = _as_numpy(name, value)
    return np.asarray(np.require(found, None, ["C", "A"])).reshape(found.shape)


def _as_numpy(name: str, value: object) -> Array:
    try:
        if isinstance(value, np.ndarray | np.generic) or not hasattr(value, "__dlpack__"):
            return np.asarray(value)
        return np.from_dlpack(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise ArgumentError(f"the argument {name} is no array: {error}") from error


def _kind(value: object) -> str:
    """What a value is, for messages."""
    return f"elements of type {value.dtype}" if hasattr(value, "dtype") else type(value).__name__


def _type(name: str, array: Array) -> TensorType:
    dtype = DType.of(array.dtype)
    if dtype is None or not array.dtype.isnative:
        raise ArgumentError(f"the argument {name} has elements of type {array.dtype}")
    return TensorType(dtype, array.shape)
