"""The kernel of a scatter: what changes nothing, then the updates one after another, in order.

Tasks own ranges of one axis of the result and do the updates that go there, so each element gets
its updates in their order and the result does not depend on threads.  Where the positions along
that axis count up with the updates, a task goes over its own updates only; else over all of them,
and there are so few tasks that the looking is cheap.  Where that would be too few, as on a GPU, the
updates are sorted first (`sorted_scatter`).
"""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.dims import Dim
from mapsto.ir.ops.indexing import Scatter
from mapsto.ir.ops.shaping import Iota
from mapsto.ir.stages import estimate
from mapsto.lowering.element_rules import checked_indices
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.indices import Index
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    Reduce,
    Statement,
    Store,
    all_of,
    compare,
    constant,
)
from mapsto.lowering.scalar_operations import REDUCTION_OPERATIONS
from mapsto.lowering.sorted_scatter import SortedScatter, is_sorted
from mapsto.lowering.whole_loops import Range, branch, nest, tasks, whole

__all__ = ["scatter_body"]

_LOOK_COST = 8
"""What looking at an update costs a task that does not do it, in elements added."""


@dataclass(frozen=True, slots=True)
class _Parts:
    """How the result is divided: along the `number`-th of the scattered axes, which the updates
    follow along their axis `follows` (None where they go anywhere)."""

    number: int
    extent: Dim
    step: int
    follows: int | None


def scatter_body(
    op: Scatter, emitter: IndexedEmitter, output: Buffer, division: Division
) -> tuple[Statement, ...]:
    """The statements that compute the op into the buffer."""
    parts = _parts(op, division.task_work)
    if parts.follows is None and is_sorted(op, division):
        return _sorted_body(op, emitter, output, division)
    with emitter.scope() as statements, tasks(emitter, parts.extent, parts.step) as range_:
        _clear(op, emitter, output, parts, range_)
        ranges = whole(op.indices[0].shape)
        if parts.follows is not None:
            ranges[parts.follows] = range_
        nest(
            emitter,
            "b",
            ranges,
            lambda at: _add_updates(op, emitter, output, parts, range_, at),
        )
    return tuple(statements)


def _sorted_body(
    op: Scatter, emitter: IndexedEmitter, output: Buffer, division: Division
) -> tuple[Statement, ...]:
    """The same for many lanes: tasks that clear the result, then those of `SortedScatter`."""
    extent = op.shape[op.axes[0]]
    step = _step(extent, estimate(op.shape) // division.task_work)
    with emitter.scope() as statements:
        scatter = SortedScatter(op, emitter, output)
        with tasks(emitter, extent, step) as range_:
            _clear(op, emitter, output, _Parts(0, extent, step, None), range_)
        scatter.write()
    return tuple(statements)


def _parts(op: Scatter, task_work: int) -> _Parts:
    looks, work = estimate(op.indices[0].shape), estimate(op.operands[0].shape)
    work = 2 * work + estimate(op.shape)
    for number, index in enumerate(op.indices):
        extent = op.shape[op.axes[number]]
        follows = index.owner.attributes["axis"] if isinstance(index.owner, Iota) else None
        if isinstance(follows, int) and index.shape[follows] == extent:
            return _Parts(number, extent, _step(extent, work // task_work), follows)
    extent = op.shape[op.axes[0]]
    most = work // max(1, _LOOK_COST * looks)
    return _Parts(0, extent, _step(extent, min(most, work // task_work)), None)


def _step(extent: Dim, count: int) -> int:
    """How much of the extent is one of at most so many tasks."""
    return max(1, -(-estimate((extent,)) // max(1, count)))


def _clear(
    op: Scatter, emitter: IndexedEmitter, output: Buffer, parts: _Parts, range_: Range
) -> None:
    identity = constant(op.identity, output.dtype)
    ranges = whole(op.shape)
    ranges[op.axes[parts.number]] = range_
    nest(emitter, "z", ranges, lambda at: emitter.append(Store(output, at, identity)), vector=True)


def _add_updates(
    op: Scatter,
    emitter: IndexedEmitter,
    output: Buffer,
    parts: _Parts,
    range_: Range,
    batch: tuple[Index, ...],
) -> None:
    """Does the updates of one position of the index tensors, if they are the task's."""
    computed = [emitter.element(index, batch) for index in op.indices]
    extents = [op.shape[a] for a in op.axes]
    positions, inside = checked_indices(emitter, computed, extents, None)
    chosen = dict(zip(op.axes, positions, strict=True))
    kept = [a for a in range(len(op.shape)) if a not in op.axes]
    condition = all_of(inside, _is_own(parts, range_, positions[parts.number]))

    def add(at: tuple[Index, ...]) -> None:
        place = chosen | dict(zip(kept, at, strict=True))
        update = emitter.element(op.operands[0], (*batch, *at))
        target = tuple(place[a] for a in range(len(op.shape)))
        emitter.append(Reduce(REDUCTION_OPERATIONS[op.kind], output, target, update))

    assert condition is not None
    with branch(emitter, condition):
        nest(emitter, "k", whole([op.shape[a] for a in kept]), add, vector=True)


def _is_own(parts: _Parts, range_: Range, position: Index) -> Expression | None:
    """Whether a position is in the task's range; None where it must be."""
    start, stop = range_
    if parts.follows is not None or start == 0:
        return None
    return all_of(compare("ge", position, start), compare("lt", position, stop))
