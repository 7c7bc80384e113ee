"""The loops of weighted sums on a GPU: a block has some rows, and goes over the keys once.

    for block:
        shared  rows, keys[2 stages], values[2 stages]
        for thread:
            sums = 0, total = 0, top = -inf                        of its rows
            for part of the keys:
                wait for the keys and values of the part; barrier
                copy those of the next part
                scores  = f(rows x keys)                           a thread's, in registers
                greatest = max(top, scores of the row)             across the threads of a row
                sums, total *= exp(top - greatest);  top = greatest
                weights = exp(scores - top);  total += weights
                sums += weights x values
            total across the threads of a row; sums of the tile -> epilogue

The order of all sums depends on sizes and the target alone.  Where threads multiply on their own,
weights pass through shared memory; matrix instructions take them from the registers in which the
scores were.  A row whose greatest score is infinite, or no number, has no number as its sums and
total, as it has where each score is subtracted from the greatest of all; until the end such a row
is kept finite, since a greater score may come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mapsto.ir.dims import Dim, ceil_div, product
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.gpu.contraction_blocks import LANE, bring, split_flat, use_run
from mapsto.lowering.gpu.contraction_fragments import WarpWork
from mapsto.lowering.gpu.contraction_panels import (
    THREAD,
    HeldPanel,
    Panel,
    Place,
    Use,
    make_panel,
)
from mapsto.lowering.gpu.contraction_threads import ThreadWork
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.votes import Vote
from mapsto.lowering.gpu.weighted_horizon import Horizon, find_horizon
from mapsto.lowering.gpu.weighted_parts import (
    KeyParts,
    add_values,
    held_weights,
    look_at_values,
    may_stop,
)
from mapsto.lowering.gpu.weighted_rows import RunningRows
from mapsto.lowering.gpu.weighted_tiles import STAGES, WeightedTile
from mapsto.lowering.indices import Index, from_dim, value_of, variable
from mapsto.lowering.loops import (
    Allocate,
    Expression,
    For,
    If,
    LoopKind,
    Statement,
    compare,
)
from mapsto.lowering.weighted_problem import WeightedProblem

__all__ = ["weighted_body"]


def weighted_body(
    problem: WeightedProblem, tile: WeightedTile, target: GpuTarget
) -> tuple[Statement, ...]:
    """The launch that computes the weighted sums and hands each to the epilogue."""
    dtype = problem.fits.dtype if tile.fits.is_matrix else sum_type(problem.fits.dtype)
    whole = replace(tile.fits, stages=1)
    values = make_panel(problem.values, "columns", tile.values, dtype, target)
    panels = _Panels(
        rows=make_panel(problem.fits, "rows", whole, dtype, target),
        keys=make_panel(problem.fits, "columns", tile.fits, dtype, target),
        values=replace(values, name="values_panel"),
    )
    horizon = find_horizon(problem)
    if not may_stop(problem.fits.rows, problem.fits.columns, tile.fits):
        horizon = None
    return (_Blocks(problem, tile, panels, target, horizon).loop(),)


@dataclass(frozen=True, slots=True)
class _Panels:
    """What a block has in shared memory: its rows, and keys and values of the parts under way."""

    rows: Panel
    keys: Panel
    values: Panel

    @property
    def all(self) -> tuple[Panel, ...]:
        """The three."""
        return self.rows, self.keys, self.values


@dataclass(frozen=True, slots=True)
class _Blocks:
    problem: WeightedProblem
    tile: WeightedTile
    panels: _Panels
    target: GpuTarget
    horizon: Horizon | None

    def loop(self) -> Statement:
        """The loop over blocks."""
        batch, tile = split_flat(variable("block"), self._grid())
        if self.horizon is not None:
            # Blocks that see most come first, so that short ones fill up the end.
            tile = from_dim(self._grid()[1]) - 1 - tile
        rows = self._rows(batch, tile * self.tile.fits.rows)
        thread = For(THREAD, 0, self.tile.fits.threads, tuple(self._thread(rows)), LoopKind.THREAD)
        shared = [panel.buffer for panel in self.panels.all]
        shared += [] if self._held is None else [self._held.buffer]
        shared += [] if rows.has_shuffle else [rows.slots]
        shared += [] if self.horizon is None else [self._vote.slots]
        body: tuple[Statement, ...] = (*map(Allocate, shared), thread)
        return For("block", 0, from_dim(product(self._grid())), body, LoopKind.BLOCK)

    def _grid(self) -> tuple[Dim, Dim]:
        rows = ceil_div(self.problem.fits.rows.size, self.tile.fits.rows)
        return self.problem.fits.batch.size, rows

    # ---- how a block multiplies

    @property
    def _dtype(self) -> DType:
        return self.panels.keys.dtype

    @property
    def _held(self) -> HeldPanel | None:
        """Where weights pass through shared memory, if they do."""
        return held_weights(self.tile.fits, self._dtype)

    def _rows(self, batch: Index, row: Index) -> RunningRows:
        tile, panels = self.tile, self.panels
        fits: ThreadWork | WarpWork
        values: ThreadWork | WarpWork
        if self._held is None:
            shape = self.target.matrix_shape(self._dtype)
            assert shape is not None, "the target has instructions for the tile"
            fits = WarpWork(tile.fits, panels.rows, panels.keys, shape, "fits")
            values = WarpWork(tile.values, None, panels.values, shape)
        else:
            fits = ThreadWork(tile.fits, panels.rows, panels.keys, self._dtype, "fits")
            values = ThreadWork(tile.values, self._held, panels.values, self._dtype)
        has_shuffle = self.target.has_shuffle
        return RunningRows(self.problem, fits, values, batch, row, has_shuffle)

    # ---- threads

    def _thread(self, rows: RunningRows) -> list[Statement]:
        whole = (self.panels.rows, Place(rows.batch, rows.row, 0))
        begin, end = bring([whole], 0, 0, 1)
        horizon = self.horizon
        steps = self._go_over(rows, 0, self._steps)
        return [
            *(allocate for panel in self.panels.all for allocate in panel.allocate()),
            *rows.fits.begin(),
            *rows.values.begin(),
            *rows.begin(),
            *begin,
            *end,
            *(steps if horizon is None else self._up_to(horizon, rows)),
            *rows.finish(),
            *rows.store_statistics(),
            *rows.values.results(self._use(rows)),
        ]

    def _go_over(self, rows: RunningRows, first: Index, last: Index) -> list[Statement]:
        """Goes over the parts of the keys from one to another."""
        step = variable("step")
        stage, key = step % STAGES, step * self.tile.fits.columns
        multiply = [*rows.fits.clear(), *rows.fits.multiply(0, stage)]
        use = [*rows.see(key), *add_values(rows.fits, rows.values, self._held, stage)]
        copies = any(panel.is_copy for panel in self.panels.all)
        parts = KeyParts(lambda part: self._part(rows, part), copies)
        return parts.go_over(first, last, multiply, use)

    # ---- keys that no row sees

    def _up_to(self, horizon: Horizon, rows: RunningRows) -> list[Statement]:
        """Goes over the parts that the rows see; over the rest if that can change anything."""
        row = self.problem.fits.rows.split(rows.row)[self.problem.fits.rows.dims[-1]]
        last_row = row + (self.tile.fits.rows - 1)
        seen = horizon.steps(last_row, self.tile.fits.columns, self._steps)
        phase, rest = variable("phase"), self._steps - seen
        vote = self._vote
        phases = (
            *self._go_over(rows, phase * seen, seen + phase * rest * value_of(vote.result[()])),
            If(compare("eq", phase, 0), (*self._look_beyond(horizon, rows, seen), *vote.cast())),
        )
        return [*vote.begin(), For("phase", 0, 2, phases)]

    @property
    def _vote(self) -> Vote:
        """Whether keys that no row of the block sees count all the same."""
        return Vote("beyond", self.tile.fits.threads, self.target)

    def _look_beyond(self, horizon: Horizon, rows: RunningRows, seen: Index) -> Iterator[Statement]:
        """Says so if one of them may have a weight, or zero times a value is not zero."""
        width, yes = self.tile.fits.columns, self._vote.say_yes
        place = Place(rows.batch, 0, variable("part") * width)
        yield from look_at_values(self.panels.values, self._dtype, place, seen, self._steps, yes)
        yield from rows.less_than(horizon.least, yes)

    @property
    def _steps(self) -> Index:
        return from_dim(ceil_div(self.problem.fits.columns.size, self.tile.fits.columns))

    def _part(self, rows: RunningRows, step: Index) -> list[tuple[Panel, Place]]:
        """The keys and values of a step."""
        first = step * self.tile.fits.columns
        keys, values = Place(rows.batch, first, 0), Place(rows.batch, 0, first)
        return [(self.panels.keys, keys), (self.panels.values, values)]

    # ---- results

    def _use(self, rows: RunningRows) -> Use:
        problem = self.problem.values

        def use(
            row: Index, column: Index, run: int, value: Callable[[Index], Expression]
        ) -> list[Statement]:
            def results(column: Index, lane: Index) -> list[Statement]:
                point = {
                    **problem.batch.split(rows.batch),
                    **problem.rows.split(rows.row + row),
                    **problem.columns.split(column, lane),
                }
                at = tuple(point[d] for d in range(problem.op.rank))
                return list(self.problem.access.store(at, value(variable(LANE)), rows.total))

            return use_run(problem, self.tile.values, (rows.row + row, column), run, results)

        return use
