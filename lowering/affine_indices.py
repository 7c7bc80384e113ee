"""Affine maps of the tensor IR as indices of the loop IR."""

from __future__ import annotations

from collections.abc import Sequence

from mapsto.ir.affine import AffineExpr
from mapsto.ir.bounds import inside_above, inside_below
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.indices import Index, from_dim
from mapsto.lowering.loops import Expression, all_of, compare

__all__ = ["affine_index", "contract_reads", "operand_read"]


def affine_index(expr: AffineExpr, point: Sequence[Index]) -> Index:
    """The value of the expression at a point."""
    total = from_dim(expr.constant)
    for coefficient, index in zip(expr.coefficients, point, strict=True):
        if coefficient != 0:
            total = total + from_dim(coefficient) * index
    return total


def operand_read(
    op: Contract, operand: int, point: Sequence[Index]
) -> tuple[tuple[Index, ...], Expression | None]:
    """Where an operand is read at a point of the domain, and the condition that this is inside of
    the tensor (None where that is certain)."""
    map_, shape = op.maps[operand], op.operands[operand].shape
    indices = tuple(affine_index(expr, point) for expr in map_.results)
    guards = [
        _axis_guard(expr, op.extents, index, size)
        for expr, index, size in zip(map_.results, indices, shape, strict=True)
    ]
    return indices, all_of(*guards)


def contract_reads(
    op: Contract, point: Sequence[Index]
) -> tuple[list[tuple[Index, ...]], Expression | None]:
    """Where each operand is read at a point of the domain, and the condition that all reads are
    inside of their tensors (None where that is certain)."""
    reads = [operand_read(op, operand, point) for operand in range(len(op.operands))]
    return [indices for indices, _ in reads], all_of(*(inside for _, inside in reads))


def _axis_guard(
    expr: AffineExpr, extents: Sequence[Dim], index: Index, size: Dim
) -> Expression | None:
    low = None if inside_below(expr, extents) else compare("ge", index, 0)
    high = None if inside_above(expr, extents, size) else compare("lt", index, from_dim(size))
    return all_of(low, high)
