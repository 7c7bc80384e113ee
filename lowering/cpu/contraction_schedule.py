"""Choosing the schedule of a contraction from its sizes and the machine.

Which side is packed by each task (private) and which once for all (shared): a side whose index map
reads elements many times (the image of a convolution) is private, so that it is never spread out in
memory; otherwise the larger side is private, as packing it just before use costs no second trip to
memory.  Rows that are read from a copy are not packed at all, and as large as that copy: where it
is smaller than the columns, each of these is brought into a cache once, and all rows go by.  So
do rows that are read where they lie and fit into a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import ceil, prod

from mapsto.ir.bounds import inside_above, inside_below
from mapsto.ir.dims import Dim, ceil_div, product
from mapsto.lowering.contraction_layout import rows_of
from mapsto.lowering.contraction_plan import Schedule, row_parts
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.contraction_sides import Rows
from mapsto.lowering.contraction_steps import steps_of
from mapsto.lowering.contraction_window import Window, column_window, row_window
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.tiles import (
    UNKNOWN_EXTENT,
    Tile,
    choose_tile,
    estimated_cycles,
    likely_tiles,
)
from mapsto.lowering.indices import variable

__all__ = ["alternatives", "choose_orientation", "choose_schedule", "with_tile"]

MINIMUM_TASKS = 8
"""Blocks are made small enough for this many tasks, so that threads end together."""
BLOCK_OF_UNKNOWN = 4
"""Tiles per task where the number of rows is known only at run time."""
PARALLEL_WORK = 1 << 17
"""Multiply-adds from which a second thread gains more than waking it costs (about 1.5 us)."""
DIRECT_USES = 2
"""A side whose elements are used by at most so many tiles is read where it lies."""
DIRECT_USES_ALONG_K = 16
"""The same of rows that are in order along the reduction: packing would only move them together."""
LEAST_GAIN = 1.02
"""By how much quicker it has to be, as estimated, to store results across vectors."""
STORE_ALONE = 4.0
"""Cycles, in units of a multiply-add issued, to take an element out of a vector and store it."""
STORE_TOGETHER = 1.2
"""The same of an element that is stored with its neighbours, transposed in registers."""
PACK_VECTOR = 6.0
"""The same to pack a vector of columns."""
CACHE_WAYS = 8
"""So many rows of any stride have their lines in the first-level cache at once."""
LEAST_TASK = 1 << 15
"""Multiply-adds of a task, at least, where there are tasks enough."""
TURNED_VECTORS = 4
"""Columns that are turned for one tile of rows are so many vectors at most: fewer rows of memory
are read side by side, each for longer, as the processor expects it.  More would hide the latency of
the sums, which wait for memory all the same."""
SLOWER_TILE = 1.25
"""How much slower a tile may be that has all that an epilogue takes together."""
SHORT_DEPTH = 128
"""Steps of a reduction up to which the order of the results counts: they are written to memory in
runs along rows, not a few elements of each row."""
LARGEST_WINDOW = 4
"""How much larger than the operand its copy without edges may be."""
WHOLE_SHARE = 0.75
"""How much of the second-level cache the sides of a batch may fill that is computed whole."""
FETCHED_STEPS = 64
"""Steps, of some cycles each, in which a line of columns comes from far memory."""
FETCHING_ROWS = 4
"""Rows of a tile from which on memory is quicker than its multiply-adds."""
TILES_TO_TRY = 6
"""So many of the tiles that are estimated to be quickest are alternatives."""


def choose_orientation(
    problems: Sequence[ContractionProblem | None], machine: Machine
) -> ContractionProblem | None:
    """The first, which stores results in vectors, or the second, which stores them across vectors,
    where that fills vectors so much better that it makes up for the stores.  So it does where the
    first has no vectors of results either, as those of windows that a stride spreads."""
    first, second = problems
    if first is None or second is None:
        return first
    if not _stores_vectors(first, machine) and _along_memory(second):
        return second
    if _is_plain(first, 1 - first.row_operand):
        return first
    depth = max(1, _known(first.reduced.size))
    each = STORE_TOGETHER if second.rows_together is not None else STORE_ALONE
    stores = each * _known(first.rows.size) * _known(first.columns.size)
    gain = _cycles(first, machine) / (_cycles(second, machine) + stores / depth)
    return second if gain >= LEAST_GAIN else first


def _stores_vectors(problem: ContractionProblem, machine: Machine) -> bool:
    """Whether the columns that are neighbours in the result fill a vector."""
    run = 1
    for dim in reversed(range(problem.op.rank)):
        extent = problem.op.extents[dim]
        if dim not in problem.columns.dims and extent != 1:
            break
        run *= _known(extent)
    return run >= machine.lanes(problem.dtype.bits)


def _along_memory(problem: ContractionProblem) -> bool:
    """Whether vectors of columns are read where they lie."""
    operand = 1 - problem.row_operand
    return _is_plain(problem, operand) and problem.contiguous_in(operand, problem.columns)


def _cycles(problem: ContractionProblem, machine: Machine) -> float:
    """Estimated cycles for a step of the reduction, packing of columns included."""
    run = _run(problem, frozenset(_windows(problem, machine)))
    columns, rows = _columns(problem, machine, run), _known(problem.rows.size)
    tile = choose_tile(machine, problem.dtype.bits, problem.rows.size, columns)
    packs = ceil(rows / tile.rows) > DIRECT_USES
    packing = PACK_VECTOR * ceil(_known(columns) / tile.lanes) if packs else 0.0
    return estimated_cycles(tile, rows, _known(columns)) + packing


def choose_schedule(
    problem: ContractionProblem, machine: Machine, invariant: frozenset[str] = frozenset()
) -> Schedule:
    """The schedule for this machine; depends on sizes, never on the number of threads.

    `invariant` are the sides, rows or columns, that stay the same while the kernel runs again.
    """
    windows = frozenset(_windows(problem, machine)) - invariant
    run = _run(problem, windows) if "columns" not in invariant else 0
    tile = _tile(problem, machine, run)
    pack_rows, pack_columns = _packing(problem, machine, tile, windows, run, invariant)
    private_rows = _rows_are_private(problem, tile, windows)
    if not pack_rows and "columns" not in invariant:
        private_rows &= not _rows_stay_near(problem, machine, tile)
    is_turned = pack_columns and not private_rows and _is_turned_once(problem, tile)
    if is_turned:
        tile = replace(tile, vectors=min(tile.vectors, TURNED_VECTORS))
    ahead = frozenset(_packed_ahead(problem, invariant, tile, pack_rows))
    schedule = Schedule(
        tile=tile,
        private_rows=private_rows,
        block=_block(problem, machine, tile, private_rows),
        batches=0 if ahead else _whole_batches(problem, machine, tile),
        reduction_block=_reduction_block(problem, tile, machine.l1 if is_turned else machine.l2),
        pack_rows=pack_rows,
        pack_columns=pack_columns,
        parallel=_work(problem) >= PARALLEL_WORK,
        ahead=ahead,
        windows=windows,
        run=run,
        by_rows=_results_count(problem, machine),
        fetched_steps=_fetched_steps(problem, machine, tile) if "columns" in ahead else 0,
        near=machine.l1,
    )
    return with_tile(problem, machine, schedule, tile)


def _tile(problem: ContractionProblem, machine: Machine, run: int) -> Tile:
    """The tile that is estimated to be quickest; where the epilogue takes blocks of columns, one
    that has the same columns of each, if it is not much slower."""
    tiles = likely_tiles(
        machine, problem.dtype.bits, problem.rows.size, _columns(problem, machine, run)
    )
    rows, columns = _known(problem.rows.size), _known(problem.columns.size)
    limit = SLOWER_TILE * estimated_cycles(tiles[0], rows, columns)
    for tile in tiles:
        if estimated_cycles(tile, rows, columns) > limit:
            break
        if _spans_blocks(problem, tile) and rows <= tile.rows:
            return tile
    return tiles[0]


def _spans_blocks(problem: ContractionProblem, tile: Tile) -> bool:
    """Whether a tile may have the same columns of each block."""
    blocks, columns = problem.access.blocks, problem.columns.size
    if blocks == 1 or tile.vectors % blocks or not isinstance(columns, int):
        return False
    tiles, rest = divmod(columns, tile.columns)
    return rest == 0 and tiles * _known(problem.batch.size) >= MINIMUM_TASKS


def alternatives(
    problem: ContractionProblem, machine: Machine, schedule: Schedule
) -> Iterator[Schedule]:
    """Schedules that differ from this one in one choice, and give the same results to the bit: how
    the reduction is cut, and so the order of each sum, is not among the choices."""
    likely = likely_tiles(machine, problem.dtype.bits, problem.rows.size, problem.columns.size)
    for tile in likely[:TILES_TO_TRY]:
        block = _block(problem, machine, tile, schedule.private_rows)
        yield replace(with_tile(problem, machine, schedule, tile), block=block)
    private_rows = not schedule.private_rows
    block = _block(problem, machine, schedule.tile, private_rows)
    yield replace(schedule, private_rows=private_rows, block=block)
    for block in (schedule.block * 2, max(1, schedule.block // 2)):
        yield replace(schedule, block=block)
    rows_lie, columns_lie = _in_place(problem, schedule.windows, schedule.run)
    if rows_lie and "rows" not in schedule.windows:
        yield replace(schedule, pack_rows=not schedule.pack_rows)
    if columns_lie:
        yield replace(schedule, pack_columns=not schedule.pack_columns)


def _windows(problem: ContractionProblem, machine: Machine) -> Iterator[str]:
    """The sides that are read from a copy: where reading has conditions or strides."""
    lanes = machine.lanes(problem.dtype.bits)
    operand = 1 - problem.row_operand
    column = column_window(problem, lanes)
    if column is not None and not _is_plain(problem, operand) and _fits(problem, operand, column):
        yield "columns"
    row = row_window(problem)
    operand = problem.row_operand
    if row is not None and not _is_plain(problem, operand) and _fits(problem, operand, row):
        yield "rows"


def _is_plain(problem: ContractionProblem, operand: int) -> bool:
    """Whether each axis of the operand is read along one dimension, inside and step by step; a
    batch may begin anywhere."""
    op = problem.op
    pairs = zip(op.maps[operand].results, op.operands[operand].shape, strict=True)
    batch = set(problem.batch.dims)
    return all(
        len(set(expr.dims) - batch) <= 1
        and all(expr.coefficients[d] == 1 for d in expr.dims if d not in batch)
        and inside_below(expr, op.extents)
        and inside_above(expr, op.extents, size)
        for expr, size in pairs
    )


def _fits(problem: ContractionProblem, operand: int, window: Window) -> bool:
    """Whether the copy is not much larger than what it is a copy of."""
    copied = _known(product(window.buffer.shape))
    lines = _known(problem.op.operands[operand].type.elements)
    return copied <= LARGEST_WINDOW * lines or not isinstance(product(window.buffer.shape), int)


def with_tile(
    problem: ContractionProblem, machine: Machine, schedule: Schedule, tile: Tile
) -> Schedule:
    """The schedule with another tile."""
    chosen = replace(schedule, tile=tile)
    sides = [
        rows_of(problem, replace(chosen, tile=replace(tile, rows=part.height)), part)
        for part in row_parts(problem, chosen)
    ]
    laid_out = all(_keeps_sums(rows, machine) for rows in sides or [rows_of(problem, chosen)])
    return replace(chosen, laid_out=laid_out or "rows" not in schedule.windows)


def _keeps_sums(rows: Rows, machine: Machine) -> bool:
    """Whether sums stay in registers together with the elements of the copy that several rows of a
    tile read at neighbouring steps, as far as their indices tell."""
    found = [
        rows.direct_element(variable("batch"), variable("tile"), row, step)
        for row in range(rows.width)
        for step in rows.steps.neighbours()
    ]
    shared, tile = len(found) - len(set(found)), rows.tile
    needed = (tile.rows + 1) * tile.vectors + shared + 1
    return shared == 0 or needed <= machine.vector_registers


def _run(problem: ContractionProblem, windows: frozenset[str]) -> int:
    """How many of the last dimensions of columns are neighbours in memory; 0 where the columns are
    better one flat index."""
    operand = 1 - problem.row_operand
    if len(problem.columns.dims) == 1 and "columns" not in windows:
        return 0
    if "columns" in windows:
        return 1
    return min(problem.contiguous_dims(operand, problem.columns), _stored_together(problem))


def _fetched_steps(problem: ContractionProblem, machine: Machine, tile: Tile) -> int:
    """How far ahead columns are fetched that were packed before: not where they stay in a cache, or
    where few rows use them, so that there is nothing to do while they come."""
    columns = _known(problem.columns.size) * _known(problem.reduced.size) * problem.dtype.bytes
    is_far = columns * _known(problem.batch.size) > machine.l2
    return FETCHED_STEPS if is_far and tile.rows >= FETCHING_ROWS else 0


def _stored_together(problem: ContractionProblem) -> int:
    """How many of the last dimensions of columns are evenly apart in the result: one after another,
    but for dimensions of one."""
    wide = [d for d in range(problem.op.rank) if problem.op.extents[d] != 1]
    dims = problem.columns.dims
    count = 1
    while count < len(dims):
        outer, inner = dims[-1 - count], dims[-count]
        if outer in wide and wide[wide.index(outer) + 1 :][:1] != [inner]:
            break
        count += 1
    return count


def _columns(problem: ContractionProblem, machine: Machine, run: int) -> Dim:
    """The columns, those that fill up the last vector of each run included."""
    if not run:
        return problem.columns.size
    extents, lanes = problem.columns.extents, machine.lanes(problem.dtype.bits)
    vectors = ceil_div(product(extents[-run:]), lanes)
    return product(extents[:-run]) * vectors * lanes


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


def _rows_are_private(problem: ContractionProblem, tile: Tile, windows: frozenset[str]) -> bool:
    depth = _known(problem.reduced.size)
    rows, columns = _known(problem.rows.size) * depth, _known(problem.columns.size) * depth
    if _spread(problem, 1 - problem.row_operand, columns):
        return False
    window = row_window(problem) if "rows" in windows else None
    tasks = ceil(_known(problem.columns.size) / tile.columns) * _known(problem.batch.size)
    if window is not None and tasks >= MINIMUM_TASKS:
        return _known(product(window.buffer.shape)) >= columns
    if _spread(problem, problem.row_operand, rows):
        return True
    return rows >= columns


def _rows_stay_near(problem: ContractionProblem, machine: Machine, tile: Tile) -> bool:
    """Whether the rows stay in a cache while one panel of columns after the other, packed just
    before, goes by; there are panels enough for all threads."""
    rows = _known(problem.rows.size) * _known(problem.reduced.size) * problem.dtype.bytes
    panels = ceil(_known(problem.columns.size) / tile.columns) * _known(problem.batch.size)
    return rows <= machine.l2 // 2 and panels >= MINIMUM_TASKS


def _spread(problem: ContractionProblem, operand: int, packed: int) -> bool:
    """Whether packing would hold each element of the operand several times."""
    batches = _known(problem.batch.size)
    return packed * batches >= 2 * _known(problem.op.operands[operand].type.elements)


def _packing(
    problem: ContractionProblem,
    machine: Machine,
    tile: Tile,
    windows: frozenset[str],
    run: int,
    invariant: frozenset[str],
) -> tuple[bool, bool]:
    """Whether rows and columns are copied into packed order before use."""
    row_tiles = ceil(_known(problem.rows.size) / tile.rows)
    column_tiles = ceil(_known(problem.columns.size) / tile.columns)
    row_operand, reduced = problem.row_operand, problem.reduced
    in_order = problem.contiguous_dims(row_operand, reduced) == len(reduced.dims)
    stream = in_order and tile.rows <= CACHE_WAYS and "rows" not in invariant
    uses = DIRECT_USES_ALONG_K if stream else DIRECT_USES
    rows_lie, columns_lie = _in_place(problem, windows, run)
    near = stream and _stay_near(problem, machine)
    direct_rows = rows_lie and ("rows" in windows or column_tiles <= uses or near)
    return not direct_rows, not (columns_lie and row_tiles <= DIRECT_USES)


def _stay_near(problem: ContractionProblem, machine: Machine) -> bool:
    """Whether all rows stay in the first-level cache as they lie: a line of each is in another set
    than those of most others."""
    depth = _known(problem.reduced.size) * problem.dtype.bytes
    fits = depth * _known(problem.rows.size) <= machine.l1
    return fits and depth % (machine.l1 // CACHE_WAYS) != 0


def _in_place(problem: ContractionProblem, windows: frozenset[str], run: int) -> tuple[bool, bool]:
    """Whether rows and columns can be read where they lie, in memory or in a copy."""
    operand, columns = 1 - problem.row_operand, problem.columns
    rows_lie = "rows" in windows or problem.access.is_direct(problem.row_operand)
    vectors_lie = run > 0 or (problem.contiguous_in(operand, columns) and len(columns.dims) == 1)
    return rows_lie, vectors_lie and ("columns" in windows or problem.access.is_direct(operand))


def _block(problem: ContractionProblem, machine: Machine, tile: Tile, private_rows: bool) -> int:
    """Tiles per task: a block of rows that fills part of the second-level cache, one panel of
    columns; fewer where there would be too few tasks."""
    if not private_rows:
        return _column_block(problem, tile)
    depth = min(_known(problem.reduced.size), _reduction_block(problem, tile, machine.l2))
    sliver_bytes = tile.rows * depth * problem.dtype.bytes
    fitting = max(1, machine.l2 // 3 // max(1, sliver_bytes))
    if not isinstance(problem.rows.size, int):
        # Small enough that a batch of a hundred still is work for several threads.
        return min(fitting, BLOCK_OF_UNKNOWN)
    tiles = ceil(problem.rows.size / tile.rows) * _known(problem.batch.size)
    return max(1, min(fitting, tiles // MINIMUM_TASKS))


def _column_block(problem: ContractionProblem, tile: Tile) -> int:
    """One panel, as it is packed before use; more where that is not work enough for a task."""
    tiles = ceil(_known(problem.columns.size) / tile.columns)
    work = _work(problem) // max(1, tiles * _known(problem.batch.size))
    enough = ceil(LEAST_TASK / max(1, work))
    return max(1, min(enough, tiles * _known(problem.batch.size) // MINIMUM_TASKS))


def _whole_batches(problem: ContractionProblem, machine: Machine, tile: Tile) -> int:
    """How many batches a task computes whole: where both sides of one fit a cache, and there are
    batches enough for all threads; else 0."""
    depth, count = _known(problem.reduced.size), problem.batch.size
    rows = ceil(_known(problem.rows.size) / tile.rows) * tile.rows
    columns = ceil(_known(problem.columns.size) / tile.columns) * tile.columns
    packed = (rows + columns) * depth * problem.dtype.bytes
    if problem.access.blocks > 1 or packed > machine.l2 * WHOLE_SHARE:
        return 0
    if not isinstance(count, int) or count == 0:
        return 0
    least = ceil(LEAST_TASK / max(1, _work(problem) // count))
    return min(least, count // MINIMUM_TASKS)


def _results_count(problem: ContractionProblem, machine: Machine) -> bool:
    """Whether the reduction is short, and all columns stay in a cache while the rows go by."""
    depth = _known(problem.reduced.size)
    columns = _known(problem.columns.size) * depth * problem.dtype.bytes
    return depth <= SHORT_DEPTH and columns <= machine.l2 // 2


def _is_turned_once(problem: ContractionProblem, tile: Tile) -> bool:
    """Whether columns that are in order along the reduction are turned into vectors for one tile of
    rows alone: then they should not leave the first-level cache in between."""
    across = problem.contiguous_in(1 - problem.row_operand, problem.columns)
    one = _known(problem.rows.size) <= tile.rows
    return one and not across and problem.access.blocks == 1


def _reduction_block(problem: ContractionProblem, tile: Tile, cache: int) -> int:
    """A depth at which a panel of columns fills at most half of a cache."""
    fitting = cache // 2 // (tile.columns * problem.dtype.bytes)
    depth = problem.reduced.size
    if isinstance(depth, int) and depth <= fitting:
        return depth
    blocks = ceil(_known(depth) / fitting)
    unit = steps_of(problem.reduced).unit
    return ceil(max(16, ceil(_known(depth) / blocks)) / unit) * unit
