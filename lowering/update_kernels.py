"""The kernel of a dynamic_update: a copy, unless the result has the operand's memory, and the part
that is new."""

from __future__ import annotations

from mapsto.ir.dims import product
from mapsto.ir.ops.updates import DynamicUpdate
from mapsto.ir.stages import estimate
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import INDEX_OUT_OF_RANGE
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.indices import Index, from_dim, value_of
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    IndexValue,
    Statement,
    Store,
    all_of,
    apply,
    cast,
    constant,
)
from mapsto.lowering.whole_loops import branch, nest, tasks, whole

__all__ = ["update_body"]


def update_body(
    op: DynamicUpdate, emitter: IndexedEmitter, output: Buffer, division: Division
) -> tuple[Statement, ...]:
    """The statements that compute the op into the buffer."""
    update = op.operands[1]
    with emitter.scope() as statements:
        if not _in_place(op, emitter, output):
            _copy(op, emitter, output, division)
        starts, inside = _checked_starts(op, emitter)
        shift = dict(zip(op.axes, starts, strict=True))

        def store(at: tuple[Index, ...]) -> None:
            place = tuple(index + shift.get(d, 0) for d, index in enumerate(at))
            emitter.append(Store(output, place, emitter.element(update, at)))

        with branch(emitter, inside):
            nest(emitter, "u", whole(update.shape), store, vector=True)
    return tuple(statements)


def _in_place(op: DynamicUpdate, emitter: IndexedEmitter, output: Buffer) -> bool:
    """Whether the operand is where the result goes (see `sharing`, which allows no other case)."""
    source = emitter.buffers.get(op.operands[0])
    return source is not None and source.may_alias and output.may_alias


def _copy(op: DynamicUpdate, emitter: IndexedEmitter, output: Buffer, division: Division) -> None:
    (x, *_), shape = op.operands, op.result.shape
    if not shape:
        return
    step = division.rows_per_task(shape[0], estimate((product(shape),)))
    with tasks(emitter, shape[0], step) as rows:
        ranges = [rows, *whole(shape[1:])]
        nest(
            emitter,
            "c",
            ranges,
            lambda at: emitter.append(Store(output, at, emitter.element(x, at))),
            vector=True,
        )


def _checked_starts(op: DynamicUpdate, emitter: IndexedEmitter) -> tuple[list[Index], Expression]:
    """The starts, and whether the part fits; where it does not, the error code is set."""
    assert emitter.errors is not None, "a kernel with computed places has an error code"
    shape, size = op.result.shape, op.operands[1].shape
    starts: list[Index] = []
    inside: Expression | None = None
    for axis, start in zip(op.axes, op.starts, strict=True):
        first = emitter.let("start", cast(emitter.element(start, ()), DType.I64))
        last = IndexValue(from_dim(shape[axis] - size[axis]))
        low = apply("ge", first, constant(0, DType.I64))
        inside = all_of(inside, low, apply("le", first, last))
        starts.append(value_of(first))
    assert inside is not None
    inside = emitter.let("inside", inside)
    code = constant(INDEX_OUT_OF_RANGE, DType.I32)
    emitter.append(Store(emitter.errors, (0,), code, apply("not", inside)))
    return starts, inside
