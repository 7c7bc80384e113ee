"""Values that are known from indices alone, as masks of an attention: cheap to have twice."""

from __future__ import annotations

from mapsto.ir.builder import Builder
from mapsto.ir.core import Trait, Value
from mapsto.ir.stages import is_literal

__all__ = ["copied", "is_of_indices"]


DEEPEST = 16
"""So many ops behind each other are copied at most."""


def is_of_indices(value: Value, depth: int = DEEPEST) -> bool:
    """Whether a value depends on indices and numbers alone, and is cheap."""
    op = value.defining_op
    if op is None or is_literal(value) or op.has(Trait.EXPENSIVE) or depth == 0:
        return False
    cheap = op.has(Trait.ELEMENTWISE | Trait.INDEXING)
    return cheap and all(is_of_indices(operand, depth - 1) for operand in op.operands)


def copied(build: Builder, value: Value, copies: dict[Value, Value]) -> Value:
    """The value of indices, computed anew; `copies` are those that there are, and receives more."""
    found = copies.get(value)
    if found is None:
        op = value.defining_op
        assert op is not None, "a value of indices is computed"
        operands = [copied(build, operand, copies) for operand in op.operands]
        found = copies[value] = build.append(op.rebuilt(operands)).result
    return found
