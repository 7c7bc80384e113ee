"""Copying blocks and functions with values and sizes replaced."""

from __future__ import annotations

from collections.abc import Mapping

from mapsto.ir.affine import AffineMap
from mapsto.ir.core import Attribute, Block, Function, Operation, Region, Value
from mapsto.ir.dims import Dim, DimExpression, substitute
from mapsto.ir.types import TensorType

__all__ = ["Values", "copy_block", "copy_into", "specialize", "substitute_attribute"]

Values = dict[Value, Value]


def copy_into(block: Block, target: Block, values: Values) -> tuple[Value, ...]:
    """Appends copies of the operations (not the terminator); gives the block's results there.

    `values` maps what the block refers to, its arguments above all, to values of the target; it
    receives the copies' results.
    """
    for op in block.operations[:-1]:
        target.operations.append(copy_operation(op, values, {}))
    return tuple(values.get(value, value) for value in block.returned)


def copy_block(block: Block, values: Values, sizes: Mapping[str, Dim]) -> Block:
    """A copy of a block with values and named sizes replaced."""
    types = [argument.type.substitute(sizes) for argument in block.arguments]
    copy = Block(types, [argument.hint for argument in block.arguments])
    values.update(zip(block.arguments, copy.arguments, strict=True))
    copy.operations.extend(copy_operation(op, values, sizes) for op in block.operations)
    return copy


def copy_operation(op: Operation, values: Values, sizes: Mapping[str, Dim]) -> Operation:
    """A copy of an operation; `values` receives its results."""
    regions = [Region(copy_block(region.block, values, sizes)) for region in op.regions]
    operands = [values.get(value, value) for value in op.operands]
    if sizes:
        attributes = {key: substitute_attribute(v, sizes) for key, v in op.attributes.items()}
        copy = type(op)(operands, attributes, regions, op.location)
    else:
        copy = op.rebuilt(operands, regions)
    for old, new in zip(op.results, copy.results, strict=True):
        new.hint = old.hint
        values[old] = new
    return copy


def substitute_attribute(attribute: Attribute, sizes: Mapping[str, Dim]) -> Attribute:
    """The attribute with named sizes replaced."""
    if isinstance(attribute, DimExpression):
        return substitute(attribute, sizes)
    if isinstance(attribute, TensorType):
        return attribute.substitute(sizes)
    if isinstance(attribute, AffineMap):
        return attribute.substitute(dict(sizes))
    if isinstance(attribute, tuple):
        return tuple(substitute_attribute(item, sizes) for item in attribute)
    return attribute


def specialize(function: Function, sizes: Mapping[str, Dim]) -> Function:
    """The function with named sizes replaced, in types and attributes."""
    return function.with_block(copy_block(function.block, {}, sizes))
