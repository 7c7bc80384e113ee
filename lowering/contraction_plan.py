"""The choices that fix the loops of a packed, register-blocked contraction."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.cpu.tiles import Tile, heights

__all__ = [
    "RowPart",
    "Schedule",
    "interleaves",
    "row_chunks",
    "row_parts",
    "sums_rows",
    "takes_blocks",
]

LEAST_TASKS = 12
"""Fewer tasks would let threads wait for each other longer than it takes to write all sums."""
LONG_ROW = 256
"""Rows of so many elements are summed along memory; what follows a sum is in no vector then."""
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
    by_rows: bool = False
    """Whether a task that owns rows computes all columns of a few rows before the next ones."""
    batches: int = 0
    """How many batches a task computes whole, both sides of which it packs; 0: tasks own tiles."""
    fetched_steps: int = 0
    """How many steps before their turn columns are fetched that are packed ahead; 0: not at all."""
    near: int = 0
    """Bytes of a tensor that is taken to be in the first-level cache.  What the epilogue reads and
    writes of others is fetched while a tile is summed up."""


@dataclass(frozen=True, slots=True)
class RowPart:
    """Rows whose tiles have one height: `count` of them from `first` on, below so many `tiles`."""

    first: int
    count: int
    height: int
    tiles: int


def row_parts(problem: ContractionProblem, schedule: Schedule) -> tuple[RowPart, ...]:
    """The rows by the height of their tiles, where there are two heights; they all go by each tile
    of columns."""
    rows = problem.rows.size
    if schedule.private_rows or "rows" in schedule.ahead or not isinstance(rows, int):
        return ()
    found, first, above = [], 0, 0
    for tiles, height in heights(rows, schedule.tile.rows):
        found.append(RowPart(first, tiles * height, height, above))
        first, above = first + tiles * height, above + tiles
    return tuple(found) if len(found) > 1 else ()


def interleaves(problem: ContractionProblem, schedule: Schedule) -> bool:
    """Whether each tile has the same columns of all blocks: as many vectors of each."""
    blocks, tile = problem.access.blocks, schedule.tile
    if blocks == 1 or tile.vectors % blocks or not _has_plain_columns(problem, schedule):
        return False
    columns = problem.columns.size
    return isinstance(columns, int) and columns % tile.columns == 0


def takes_blocks(problem: ContractionProblem, schedule: Schedule) -> bool:
    """Whether a task has the sums of the same columns of each block together: where its tiles have,
    or where tasks own columns, and blocks are whole tiles."""
    if interleaves(problem, schedule):
        return True
    columns, depth = problem.columns.size, problem.reduced.size
    if schedule.private_rows or not _has_plain_columns(problem, schedule):
        return False
    if not isinstance(columns, int) or not isinstance(depth, int):
        return False
    tiles, rest = divmod(columns, problem.access.blocks * schedule.tile.columns)
    enough = tiles * _row_tiles(problem, schedule) >= LEAST_TASKS or not schedule.parallel
    return rest == 0 and enough and depth <= schedule.reduction_block


def sums_rows(problem: ContractionProblem, schedule: Schedule) -> bool:
    """Whether a matrix is multiplied with a vector whose long rows lie in memory, and nothing is
    packed ahead: each row is better summed where it lies than turned.  Not where the result has
    more dimensions: one vector is a batch of one then, with the sums of a larger batch."""
    matrix = 1 - problem.row_operand
    if problem.op.rank > 1 or problem.access.blocks > 1 or schedule.ahead:
        return False
    if problem.contiguous_in(matrix, problem.columns):
        return False
    last = problem.reduced.extents[-1]
    along = problem.contiguous_in(matrix, problem.reduced)
    return along and isinstance(last, int) and last >= LONG_ROW


def _has_plain_columns(problem: ContractionProblem, schedule: Schedule) -> bool:
    """Whether columns are the last dimension of the result, as one flat index."""
    return not schedule.run and problem.columns.dims == (problem.op.rank - 1,)


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
