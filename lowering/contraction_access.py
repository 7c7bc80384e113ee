"""A contraction inside its kernel: reading operands through what is fused into them, and using
each result element in what is fused after it.  It is the `OperandAccess` of `contraction_problem`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapsto.ir.core import Value
from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.affine_indices import operand_read
from mapsto.lowering.indexed import IndexedEmitter, Indices
from mapsto.lowering.indices import Index, variable
from mapsto.lowering.loops import Buffer, Expression, Load, Statement, Store, all_of

__all__ = ["KernelAccess"]


Element = tuple[Value, Indices, Expression]
"""An element of a value: its indices, and what it is."""


class KernelAccess:
    """`outputs` are the kernel's results and the buffers of theirs; `stages` those and other values
    to compute once for each element, in order.  They are of the contraction's shape, or of one of
    the `blocks` of its columns (`ir/epilogue.py`)."""

    def __init__(
        self,
        op: Contract,
        emitter: IndexedEmitter,
        stages: Sequence[Value],
        outputs: Mapping[Value, Sequence[Buffer]],
        blocks: int = 1,
    ) -> None:
        self.op = op
        self.emitter = emitter
        self.stages = tuple(stages)
        self.outputs = outputs
        self.blocks = blocks

    def read(
        self, operand: int, indices: Sequence[Index], guard: Expression | None = None
    ) -> Expression:
        """The operand's factor at a point of the iteration domain, zero outside the tensor and
        where the guard is false.

        An expression without statements: a load, or arithmetic on loads.
        """
        place, inside = operand_read(self.op, operand, indices)
        return self.element(operand, place, all_of(guard, inside))

    def element(
        self, operand: int, place: Sequence[Index], inside: Expression | None = None
    ) -> Expression:
        """The operand's element at a place of the tensor, zero where `inside` does not hold."""
        return self.emitter.guarded(self.op.operands[operand], place, inside, None)

    def is_direct(self, operand: int) -> bool:
        """Whether reading is a plain load from memory, without computation or bounds checks."""
        point = [variable(f"d{dim}") for dim in range(len(self.op.extents))]
        read = self.read(operand, point)
        return isinstance(read, Load) and read.guard is None

    def store(
        self,
        indices: Sequence[Index],
        value: Expression,
        guard: Expression | None,
        beside: Sequence[Element] = (),
    ) -> Sequence[Statement]:
        """The statements that use the result element `value`: the epilogue and its stores.

        Where the guard is false nothing is read or written.  `beside` are elements of other values
        that are known there.
        """
        return self._stores(tuple(indices), (tuple(indices),), (value,), guard, beside)

    def store_blocks(
        self, indices: Sequence[Index], values: Sequence[Expression]
    ) -> Sequence[Statement]:
        """The statements that use the result elements at the indices, which are those of the first
        block, and at the same ones of all others."""
        *outer, column = indices
        columns = self.op.result.shape[-1]
        assert isinstance(columns, int), "blocks have known lengths"
        length = columns // self.blocks
        places = [(*outer, column + part * length) for part in range(self.blocks)]
        return self._stores(tuple(indices), places, values, None)

    def _stores(
        self,
        place: Indices,
        places: Sequence[Indices],
        values: Sequence[Expression],
        guard: Expression | None,
        beside: Sequence[Element] = (),
    ) -> Sequence[Statement]:
        """What is computed of elements of the contraction at some places: elements of its shape at
        the same ones, and of a block at `place`."""
        emitter, full = self.emitter, self.op.result.shape
        stores: list[Statement] = []
        with emitter.floating_scope() as statements:
            for other, at, element in beside:
                emitter.know(other, at, emitter.let("beside", element))
            for at, value in zip(places, values, strict=True):
                emitter.know(self.op.result, at, emitter.let("total", value))
            for stage in self.stages:
                for at in places if stage.shape == full else (place,):
                    element = emitter.let("out", emitter.element(stage, at, guard))
                    emitter.know(stage, at, element)
                    outputs = self.outputs.get(stage, ())
                    stores += [Store(buffer, at, element, guard) for buffer in outputs]
        return (*statements, *stores)
