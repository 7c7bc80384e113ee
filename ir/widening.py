"""A module in double precision: the same functions with f64 in place of every narrower float.

Derivatives are compared there, where rounding does not hide a mistake.
"""

from __future__ import annotations

from mapsto.ir.core import Attribute, Block, DenseArray, Function, Module, Operation, Region, Value
from mapsto.ir.types import DType, TensorType

__all__ = ["in_double_precision"]


def in_double_precision(module: Module) -> Module:
    """The module with f64 in types and attributes wherever there was a floating-point type."""
    return Module({name: _function(function) for name, function in module.functions.items()})


def _function(function: Function) -> Function:
    return function.with_block(_block(function.block, {}))


def _block(block: Block, values: dict[Value, Value]) -> Block:
    arguments = block.arguments
    copy = Block([_type(value.type) for value in arguments], [value.hint for value in arguments])
    values.update(zip(arguments, copy.arguments, strict=True))
    copy.operations = [_operation(op, values) for op in block.operations]
    return copy


def _operation(op: Operation, values: dict[Value, Value]) -> Operation:
    regions = [Region(_block(region.block, values)) for region in op.regions]
    attributes = {name: _attribute(value) for name, value in op.attributes.items()}
    copy = type(op)([values[value] for value in op.operands], attributes, regions, op.location)
    values.update(zip(op.results, copy.results, strict=True))
    return copy


def _attribute(attribute: Attribute) -> Attribute:
    match attribute:
        case TensorType():
            return _type(attribute)
        case DType():
            return _dtype(attribute)
        case DenseArray() if attribute.array.dtype.kind == "f":
            return DenseArray(attribute.array.astype("float64"))
        case tuple():
            return tuple(map(_attribute, attribute))
    return attribute


def _type(type: TensorType) -> TensorType:
    return TensorType(_dtype(type.dtype), type.shape)


def _dtype(dtype: DType) -> DType:
    return DType.F64 if dtype.is_float else dtype
