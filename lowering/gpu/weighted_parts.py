"""What kernels of weighted sums on a GPU have in common: they go over parts of the keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mapsto.ir.types import DType
from mapsto.lowering.contraction_problem import Group
from mapsto.lowering.element_rules import sum_type
from mapsto.lowering.gpu.contraction_blocks import bring
from mapsto.lowering.gpu.contraction_fragments import WarpWork
from mapsto.lowering.gpu.contraction_panels import HeldPanel, Panel, Place, is_multiple
from mapsto.lowering.gpu.contraction_threads import ThreadWork
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.weighted_tiles import STAGES
from mapsto.lowering.indices import Index, variable
from mapsto.lowering.loops import (
    Allocate,
    Barrier,
    Buffer,
    Expression,
    For,
    If,
    Reduce,
    Space,
    Statement,
    WaitCopies,
    apply,
    cast,
    constant,
)

__all__ = ["KeyParts", "add_values", "held_weights", "look_at_values", "may_stop"]


def may_stop(rows: Group, keys: Group, tile: BlockTile) -> bool:
    """Whether there are parts to leave out, and the rows of a tile, and keys, are neighbours."""
    wide = [extent for extent in rows.extents if extent != 1]
    alone = sum(extent != 1 for extent in keys.extents) < 2
    together = alone and (len(wide) < 2 or is_multiple(wide[-1], tile.rows))
    return together and isinstance(keys.size, int) and keys.size > tile.columns


def held_weights(tile: BlockTile, dtype: DType) -> HeldPanel | None:
    """Where weights pass through shared memory, if they do."""
    return None if tile.is_matrix else HeldPanel("weights_panel", dtype, tile.rows, tile.columns)


def add_values(
    weights: ThreadWork | WarpWork,
    values: ThreadWork | WarpWork,
    held: HeldPanel | None,
    stage: Index,
) -> list[Statement]:
    """Adds the values of a stage, with the weights that are where a product was."""
    if isinstance(weights, WarpWork) and isinstance(values, WarpWork):
        return values.multiply_held(weights, stage)
    assert isinstance(weights, ThreadWork) and held is not None
    return [*weights.hand_over(held), Barrier(), *values.multiply(0, stage)]


@dataclass(frozen=True, slots=True)
class KeyParts:
    """The parts of the keys: `of` gives the panels to bring for a step, `has_copies` tells whether
    they come by asynchronous copies."""

    of: Callable[[Index], list[tuple[Panel, Place]]]
    has_copies: bool

    def go_over(
        self,
        first: Index,
        last: Index,
        multiply: Sequence[Statement],
        use: Sequence[Statement],
    ) -> list[Statement]:
        """Goes over the parts from one to another: the next one is on its way while the `step` is
        multiplied, and there before the products are used."""
        step = variable("step")
        begin, end = bring(self.of(first), first % STAGES, first, last)
        start, finish = bring(self.of(step + 1), (step + 1) % STAGES, step + 1, last)
        wait = [WaitCopies(0)] if self.has_copies else []
        body = (*wait, Barrier(), *start, *multiply, *finish, *use)
        return [*begin, *end, For("step", first, last, body)]


def look_at_values(
    values: Panel, dtype: DType, place: Place, first: Index, last: Index, yes: Statement
) -> Iterator[Statement]:
    """The statement if zero times a value of some parts, each `place`d by `part`, is not zero."""
    probe = Buffer("probe", sum_type(dtype), (), Space.REGISTER)
    zero = constant(0, probe.dtype)

    def add(value: Expression) -> list[Statement]:
        return [Reduce("add", probe, (), cast(value, probe.dtype) * zero)]

    yield Allocate(probe)
    yield probe.store((), zero)
    yield For("part", first, last, tuple(values.look_at(place, add)))
    yield If(apply("ne", probe[()], probe[()]), (yes,))
