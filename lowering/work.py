"""How much work a step is, counted from the IR: what a machine has to do at least.

Operations are additions, multiplications and the like of floating-point elements; an `exp` counts
as one.  What a contraction reads outside of its tensors counts as well, as is the custom.  Bytes
are those of every tensor that the step reads or writes, once; of a tensor from which it only takes
a part, the part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from mapsto.ir.core import Block, Operation, Trait, Value
from mapsto.ir.dims import Dim, dim_value, product
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.control import Kernel
from mapsto.ir.ops.elementwise import Elementwise
from mapsto.ir.ops.indexing import Gather
from mapsto.ir.ops.logic import Cast, Select
from mapsto.ir.ops.shaping import Slice
from mapsto.ir.ops.updates import DynamicUpdate
from mapsto.lowering.lowered import KernelCall

__all__ = ["Work", "work_of"]


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations, bytes read and written; `float_bytes` are those of the elements
    with which most of the operations compute."""

    operations: int = 0
    read: int = 0
    written: int = 0
    float_bytes: int = 4

    def __add__(self, other: Work) -> Work:
        """Both, one after the other."""
        larger = max(self, other, key=lambda work: work.operations)
        read, written = self.read + other.read, self.written + other.written
        return Work(self.operations + other.operations, read, written, larger.float_bytes)

    def __mul__(self, times: int) -> Work:
        """The work again and again."""
        read, written = self.read * times, self.written * times
        return Work(self.operations * times, read, written, self.float_bytes)


def work_of(call: KernelCall, kernel: Kernel, sizes: Mapping[str, int]) -> Work:
    """The work of a kernel, for values of the named sizes."""
    block = kernel.regions[0].block
    count = len(block.arguments)
    sources, targets = call.places[:count], call.places[count:]
    read = [_elements_taken(value, block, sizes) * value.dtype.bytes for value in block.arguments]
    written = [
        _elements_given(value, sizes, in_place=place in sources) * value.dtype.bytes
        for value, place in zip(block.returned, targets, strict=True)
    ]
    operations: Counter[int] = Counter({4: 0})
    for op in block.operations:
        count = dim_value(_operations(op), sizes)
        operations[max(4, op.results[0].dtype.bytes) if count else 4] += count
    (widest, _), *_ = operations.most_common()
    return Work(operations.total(), sum(read), sum(written), widest)


# ---- operations


def _operations(op: Operation) -> Dim:
    """The arithmetic operations of one op."""
    if not op.results or not op.results[0].dtype.is_float:
        return 0
    if isinstance(op, Contract):
        each = len(op.operands) - 1 + bool(op.reduced)
        return product(op.extents) * each
    if isinstance(op, Elementwise):
        return 0 if isinstance(op, Cast | Select) else op.result.type.elements
    return op.operands[0].type.elements if op.has(Trait.WHOLE) else 0


# ---- bytes


def _elements_taken(value: Value, block: Block, sizes: Mapping[str, int]) -> int:
    """How many elements of an argument the kernel reads at least."""
    total = dim_value(value.type.elements, sizes)
    uses = [(op, i) for op in block.operations for i, v in enumerate(op.operands) if v is value]
    parts = [_part_taken(op, i) for op, i in uses]
    known = [dim_value(part, sizes) for part in parts if part is not None]
    return total if len(known) < len(parts) else min(total, sum(known))


def _part_taken(op: Operation, number: int) -> Dim | None:
    """How many elements an op takes of an operand at most; None if it may be all."""
    if isinstance(op, Contract):
        dims = sorted({d for expr in op.maps[number].results for d in expr.dims})
        return product(tuple(op.extents[d] for d in dims))
    if isinstance(op, Gather | Slice) and number == 0:
        return op.result.type.elements
    return _update(op).type.elements if isinstance(op, DynamicUpdate) and number == 0 else None


def _elements_given(value: Value, sizes: Mapping[str, int], in_place: bool) -> int:
    """How many elements of a result the kernel writes."""
    op = value.owner
    if in_place and isinstance(op, DynamicUpdate):
        value = _update(op)
    return dim_value(value.type.elements, sizes)


def _update(op: DynamicUpdate) -> Value:
    """The operand whose elements go into the result."""
    return op.operands[1]
