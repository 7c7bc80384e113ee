"""When two kernels are the same but for the tensors that they are applied to."""

from __future__ import annotations

from collections.abc import Hashable

from mapsto.ir.core import Value
from mapsto.ir.ops.control import Kernel
from mapsto.ir.passes.cse import exact

__all__ = ["kernel_key"]


def kernel_key(kernel: Kernel) -> Hashable:
    """Equal for kernels whose bodies have the same ops on the same operands, in the same order."""
    block = kernel.regions[0].block
    numbers: dict[Value, int] = {value: i for i, value in enumerate(block.arguments)}
    ops: list[Hashable] = []
    for op in block.operations:
        attributes = tuple((name, exact(value)) for name, value in sorted(op.attributes.items()))
        ops.append((type(op), attributes, tuple(numbers[value] for value in op.operands)))
        for result in op.results:
            numbers[result] = len(numbers)
    return tuple(value.type for value in block.arguments), tuple(ops)
