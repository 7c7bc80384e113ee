"""A contraction inside its kernel: reading operands through what is fused into them, and using
each result element in what is fused after it.  It is the `OperandAccess` of `contraction_problem`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapsto.ir.core import Value
from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.affine_indices import operand_read
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.indices import Index, variable
from mapsto.lowering.loops import Buffer, Expression, Load, Statement, Store, all_of

__all__ = ["KernelAccess"]


class KernelAccess:
    """`outputs` are the kernel's results, of the contraction's shape, and the buffers of theirs;
    `stages` those and other values to compute once for each element, in order."""

    def __init__(
        self,
        op: Contract,
        emitter: IndexedEmitter,
        stages: Sequence[Value],
        outputs: Mapping[Value, Sequence[Buffer]],
    ) -> None:
        self.op = op
        self.emitter = emitter
        self.stages = tuple(stages)
        self.outputs = outputs

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
        self, indices: Sequence[Index], value: Expression, guard: Expression | None
    ) -> Sequence[Statement]:
        """The statements that use the result element `value`: the epilogue and its stores.

        Where the guard is false nothing is read or written.
        """
        emitter, place = self.emitter, tuple(indices)
        stores: list[Statement] = []
        with emitter.floating_scope() as statements:
            emitter.know(self.op.result, place, emitter.let("total", value))
            for stage in self.stages:
                element = emitter.let("out", emitter.element(stage, place, guard))
                emitter.know(stage, place, element)
                for buffer in self.outputs.get(stage, ()):
                    stores.append(Store(buffer, place, element, guard))
        return (*statements, *stores)
