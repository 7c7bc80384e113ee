"""A computation done part by part, each part by one thread."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from math import prod
from typing import ClassVar

import numpy as np

from mapsto.ir.core import Array, Block, Value
from mapsto.ir.errors import TypeRuleError
from mapsto.ir.ops.flow import Flow, Run
from mapsto.ir.ops.shaping import ints_of, static_shape
from mapsto.ir.types import TensorType

__all__ = ["Partition", "part_type"]


class Partition(Flow):
    """Runs its body once for each index of the first axes; no step sees what another one gives.

    The axes have the extents `outer`.  Operands: first those, as many as `constants` says, that the
    body sees as they are, then those of which a step sees the elements at its index, as a tensor
    with extents of 1 there; a tensor that only has the first few of the axes is cut along these.
    Results: those of all steps, put together.

    %y = partition %w, %x {constants = 1, outer = [64]} (%w: f32[9, 9], %x: f32[1, 9, 9]) ..
    """

    name = "partition"
    attribute_types: ClassVar = {"constants": int, "outer": tuple}
    region_names = ("body",)
    not_differentiable = "parts are made after derivatives are taken"

    @property
    def body(self) -> Block:
        """The block that runs for each part."""
        return self.regions[0].block

    @property
    def outer(self) -> tuple[int, ...]:
        """The extents of the axes along which the parts lie."""
        return ints_of(self, "outer")

    @property
    def steps(self) -> int:
        """The number of parts."""
        return prod(self.outer)

    def pieces(self, number: int) -> int:
        """Into how many pieces an operand is cut."""
        operand, seen = self.operands[number], self.body.arguments[number]
        whole, part = prod(static_shape(operand.shape)), prod(static_shape(seen.shape))
        return whole // max(1, part)

    def region_constants(self, number: int) -> int:
        return self.count("constants") if self.steps > 1 else 0

    def infer(self) -> tuple[TensorType, ...]:
        self.check_regions()
        self.check_counts("constants")
        if not self.outer or min(self.outer) < 1:
            raise TypeRuleError(f"partition along axes of {list(self.outer)}")
        if any(op.has_effect for op in self.body.operations):
            raise TypeRuleError("partition: the body has effects, whose order would be lost")
        if len(self.body.arguments) != len(self.operands):
            given = len(self.body.arguments)
            raise TypeRuleError(f"partition of {len(self.operands)} by a body of {given}")
        for number, operand in enumerate(self.operands):
            self._check_operand(number, operand, self.body.arguments[number])
        return tuple(map(self._whole_type, self.body.returned))

    def _check_operand(self, number: int, operand: Value, seen: Value) -> None:
        shared = zip(operand.shape, self.outer, strict=False)
        most = len(list(takewhile(lambda pair: pair[0] == pair[1], shared)))
        depths = range(1) if number < self.count("constants") else range(1, most + 1)
        if seen.type not in [part_type(operand.type, depth) for depth in depths]:
            raise TypeRuleError(
                f"partition along {list(self.outer)}: the body takes {seen.type} of {operand.type}"
            )

    def _whole_type(self, part: Value) -> TensorType:
        depth = len(self.outer)
        if part.shape[:depth] != (1,) * depth:
            raise TypeRuleError(f"partition along {list(self.outer)}: a part is {part.type}")
        return part.type.with_shape((*self.outer, *part.shape[depth:]))

    def evaluate_with(self, run: Run, operands: Sequence[Array]) -> Sequence[Array]:
        results = [np.zeros(static_shape(v.shape), v.dtype.numpy) for v in self.results]
        pieces = [self.pieces(number) for number in range(len(operands))]
        shapes = [static_shape(value.shape) for value in self.body.arguments]
        cut = [
            operand.reshape(count, *shape)
            for operand, count, shape in zip(operands, pieces, shapes, strict=True)
        ]
        for step in range(self.steps):
            seen = [x[step * n // self.steps] for x, n in zip(cut, pieces, strict=True)]
            for whole, part in zip(results, run(self.body, seen), strict=True):
                whole.reshape(self.steps, *part.shape)[step] = part
        return results


def part_type(type_: TensorType, depth: int) -> TensorType:
    """The type of the parts of a tensor that is cut along its first axes."""
    return type_.with_shape((1,) * depth + type_.shape[depth:])
