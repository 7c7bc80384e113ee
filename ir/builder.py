"""Building operations in order, with result types inferred from the shape rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mapsto.ir.core import Attribute, Block, Function, Location, Operation, Region, Value
from mapsto.ir.types import DType, TensorType

__all__ = ["Builder", "finish_function"]


class Builder:
    """Appends operations to a block.

    `location` is given to each new operation; set it to the source position that is being lowered.
    """

    def __init__(self, block: Block, location: Location | None = None) -> None:
        self.block = block
        self.location = location

    def append(self, op: Operation) -> Operation:
        """Adds an operation that is built already."""
        self.block.operations.append(op)
        return op

    def op(
        self,
        record: type[Operation],
        /,
        *operands: Value,
        regions: Sequence[Region] = (),
        **attributes: Any,
    ) -> Operation:
        """Builds an operation and appends it; TypeRuleError where it is ill-typed."""
        return self.append(record(operands, attributes, regions, self.location))

    def emit(
        self,
        record: type[Operation],
        /,
        *operands: Value,
        regions: Sequence[Region] = (),
        **attributes: Any,
    ) -> Value:
        """Builds and appends an operation with one result, and gives that."""
        return self.op(record, *operands, regions=regions, **attributes).result

    def constant(self, value: float | int | bool, dtype: DType, shape: Sequence[Any] = ()) -> Value:
        """A tensor with the same value everywhere."""
        from mapsto.ir.ops.shaping import Constant

        # One form for each number, so that equal constants are equal operations.
        number = float(value) if dtype.is_float else value
        return self.emit(Constant, value=number, type=TensorType(dtype, tuple(shape)))

    def like(self, value: float, reference: Value) -> Value:
        """A constant with the type of another value."""
        return self.constant(value, reference.dtype, reference.shape)

    def zeros(self, type_: TensorType) -> Value:
        """Zeros of a type; false where it is that of truth values."""
        return self.constant(type_.dtype is not DType.BOOL and 0, type_.dtype, type_.shape)

    def returning(self, *values: Value) -> Block:
        """Ends the block with `return` and gives it."""
        from mapsto.ir.ops.control import Return

        self.op(Return, *values)
        return self.block


def finish_function(
    name: str,
    build: Builder,
    results: Sequence[Value],
    attributes: dict[str, Attribute] | None = None,
    location: Location | None = None,
) -> Function:
    """Ends the builder's block with `return` and wraps it as a function."""
    block = build.returning(*results)
    return replace(Function(name, block, location=location), attributes=attributes or {})
