"""The text form of modules; `parser` reads it back exactly.

    func @dense(%x: f32[n, 64], %w: f32[64, 10]) -> (f32[n, 10]) {
      %0 = contract %x, %w {extents = [n, 10, 64], maps = [...], rank = 2} : f32[n, 10]
      return %0
    }

A value is named by its hint, with `$1`, `$2` .. where a hint is used again, and by a number where
it has none.  Attributes are left out where they have their default value, and `type`, `shape` and
`results` where they repeat the types behind the colon.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mapsto.ir.affine import AffineMap
from mapsto.ir.core import (
    Attribute,
    Block,
    DenseArray,
    Function,
    Location,
    Module,
    Operation,
    SymbolReference,
    Value,
)
from mapsto.ir.dims import Dim, DimExpression, substitute, symbol, symbols
from mapsto.ir.errors import TextError
from mapsto.ir.types import DType, TensorType

__all__ = [
    "attribute_text",
    "attributes_text",
    "function_text",
    "implied_attributes",
    "module_text",
    "type_text",
]

RESERVED = frozenset({"dense", "false", "inf", "loc", "nan", "true", *(d.value for d in DType)})
"""Names that a named size cannot have in the text as it is."""

LONGEST_LIST = 16
"""Elements up to which an array is written as a list."""

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def module_text(module: Module, locations: bool = False) -> str:
    """The module as text, with the source locations of the operations if asked for."""
    return "\n".join(function_text(f, locations) for f in module.functions.values())


def function_text(function: Function, locations: bool = False) -> str:
    """The function as text."""
    return "\n".join([*_Printer(locations).function_lines(function), ""])


def implied_attributes(
    record: type[Operation], results: Sequence[TensorType]
) -> dict[str, Attribute]:
    """The attributes of an op that follow from its result types where the text leaves them out."""
    implied: dict[str, Attribute] = {"results": tuple(results)}
    if len(results) == 1:
        implied |= {"type": results[0], "shape": results[0].shape}
    kinds = {"results": tuple, "type": TensorType, "shape": tuple}
    return {
        name: value
        for name, value in implied.items()
        if record.attribute_types.get(name) is kinds[name] and name not in record.defaults
    }


class _Printer:
    def __init__(self, locations: bool) -> None:
        self.locations = locations
        self.names: dict[Value, str] = {}
        self.used: Counter[str] = Counter()

    def function_lines(self, function: Function) -> Iterator[str]:
        """The lines of a function."""
        arguments = self._arguments(function.block)
        types = ", ".join(type_text(v.type) for v in function.results)
        attributes = _attributes_text(function.attributes)
        facts = f" attributes {attributes}" if attributes else ""
        place = self._location(function.location)
        yield f"func {_symbol_text(function.name)}({arguments}) -> ({types}){facts}{place} {{"
        yield from self._block_lines(function.block, "  ")
        yield "}"

    def _arguments(self, block: Block) -> str:
        return ", ".join(f"{self._name(v)}: {type_text(v.type)}" for v in block.arguments)

    def _block_lines(self, block: Block, indent: str) -> Iterator[str]:
        for op in block.operations:
            yield from self._operation_lines(op, indent)

    def _operation_lines(self, op: Operation, indent: str) -> Iterator[str]:
        operands = ", ".join(map(self._name, op.operands))
        results = ", ".join(map(self._name, op.results))
        attributes = attributes_text(op)
        head = " ".join(filter(None, [op.name, operands, attributes]))
        line = f"{indent}{results} = {head}" if results else indent + head
        for region in op.regions:
            yield f"{line} ({self._arguments(region.block)}) {{"
            yield from self._block_lines(region.block, indent + "  ")
            line = indent + "}"
        types = ", ".join(type_text(v.type) for v in op.results)
        yield line + (f" : {types}" if types else "") + self._location(op.location)

    def _name(self, value: Value) -> str:
        if value not in self.names:
            self.names[value] = self._new_name(value.hint)
        return self.names[value]

    def _new_name(self, hint: str) -> str:
        number = self.used[hint]
        self.used[hint] += 1
        if not hint:
            return f"%{number}"
        text = hint if _PLAIN.fullmatch(hint) else json.dumps(hint)
        return f"%{text}${number}" if number else f"%{text}"

    def _location(self, location: Location | None) -> str:
        if location is None or not self.locations:
            return ""
        return f" loc({json.dumps(location.file)}:{location.line}:{location.column})"


# ---- attributes


def _written_attributes(op: Operation) -> Mapping[str, Attribute]:
    """The attributes that the text has to give."""
    assumed = {**implied_attributes(type(op), [r.type for r in op.results]), **op.defaults}
    return {
        name: value
        for name, value in op.attributes.items()
        if name not in assumed or attribute_text(value) != attribute_text(assumed[name])
    }


def attributes_text(op: Operation) -> str:
    """The attributes of an op in braces, but for those that are understood; empty without any."""
    return _attributes_text(_written_attributes(op))


def _attributes_text(attributes: Mapping[str, Attribute]) -> str:
    pairs = sorted(attributes.items())
    items = ", ".join(f"{_key_text(name)} = {attribute_text(value)}" for name, value in pairs)
    return f"{{{items}}}" if items else ""


def _key_text(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else json.dumps(name)


def attribute_text(value: Attribute) -> str:
    """An attribute as text, exact: `1` and `1.0`, `0.0` and `-0.0` differ."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, int | DimExpression):
        return dim_text(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(attribute_text, value))}]"
    if isinstance(value, TensorType):
        return type_text(value)
    if isinstance(value, AffineMap):
        return str(value.substitute(_quoted_sizes(value.symbols)))
    if isinstance(value, SymbolReference):
        return _symbol_text(value.name)
    if isinstance(value, DenseArray):
        return _dense_text(value)
    if isinstance(value, DType):
        return value.value
    raise TextError(f"an attribute of type {type(value).__name__} has no text form")


def type_text(type_: TensorType) -> str:
    """A tensor type as text: `f32[n, 64]`."""
    return f"{type_.dtype}[{', '.join(map(dim_text, type_.shape))}]"


def dim_text(dim: Dim) -> str:
    """A dimension as text; names that are no plain names are quoted."""
    return str(substitute(dim, _quoted_sizes(symbols(dim))))


def _quoted_sizes(names: frozenset[str]) -> dict[str, Dim]:
    odd = [name for name in names if name in RESERVED or not _PLAIN.fullmatch(name)]
    return {name: symbol(_quoted_size(name)) for name in odd}


def _quoted_size(name: str) -> str:
    inside = json.dumps(name)[1:-1].replace("`", r"\u0060")
    return f"`{inside}`"


def _symbol_text(name: str) -> str:
    return f"@{_key_text(name)}"


def _dense_text(value: DenseArray) -> str:
    array = value.array
    dtype = DType.of(array.dtype)
    if dtype is None or dtype.numpy != array.dtype:
        raise TextError(f"an array of {array.dtype} has no text form")
    type_ = type_text(TensorType(dtype, array.shape))
    if array.size <= LONGEST_LIST and not _has_nan(value):
        return f"dense<{type_}, [{', '.join(map(_element_text, array.flat))}]>"
    return f'dense<{type_}, "{base64.b64encode(array.tobytes()).decode()}">'


def _has_nan(value: DenseArray) -> bool:
    """Whether there is a nan, of which a list would not keep the bits."""
    return value.array.dtype.kind == "f" and bool(np.isnan(value.array).any())


def _element_text(element: np.generic) -> str:
    return str(element).lower()
