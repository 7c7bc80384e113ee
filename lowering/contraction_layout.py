"""The sides of a contraction as a schedule lays them out, and the steps of its reduction."""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.lowering.block_columns import BlockColumns
from mapsto.lowering.contraction_plan import RowPart, Schedule, interleaves
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.contraction_sides import Columns, Reader, Rows
from mapsto.lowering.contraction_steps import Steps, steps_of
from mapsto.lowering.contraction_window import Window, column_window, row_window
from mapsto.lowering.loops import Buffer, Statement
from mapsto.lowering.run_columns import RunColumns

__all__ = ["Packing", "columns_of", "rows_of", "steps_for", "window_of"]


@dataclass(frozen=True, slots=True)
class Packing:
    """What packs a side ahead: the packed buffer and the statements that fill it."""

    buffer: Buffer
    body: tuple[Statement, ...]


def rows_of(problem: ContractionProblem, schedule: Schedule, part: RowPart | None = None) -> Rows:
    """The side that is broadcast, or a part of its rows."""
    window, ahead = window_of(problem, schedule, "rows"), "rows" in schedule.ahead
    return Rows(
        "rows",
        problem.rows,
        problem.batch,
        steps_for(problem, schedule),
        _reader(problem, problem.row_operand, window),
        schedule.tile,
        packed=schedule.pack_rows or ahead,
        ahead=ahead,
        k_inner=problem.contiguous_in(problem.row_operand, problem.reduced),
        part=part,
    )


def columns_of(problem: ContractionProblem, schedule: Schedule) -> Columns:
    """The side that is read in vectors."""
    operand = 1 - problem.row_operand
    window, ahead = window_of(problem, schedule, "columns"), "columns" in schedule.ahead
    across = problem.contiguous_in(operand, problem.columns)
    side = Columns(
        "columns",
        problem.columns,
        problem.batch,
        steps_for(problem, schedule),
        _reader(problem, operand, window),
        schedule.tile,
        packed=schedule.pack_columns or ahead,
        ahead=ahead,
        anywhere=window is not None,
        k_run=0 if across else problem.contiguous_dims(operand, problem.reduced),
    )
    if interleaves(problem, schedule):
        return BlockColumns(**side.settings(), blocks=problem.access.blocks)
    return RunColumns(**side.settings(), run=schedule.run) if schedule.run else side


def steps_for(problem: ContractionProblem, schedule: Schedule) -> Steps:
    """The reduction: with loops of their own for some dimensions where elements are read at the
    indices of these."""
    direct = not (schedule.pack_rows and schedule.pack_columns)
    if not direct and not schedule.run:
        return Steps(problem.reduced, 0)
    return steps_of(problem.reduced, schedule.laid_out)


def window_of(problem: ContractionProblem, schedule: Schedule, name: str) -> Window | None:
    """The copy that a side is read from; None where it is read where it lies."""
    if name not in schedule.windows:
        return None
    return row_window(problem) if name == "rows" else column_window(problem, schedule.tile.lanes)


def _reader(problem: ContractionProblem, operand: int, window: Window | None) -> Reader:
    if window is None:
        return lambda point: problem.read(operand, point)
    return lambda point: window.element({**problem.at, **point})
