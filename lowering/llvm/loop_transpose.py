"""Transposition in registers: a vector loop that would scatter a square block of elements.

    for k 0..n vector {                     for each group of W values of k:
      for j 0..W unroll {                     load W rows, each W elements along k
        packed[k, j] = x[j, k]       =>       transpose the W x W block by shuffles
      }                                       store W rows, each W elements along j
    }

The left form reads along `k` and writes along `j`, so one of the two would go element by element.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mapsto.lowering.indices import Index, flat_offset
from mapsto.lowering.llvm.loop_access import AccessEmitter
from mapsto.lowering.llvm.loop_scope import Scope
from mapsto.lowering.llvm.types import Operand
from mapsto.lowering.llvm.writer import FunctionWriter
from mapsto.lowering.loops import For, LoopKind, Store

__all__ = ["Block", "transpose", "transposed_block"]


@dataclass(frozen=True, slots=True)
class Block:
    """The store of such a loop and the variable and first value of its inner loop."""

    store: Store
    variable: str
    first: Index


def transposed_block(emitter: AccessEmitter, scope: Scope, loop: For, lanes: int) -> Block | None:
    """The block that a vector loop copies, where it is of the form above."""
    if len(loop.body) != 1 or not isinstance(loop.body[0], For) or lanes < 4:
        return None
    inner = loop.body[0]
    if inner.kind is not LoopKind.UNROLL or inner.step != 1 or len(inner.body) != 1:
        return None
    store = inner.body[0]
    if not isinstance(store, Store) or store.guard is not None or inner.stop != inner.start + lanes:
        return None
    if store.buffer.dtype is not store.value.type or not store.buffer.dtype.is_float:
        return None
    place = scope.places[store.buffer.name]
    assert scope.lanes is not None
    along = scope.with_index(inner.variable, 0).with_index(scope.lanes.variable, 0)
    along = along.with_lanes(replace(scope.lanes, variable=inner.variable))
    parts = emitter.split(along, flat_offset(store.indices, place.shape))
    if parts is None or parts[1] != 1:
        return None
    return Block(store, inner.variable, inner.start)


def transpose(f: FunctionWriter, rows: list[Operand]) -> list[Operand]:
    """The columns of a square block, by log2(n) rounds of interleaving its halves."""
    count = len(rows)
    half = count // 2
    low = [lane for i in range(half) for lane in (i, count + i)]
    high = [lane for i in range(half, count) for lane in (i, count + i)]
    for _ in range(count.bit_length() - 1):
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [f.shufflevector(a, b, lanes) for a, b in pairs for lanes in (low, high)]
    return rows
