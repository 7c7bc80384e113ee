"""The loops of sums that are weighted by what is computed from products, on a GPU.

    for block:
        shared  rows of each product, keys of each[2 stages], values[2 stages]
        for thread:
            sums = 0                                           of its rows
            for part of the keys:
                wait for the keys and values of the part; barrier
                copy those of the next part
                products = rows x keys                         a thread's, in registers
                weights  = f(products)
                sums += weights x values
            sums of the tile -> epilogue

Each block has rows of its own, so nothing is added up by several; the order of all sums depends on
sizes and the target alone.  Where the weights of parts are zero for certain (`product_horizon`),
the block does not go over these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from mapsto.ir.dims import Dim, ceil_div, product
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.gpu.contraction_blocks import (
    LANE,
    bring,
    split_flat,
    use_run,
    where,
    within_side,
)
from mapsto.lowering.gpu.contraction_fragments import WarpWork
from mapsto.lowering.gpu.contraction_panels import (
    THREAD,
    HeldPanel,
    Panel,
    Place,
    Share,
    Use,
    make_panel,
)
from mapsto.lowering.gpu.contraction_threads import ThreadWork
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.product_horizon import ProductHorizon, find_product_horizon
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.votes import Vote
from mapsto.lowering.gpu.weighted_parts import (
    KeyParts,
    add_values,
    held_weights,
    look_at_values,
    may_stop,
)
from mapsto.lowering.gpu.weighted_rows import over
from mapsto.lowering.gpu.weighted_tiles import STAGES, WeightedTile
from mapsto.lowering.indexed import Indices
from mapsto.lowering.indices import Index, from_dim, value_of, variable
from mapsto.lowering.loops import (
    Allocate,
    Expression,
    For,
    If,
    LoopKind,
    Statement,
    all_of,
    apply,
    cast,
    compare,
    constant,
    select,
)
from mapsto.lowering.weighted_problem import ProductProblem

__all__ = ["product_body"]


def product_body(
    problem: ProductProblem, tile: WeightedTile, target: GpuTarget
) -> tuple[Statement, ...]:
    """The launch that computes the sums and hands each to the epilogue."""
    dtype = problem.values.dtype if tile.fits.is_matrix else sum_type(problem.values.dtype)

    def panel(side: str, number: int, stages: int) -> Panel:
        own = replace(tile.products[number], stages=stages)
        made = make_panel(problem.products[number], side, own, dtype, target)
        return replace(made, name=f"{side}{number}_panel")

    numbers = range(len(problem.products))
    panels = _Panels(
        rows=tuple(panel("rows", number, 1) for number in numbers),
        keys=tuple(panel("columns", number, STAGES) for number in numbers),
        values=replace(
            make_panel(problem.values, "columns", tile.values, dtype, target), name="values_panel"
        ),
    )
    first = problem.products[0]
    stops = may_stop(first.rows, first.columns, tile.fits)
    horizon = find_product_horizon(problem) if stops else None
    return (_Blocks(problem, tile, panels, target, horizon).loop(),)


@dataclass(frozen=True, slots=True)
class _Panels:
    """What a block has in shared memory: its rows, and keys and values of the parts under way."""

    rows: tuple[Panel, ...]
    keys: tuple[Panel, ...]
    values: Panel

    @property
    def all(self) -> tuple[Panel, ...]:
        """All of them."""
        return *self.rows, *self.keys, self.values


@dataclass(frozen=True, slots=True)
class _Blocks:
    problem: ProductProblem
    tile: WeightedTile
    panels: _Panels
    target: GpuTarget
    horizon: ProductHorizon | None

    def loop(self) -> Statement:
        """The loop over blocks."""
        batch, tile = split_flat(variable("block"), self._grid())
        if self.horizon is not None and not self.horizon.is_first:
            # Blocks that see most come first, so that short ones fill up the end.
            tile = from_dim(self._grid()[1]) - 1 - tile
        place = batch, tile * self.tile.fits.rows
        thread = For(
            THREAD, 0, self.tile.fits.threads, tuple(self._thread(*place)), LoopKind.THREAD
        )
        shared = [panel.buffer for panel in self.panels.all]
        shared += [] if self._held is None else [self._held.buffer]
        shared += [] if self.horizon is None else [self._vote.slots]
        body: tuple[Statement, ...] = (*map(Allocate, shared), thread)
        return For("block", 0, from_dim(product(self._grid())), body, LoopKind.BLOCK)

    def _grid(self) -> tuple[Dim, Dim]:
        first = self.problem.products[0]
        return first.batch.size, ceil_div(first.rows.size, self.tile.fits.rows)

    @property
    def _steps(self) -> Index:
        return from_dim(ceil_div(self.problem.products[0].columns.size, self.tile.fits.columns))

    # ---- how a block multiplies

    @property
    def _dtype(self) -> DType:
        return self.panels.values.dtype

    @property
    def _held(self) -> HeldPanel | None:
        """Where weights pass through shared memory, if they do."""
        return held_weights(self.tile.fits, self._dtype)

    @property
    def _products(self) -> list[ThreadWork | WarpWork]:
        sides = zip(self.tile.products, self.panels.rows, self.panels.keys, strict=True)
        return [
            self._work(tile, rows, keys, f"products{number}")
            for number, (tile, rows, keys) in enumerate(sides)
        ]

    @property
    def _values(self) -> ThreadWork | WarpWork:
        return self._work(self.tile.values, self._held, self.panels.values, "sums")

    def _work(
        self, tile: BlockTile, rows: Panel | HeldPanel | None, columns: Panel, name: str
    ) -> ThreadWork | WarpWork:
        if not tile.is_matrix:
            assert rows is not None, "threads read both sides from shared memory"
            return ThreadWork(tile, rows, columns, self._dtype, name)
        shape = self.target.matrix_shape(self._dtype)
        assert shape is not None and not isinstance(rows, HeldPanel), "there are instructions"
        return WarpWork(tile, rows, columns, shape, name)

    # ---- threads

    def _thread(self, batch: Index, row: Index) -> list[Statement]:
        places = [(panel, Place(batch, row, 0)) for panel in self.panels.rows]
        begin, end = bring(places, 0, 0, 1)
        steps = (
            self._go_over(batch, row, 0, self._steps)
            if self.horizon is None
            else self._where_seen(self.horizon, batch, row)
        )
        return [
            *(allocate for panel in self.panels.all for allocate in panel.allocate()),
            *(statement for work in self._products for statement in work.begin()),
            *self._values.begin(),
            *begin,
            *end,
            *steps,
            *self._values.results(self._use(batch, row)),
        ]

    def _go_over(self, batch: Index, row: Index, first: Index, last: Index) -> list[Statement]:
        """Goes over the parts of the keys from one to another."""
        step = variable("step")
        stage, products = step % STAGES, self._products
        multiply = [s for p in products for s in (*p.clear(), *p.multiply(0, stage))]
        use = [
            *self._weigh(batch, row, step * self.tile.fits.columns),
            *add_values(products[0], self._values, self._held, stage),
        ]
        copies = any(panel.is_copy for panel in self.panels.all)
        parts = KeyParts(lambda part: self._part(batch, part), copies)
        return parts.go_over(first, last, multiply, use)

    def _part(self, batch: Index, step: Index) -> list[tuple[Panel, Place]]:
        """The keys and values of a step."""
        first = step * self.tile.fits.columns
        keys = [(panel, Place(batch, first, 0)) for panel in self.panels.keys]
        return [*keys, (self.panels.values, Place(batch, 0, first))]

    # ---- weights

    @property
    def _share(self) -> Share:
        return self._products[0].share

    def _at(self, batch: Index, row: Index, key: Index) -> Indices:
        """The indices of an element of the matrix."""
        first = self.problem.products[0]
        point = {**first.batch.split(batch), **first.rows.split(row), **first.columns.split(key)}
        return tuple(point[d] for d in range(first.op.rank))

    def _weigh(self, batch: Index, row: Index, key: Index) -> list[Statement]:
        """Replaces the first product by weights; keys that do not exist have none."""
        share, first = self._share, self.problem.products[0]
        row, key = row + share.row, key + share.column
        exists = within_side(key, first.columns.size, self.tile.fits.columns)
        inside = within_side(row, first.rows.size, self.tile.fits.rows)
        sums = self._products[0].sums

        def use(weight: Expression) -> list[Statement]:
            # The type of the values is that of what they are multiplied with.
            value = cast(cast(weight, self.problem.values.dtype), sums.dtype)
            if exists is not None:
                value = select(exists, value, constant(0, sums.dtype))
            return [sums.store(share.place, value)]

        found = [work.sums[share.place] for work in self._products]
        at = self._at(batch, row, key)
        body = self.problem.access.weight(at, found, all_of(exists, inside), use)
        return over(share.rows, over(share.columns, body))

    # ---- parts without weights

    def _where_seen(self, horizon: ProductHorizon, batch: Index, row: Index) -> list[Statement]:
        """Goes over the parts with weights; over the rest if that can change anything."""
        rows = self.problem.products[0].rows
        own = rows.split(row)[rows.dims[-1]]
        first, last = horizon.steps(own, self.tile.fits, self._steps)
        begin, end = (0, first) if horizon.is_first else (last, self._steps)
        phase, vote = variable("phase"), self._vote
        rest = value_of(vote.result[()])
        look = (*self._look_at(horizon, batch, row, begin, end), *vote.cast())
        # The second time, all there is to do is the rest, or nothing.
        start, stop = first + phase * (begin - first), last + phase * (end - last)
        stop = stop - phase * (end - begin) * (1 - rest)
        phases = (*self._go_over(batch, row, start, stop), If(compare("eq", phase, 0), look))
        return [*vote.begin(), For("phase", 0, 2, phases)]

    @property
    def _vote(self) -> Vote:
        """Whether parts count that were left out."""
        return Vote("beyond", self.tile.fits.threads, self.target)

    def _look_at(
        self, horizon: ProductHorizon, batch: Index, row: Index, begin: Index, end: Index
    ) -> Iterator[Statement]:
        """Says so if there is a weight in those parts, or zero times a value is not zero."""
        yes, width = self._vote.say_yes, self.tile.fits.columns

        def test(weight: Expression) -> list[Statement]:
            return [If(apply("ne", weight, constant(0, weight.type)), (yes,))]

        place = Place(batch, 0, variable("part") * width)
        yield from look_at_values(self.panels.values, self._dtype, place, begin, end, yes)
        if not horizon.is_first:
            share = self._share
            at = self._at(batch, row + share.row, variable("hidden"))
            size = self.problem.products[0].rows.size
            inside = within_side(row + share.row, size, self.tile.fits.rows)
            yield from over(share.rows, where(inside, horizon.weight(at, test)))
            return
        key = variable("turn") * self.tile.fits.threads + variable(THREAD)
        at = self._at(batch, variable("hidden"), key)
        threads = self.tile.fits.threads
        turns = (end * width + (threads - 1)) // threads
        exists = compare("lt", key, end * width)
        yield For("turn", 0, turns, (If(exists, tuple(horizon.weight(at, test))),))

    # ---- results

    def _use(self, batch: Index, first: Index) -> Use:
        problem = self.problem.values

        def use(
            row: Index, column: Index, run: int, value: Callable[[Index], Expression]
        ) -> list[Statement]:
            def results(column: Index, lane: Index) -> list[Statement]:
                point = {
                    **problem.batch.split(batch),
                    **problem.rows.split(first + row),
                    **problem.columns.split(column, lane),
                }
                return list(problem.store(point, cast(value(variable(LANE)), problem.dtype)))

            return use_run(problem, self.tile.values, (first + row, column), run, results)

        return use
