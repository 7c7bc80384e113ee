"""What may be computed behind a heavy contraction, in the same kernel.

That is what uses its results element by element, or *by blocks*: the last dimension of the result
is blocks of columns of one length, beside each other, and element j takes those at j of several
blocks.  The gates of a recurrent cell do, and gated units.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mapsto.ir.core import Value
from mapsto.ir.dataflow import Place, is_identity
from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.stages import Stage

__all__ = ["column_blocks", "is_epilogue", "reads_results"]

BLOCK_UNIT = 64
"""Blocks are multiples of this many columns: of the tiles of every machine."""


def is_epilogue(heavy: Stage, others: Iterable[Stage], stage: Stage) -> bool:
    """Whether a stage takes no more of the contraction's kernel than results at its own indices, or
    at these of several blocks; `others` are the stages behind the contraction so far."""
    full, own = heavy.value.shape, stage.value.shape
    others = list(others)
    if not stage.is_map or not (own == full or _is_block(heavy, own)):
        return False
    if own != full and any(other.value.shape not in (full, own) for other in others):
        return False
    inside = {heavy.value, *(other.value for other in others)}
    for read in stage.reads:
        if read.value not in inside:
            continue
        if read.value.shape not in (full, own):
            return False
        same = read.value.shape == own
        if not (is_identity(read.place) if same else _is_in_block(read.place, own[-1])):
            return False
    return True


def reads_results(inside: Iterable[Value], stage: Stage) -> bool:
    """Whether a stage reads one of the values."""
    values = set(inside)
    return any(read.value in values for read in stage.reads)


def column_blocks(heavy: Stage, stages: Iterable[Stage]) -> int:
    """How many blocks the stages of a contraction's kernel take its result for: 1 for none."""
    full = heavy.value.shape
    lengths = {stage.value.shape[-1] for stage in stages if stage.value.shape != full}
    if not lengths:
        return 1
    (length,), columns = lengths, full[-1]
    assert isinstance(length, int) and isinstance(columns, int), "blocks have known lengths"
    return columns // length


def _is_block(heavy: Stage, shape: Sequence[Dim]) -> bool:
    """Whether a tensor of the shape is a block of the contraction's columns."""
    full = heavy.value.shape
    if len(full) < 2 or tuple(shape[:-1]) != full[:-1]:
        return False
    length, columns = shape[-1], full[-1]
    if not isinstance(length, int) or not isinstance(columns, int) or length == 0:
        return False
    if length % BLOCK_UNIT != 0 or columns % length != 0:
        return False
    return isinstance(heavy.op, Contract) and _has_plain_columns(heavy.op)


def _has_plain_columns(op: Contract) -> bool:
    """Whether the last dimension of the result is all columns that there are, and the operand which
    has it is read index by index."""
    last = op.rank - 1
    first, second = (map_.dims for map_ in op.maps)
    if (last in first) == (last in second):
        return False
    number = 0 if last in first else 1
    dims, others = (first, second) if number == 0 else (second, first)
    if [d for d in range(op.rank) if d in dims and d not in others] != [last]:
        return False
    singles = [expr.single for expr in op.maps[number].results]
    shape = op.operands[number].shape
    return all(d is not None and op.extents[d] == n for d, n in zip(singles, shape, strict=True))


def _is_in_block(place: Place, length: Dim) -> bool:
    """Whether a point is read at its own indices of a block of this length."""
    *outer, last = place
    if last is None or not is_identity(tuple(outer)):
        return False
    start = last.constant
    own = last.shifted(-start).single == len(outer)
    return own and isinstance(start, int) and isinstance(length, int) and start % length == 0
