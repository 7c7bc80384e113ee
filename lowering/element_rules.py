"""The lowering table of tensor ops to scalar expressions: one rule an op.

A rule gives the element of the op's result at some indices from elements of its operands.  Where
the guard is false it must not touch memory.  Ops that take a loop to compute one element
(reductions, argmax, whole ops) are not here: kernels make stages of them (`STAGE_OPS` in
`kernels`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from mapsto.ir.core import Operation, registered_ops
from mapsto.ir.dataflow import reshape_groups
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.elementwise import Add, Elementwise, Sub
from mapsto.ir.ops.functions import StopGradient
from mapsto.ir.ops.indexing import Gather
from mapsto.ir.ops.logic import Cast
from mapsto.ir.ops.random import Random
from mapsto.ir.ops.shaping import Broadcast, Concat, Constant, Iota, Pad, Reshape, Slice, Transpose
from mapsto.ir.types import DType
from mapsto.lowering.affine_indices import contract_reads, operand_read
from mapsto.lowering.extended import EXTENDED
from mapsto.lowering.indexed import IndexedEmitter, Indices, Rule
from mapsto.lowering.indices import Index, flat_offset, from_dim, split_offset, value_of
from mapsto.lowering.loops import (
    Expression,
    IndexValue,
    Store,
    all_of,
    apply,
    cast,
    compare,
    constant,
    fma,
    is_product,
    select,
    within,
)
from mapsto.lowering.philox import random_element
from mapsto.lowering.scalar_operations import OPERATIONS

__all__ = ["ELEMENT_RULES", "INDEX_OUT_OF_RANGE", "register_element_rule", "scalar_rule"]

INDEX_OUT_OF_RANGE = 1
"""The error code of a gather or scatter with an index outside of the tensor."""


def register_element_rule(record: type[Operation], rule: Rule) -> None:
    """Adds a row to the table: how an op of an extension is computed, element by element."""
    ELEMENT_RULES[record] = rule
    EXTENDED.add(record)


def scalar_rule(
    record: type[Operation],
) -> Callable[[Callable[..., Expression]], Callable[..., Expression]]:
    """Marks the function that computes an elementwise op of an extension: from the elements of the
    operands, as expressions (see `loops`), to the element of the result.

        @scalar_rule(Squash)
        def squash(x: Expression) -> Expression:
            return x / (constant(1, x.type) + apply("abs", x))
    """

    def decorate(function: Callable[..., Expression]) -> Callable[..., Expression]:
        def rule(
            emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
        ) -> Expression:
            return function(*_operands(emitter, op, indices, guard))

        register_element_rule(record, rule)
        return function

    return decorate


def _operands(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> list[Expression]:
    return [emitter.element(operand, indices, guard) for operand in op.operands]


def _scalar(name: str) -> Rule:
    """The scalar operation of this name on the elements at the same indices."""

    def rule(
        emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
    ) -> Expression:
        return apply(name, *_operands(emitter, op, indices, guard))

    return rule


def _add(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    x, y = _operands(emitter, op, indices, guard)
    if is_product(x):
        return fma(x.operands[0], x.operands[1], y)
    return fma(y.operands[0], y.operands[1], x) if is_product(y) else x + y


def _sub(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    x, y = _operands(emitter, op, indices, guard)
    if is_product(y):
        return fma(-y.operands[0], y.operands[1], x)
    return fma(x.operands[0], x.operands[1], -y) if is_product(x) else x - y


def _identity(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    return emitter.element(op.operands[0], indices, guard)


def _cast(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    return cast(emitter.element(op.operands[0], indices, guard), op.result.dtype)


# ---- indexing


def _constant(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Constant) and op.splat is not None, "an array constant has a buffer"
    return constant(op.splat, op.type.dtype)


def _iota(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    axis = op.attributes["axis"]
    assert isinstance(axis, int)
    return cast(IndexValue(indices[axis]), op.result.dtype)


def _broadcast(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Broadcast)
    return emitter.element(op.operands[0], [indices[d] for d in op.dims], guard)


def _transpose(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Transpose)
    inverse = [op.permutation.index(i) for i in range(len(indices))]
    return emitter.element(op.operands[0], [indices[i] for i in inverse], guard)


def _slice(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Slice)
    triples = zip(op.starts, indices, op.steps, strict=True)
    shifted = [from_dim(start) + index * step for start, index, step in triples]
    return emitter.element(op.operands[0], shifted, guard)


def _pad(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Pad)
    (operand,) = op.operands
    shifted = [index - from_dim(low) for index, low in zip(indices, op.low, strict=True)]
    conditions = [
        within(index, from_dim(extent))
        for index, low, high, extent in zip(shifted, op.low, op.high, operand.shape, strict=True)
        if (low, high) != (0, 0)
    ]
    value = op.attributes["value"]
    assert isinstance(value, bool | int | float)
    return emitter.guarded(operand, shifted, all_of(*conditions), guard, value)


def _concat(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Concat)
    axis = op.axis
    starts: list[Dim] = [0]
    for operand in op.operands:
        starts.append(starts[-1] + operand.shape[axis])
    result: Expression | None = None
    for operand, (start, stop) in reversed(list(zip(op.operands, pairwise(starts), strict=True))):
        index = indices[axis] - from_dim(start)
        shifted = (*indices[:axis], index, *indices[axis + 1 :])
        before = compare("lt", indices[axis], from_dim(stop))
        inside = within(index, from_dim(operand.shape[axis]))
        part = emitter.element(operand, shifted, all_of(guard, inside))
        result = part if result is None else select(before, part, result)
    assert result is not None
    return result


def _reshape(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Reshape)
    operand = op.operands[0]
    return emitter.element(operand, reshaped(indices, op.shape, operand.shape), guard)


def reshaped(indices: Indices, shape: tuple[Dim, ...], source: tuple[Dim, ...]) -> list[Index]:
    """The indices into shape `source` of the element that `indices` name in `shape`."""
    result: list[Index] = [0] * len(source)
    for axes, named in reshape_groups(source, shape):
        flat = flat_offset([indices[i] for i in named], [shape[i] for i in named])
        for axis, index in zip(axes, split_offset(flat, [source[a] for a in axes]), strict=True):
            result[axis] = index
    return result


def _access(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    """A contraction that reduces nothing: a product of affine reads, 0 outside."""
    assert isinstance(op, Contract) and not op.reduced, "a reduction is a stage"
    reads, inside = contract_reads(op, indices)
    if len(op.operands) == 1:
        return emitter.guarded(op.operands[0], reads[0], inside, guard)
    product = cast(contract_product(emitter, op, indices, guard)[0], op.result.dtype)
    return product if inside is None else select(inside, product, constant(0, product.type))


def sum_type(dtype: DType) -> DType:
    """The element type in which reductions of a type are computed."""
    return DType.F32 if dtype in (DType.F16, DType.BF16) else dtype


def contract_product(
    emitter: IndexedEmitter, op: Contract, point: Indices, guard: Expression | None
) -> tuple[Expression, Expression | None]:
    """The product of the operands at a point of the domain, in the element type of the sum, and
    where it is inside of all."""
    reads = [operand_read(op, operand, point) for operand in range(len(op.operands))]
    inside = all_of(*(own for _, own in reads))
    # Each operand is touched where it is inside itself: a condition less for those that always are.
    factors = [
        emitter.element(operand, indices, all_of(guard, own))
        for operand, (indices, own) in zip(op.operands, reads, strict=True)
    ]
    if len(factors) > 1:
        factors = [cast(factor, sum_type(factor.type)) for factor in factors]
    product = factors[0]
    for factor in factors[1:]:
        # The product of truth values is their conjunction.
        product = apply("and" if product.type is DType.BOOL else "mul", product, factor)
    return product, inside


def checked_indices(
    emitter: IndexedEmitter,
    expressions: list[Expression],
    extents: list[Dim],
    guard: Expression | None,
) -> tuple[list[Index], Expression]:
    """Computed positions along axes of these extents, and the condition that all are inside.

    Where one is not (and the guard holds) the kernel's error code is set.
    """
    assert emitter.errors is not None, "a kernel with computed indices has an error code"
    positions: list[Index] = []
    inside: Expression | None = None
    for expression, extent in zip(expressions, extents, strict=True):
        position = emitter.let("index", cast(expression, DType.I64))
        limit = IndexValue(from_dim(extent))
        low = apply("ge", position, constant(0, DType.I64))
        inside = all_of(inside, low, apply("lt", position, limit))
        positions.append(value_of(position))
    assert inside is not None
    inside = emitter.let("inside", inside)
    failed = all_of(guard, apply("not", inside))
    code = constant(INDEX_OUT_OF_RANGE, DType.I32)
    emitter.append(Store(emitter.errors, (0,), code, failed))
    return positions, inside


def _gather(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Gather)
    source, rank = op.operands[0], op.indices[0].type.rank
    batch, kept = indices[:rank], list(indices[rank:])
    computed = [emitter.element(index, batch, guard) for index in op.indices]
    extents = [source.shape[a] for a in op.axes]
    positions, inside = checked_indices(emitter, computed, extents, guard)
    chosen = dict(zip(op.axes, positions, strict=True))
    full = [chosen[a] if a in chosen else kept.pop(0) for a in range(source.type.rank)]
    return emitter.guarded(source, full, inside, guard)


def _random(
    emitter: IndexedEmitter, op: Operation, indices: Indices, guard: Expression | None
) -> Expression:
    assert isinstance(op, Random)
    rank = op.operands[0].type.rank
    key = emitter.element(op.operands[0], indices[:rank], guard)
    return random_element(key, flat_offset(indices[rank:], op.type.shape[rank:]), op, emitter.let)


def _scalar_rules() -> dict[type[Operation], Rule]:
    """Elementwise ops of the IR that are the scalar operation of the same name."""
    records = registered_ops().values()
    named = [r for r in records if issubclass(r, Elementwise) and r.name in OPERATIONS]
    return {record: _scalar(record.name) for record in named if record not in (Add, Cast, Sub)}


ELEMENT_RULES: dict[type[Operation], Rule] = {
    **_scalar_rules(),
    Add: _add,
    Broadcast: _broadcast,
    Cast: _cast,
    Concat: _concat,
    Constant: _constant,
    Contract: _access,
    Gather: _gather,
    Iota: _iota,
    Pad: _pad,
    Random: _random,
    Reshape: _reshape,
    Slice: _slice,
    StopGradient: _identity,
    Sub: _sub,
    Transpose: _transpose,
}
