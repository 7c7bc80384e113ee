"""Whole numbers computed from positions: what `t + 4 * r - 8` is at each point of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mapsto.ir.affine import AffineExpr, axis
from mapsto.ir.core import Value
from mapsto.ir.dims import Dim
from mapsto.ir.ops.elementwise import Add, Mul, Neg, Sub
from mapsto.ir.ops.logic import Compare, Ge, Gt, Le, Lt
from mapsto.ir.ops.shaping import Broadcast, Constant, Iota
from mapsto.ir.types import DType

__all__ = ["affine_value", "least_where_true"]


def affine_value(value: Value) -> AffineExpr | None:
    """A tensor of whole numbers as an affine function of the position, where it is one that stays
    within its dtype; else None."""
    if not value.dtype.is_integer:
        return None
    found = _by_definition(value)
    return found if found is not None and _fits(found, value.shape, value.dtype) else None


def _by_definition(value: Value) -> AffineExpr | None:
    op, rank = value.defining_op, value.type.rank
    match op:
        case Iota():
            return axis(int(op.attributes["axis"]), rank)  # type: ignore[arg-type]
        case Constant() if op.splat is not None:
            return AffineExpr((0,) * rank, int(op.splat))
        case Broadcast():
            inner = affine_value(op.operands[0])
            if inner is None:
                return None
            coefficients: list[Dim] = [0] * rank
            for d, coefficient in zip(op.dims, inner.coefficients, strict=True):
                coefficients[d] = coefficient
            return AffineExpr(tuple(coefficients), inner.constant)
        case Neg() | Add() | Sub() | Mul():
            parts = [affine_value(operand) for operand in op.operands]
            known = [part for part in parts if part is not None]
            return _combined(type(op), known) if len(known) == len(parts) else None
    return None


def _combined(record: type, parts: Sequence[AffineExpr]) -> AffineExpr | None:
    if record is Neg:
        return parts[0].scaled(-1)
    x, y = parts
    if record is Add:
        return x + y
    if record is Sub:
        return x + y.scaled(-1)
    if not x.dims:
        return y.scaled(x.constant)
    return x.scaled(y.constant) if not y.dims else None


def _fits(expr: AffineExpr, shape: Sequence[Dim], dtype: DType) -> bool:
    """Whether the dtype has all values, so that none has wrapped around."""
    bounds = expr.bounds(shape)
    if bounds is None:
        return False
    limits = np.iinfo(np.dtype(dtype.numpy).str)
    known = [bound for bound in bounds if isinstance(bound, int)]
    return len(known) == 2 and limits.min <= known[0] <= known[1] <= limits.max


def least_where_true(comparison: Compare) -> AffineExpr | None:
    """An affine function of the position that is at least 0 just where the comparison holds; None
    where there is none."""
    x, y = (affine_value(operand) for operand in comparison.operands)
    if x is None or y is None:
        return None
    match comparison:
        case Ge():
            return x + y.scaled(-1)
        case Gt():
            return (x + y.scaled(-1)).shifted(-1)
        case Le():
            return y + x.scaled(-1)
        case Lt():
            return (y + x.scaled(-1)).shifted(-1)
    return None
