"""The kernel of a scatter_add: zeros, then the updates one after another, in order.

The order of additions is that of the updates, so the result does not depend on threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mapsto.ir.dims import Dim
from mapsto.ir.ops.indexing import ScatterAdd
from mapsto.lowering.element_rules import checked_indices
from mapsto.lowering.indexed import IndexedEmitter
from mapsto.lowering.indices import Index, from_dim, variable
from mapsto.lowering.loops import Buffer, For, LoopKind, Reduce, Statement, Store, constant

__all__ = ["scatter_body"]


def scatter_body(op: ScatterAdd, emitter: IndexedEmitter, output: Buffer) -> tuple[Statement, ...]:
    """The statements that compute the op into the buffer."""
    with emitter.scope() as statements:
        _clear(emitter, output)
        batch = op.indices[0].shape
        _nest(emitter, "b", batch, False, lambda at: _add_updates(op, emitter, output, at))
    return tuple(statements)


def _clear(emitter: IndexedEmitter, output: Buffer) -> None:
    zero = constant(0, output.dtype)
    _nest(emitter, "z", output.shape, True, lambda at: emitter.append(Store(output, at, zero)))


def _add_updates(
    op: ScatterAdd, emitter: IndexedEmitter, output: Buffer, batch: tuple[Index, ...]
) -> None:
    """Adds the updates of one position of the index tensors."""
    computed = [emitter.element(index, batch) for index in op.indices]
    extents = [op.shape[a] for a in op.axes]
    positions, inside = checked_indices(emitter, computed, extents, None)
    chosen = dict(zip(op.axes, positions, strict=True))
    kept = [a for a in range(len(op.shape)) if a not in op.axes]

    def add(at: tuple[Index, ...]) -> None:
        place = chosen | dict(zip(kept, at, strict=True))
        update = emitter.element(op.operands[0], (*batch, *at))
        target = tuple(place[a] for a in range(len(op.shape)))
        emitter.append(Reduce("add", output, target, update, inside))

    _nest(emitter, "k", [op.shape[a] for a in kept], True, add)


def _nest(
    emitter: IndexedEmitter,
    prefix: str,
    extents: Sequence[Dim],
    vector: bool,
    body: Callable[[tuple[Index, ...]], None],
    outer: tuple[Index, ...] = (),
) -> None:
    """Loops over the extents, the last one in vectors if asked, with the body inside."""
    if not extents:
        body(outer)
        return
    name = emitter.fresh(prefix)
    kind = LoopKind.VECTOR if vector and len(extents) == 1 else LoopKind.SERIAL
    with emitter.scope(name) as statements:
        _nest(emitter, prefix, extents[1:], vector, body, (*outer, variable(name)))
    emitter.append(For(name, 0, from_dim(extents[0]), tuple(statements), kind))
