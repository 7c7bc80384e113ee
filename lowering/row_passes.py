"""The passes of a kernel over one row: loops that compute stages, and where values are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from math import prod

from mapsto.ir.core import Value
from mapsto.ir.dims import Dim, product
from mapsto.ir.ops.contraction import Contract, reduction_identity
from mapsto.ir.ops.indexing import ArgMax
from mapsto.ir.stages import Stage, estimate
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import contract_product, sum_type
from mapsto.lowering.indexed import IndexedEmitter, Indices
from mapsto.lowering.indices import Index, flat_offset, from_dim, variable
from mapsto.lowering.kernel_space import (
    MOST_TOTALS,
    SHORT_ROW,
    SHUFFLED_STRIDE,
    KernelSpace,
    OuterGroup,
    vectorize_outer,
)
from mapsto.lowering.kernel_work import Division
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Expression,
    For,
    IndexValue,
    Load,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
    apply,
    cast,
    constant,
    select,
)
from mapsto.lowering.scalar_operations import REDUCTION_OPERATIONS
from mapsto.lowering.stage_loops import Pass, plan_passes

__all__ = ["Bounds", "RowPasses"]

LAID_OUT_STEPS = 16
"""Reductions of one column over so many elements, at most, are laid out."""

Body = Callable[[], None]
"""Writes statements into the innermost open block."""

Range = tuple[Index, Index]
Bounds = Mapping[int, Range]
"""Of some loops of a nest, the range in place of the whole extent."""


class RowPasses:
    """Writes what is done for one row (or, where `columns`, for a vector of columns, of which
    `lane` is the number).

    `outputs` are the buffers of the kernel's results, to which only elements are written for which
    the condition `wanted` holds.
    """

    def __init__(
        self,
        space: KernelSpace,
        emitter: IndexedEmitter,
        outputs: Mapping[Value, list[Buffer]],
        division: Division,
    ) -> None:
        self.space = space
        self.emitter = emitter
        self.outputs = outputs
        self.division = division
        self.plan = plan_passes(space)
        self.columns = vectorize_outer(space, division.least_row)
        self.locals: dict[Value, Buffer] = {}
        self.block_start: Index = 0
        self.lane: Index = 0
        self.outer: dict[str, tuple[Index, ...]] = {}
        self.parts: dict[Value, Buffer] = {}
        self.sums: dict[Value, Load] = {}
        self.part_number: Index = variable("part")
        self.wanted: Expression | None = None

    def define(self, group: OuterGroup, index: Index) -> None:
        """Says what a group's index is; a merged group's are placeholders for it."""
        if len(group.dims) == 1:
            self.outer[group.name] = (index,)
        else:
            self.outer[group.name] = tuple(map(variable, group.placeholders))
            self.emitter.merged[self.outer[group.name]] = index
        extents = (self.space.alignment.outer[dim] for dim in group.dims)
        self.emitter.extents |= zip(self.outer[group.name], extents, strict=True)

    def index(self, group: OuterGroup) -> Index:
        """What a group's index is."""
        place = self.outer[group.name]
        return self.emitter.merged.get(place, place[0])

    def point(self, stage: Stage, inner: Sequence[Index]) -> Indices:
        """The point of a stage's domain at the outer indices that are defined, and these."""
        outer = [index for group in self.space.groups for index in self.outer[group.name]]
        return self.space.point(stage, outer, inner)

    @contextmanager
    def loop(
        self,
        name: str,
        start: Index,
        stop: Index,
        kind: LoopKind,
        step: int = 1,
        unroll: int = 0,
    ) -> Iterator[None]:
        """A loop around the statements that are written inside."""
        with self.emitter.scope(name) as statements:
            yield
        self.emitter.append(For(name, start, stop, tuple(statements), kind, step, unroll=unroll))

    # ---- values of one row that are kept for later passes

    def allocate_locals(self, lanes: tuple[Dim, ...]) -> None:
        """Scratch memory of a task for values that are no results; `lanes`: how many columns."""
        for stage in self.space.stages:
            if stage.value not in self.plan.kept or stage.value in self.outputs:
                continue
            shape = (*self.space.kept_shape(stage), *lanes)
            buffer = Buffer(self.emitter.fresh("row"), stage.value.dtype, shape, Space.LOCAL)
            self.locals[stage.value] = self.emitter.declare(buffer)
            self.emitter.append(Allocate(buffer))

    def _local_address(self, stage: Stage, indices: Indices) -> Indices:
        inner = tuple(indices[d] for d in self.space.inner_dims(stage) if d < stage.rank)
        inner = self.emitter.merge(inner)
        if not self.columns:
            return inner
        return (*inner, self.lane - self.block_start)

    # ---- passes

    def run_passes(self) -> None:
        """Computes all stages at the outer indices that are defined."""
        for pass_ in self.plan.passes:
            if pass_.separate:
                self._separate_pass(pass_.stages[0])
            else:
                self.common_pass(pass_)
            for stage in pass_.stages:
                self.keep(stage)

    def keep(self, stage: Stage) -> None:
        """Later passes find the stage in memory."""
        if stage.value not in self.plan.kept:
            return
        if stage.value in self.locals:
            address = partial(self._local_address, stage)
            self.emitter.keep(stage.value, self.locals[stage.value], address)
        else:
            self.emitter.keep(stage.value, self.outputs[stage.value][0])

    def _stores(self, stage: Stage, element: Expression, point: Indices) -> list[Statement]:
        place = point[: stage.rank]
        stores: list[Statement] = [
            Store(buffer, self.emitter.merge(place), element, self.wanted)
            for buffer in self.outputs.get(stage.value, ())
        ]
        if stage.value in self.locals:
            address = self._local_address(stage, place)
            stores.append(Store(self.locals[stage.value], address, element))
        return stores

    def common_pass(self, pass_: Pass) -> None:
        """One loop nest that computes elementwise stages and reductions over all inner indices."""
        is_first = pass_ is self.plan.passes[0]
        if is_first and self.parts:
            totals = {stage.value: self.combine_parts(stage) for stage in pass_.stages}
        elif is_first and self.sums:
            totals = self.totals_so_far(pass_)
        else:
            totals = self.sum_pass(pass_, {})
        for stage in pass_.stages:
            if not stage.is_map:
                self.finish_total(stage, totals[stage.value])

    def sum_pass(self, pass_: Pass, bounds: Bounds) -> dict[Value, Buffer]:
        """The loop nest of a pass; gives the totals of its reductions.  Those that `sums` has an
        element for go on from that."""
        totals = self.totals_so_far(pass_)
        names = [self.emitter.fresh("j") for _ in pass_.extents]

        def innermost() -> None:
            stores: list[Statement] = []
            for stage in pass_.stages:
                point = self.point(stage, tuple(map(variable, names)))
                if stage.is_map:
                    stores += self._stores(stage, self._element(stage, point), point)
                else:
                    self._add_term(stage, totals[stage.value], point)
            self.emitter.append(*stores)

        loops = self._merged_loops(pass_.extents, names, bounds)
        self._nest_rows(loops, innermost, all(stage.is_map for stage in pass_.stages))
        return totals

    def _nest_rows(self, loops: Mapping[str, Range], innermost: Body, is_map: bool) -> None:
        """The loops over a row.  Where the last elements are so few that they do not fill a vector,
        as the phases of a stride, vectors run along those before."""
        names, ranges = list(loops), list(loops.values())
        *_, before, last = (0, 0, *(stop - start for start, stop in ranges))
        few = isinstance(last, int) and 1 < last <= SHUFFLED_STRIDE
        if self.columns or not is_map or not few or not _fills_vector(before):
            self._nest(names, ranges, innermost, vector=not self.columns)
            return
        strands = partial(self._nest, names[-1:], ranges[-1:], innermost, False)
        self._nest(names[:-1], ranges[:-1], strands, True)

    def _merged_loops(
        self, extents: Sequence[Dim], names: Sequence[str], bounds: Bounds
    ) -> dict[str, Range]:
        """The loops over inner extents whose indices have these names: one for those that are
        merged, or where there are bounds one for each, which make up the merged index."""
        loops: dict[str, Range] = {}
        for run in self.space.runs(extents):
            own, sizes = [variable(names[d]) for d in run], [extents[d] for d in run]
            bound = len(run) == 1 or any(d in bounds for d in run)
            if bound:
                loops |= {names[d]: bounds.get(d, _whole(extents[d])) for d in run}
            if len(run) == 1:
                continue
            whole: Index = flat_offset(own, sizes)
            if not bound:
                name = self.emitter.fresh("j")
                loops[name], whole = _whole(product(tuple(sizes))), variable(name)
            self.emitter.merged[tuple(own)] = whole
            self.emitter.extents |= zip(own, sizes, strict=True)
        return loops

    def totals_so_far(self, pass_: Pass) -> dict[Value, Buffer]:
        """What the reductions of a pass start from, or come to where all of it is in `sums`."""
        reductions = [stage for stage in pass_.stages if not stage.is_map]
        return {stage.value: self.start_total(stage) for stage in reductions}

    def _element(self, stage: Stage, point: Indices) -> Expression:
        place = point[: stage.rank]
        element = self.emitter.let("value", self.emitter.element(stage.value, place))
        self.emitter.know(stage.value, place, element)
        return element

    def _nest(
        self, names: Sequence[str], ranges: Sequence[Range], innermost: Body, vector: bool
    ) -> None:
        """Serial loops around a vector loop (or all serial), with the statements inside."""
        if not names:
            innermost()
            return
        lengths = [stop - start for start, stop in ranges]
        short = all(isinstance(n, int) for n in lengths) and _product(lengths) <= LAID_OUT_STEPS
        kind = LoopKind.UNROLL if short and not vector else LoopKind.SERIAL
        kind = LoopKind.VECTOR if vector and len(names) == 1 else kind
        with self.loop(names[0], *ranges[0], kind):
            self._nest(names[1:], ranges[1:], innermost, vector)

    def part(self) -> Indices:
        """Where the partial result of this part and row is."""
        return (self.part_number, *map(self.index, self.space.groups))

    def combine_parts(self, stage: Stage) -> Buffer:
        """The reduction of the partial results."""
        assert isinstance(stage.op, Contract)
        total, parts = self.start_total(stage), self.parts[stage.value]
        kind = LoopKind.SERIAL if self.columns else LoopKind.VECTOR
        with self.loop("part", 0, from_dim(parts.shape[0]), kind):
            term = cast(parts[self.part()], total.dtype)
            self.emitter.append(Reduce(REDUCTION_OPERATIONS[stage.op.kind], total, (), term))
        return total

    # ---- reductions

    def _accumulator(self, dtype: DType) -> Buffer:
        buffer = Buffer(self.emitter.fresh("total"), sum_type(dtype), (), Space.REGISTER)
        self.emitter.append(Allocate(self.emitter.declare(buffer)))
        return buffer

    def start_total(self, stage: Stage) -> Buffer:
        """A register with what the total of a reduction starts from."""
        assert isinstance(stage.op, Contract)
        total = self._accumulator(stage.value.dtype)
        start = self.sums.get(stage.value) or self.identity(stage)
        self.emitter.append(Store(total, (), start))
        return total

    def identity(self, stage: Stage) -> Expression:
        """What a reduction starts from."""
        assert isinstance(stage.op, Contract)
        value = reduction_identity(stage.op.kind, stage.value.dtype)
        return constant(value, sum_type(stage.value.dtype))

    def _add_term(self, stage: Stage, total: Buffer, point: Indices, at: Indices = ()) -> None:
        assert isinstance(stage.op, Contract)
        term, inside = contract_product(self.emitter, stage.op, point, None)
        wide = cast(term, total.dtype)
        self.emitter.append(Reduce(REDUCTION_OPERATIONS[stage.op.kind], total, at, wide, inside))

    def finish_total(self, stage: Stage, total: Buffer) -> None:
        """Makes the total of a reduction the element of its stage."""
        point = self.point(stage, [0] * len(self.space.inner_dims(stage)))
        element = self.emitter.let("total", cast(total[()], stage.value.dtype))
        self.emitter.know(stage.value, point[: stage.rank], element)
        self.emitter.append(*self._stores(stage, element, point))

    # ---- stages with a loop for each element

    def _separate_pass(self, stage: Stage) -> None:
        dims = self.space.inner_dims(stage)
        left = [d for d in dims if d < stage.rank]
        along = [d for d in dims if d >= stage.rank]
        together = [] if self.columns else self._together(stage, left, along[-1])
        outer = left[: len(left) - len(together)]
        names = {d: self.emitter.fresh("j") for d in dims}
        lanes = not self.columns and not together and self._lanes_across(stage, left, along[-1])

        def innermost() -> None:
            point = self.point(stage, [variable(names[d]) for d in dims])
            if together:
                self._totals_together(stage, point, names, together)
                return
            loops = [(names[d], stage.extents[d]) for d in along]
            element = self._reduced_element(stage, point, loops, not self.columns and not lanes)
            if not left:
                self.emitter.know(stage.value, point[: stage.rank], element)
            self.emitter.append(*self._stores(stage, element, point))

        ranges = [_whole(stage.extents[d]) for d in outer]
        self._nest([names[d] for d in outer], ranges, innermost, lanes)

    def _lanes_across(self, stage: Stage, left: Sequence[int], along: int) -> bool:
        """Whether vectors run across the last of the dimensions that are left, each lane with a
        reduction of its own: where memory is contiguous in it, or reductions do not fill vectors,
        such as those over the windows of a pooling."""
        if not left:
            return False
        length = estimate((stage.extents[left[-1]],))
        short = estimate((stage.extents[along],)) < min(SHORT_ROW, length)
        return short or self.space.is_contiguous(stage, left[-1])

    def _together(self, stage: Stage, left: Sequence[int], along: int) -> list[int]:
        """The last dimensions that are left, of so few elements that all are summed up in one go
        along the reduction, as those of a window are in the gradient by its weights; none where
        vectors cannot run along that, or not as well."""
        near = self.space.is_near(stage, along, SHUFFLED_STRIDE)
        if not isinstance(stage.op, Contract) or not near:
            return []
        found: list[int] = []
        while len(found) < len(left):
            dims = [left[-1 - len(found)], *found]
            if estimate([stage.extents[d] for d in dims]) > MOST_TOTALS:
                break
            found = dims
        known = all(isinstance(stage.extents[d], int) for d in found)
        length = estimate((stage.extents[along],))
        longer = bool(found) and length > estimate((stage.extents[found[-1]],))
        return found if known and longer else []

    def _totals_together(
        self, stage: Stage, point: Indices, names: Mapping[int, str], together: Sequence[int]
    ) -> None:
        """Sums up the elements at all indices of some dimensions: each vector along the reduction
        is added to each of them."""
        assert isinstance(stage.op, Contract)
        extents = [stage.extents[d] for d in together]
        at = tuple(variable(names[d]) for d in together)
        dtype = sum_type(stage.value.dtype)
        totals = Buffer(self.emitter.fresh("totals"), dtype, tuple(extents), Space.REGISTER)
        self.emitter.append(Allocate(self.emitter.declare(totals)))

        def each(body: Body) -> None:
            self._nest([names[d] for d in together], [_whole(e) for e in extents], body, False)

        def finish() -> None:
            element = self.emitter.let("total", cast(totals[at], stage.value.dtype))
            self.emitter.append(*self._stores(stage, element, point))

        each(lambda: self.emitter.append(Store(totals, at, self.identity(stage))))
        along = [d for d in self.space.inner_dims(stage) if d >= stage.rank]
        ranges = [_whole(stage.extents[d]) for d in along]
        add = partial(self._add_term, stage, totals, point, at)
        self._nest([names[d] for d in along], ranges, lambda: each(add), True)
        each(finish)

    def _reduced_element(
        self, stage: Stage, point: Indices, along: list[tuple[str, Dim]], vector: bool
    ) -> Expression:
        names, extents = [name for name, _ in along], [extent for _, extent in along]
        if not isinstance(stage.op, Contract):
            return self._extremum_position(stage, point, names[0], extents[0], vector)
        total = self.start_total(stage)
        ranges = [_whole(extent) for extent in extents]
        self._nest(names, ranges, lambda: self._add_term(stage, total, point), vector)
        return self.emitter.let("total", cast(total[()], stage.value.dtype))

    def _extremum_position(
        self, stage: Stage, point: Indices, name: str, extent: Dim, vector: bool
    ) -> Expression:
        """The first position of the extremum: one pass finds the value, one the position."""
        assert stage.op is not None
        kind = "max" if isinstance(stage.op, ArgMax) else "min"
        (x,) = stage.op.operands
        dims = list(point[: stage.rank])
        axis = stage.op.attributes["axis"]
        assert isinstance(axis, int)
        place = (*dims[:axis], variable(name), *dims[axis:])
        loop = (name, extent, vector)
        best = self._reduce(kind, x.dtype, loop, lambda: self.emitter.element(x, place))

        def position() -> Expression:
            element = self.emitter.let("x", self.emitter.element(x, place))
            found = apply("eq", element, best)
            if x.dtype.is_float:
                found = apply("or", found, apply("ne", element, element))
            here = IndexValue(variable(name), DType.I32)
            return select(found, here, constant(2**31 - 1, DType.I32))

        return self._reduce("min", DType.I32, loop, position)

    def _reduce(
        self,
        kind: str,
        dtype: DType,
        loop: tuple[str, Dim, bool],
        term: Callable[[], Expression],
    ) -> Expression:
        """A reduction over one loop: its variable, its extent, whether it is in vectors."""
        total = Buffer(self.emitter.fresh("total"), dtype, (), Space.REGISTER)
        self.emitter.append(Allocate(self.emitter.declare(total)))
        identity = constant(_least(kind, dtype), dtype)
        self.emitter.append(Store(total, (), identity))

        def innermost() -> None:
            self.emitter.append(Reduce(REDUCTION_OPERATIONS[kind], total, (), term()))

        name, extent, vector = loop
        self._nest([name], [_whole(extent)], innermost, vector)
        return self.emitter.let("total", total[()])


def _fills_vector(length: Index) -> bool:
    return isinstance(length, int) and length >= SHORT_ROW


def _product(lengths: Sequence[Index]) -> int:
    return prod(length for length in lengths if isinstance(length, int))


def _whole(extent: Dim) -> Range:
    return 0, from_dim(extent)


def _least(kind: str, dtype: DType) -> float | int:
    return int(kind == "min") if dtype is DType.BOOL else reduction_identity(kind, dtype)
