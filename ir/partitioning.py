"""Which ops work on each index of the first axes alone, and what they are for one such index.

An op is *aligned* with axes of the extents `outer` where these are the first of its result, and it
reads each operand at the same index of its first few axes, or at any: element [n, i] of a
convolution takes elements [n, ..] of the images and all of the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mapsto.ir.core import Attribute, Operation, Trait, Value
from mapsto.ir.dataflow import Place, operand_places
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.indexing import ArgMax, ArgMin
from mapsto.ir.ops.partition import part_type
from mapsto.ir.ops.shaping import Broadcast, Concat, Constant, Iota, Pad, Reshape, Slice, Transpose
from mapsto.ir.types import TensorType

__all__ = ["depths", "narrowed"]

Outer = tuple[int, ...]

_PER_ELEMENT = (ArgMax, ArgMin, Broadcast, Concat, Contract, Pad, Slice, Transpose)


def depths(op: Operation, outer: Outer) -> list[int] | None:
    """Along how many of the first axes each operand is cut where an op is done for one index of
    these; None where it is not aligned with them."""
    rank = len(outer)
    if len(op.results) != 1 or op.result.shape[:rank] != outer:
        return None
    match op:
        case Constant():
            return [] if op.splat is not None else None
        case Iota():
            axis = op.attributes["axis"]
            return [] if isinstance(axis, int) and axis >= rank else None
        case Reshape():
            return [rank] if op.operands[0].shape[:rank] == outer else None
    if not (op.has(Trait.ELEMENTWISE) or isinstance(op, _PER_ELEMENT)):
        return None
    found = [
        _depth(operand.shape, place, outer)
        for operand, place in zip(op.operands, operand_places(op), strict=True)
    ]
    known = [depth for depth in found if depth is not None]
    return known if len(known) == len(found) else None


def _depth(shape: Sequence[Dim], place: Place, outer: Outer) -> int | None:
    depth = 0
    while depth < min(len(outer), len(place)):
        expr = place[depth]
        if expr is None or expr.single != depth or shape[depth] != outer[depth]:
            break
        depth += 1
    for expr in place[depth:]:
        if expr is None or any(d < len(outer) for d in expr.dims):
            return None
    return depth


def narrowed(op: Operation, operands: Sequence[Value], rank: int) -> Operation:
    """An aligned op for one index of its first axes, on operands that are cut."""
    attributes: dict[str, Attribute] = dict(op.attributes)
    for name in ("extents", "shape", "sizes"):
        given = attributes.get(name)
        if isinstance(given, tuple):
            attributes[name] = (1,) * rank + given[rank:]
    if isinstance(op, Constant | Iota):
        type_: Any = attributes["type"]
        assert isinstance(type_, TensorType)
        attributes["type"] = part_type(type_, rank)
    made = type(op)(operands, attributes, (), op.location)
    made.result.hint = op.result.hint
    return made
