"""Reverse mode: a list of linear operations walked backwards by the `transpose` rule of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapsto.ir.builder import Builder
from mapsto.ir.core import Operation, Value
from mapsto.ir.ops.elementwise import Add

__all__ = ["transpose_operations"]


class _Cotangents:
    """The cotangent of each linear value so far: a sum over its uses."""

    def __init__(self, build: Builder, linear: set[Value]) -> None:
        self.build = build
        self.linear = linear
        self.sums: dict[Value, Value] = {}

    def add(self, value: Value, cotangent: Value) -> None:
        """Adds the contribution of one use."""
        earlier = self.sums.get(value)
        if earlier is not None:
            cotangent = self.build.emit(Add, earlier, cotangent)
        self.sums[value] = cotangent


def transpose_operations(
    build: Builder,
    operations: Sequence[Operation],
    inputs: Sequence[Value],
    outputs: Sequence[tuple[Value, Value]],
) -> Mapping[Value, Value]:
    """Cotangents of the inputs from cotangents of the outputs, given as pairs (output, cotangent).

    `operations` are linear in the inputs, in order.  An input that influences no output has no
    entry: its cotangent is zero.  Raises MissingDerivative where an op has no transpose.
    """
    linear = {*inputs, *(result for op in operations for result in op.results)}
    cotangents = _Cotangents(build, linear)
    for value, cotangent in outputs:
        cotangents.add(value, cotangent)
    for op in reversed(operations):
        _pull_back(op, cotangents)
    return {value: cotangents.sums[value] for value in inputs if value in cotangents.sums}


def _pull_back(op: Operation, cotangents: _Cotangents) -> None:
    given = [cotangents.sums.pop(result, None) for result in op.results]
    if all(cotangent is None for cotangent in given):
        return
    build = cotangents.build
    build.location = op.location
    linear = [value in cotangents.linear for value in op.operands]
    parts = op.pulled_back(build, given, linear)
    for value, part, is_linear in zip(op.operands, parts, linear, strict=True):
        if is_linear and part is not None:
            cotangents.add(value, part)
