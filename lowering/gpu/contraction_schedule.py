"""Choosing the schedule of a contraction on a GPU from its sizes and the target."""

from __future__ import annotations

from mapsto.ir.dims import Dim
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.gpu.contraction_blocks import Schedule
from mapsto.lowering.gpu.contraction_fragments import WarpWork
from mapsto.lowering.gpu.contraction_panels import make_panel
from mapsto.lowering.gpu.contraction_threads import ThreadWork
from mapsto.lowering.gpu.contraction_tiles import BlockTile, Sizes, choose_tile
from mapsto.lowering.gpu.target import GpuTarget, MatrixShape

__all__ = ["choose_schedule", "schedule_with"]

UNKNOWN_EXTENT = 4096
"""Stands for an extent that is known only at run time."""


def choose_schedule(problem: ContractionProblem, target: GpuTarget) -> Schedule:
    """The schedule for this target; depends on sizes, never on what else runs."""
    groups = (problem.batch, problem.rows, problem.columns, problem.reduced)
    batch, rows, columns, depth = (_known(group.size) for group in groups)
    is_matrix = MatrixShape(problem.dtype.value, 16, 8, 16) in target.matrix_shapes
    dtype = problem.dtype if is_matrix else sum_type(problem.dtype)
    sizes = Sizes(batch, rows, columns, depth, dtype.bytes)
    is_static = all(isinstance(group.size, int) for group in groups)
    return schedule_with(problem, target, choose_tile(target, sizes, is_matrix, is_static))


def schedule_with(problem: ContractionProblem, target: GpuTarget, tile: BlockTile) -> Schedule:
    """The schedule with a tile."""
    dtype = problem.dtype if tile.is_matrix else sum_type(problem.dtype)
    rows = make_panel(problem, "rows", tile, dtype, target)
    columns = make_panel(problem, "columns", tile, dtype, target)
    work = WarpWork(tile, rows, columns) if tile.is_matrix else None
    return Schedule(tile, rows, columns, work or ThreadWork(tile, rows, columns, dtype))


def _known(size: Dim) -> int:
    return size if isinstance(size, int) else UNKNOWN_EXTENT
