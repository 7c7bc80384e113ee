"""Choosing the schedule of a contraction on a GPU from its sizes and the target."""

from __future__ import annotations

from mapsto.ir.dims import Dim
from mapsto.ir.ops.contraction import Contract
from mapsto.lowering.contraction_problem import ContractionProblem, OperandAccess, analyze
from mapsto.lowering.contractions import LoweredContraction
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.gpu.contraction_blocks import Schedule, contraction_body
from mapsto.lowering.gpu.contraction_fragments import WarpWork
from mapsto.lowering.gpu.contraction_panels import Panel, Place, make_panel
from mapsto.lowering.gpu.contraction_threads import ThreadWork
from mapsto.lowering.gpu.contraction_tiles import BlockTile, Side, Sizes, rank_tiles
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.indices import Composite, atoms, variable
from mapsto.lowering.loop_walk import subexpressions
from mapsto.lowering.loops import Load

__all__ = ["choose_schedule", "known_extent", "lower_contraction", "ranked_tiles", "schedule_with"]

PROBE = BlockTile(32, 32, 16, 4, 4)
MATRIX_PROBE = BlockTile(32, 32, 32, 16, 16, is_matrix=True)
"""Tiles that show how operands are read."""
UNKNOWN_EXTENT = 4096
"""Stands for an extent that is known only at run time."""


def lower_contraction(
    op: Contract, access: OperandAccess, target: GpuTarget
) -> LoweredContraction | None:
    """The launches of a kernel that computes the contraction; None where it has no such schedule:
    what is no sum of products of two floats, and results that are used by blocks."""
    problem = analyze(op, access)
    if problem is None or not problem.dtype.is_float or access.blocks > 1:
        return None
    return LoweredContraction(contraction_body(problem, choose_schedule(problem, target)), ())


def choose_schedule(problem: ContractionProblem, target: GpuTarget) -> Schedule:
    """The schedule for this target; depends on sizes, never on what else runs."""
    return schedule_with(problem, target, ranked_tiles(problem, target)[0])


def ranked_tiles(problem: ContractionProblem, target: GpuTarget) -> tuple[BlockTile, ...]:
    """All tiles for a contraction, those with the least estimated time first."""
    groups = (problem.batch, problem.rows, problem.columns, problem.reduced)
    batch, rows, columns, depth = (known_extent(group.size) for group in groups)
    is_matrix = target.matrix_shape(problem.dtype) is not None
    probe = schedule_with(problem, target, MATRIX_PROBE if is_matrix else PROBE)
    sides = _side(probe.rows), _side(probe.columns)
    sizes = Sizes(batch, rows, columns, depth, probe.rows.dtype.bytes, *sides)
    is_static = all(isinstance(group.size, int) for group in groups)
    return rank_tiles(target, sizes, is_matrix, is_static)


def _side(panel: Panel) -> Side:
    """How the elements of a side are brought, whatever the tile."""
    place = Place(variable("batch"), variable("tile"), variable("step"))
    factor = panel.factor(place, variable("position"), variable("k"), 0)
    divided = any(
        isinstance(atom, Composite) and atom.kind in ("floordiv", "mod")
        for load in subexpressions(factor)
        if isinstance(load, Load)
        for index in load.indices
        for atom in atoms(index)
    )
    return Side(panel.chunk, panel.is_copy, is_even=not divided)


def schedule_with(problem: ContractionProblem, target: GpuTarget, tile: BlockTile) -> Schedule:
    """The schedule with a tile."""
    dtype = problem.dtype if tile.is_matrix else sum_type(problem.dtype)
    rows = make_panel(problem, "rows", tile, dtype, target)
    columns = make_panel(problem, "columns", tile, dtype, target)
    if not tile.is_matrix:
        return Schedule(tile, rows, columns, ThreadWork(tile, rows, columns, dtype))
    shape = target.matrix_shape(dtype)
    assert shape is not None, "the target has instructions for the tile"
    return Schedule(tile, rows, columns, WarpWork(tile, rows, columns, shape))


def known_extent(size: Dim) -> int:
    """The size, or what stands for one that is known only at run time."""
    return size if isinstance(size, int) else UNKNOWN_EXTENT
