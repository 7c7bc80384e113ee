"""What an op's attributes must be: names and types as its record declares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mapsto.ir.affine import AffineMap
from mapsto.ir.core import DenseArray, Operation, SymbolReference
from mapsto.ir.dims import DimExpression
from mapsto.ir.types import DType, TensorType

__all__ = ["attribute_problems", "is_attribute"]

_LEAVES = (
    bool,
    int,
    float,
    str,
    DType,
    TensorType,
    DimExpression,
    AffineMap,
    SymbolReference,
    DenseArray,
)


def attribute_problems(record: type[Operation], attributes: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the attributes of an op, in words; nothing where they fit."""
    for name, expected in record.attribute_types.items():
        if name not in attributes:
            yield f"{record.name} lacks the attribute `{name}`"
        elif not _fits(attributes[name], expected):
            found = type(attributes[name]).__name__
            yield f"{record.name}: `{name}` is of type {found}, not {_type_text(expected)}"
    for name in attributes.keys() - record.attribute_types.keys():
        yield f"{record.name} has no attribute `{name}`"


def is_attribute(value: object) -> bool:
    """Whether the value is one that operations may carry, through all levels of tuples."""
    if isinstance(value, tuple):
        return all(is_attribute(item) for item in value)
    return isinstance(value, _LEAVES)


def _fits(value: object, expected: Any) -> bool:
    allowed = expected if isinstance(expected, tuple) else (expected,)
    if isinstance(value, bool) and bool not in allowed:
        return False
    return isinstance(value, allowed) and is_attribute(value)


def _type_text(expected: Any) -> str:
    allowed = expected if isinstance(expected, tuple) else (expected,)
    return " or ".join(type_.__name__ for type_ in allowed)
