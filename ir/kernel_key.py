"""When two kernels, or two regions, are the same but for the tensors that they are applied to."""

from __future__ import annotations

from collections.abc import Hashable

from mapsto.ir.core import Attribute, Block, Value
from mapsto.ir.ops.control import Kernel

__all__ = ["block_key", "exact", "kernel_key"]


def kernel_key(kernel: Kernel) -> Hashable:
    """Equal for kernels whose bodies have the same ops on the same operands, in the same order."""
    return block_key(kernel.regions[0].block)


def block_key(block: Block) -> Hashable:
    """Equal for closed blocks with the same ops on the same operands, in the same order."""
    numbers: dict[Value, int] = {value: i for i, value in enumerate(block.arguments)}
    ops: list[Hashable] = []
    for op in block.operations:
        attributes = tuple((name, exact(value)) for name, value in sorted(op.attributes.items()))
        regions = tuple(block_key(region.block) for region in op.regions)
        operands = tuple(numbers[value] for value in op.operands)
        ops.append((type(op), attributes, operands, regions))
        for result in op.results:
            numbers[result] = len(numbers)
    return tuple(value.type for value in block.arguments), tuple(ops)


def exact(attribute: Attribute) -> Hashable:
    """A key that differs for attributes that compare equal without being the same, as 0.0, -0.0
    and False do."""
    if isinstance(attribute, tuple):
        return tuple(exact(item) for item in attribute)
    if isinstance(attribute, bool | int | float):
        return type(attribute).__name__, repr(attribute)
    return attribute
