"""Panels: what the threads of a block copy of an operand into shared memory.

A panel holds `width` rows (or columns) of an operand times `depth` steps of the reduction.  Threads
copy chunks of neighbours in memory, the next thread the next chunk, so that a warp reads whole
lines.  A chunk that is a plain copy goes from global to shared memory without passing through
registers where the target can do that; what is computed on the way, or changes its order, is read
into registers before the work on the current panel and written after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mapsto.ir.dims import Dim
from mapsto.ir.stages import estimate
from mapsto.ir.types import DType
from mapsto.lowering.contraction_problem import ContractionProblem, Group
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.vector_access import LARGEST_ACCESS, with_lane
from mapsto.lowering.indices import Index, from_dim, minimum, variable
from mapsto.lowering.loops import (
    Allocate,
    AsyncCopy,
    Buffer,
    Expression,
    For,
    If,
    Load,
    LoopKind,
    Space,
    Statement,
    Store,
    cast,
    compare,
)

__all__ = [
    "THREAD",
    "HeldPanel",
    "Panel",
    "Place",
    "Share",
    "Use",
    "is_multiple",
    "make_panel",
    "over_lanes",
]

SECTOR = 32
"""Bytes that memory is read in, at least."""
THREAD = "thread"
"""The variable of the thread loop."""
_LANE = "e"
Use = Callable[[Index, Index, int, Callable[[Index], Expression]], list[Statement]]
"""What is done with a run of sums beside each other: given the row and the first column in the
tile, how many there are, and the value of each."""
_ChunkBody = Callable[[Index, Index], list[Statement]]
"""The statements for a chunk that begins at a position and step of the panel."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a panel is in its operand: the flat batch, the first position along its side, and the
    first step of the reduction."""

    batch: Index
    first: Index
    k: Index


@dataclass(frozen=True, slots=True)
class Panel:
    """One side of a block's tile in shared memory.

    `along_k`: neighbours in memory are neighbours along the reduction, in chunks of `chunk`
    elements.  `k_last`: they are neighbours in shared memory too, which is laid out
    [stage][position][k]; else [stage][k][position].  Rows of shared memory are `padding` elements
    longer than they need be, so that what a warp reads at once is in different banks.
    """

    problem: ContractionProblem
    name: str
    operand: int
    group: Group
    width: int
    depth: int
    stages: int
    threads: int
    dtype: DType
    padding: int
    along_k: bool
    k_last: bool
    chunk: int
    is_copy: bool
    """Whether chunks go to shared memory directly."""

    @property
    def buffer(self) -> Buffer:
        """The shared memory for all stages."""
        outer, inner = (self.width, self.depth) if self.k_last else (self.depth, self.width)
        shape = (self.stages, outer, inner + self.padding)
        return Buffer(self.name, self.dtype, shape, Space.SHARED, alignment=LARGEST_ACCESS)

    @property
    def fetched(self) -> Buffer:
        """The registers between global and shared memory."""
        dtype = self.factor(Place(0, 0, 0), 0, 0, 0).type
        return Buffer(f"{self.name}_ahead", dtype, (self._rounds, self.chunk), Space.REGISTER)

    def at(self, stage: Index, position: Index, k: Index) -> tuple[Index, ...]:
        """Where an element of the panel is in the buffer."""
        return (stage, position, k) if self.k_last else (stage, k, position)

    # ---- copying

    def copy(self, place: Place, stage: Index) -> list[Statement]:
        """Starts the copy of a panel that goes to shared memory directly."""
        return self._for_chunks(lambda p, k: [self._copy_chunk(place, stage, p, k)])

    def fetch(self, place: Place) -> list[Statement]:
        """Reads a panel into registers."""
        chunk, lane = variable("chunk"), variable(_LANE)
        target = self.fetched

        def read(position: Index, k: Index) -> list[Statement]:
            value = self._chunk_factor(place, position, k)
            return [over_lanes(target.store((chunk, lane), value), _LANE, self.chunk)]

        return self._for_chunks(read)

    def look_at(
        self, place: Place, use: Callable[[Expression], list[Statement]]
    ) -> list[Statement]:
        """Reads the chunks of a panel, one after the other, and uses each of their elements."""
        lane = variable(_LANE)
        target = replace(self.fetched, name=f"{self.name}_seen", shape=(self.chunk,))

        def read(position: Index, k: Index) -> list[Statement]:
            store = target.store((lane,), self._chunk_factor(place, position, k))
            used = For(_LANE, 0, self.chunk, tuple(use(target[lane])), LoopKind.UNROLL)
            return [Allocate(target), over_lanes(store, _LANE, self.chunk), used]

        return self._for_chunks(read, LoopKind.SERIAL)

    def deliver(self, stage: Index) -> list[Statement]:
        """Writes a panel from registers to shared memory."""
        chunk, lane = variable("chunk"), variable(_LANE)
        value = cast(self.fetched[chunk, lane], self.dtype)
        buffer, turned = self.buffer, self.along_k != self.k_last

        def write(position: Index, k: Index) -> list[Statement]:
            position, k = (position, k + lane) if self.along_k else (position + lane, k)
            store = Store(buffer, self.at(stage, position, k), value)
            if turned:
                return [For(_LANE, 0, self.chunk, (store,), LoopKind.UNROLL)]
            return [over_lanes(store, _LANE, self.chunk)]

        return self._for_chunks(write)

    def allocate(self) -> list[Statement]:
        """Declares the registers that a panel passes through."""
        return [] if self.is_copy else [Allocate(self.fetched)]

    @property
    def _rounds(self) -> int:
        """How many chunks a thread copies."""
        return -(-self.width * self.depth // (self.chunk * self.threads))

    def _for_chunks(self, body: _ChunkBody, kind: LoopKind = LoopKind.UNROLL) -> list[Statement]:
        chunks = self.width * self.depth // self.chunk
        flat = variable(THREAD) + variable("chunk") * self.threads
        outer, inner = self._chunk_place(flat)
        statements = tuple(body(outer, inner) if self.along_k else body(inner, outer))
        if chunks % self.threads:
            statements = (If(compare("lt", flat, chunks), statements),)
        return [For("chunk", 0, self._rounds, statements, kind)]

    def _chunk_place(self, flat: Index) -> tuple[Index, Index]:
        """The row of memory in which a chunk is, and where in it.  Where the order changes on the
        way, neighbours share a sector only: then they write to different banks."""
        row = (self.depth if self.along_k else self.width) // self.chunk
        if self.along_k == self.k_last:
            return flat // row, flat % row * self.chunk
        near = min(row, max(1, SECTOR // (self.dtype.bytes * self.chunk)))
        far, rest = flat // (near * self.width), flat % (near * self.width)
        return rest // near, (far * near + rest % near) * self.chunk

    def _copy_chunk(self, place: Place, stage: Index, position: Index, k: Index) -> Statement:
        source = self.factor(place, position, k, 0)
        assert isinstance(source, Load), "a plain copy"
        return AsyncCopy(self.buffer, self.at(stage, position, k), source, self.chunk)

    def _chunk_factor(self, place: Place, position: Index, k: Index) -> Expression:
        if self.chunk == 1:
            return self.factor(place, position, k, 0)
        factor = with_lane(self.factor(place, position, k, variable(_LANE)), _LANE, self.chunk)
        assert factor is not None, "chunks are as wide as one access"
        return factor

    def is_one_access(self) -> bool:
        """Whether a chunk is read in one access."""
        if self.chunk == 1:
            return True
        outer, inner = self._chunk_place(variable(THREAD))
        position, k = (outer, inner) if self.along_k else (inner, outer)
        tile, step = variable("tile") * self.width, variable("step") * self.depth
        if not self._keeps_rows_apart():
            return False
        place = Place(variable("batch"), tile, step)
        factor = self.factor(place, position, k, variable(_LANE))
        return with_lane(factor, _LANE, self.chunk) is not None

    def _keeps_rows_apart(self) -> bool:
        """Whether a chunk never goes on in the next row of the dimension that it lies along."""
        group = self.problem.reduced if self.along_k else self.group
        return is_multiple(group.extents[-1] if group.extents else 1, self.chunk)

    # ---- the operand

    def factor(self, place: Place, position: Index, k: Index, lane: Index) -> Expression:
        """The operand's element at a position and step of the panel, and `lane` further on along
        the chunk; zero past the end of the reduction, past the last position whatever it is."""
        problem, group, reduced = self.problem, self.group, self.problem.reduced
        position, k = place.first + position, place.k + k
        step = 1 if self.along_k else self.chunk
        if not is_multiple(group.size, self.width):
            position = minimum(position, from_dim(group.size) - step)
        guard = None
        if not is_multiple(reduced.size, self.depth):
            guard = compare("lt", k, from_dim(reduced.size))
        point = {
            **problem.batch.split(place.batch),
            **group.split(position, 0 if self.along_k else lane),
            **reduced.split(k, lane if self.along_k else 0),
        }
        return problem.read(self.operand, point, guard)


@dataclass(frozen=True, slots=True)
class HeldPanel:
    """`width` rows times `depth` steps that threads write to shared memory as they have them."""

    name: str
    dtype: DType
    width: int
    depth: int

    @property
    def buffer(self) -> Buffer:
        """The shared memory; rows of it are one access longer, for the sake of banks."""
        shape = (1, self.depth, self.width + LARGEST_ACCESS // self.dtype.bytes)
        return Buffer(self.name, self.dtype, shape, Space.SHARED, alignment=LARGEST_ACCESS)

    def at(self, stage: Index, position: Index, k: Index) -> tuple[Index, ...]:
        """Where an element of the panel is in the buffer."""
        return stage, k, position


@dataclass(frozen=True, slots=True)
class Share:
    """Which sums of a tile a thread has: those at `row` and `column` of the tile, for all values of
    the loops over its `rows` and `columns` (variables and extents), are at `place` in its
    registers.  `lanes` threads beside each other, in one warp or at least one block, have the
    columns of a row together."""

    rows: tuple[tuple[str, int], ...]
    columns: tuple[tuple[str, int], ...]
    row: Index
    column: Index
    place: tuple[Index, ...]
    lanes: int

    @property
    def lane(self) -> Index:
        """The number of the thread among those."""
        return variable(THREAD) % self.lanes


def make_panel(
    problem: ContractionProblem,
    side: str,
    tile: BlockTile,
    dtype: DType,
    target: GpuTarget,
) -> Panel:
    """The panel of the "rows" or "columns" of a block tile, with elements of a type.

    For fragments of matrix instructions shared memory keeps the order of global memory; threads
    that multiply on their own read neighbouring positions.
    """
    is_rows = side == "rows"
    operand = problem.row_operand if is_rows else 1 - problem.row_operand
    group = problem.rows if is_rows else problem.columns
    along_k = _run(problem, operand, problem.reduced) > _run(problem, operand, group)
    k_last = tile.is_matrix and along_k
    turned = along_k != k_last
    each = LARGEST_ACCESS // dtype.bytes
    panel = Panel(
        problem=problem,
        name=f"{side}_panel",
        operand=operand,
        group=group,
        width=tile.rows if is_rows else tile.columns,
        depth=tile.depth,
        stages=tile.stages,
        threads=tile.threads,
        dtype=dtype,
        padding=_padding(tile, each, turned, k_last),
        along_k=along_k,
        k_last=k_last,
        chunk=1,
        is_copy=False,
    )
    if target.has_async_copy and turned and _is_copy(panel):
        return replace(panel, is_copy=True)
    while each > 1 and not _fits(replace(panel, chunk=each)):
        each //= 2
    panel = replace(panel, chunk=each)
    return replace(panel, is_copy=target.has_async_copy and not turned and _is_copy(panel))


def _padding(tile: BlockTile, each: int, turned: bool, k_last: bool) -> int:
    """How many elements longer rows are.  What is read two words at a time, four rows at once, is
    in different banks with twice as many as what is read in matrices."""
    if not (turned or tile.is_matrix):
        return 0
    return 2 * each if k_last and each == LARGEST_ACCESS // 4 else each


def _run(problem: ContractionProblem, operand: int, group: Group) -> int:
    """How many steps along a group are certainly neighbours in memory."""
    if not problem.contiguous_in(operand, group):
        return 0
    return estimate(group.extents[-1:])


def _fits(panel: Panel) -> bool:
    row = panel.depth if panel.along_k else panel.width
    return row % panel.chunk == 0 and panel.is_one_access()


def _is_copy(panel: Panel) -> bool:
    """Whether chunks are elements as they are in memory, in a size that is copied directly."""
    factor = panel.factor(Place(variable("batch"), variable("tile"), variable("step")), 0, 0, 0)
    plain = isinstance(factor, Load) and factor.type is panel.dtype
    return plain and panel.chunk * panel.dtype.bytes in (4, 8, 16)


def over_lanes(statement: Statement, variable: str, lanes: int) -> Statement:
    """The statement for each lane, in one vector."""
    if lanes == 1:
        return For(variable, 0, 1, (statement,), LoopKind.UNROLL)
    return For(variable, 0, lanes, (statement,), LoopKind.VECTOR, lanes=lanes)


def is_multiple(size: Dim, width: int) -> bool:
    """Whether a size is known to be a multiple."""
    return isinstance(size, int) and size % width == 0
