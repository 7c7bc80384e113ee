"""Transposition in registers: what a vector loop reads or writes across its lanes, in blocks.

    for j 0..n vector {                     for each group of W values of j:
      for i 0..W unroll {                     load W rows of x, each W elements along i
        y[i, j] = x[j, i] + z[i, j]    =>     transpose the W x W block by shuffles
      }                                       add and store W rows, each W elements along j
    }

Lanes run along `j`, and `x` has neighbours along `i`: it would be gathered element by element.  The
same where a store is across: the rows are computed first, and stored transposed.  A few turns less
than there are lanes are a block too, of shorter rows in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mapsto.lowering.indices import Index, ValueOf, atoms
from mapsto.lowering.llvm.loop_access import AccessEmitter
from mapsto.lowering.llvm.loop_scope import Scope
from mapsto.lowering.llvm.types import Operand
from mapsto.lowering.llvm.writer import FunctionWriter
from mapsto.lowering.loop_rewrite import Rewriter
from mapsto.lowering.loop_walk import expressions
from mapsto.lowering.loops import (
    Buffer,
    Expression,
    For,
    Let,
    Load,
    Reduce,
    Ref,
    Statement,
    Store,
)

__all__ = ["LEAST_LANES", "Square", "find_square", "transpose"]

LEAST_LANES = 4
"""Smaller blocks are not worth their shuffles."""

_SECTION_BITS = 128
"""What most shuffles of wider vectors do, they do in each part of this width."""


@dataclass(frozen=True, slots=True)
class Square:
    """A laid out loop inside a vector loop, with names in place of what it reads across the lanes
    and for what it stores across them."""

    loads: dict[str, Load]
    stores: dict[str, Store]
    body: tuple[Statement, ...]


def find_square(emitter: AccessEmitter, scope: Scope, loop: For, extent: int) -> Square | None:
    """What a loop reads and writes across the lanes of the vector loop around; None where there is
    nothing, or no block of it.

    A block is read before any of its turns is done, and written after all: nothing that one reads
    or writes so is written or read otherwise.
    """
    lanes = scope.lanes
    if lanes is None or lanes.predicate is not None or min(lanes.count, extent) < LEAST_LANES:
        return None
    if loop.step != 1 or not all(isinstance(s, Let | Store | Reduce) for s in loop.body):
        return None
    loads = list(dict.fromkeys(e for e in expressions(loop.body) if isinstance(e, Load)))
    writes = [s for s in loop.body if isinstance(s, Store | Reduce)]

    def is_across(access: Load | Store, others: Sequence[Load | Store | Reduce]) -> bool:
        apart = not any(_may_overlap(access.buffer, other.buffer) for other in others)
        return apart and _is_across(emitter, scope, loop, access)

    read = {load: f"{loop.variable}.read{i}" for i, load in enumerate(loads)}
    read = {load: name for load, name in read.items() if is_across(load, writes)}
    stores: dict[str, Store] = {}
    body: list[Statement] = []
    for statement, renamed in zip(loop.body, _Renamed(loads=read).block(loop.body), strict=True):
        others = [*loads, *(other for other in writes if other is not statement)]
        if isinstance(renamed, Store) and is_across(renamed, others):
            name = f"{loop.variable}.stored{len(stores)}"
            stores[name] = renamed
            renamed = Let(name, renamed.value)
        body.append(renamed)
    if not read and not stores:
        return None
    return Square({name: load for load, name in read.items()}, stores, tuple(body))


def _may_overlap(left: Buffer, right: Buffer) -> bool:
    return left.name == right.name or (left.may_alias and right.may_alias)


def _is_across(emitter: AccessEmitter, scope: Scope, loop: For, access: Load | Store) -> bool:
    """Whether neighbours in memory are along the loop's variable, and those of lanes elsewhere."""
    place, lanes = scope.places[access.buffer.name], scope.lanes
    assert lanes is not None, "only lanes make an address vary"
    offset = emitter.flat_offset(place, access.indices)
    if access.guard is not None or place.is_register or not _is_uniform(scope, offset):
        return False
    inside = scope.with_index(loop.variable, 0)
    by_lane = emitter.split(inside, offset)
    if by_lane is None or by_lane[1] in range(-LEAST_LANES, LEAST_LANES + 1):
        return False
    turned = replace(lanes, variable=loop.variable)
    by_turn = emitter.split(inside.with_index(lanes.variable, 0).with_lanes(turned), offset)
    return by_turn is not None and by_turn[1] == 1


def _is_uniform(scope: Scope, index: Index) -> bool:
    """Whether what the index takes from values are names for what is the same in all lanes."""
    given = [atom.expression for atom in atoms(index) if isinstance(atom, ValueOf)]
    names = [value.name if isinstance(value, Ref) else "" for value in given]
    return all(name in scope.lets and scope.lets[name].type.lanes == 1 for name in names)


@dataclass(frozen=True, slots=True)
class _Renamed(Rewriter):
    """Puts names in place of loads."""

    loads: dict[Load, str] = field(default_factory=dict)

    def expression(self, expression: Expression) -> Expression:
        if isinstance(expression, Load) and expression in self.loads:
            return Ref(self.loads[expression], expression.type)
        return Rewriter.expression(self, expression)


def transpose(f: FunctionWriter, rows: list[Operand]) -> list[Operand]:
    """The columns of a block of so many rows as a vector is long; of rows that are missing there is
    nothing in them.

    The blocks of as many rows as a section of a vector is long are transposed by interleaving the
    halves of pairs of rows, log2 of the length times; then blocks change places across the
    diagonal.  Only the latter moves elements to other sections, and then whole ones.
    """
    kind = rows[0].type
    if kind.kind == "half":
        whole = [f.bitcast(row, kind.integer) for row in rows]
        return [f.bitcast(row, kind) for row in transpose(f, whole)]
    rows = [*rows, *[Operand("poison", kind)] * (kind.lanes - len(rows))]
    section = max(1, min(len(rows), _SECTION_BITS // kind.bits))
    groups = [rows[start : start + section] for start in range(0, len(rows), section)]
    rows = [row for group in groups for row in _interleaved(f, group)]
    while section < len(rows):
        rows = _exchanged(f, rows, section)
        section *= 2
    return rows


def _interleaved(f: FunctionWriter, rows: list[Operand]) -> list[Operand]:
    """As many rows as a section is long, with each section's block transposed."""
    length, lanes = len(rows), rows[0].type.lanes
    half = length // 2
    starts = range(0, lanes, length)
    low = [lane for start in starts for i in range(start, start + half) for lane in (i, lanes + i)]
    high = [lane + half for lane in low]
    for _ in range(length.bit_length() - 1):
        pairs = [(rows[i], rows[i + half]) for i in range(half)]
        rows = [f.shufflevector(a, b, picks) for a, b in pairs for picks in (low, high)]
    return rows


def _exchanged(f: FunctionWriter, rows: list[Operand], width: int) -> list[Operand]:
    """Of each block of 2 x 2 blocks of a width, those that are off the diagonal change places."""
    lanes = len(rows)
    low = [lane + (lanes - width if lane & width else 0) for lane in range(lanes)]
    high = [lane + width if not lane & width else lanes + lane for lane in range(lanes)]
    result = list(rows)
    for i in range(lanes):
        if not i & width:
            pair = rows[i], rows[i + width]
            result[i], result[i + width] = (f.shufflevector(*pair, picks) for picks in (low, high))
    return result
