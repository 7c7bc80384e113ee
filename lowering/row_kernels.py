"""Kernels of elementwise ops and reductions: loops over rows, passes over each row.

The rows are the outer indices that all stages share.  Vectors run along the rows, or (columns)
along the last outer index, each lane doing a column of its own; see `vectorize_outer`.  Work is
divided into tasks by sizes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mapsto.ir.core import Value
from mapsto.ir.dims import Dim, product
from mapsto.ir.ops.contraction import Contract, reduction_identity
from mapsto.ir.ops.indexing import ArgMax
from mapsto.ir.stages import Stage
from mapsto.ir.types import DType
from mapsto.lowering.element_rules import contract_product
from mapsto.lowering.indexed import IndexedEmitter, Indices
from mapsto.lowering.indices import Index, floor_div, from_dim, minimum, modulo, variable
from mapsto.lowering.kernel_space import KernelSpace, OuterGroup, vectorize_outer
from mapsto.lowering.kernel_work import COLUMN_BLOCK, rows_per_task, stage_work
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    Expression,
    For,
    IndexValue,
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
from mapsto.lowering.stage_loops import Pass, plan_passes

__all__ = ["RowKernel"]

Body = Callable[[], None]
"""Writes statements into the innermost open block."""

_OPERATIONS = {"sum": "add", "prod": "mul", "max": "max", "min": "min"}
_HALVES = (DType.F16, DType.BF16)


class RowKernel:
    """Writes the statements of a kernel; `outputs` are the buffers of its results."""

    def __init__(
        self, space: KernelSpace, emitter: IndexedEmitter, outputs: Mapping[Value, list[Buffer]]
    ) -> None:
        self.space = space
        self.emitter = emitter
        self.outputs = outputs
        self.plan = plan_passes(space)
        self.columns = vectorize_outer(space)
        self.locals: dict[Value, Buffer] = {}
        self._block_start: Index = 0
        self._outer: dict[str, tuple[Index, ...]] = {}

    def body(self) -> tuple[Statement, ...]:
        """The kernel's statements."""
        with self.emitter.scope() as statements:
            if self.columns:
                self._column_tasks()
            else:
                self._row_tasks()
        return tuple(statements)

    # ---- outer loops

    @property
    def _work(self) -> int:
        """Scalar operations of the whole kernel."""
        return sum(stage_work(stage) for stage in self.space.stages)

    def _row_tasks(self) -> None:
        groups = self.space.groups
        rows = product(tuple(group.extent for group in groups))
        if not groups:
            self._allocate_locals(())
            self._run_passes()
            return
        step = rows_per_task(rows, self._work)
        with self._tasks("row", rows, step) as (start, stop):
            self._allocate_locals(())
            self._loop_over_rows(groups, start, stop)

    def _loop_over_rows(self, groups: Sequence[OuterGroup], start: Index, stop: Index) -> None:
        """Loops over flat row numbers and runs the passes of each row."""
        name = groups[0].name if len(groups) == 1 else "row"
        with self._loop(name, start, stop, LoopKind.SERIAL):
            self._split_row(groups, variable(name))
            self._run_passes()

    def _split_row(self, groups: Sequence[OuterGroup], row: Index) -> None:
        """Makes the groups' indices known from a flat row number."""
        for position in range(len(groups) - 1, -1, -1):
            extent = from_dim(groups[position].extent)
            index = modulo(row, extent) if position else row
            self._define(groups[position], index)
            row = floor_div(row, extent)

    def _define(self, group: OuterGroup, index: Index) -> None:
        """Says what a group's index is; a merged group's are placeholders for it."""
        if len(group.dims) == 1:
            self._outer[group.name] = (index,)
            return
        self._outer[group.name] = tuple(map(variable, group.placeholders))
        self.emitter.merged[self._outer[group.name]] = index

    def _point(self, stage: Stage, inner: Sequence[Index]) -> Indices:
        outer = [index for group in self.space.groups for index in self._outer[group.name]]
        return self.space.point(stage, outer, inner)

    def _column_tasks(self) -> None:
        """Tasks of several rows where there are many, else of blocks of columns."""
        *groups, last = self.space.groups
        rows = product(tuple(group.extent for group in groups))
        step = rows_per_task(rows, self._work)
        if groups and (not isinstance(rows, int) or rows > 2 * step):
            with self._tasks("row", rows, step) as (start, stop):
                self._allocate_locals((last.extent,))
                with self._rows(groups, start, stop):
                    self._columns(last, 0, from_dim(last.extent))
            return
        width = self._column_block(last)
        with self._tasks("block", last.extent, width) as (start, stop):
            self._block_start = start
            self._allocate_locals((width,))
            with self._rows(groups, 0, from_dim(rows)):
                self._columns(last, start, stop)

    def _column_block(self, last: OuterGroup) -> Dim:
        columns = last.extent
        width = rows_per_task(columns, self._work)
        if isinstance(width, int):
            width = -(-width // COLUMN_BLOCK) * COLUMN_BLOCK
        fits = isinstance(columns, int) and isinstance(width, int) and width >= columns
        return columns if fits else width

    @contextmanager
    def _rows(self, groups: Sequence[OuterGroup], start: Index, stop: Index) -> Iterator[None]:
        if not groups:
            yield
            return
        name = groups[0].name if len(groups) == 1 else "row"
        with self._loop(name, start, stop, LoopKind.SERIAL):
            self._split_row(groups, variable(name))
            yield

    def _columns(self, group: OuterGroup, start: Index, stop: Index) -> None:
        plain = all(not self.space.inner_dims(stage) for stage in self.space.stages)
        with self._loop(group.name, start, stop, LoopKind.VECTOR, unroll=0 if plain else 4):
            self._define(group, variable(group.name))
            self._run_passes()

    @contextmanager
    def _tasks(self, name: str, extent: Dim, step: Dim) -> Iterator[tuple[Index, Index]]:
        """A parallel loop over chunks of `step`; plain statements where there is one chunk."""
        whole = from_dim(extent)
        if step == extent or (isinstance(extent, int) and isinstance(step, int) and step >= extent):
            yield 0, whole
            return
        size = from_dim(step)
        count = floor_div(whole + (size - 1), size)
        with self._loop(f"{name}_task", 0, count, LoopKind.PARALLEL):
            start = variable(f"{name}_task") * size
            yield start, minimum(start + size, whole)

    @contextmanager
    def _loop(
        self, name: str, start: Index, stop: Index, kind: LoopKind, unroll: int = 0
    ) -> Iterator[None]:
        with self.emitter.scope(name) as statements:
            yield
        self.emitter.append(For(name, start, stop, tuple(statements), kind, unroll=unroll))

    # ---- values of one row that are kept for later passes

    def _allocate_locals(self, lanes: tuple[Dim, ...]) -> None:
        """Scratch memory of a task for values that are no results; `lanes`: how many columns."""
        for stage in self.space.stages:
            if stage.value not in self.plan.kept or stage.value in self.outputs:
                continue
            inner = [d for d in self.space.inner_dims(stage) if d < stage.rank]
            shape = (*(stage.extents[d] for d in inner), *lanes)
            buffer = Buffer(self.emitter.fresh("row"), stage.value.dtype, shape, Space.LOCAL)
            self.locals[stage.value] = self.emitter.declare(buffer)
            self.emitter.append(Allocate(buffer))

    def _local_address(self, stage: Stage, indices: Indices) -> Indices:
        inner = tuple(indices[d] for d in self.space.inner_dims(stage) if d < stage.rank)
        if not self.columns:
            return inner
        return (*inner, variable(self.space.groups[-1].name) - self._block_start)

    # ---- passes

    def _run_passes(self) -> None:
        for pass_ in self.plan.passes:
            if pass_.separate:
                self._separate_pass(pass_.stages[0])
            else:
                self._common_pass(pass_)
            for stage in pass_.stages:
                self._keep(stage)

    def _keep(self, stage: Stage) -> None:
        """Later passes find the stage in memory."""
        if stage.value not in self.plan.kept:
            return
        if stage.value in self.locals:
            address = lambda indices: self._local_address(stage, indices)  # noqa: E731
            self.emitter.keep(stage.value, self.locals[stage.value], address)
        else:
            self.emitter.keep(stage.value, self.outputs[stage.value][0])

    def _stores(self, stage: Stage, element: Expression, point: Indices) -> list[Statement]:
        place = point[: stage.rank]
        stores: list[Statement] = [
            Store(buffer, self.emitter.merge(place), element)
            for buffer in self.outputs.get(stage.value, ())
        ]
        if stage.value in self.locals:
            address = self._local_address(stage, place)
            stores.append(Store(self.locals[stage.value], address, element))
        return stores

    def _common_pass(self, pass_: Pass) -> None:
        """One loop nest that computes elementwise stages and reductions over all inner indices."""
        reductions = [stage for stage in pass_.stages if not stage.is_map]
        totals = {stage.value: self._start_total(stage) for stage in reductions}
        names = [self.emitter.fresh("j") for _ in pass_.extents]

        def innermost() -> None:
            stores: list[Statement] = []
            for stage in pass_.stages:
                point = self._point(stage, tuple(map(variable, names)))
                if stage.is_map:
                    element = self._element(stage, point)
                    stores += self._stores(stage, element, point)
                else:
                    self._add_term(stage, totals[stage.value], point)
            self.emitter.append(*stores)

        self._nest(names, pass_.extents, innermost, vector=not self.columns)
        for stage in reductions:
            self._finish_total(stage, totals[stage.value])

    def _element(self, stage: Stage, point: Indices) -> Expression:
        place = point[: stage.rank]
        element = self.emitter.let("value", self.emitter.element(stage.value, place))
        self.emitter.know(stage.value, place, element)
        return element

    def _nest(
        self, names: Sequence[str], extents: Sequence[Dim], innermost: Body, vector: bool
    ) -> None:
        """Serial loops around a vector loop (or all serial), with the statements inside."""
        if not names:
            innermost()
            return
        last = len(names) == 1
        kind = LoopKind.VECTOR if last and vector else LoopKind.SERIAL
        with self._loop(names[0], 0, from_dim(extents[0]), kind):
            self._nest(names[1:], extents[1:], innermost, vector)

    # ---- reductions

    def _accumulator(self, dtype: DType) -> Buffer:
        wide = DType.F32 if dtype in _HALVES else dtype
        buffer = Buffer(self.emitter.fresh("total"), wide, (), Space.REGISTER)
        self.emitter.append(Allocate(self.emitter.declare(buffer)))
        return buffer

    def _start_total(self, stage: Stage) -> Buffer:
        assert isinstance(stage.op, Contract)
        total = self._accumulator(stage.value.dtype)
        identity = reduction_identity(stage.op.kind, stage.value.dtype)
        self.emitter.append(Store(total, (), constant(identity, total.dtype)))
        return total

    def _add_term(self, stage: Stage, total: Buffer, point: Indices) -> None:
        assert isinstance(stage.op, Contract)
        term, inside = contract_product(self.emitter, stage.op, point, None)
        wide = cast(term, total.dtype)
        self.emitter.append(Reduce(_OPERATIONS[stage.op.kind], total, (), wide, inside))

    def _finish_total(self, stage: Stage, total: Buffer) -> None:
        point = self._point(stage, [0] * len(self.space.inner_dims(stage)))
        element = self.emitter.let("total", cast(total[()], stage.value.dtype))
        self.emitter.know(stage.value, point[: stage.rank], element)
        self.emitter.append(*self._stores(stage, element, point))

    # ---- stages with a loop for each element

    def _separate_pass(self, stage: Stage) -> None:
        dims = self.space.inner_dims(stage)
        left = [d for d in dims if d < stage.rank]
        names = {d: self.emitter.fresh("j") for d in dims}
        lanes = not self.columns and bool(left) and self.space.is_contiguous(stage, left[-1])

        def innermost() -> None:
            point = self._point(stage, [variable(names[d]) for d in dims])
            along = [(names[d], stage.extents[d]) for d in dims if d >= stage.rank]
            element = self._reduced_element(stage, point, along, not self.columns and not lanes)
            if not left:
                self.emitter.know(stage.value, point[: stage.rank], element)
            self.emitter.append(*self._stores(stage, element, point))

        extents = [stage.extents[d] for d in left]
        self._nest([names[d] for d in left], extents, innermost, lanes)

    def _reduced_element(
        self, stage: Stage, point: Indices, along: list[tuple[str, Dim]], vector: bool
    ) -> Expression:
        names, extents = [name for name, _ in along], [extent for _, extent in along]
        if not isinstance(stage.op, Contract):
            return self._extremum_position(stage, point, names[0], extents[0], vector)
        total = self._start_total(stage)
        self._nest(names, extents, lambda: self._add_term(stage, total, point), vector)
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
            self.emitter.append(Reduce(_OPERATIONS[kind], total, (), term()))

        name, extent, vector = loop
        self._nest([name], [extent], innermost, vector)
        return self.emitter.let("total", total[()])


def _least(kind: str, dtype: DType) -> float | int:
    return int(kind == "min") if dtype is DType.BOOL else reduction_identity(kind, dtype)
