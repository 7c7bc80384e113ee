"""Choosing the schedule of a contraction from its sizes and the machine.

Which side is packed by each task (private) and which once for all (shared): a side whose index map
reads elements many times (the image of a convolution) is private, so that it is never spread out in
memory; otherwise the larger side is private, as packing it just before use costs no second trip to
memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, prod

from mapsto.ir.dims import Dim
from mapsto.lowering.contraction_loops import Schedule
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.tiles import UNKNOWN_EXTENT, Tile, choose_tile

__all__ = ["choose_schedule"]

MINIMUM_TASKS = 8
"""Blocks are made small enough for this many tasks, so that threads end together."""
BLOCK_OF_UNKNOWN = 4
"""Tiles per task where the number of rows is known only at run time."""
PARALLEL_WORK = 1 << 17
"""Multiply-adds from which a second thread gains more than waking it costs (about 1.5 us)."""
DIRECT_USES = 2
"""A side whose elements are used by at most so many tiles is read where it lies."""


def choose_schedule(
    problem: ContractionProblem, machine: Machine, invariant: frozenset[str] = frozenset()
) -> Schedule:
    """The schedule for this machine; depends on sizes, never on the number of threads.

    `invariant` are the sides, rows or columns, that stay the same while the kernel runs again.
    """
    tile = choose_tile(machine, problem.dtype.bits, problem.rows.size, problem.columns.size)
    private_rows = _rows_are_private(problem)
    pack_rows, pack_columns = _packing(problem, tile)
    return Schedule(
        tile=tile,
        private_rows=private_rows,
        block=_block(problem, machine, tile, private_rows),
        reduction_block=_reduction_block(problem, machine, tile),
        pack_rows=pack_rows,
        pack_columns=pack_columns,
        parallel=_work(problem) >= PARALLEL_WORK,
        ahead=frozenset(_packed_ahead(problem, invariant, tile, pack_rows)),
    )


def _packed_ahead(
    problem: ContractionProblem, invariant: frozenset[str], tile: Tile, pack_rows: bool
) -> Iterator[str]:
    """Which side is packed once for all runs.  Columns gain even where they would be read where
    they lie: a panel is read in one go, and not a few elements on each page of memory."""
    if "columns" in invariant:
        size = _known(problem.columns.size) * _known(problem.reduced.size)
        if size > tile.columns and not _spread(problem, 1 - problem.row_operand, size):
            yield "columns"
    elif "rows" in invariant and pack_rows:
        size = _known(problem.rows.size) * _known(problem.reduced.size)
        if not _spread(problem, problem.row_operand, size):
            yield "rows"


def _known(size: Dim) -> int:
    return size if isinstance(size, int) else UNKNOWN_EXTENT


def _work(problem: ContractionProblem) -> int:
    groups = (problem.batch, problem.rows, problem.columns, problem.reduced)
    return prod(_known(group.size) for group in groups)


def _rows_are_private(problem: ContractionProblem) -> bool:
    depth = _known(problem.reduced.size)
    rows, columns = _known(problem.rows.size) * depth, _known(problem.columns.size) * depth
    if _spread(problem, 1 - problem.row_operand, columns):
        return False
    if _spread(problem, problem.row_operand, rows):
        return True
    return rows >= columns


def _spread(problem: ContractionProblem, operand: int, packed: int) -> bool:
    """Whether packing would hold each element of the operand several times."""
    batches = _known(problem.batch.size)
    return packed * batches >= 2 * _known(problem.op.operands[operand].type.elements)


def _packing(problem: ContractionProblem, tile: Tile) -> tuple[bool, bool]:
    """Whether rows and columns are copied into packed order before use."""
    row_tiles = ceil(_known(problem.rows.size) / tile.rows)
    column_tiles = ceil(_known(problem.columns.size) / tile.columns)
    column_operand = 1 - problem.row_operand
    direct_rows = problem.access.is_direct(problem.row_operand) and column_tiles <= DIRECT_USES
    direct_columns = (
        problem.access.is_direct(column_operand)
        and row_tiles <= DIRECT_USES
        and problem.contiguous_in(column_operand, problem.columns)
        and len(problem.columns.dims) == 1
    )
    return not direct_rows, not direct_columns


def _block(problem: ContractionProblem, machine: Machine, tile: Tile, private_rows: bool) -> int:
    """Tiles per task: a block of rows that fills part of the second-level cache, one panel of
    columns; fewer where there would be too few tasks."""
    if not private_rows:
        return 1
    depth = min(_known(problem.reduced.size), _reduction_block(problem, machine, tile))
    sliver_bytes = tile.rows * depth * problem.dtype.bytes
    fitting = max(1, machine.l2 // 3 // max(1, sliver_bytes))
    if not isinstance(problem.rows.size, int):
        # Small enough that a batch of a hundred still is work for several threads.
        return min(fitting, BLOCK_OF_UNKNOWN)
    tiles = ceil(problem.rows.size / tile.rows) * _known(problem.batch.size)
    return max(1, min(fitting, tiles // MINIMUM_TASKS))


def _reduction_block(problem: ContractionProblem, machine: Machine, tile: Tile) -> int:
    """A depth at which a panel of columns fills at most half of the second-level cache."""
    fitting = machine.l2 // 2 // (tile.columns * problem.dtype.bytes)
    depth = problem.reduced.size
    if isinstance(depth, int) and depth <= fitting:
        return depth
    blocks = ceil(_known(depth) / fitting)
    return max(16, ceil(_known(depth) / blocks))
