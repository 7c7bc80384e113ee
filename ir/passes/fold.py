"""Constant folding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mapsto.ir.affine import AffineMap
from mapsto.ir.core import Attribute, DenseArray, Module, Operation, Trait, Value
from mapsto.ir.dims import DimExpression, product
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.shaping import Broadcast, Constant, Reshape, Slice, Transpose
from mapsto.ir.passes.base import Pass
from mapsto.ir.rewriting import Pattern, Rewriter, rewrite, rewrite_module
from mapsto.ir.rounding import evaluated, rounded
from mapsto.ir.types import TensorType

__all__ = ["FOLDING", "Fold"]

LARGEST_ARRAY = 1 << 12
"""Elements up to which an array is computed when the program is compiled."""

LARGEST_DOMAIN = 1 << 20
"""Points of a contraction's domain up to which it is."""

_IMPURE = Trait.EFFECT | Trait.OPAQUE | Trait.TERMINATOR


@rewrite
def fold_elementwise(op: Operation, rewriter: Rewriter) -> Value | None:
    """An elementwise op on tensors that are one number everywhere gives such a tensor."""
    if not op.has(Trait.ELEMENTWISE) or op.regions:
        return None
    numbers = [_splat(operand) for operand in op.operands]
    if None in numbers:
        return None
    arrays = [
        rounded(np.asarray(number, operand.dtype.numpy), operand.dtype)
        for number, operand in zip(numbers, op.operands, strict=True)
    ]
    with np.errstate(all="ignore"):
        value = evaluated(op, arrays)[0].item()
    return rewriter.emit(Constant, value=value, type=op.result.type)


@rewrite
def fold_view(op: Operation, rewriter: Rewriter) -> Value | None:
    """A number everywhere, moved around, is the number everywhere."""
    if not isinstance(op, Broadcast | Reshape | Slice | Transpose):
        return None
    number = _splat(op.operands[0])
    if number is None:
        return None
    return rewriter.emit(Constant, value=number, type=op.result.type)


@rewrite
def fold_array(op: Operation, rewriter: Rewriter) -> Value | None:
    """A pure op on small constant arrays is computed when the program is compiled."""
    sources = [operand.defining_op for operand in op.operands]
    if not sources or not all(isinstance(source, Constant) for source in sources):
        return None
    if len(op.results) != 1 or op.regions or op.has(_IMPURE):
        return None
    sizes = [value.type.elements for value in (*op.operands, *op.results)]
    if any(not isinstance(size, int) or size > LARGEST_ARRAY for size in sizes):
        return None
    if any(map(_has_sizes, op.attributes.values())):
        return None
    if isinstance(op, Contract) and product(op.extents) > LARGEST_DOMAIN:  # type: ignore[operator]
        return None
    try:
        with np.errstate(all="ignore"):
            arrays = [evaluated(source, ())[0] for source in sources if source is not None]
            result = evaluated(op, arrays)[0]
    except IndexError:
        # An index outside is an error of the program, when it runs.
        return None
    return rewriter.emit(Constant, value=DenseArray(result), type=op.result.type)


@rewrite
def uniform_array(op: Constant, rewriter: Rewriter) -> Value | None:
    """An array of equal elements is a number everywhere."""
    value = op.attributes["value"]
    if not isinstance(value, DenseArray) or not value.array.size:
        return None
    flat = value.array.astype(op.type.dtype.numpy).reshape(-1)
    if flat.tobytes() != flat[:1].tobytes() * flat.size or flat[0] != flat[0]:
        return None
    return rewriter.emit(Constant, value=flat[0].item(), type=op.type)


def _has_sizes(attribute: Attribute) -> bool:
    """Whether there is a named size in the attribute, such as in the extents of a reduction."""
    if isinstance(attribute, tuple):
        return any(map(_has_sizes, attribute))
    if isinstance(attribute, AffineMap | TensorType):
        return bool(attribute.symbols)
    return isinstance(attribute, DimExpression)


def _splat(value: Value) -> float | None:
    op = value.defining_op
    return op.splat if isinstance(op, Constant) else None


FOLDING: tuple[Pattern, ...] = (fold_elementwise, fold_view, fold_array, uniform_array)


@dataclass(frozen=True)
class Fold(Pass):
    """Computes what depends on constants alone when the program is compiled.

        %1 = constant {value = 2.0}
        %2 = exp %1             =>      %2 = constant {value = 7.389056}

    Arrays are limited to a few thousand elements; numbers that fill a tensor have any size.
    """

    name = "fold"

    def run(self, module: Module) -> Module:
        return rewrite_module(module, FOLDING)
