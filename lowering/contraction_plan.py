"""The choices that fix the loops of a packed, register-blocked contraction."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.cpu.tiles import Tile

__all__ = ["Schedule", "row_chunks", "takes_blocks"]

LEAST_TASKS = 16
"""Fewer tasks would let threads wait for each other longer than it takes to write all sums."""
ENOUGH_TASKS = 32
"""So many tasks end at about the same time on all threads."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The choices that fix the loops; all sizes in elements."""

    tile: Tile
    private_rows: bool
    """Whether tasks own rows (and share packed columns) or the other way round."""
    block: int
    """Tiles of the private side that a task owns."""
    reduction_block: int
    """How much of the reduction is packed at a time."""
    pack_rows: bool
    pack_columns: bool
    parallel: bool = True
    """Whether the work is worth waking other threads."""
    ahead: frozenset[str] = frozenset()
    """The sides, rows or columns, that are packed ahead of a loop around the kernel."""
    windows: frozenset[str] = frozenset()
    """The sides that are read from a copy of the operand without edges and strides."""
    laid_out: bool = True
    """Whether short loops of the reduction are laid out."""
    run: int = 0
    """How many of the last dimensions of columns are a run of vectors; 0: columns are flat."""
    near: int = 0
    """Bytes of a tensor that is taken to be in the first-level cache.  What the epilogue reads and
    writes of others is fetched while a tile is summed up."""


def takes_blocks(problem: ContractionProblem, schedule: Schedule) -> bool:
    """Whether a task has the sums of the same columns of each block together: where tasks own
    columns, and blocks are whole tiles."""
    columns, depth = problem.columns, problem.reduced.size
    if schedule.private_rows or schedule.run or columns.dims != (problem.op.rank - 1,):
        return False
    if not isinstance(columns.size, int) or not isinstance(depth, int):
        return False
    tiles, rest = divmod(columns.size, problem.access.blocks * schedule.tile.columns)
    enough = tiles * _row_tiles(problem, schedule) >= LEAST_TASKS or not schedule.parallel
    return rest == 0 and enough and depth <= schedule.reduction_block


def row_chunks(problem: ContractionProblem, schedule: Schedule) -> int:
    """Into how many chunks the rows are cut that use the same columns of each block, so that there
    are tasks enough; 1 where columns would be packed once for each."""
    columns, blocks = problem.columns.size, problem.access.blocks
    packs = schedule.pack_columns and "columns" not in schedule.ahead
    if blocks == 1 or packs or not schedule.parallel or not isinstance(columns, int):
        return 1
    tasks = columns // (blocks * schedule.tile.columns) // max(1, schedule.block // blocks)
    tiles = _row_tiles(problem, schedule)
    each = -(-tiles // min(tiles, -(-ENOUGH_TASKS // max(1, tasks))))
    return -(-tiles // each)


def _row_tiles(problem: ContractionProblem, schedule: Schedule) -> int:
    """The tiles above one another; 1 where their number is known only at run time."""
    rows = problem.rows.size
    return -(-rows // schedule.tile.rows) if isinstance(rows, int) else 1
