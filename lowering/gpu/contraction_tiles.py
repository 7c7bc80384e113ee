"""Choosing the tiles of a contraction on a GPU, from the target's record, by counting cycles.

A block computes a tile of the result.  It goes over the reduction in steps, each of which brings a
panel of both operands into shared memory and multiplies them; each thread (or, where the target has
matrix instructions for the type, each warp) keeps a part of the tile in registers.  Large tiles
read memory less often, small ones fill more multiprocessors: the estimate weighs, for each
candidate, the waves of blocks against the cycles of one (as "Anatomy of high-performance
many-threaded matrix multiplication" does for cores, Smith et al., 2014).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from math import ceil

from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.vector_access import LARGEST_ACCESS

__all__ = [
    "BlockTile",
    "Side",
    "Sizes",
    "choose_tile",
    "estimated_cycles",
    "rank_tiles",
    "resident_blocks",
    "slowdown",
]

MULTIPLY_ADDS = 128
"""Multiply-adds in f32 that a multiprocessor does in a cycle."""
MATRIX_MULTIPLY_ADDS = 1024
"""The same, of matrix instructions for elements of 16 bits; of 32 bits half as many."""
SCHEDULERS = 4
"""Of a multiprocessor; each starts an instruction of a warp in a cycle."""
SHARED_BYTES = 128
"""Bytes that a multiprocessor reads from shared memory in a cycle."""
MEMORY_BYTES = 24
"""Bytes a cycle that reach a multiprocessor from the second-level cache when all ask for some."""
MEMORY_LATENCY = 600
"""Cycles until what is read from memory is there."""
BLOCK_CYCLES = 1500
"""What a block costs beside its steps: to start, to fill the first panels, to write the result."""
SPLIT_CYCLES = 6000
"""What a second launch, which adds up the parts of a split reduction, costs."""
OTHER_REGISTERS = 40
"""Registers of a thread beside its sums and factors: addresses, counters."""
COPY_INSTRUCTIONS = 10
"""Instructions of a thread for each access that brings elements to shared memory."""
HIDDEN_COST = 0.25
"""What part of the time that is hidden behind other work shows all the same."""
ADDRESS_REGISTERS = 4
"""Registers for an address of 64 bits, and for the indices that tell whether it is inside."""
LARGEST_SPLIT = 32


@dataclass(frozen=True, slots=True)
class BlockTile:
    """`rows x columns` of the result to a block, `depth` steps of the reduction to a panel, of
    which `stages` are in shared memory.  `part_rows x part_columns` are a thread's, or, with matrix
    instructions (`is_matrix`), a warp's.  `splits`: how many blocks share a reduction."""

    rows: int
    columns: int
    depth: int
    part_rows: int
    part_columns: int
    stages: int = 2
    is_matrix: bool = False
    splits: int = 1

    @property
    def parts(self) -> int:
        """How many threads, or warps, a tile is divided among."""
        return (self.rows // self.part_rows) * (self.columns // self.part_columns)

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.parts * (32 if self.is_matrix else 1)

    def shared_bytes(self, element_bytes: int) -> int:
        """About what the panels take, with their padding."""
        padding = 16 // element_bytes
        row = (self.rows + self.columns + 2 * padding) * (self.depth + padding)
        return self.stages * row * element_bytes

    def registers(self, sizes: Sizes) -> int:
        """About how many registers a thread needs."""
        sums = self.rows * self.columns // self.threads
        passing = sum(side.registers * width for side, width in sizes.sides(self)) * self.depth
        factors = 2 * (self.part_rows + self.part_columns)
        if self.is_matrix:
            factors = (self.part_rows + self.part_columns) // 4
        return sums + factors + ceil(passing / self.threads) + OTHER_REGISTERS


@dataclass(frozen=True, slots=True)
class Side:
    """How elements come to shared memory: `chunk` of them at a time, through registers unless they
    are copied directly; `is_even`: at addresses that are the same distance apart."""

    chunk: int
    is_copy: bool = True
    is_even: bool = True

    @property
    def registers(self) -> float:
        """How many registers an element takes on its way, with its part of an address of its own
        and of what tells whether it exists."""
        address = 0 if self.is_even else ADDRESS_REGISTERS
        return address / self.chunk if self.is_copy else 1 + (1 + address) / self.chunk


@dataclass(frozen=True, slots=True)
class Sizes:
    """A product of `rows x depth` by `depth x columns`, `batch` times, with elements of so many
    bytes in shared memory."""

    batch: int
    rows: int
    columns: int
    depth: int
    element_bytes: int
    row_side: Side
    column_side: Side

    def sides(self, tile: BlockTile) -> tuple[tuple[Side, int], tuple[Side, int]]:
        """Both sides, with their extents in a tile."""
        return (self.row_side, tile.rows), (self.column_side, tile.columns)

    def tiles(self, tile: BlockTile) -> int:
        """How many blocks there are, but for those that share a reduction."""
        return self.batch * ceil(self.rows / tile.rows) * ceil(self.columns / tile.columns)


def choose_tile(target: GpuTarget, sizes: Sizes, is_matrix: bool, may_split: bool) -> BlockTile:
    """The tile with the least estimated time."""
    return rank_tiles(target, sizes, is_matrix, may_split)[0]


@cache
def rank_tiles(
    target: GpuTarget, sizes: Sizes, is_matrix: bool, may_split: bool
) -> tuple[BlockTile, ...]:
    """All tiles that fit, those with the least estimated time first."""
    candidates = _matrix_tiles(target) if is_matrix else _thread_tiles(target)
    fitting = [t for t in candidates if _is_candidate(target, sizes, t)]
    choices = (
        replace(tile, splits=splits)
        for tile in fitting
        for splits in (_splits(target, sizes, tile) if may_split else (1,))
    )
    return tuple(sorted(choices, key=lambda tile: estimated_cycles(target, sizes, tile)))


def estimated_cycles(target: GpuTarget, sizes: Sizes, tile: BlockTile) -> float:
    """The cycles from the first block to the last, on the multiprocessor with the most."""
    blocks = ceil(sizes.tiles(tile) * tile.splits / target.processors)
    resident = resident_blocks(target, sizes, tile)
    step = _step_cycles(sizes, tile)
    steps = ceil(sizes.depth / (tile.depth * tile.splits))

    def together(count: int) -> float:
        if not count:
            return 0.0
        latency = MEMORY_LATENCY / (tile.stages - 1)
        work = count * step * slowdown(count * tile.threads // target.warp)
        written = count * tile.rows * tile.columns * 4 / MEMORY_BYTES
        return (
            steps * (max(work, latency) + HIDDEN_COST * min(work, latency)) + BLOCK_CYCLES + written
        )

    total = blocks // resident * together(resident) + together(blocks % resident)
    if tile.splits == 1:
        return total
    partial = sizes.batch * sizes.rows * sizes.columns * tile.splits * 4
    return total + SPLIT_CYCLES + 2 * partial / (MEMORY_BYTES * target.processors)


def slowdown(warps: int) -> float:
    """How much longer a multiprocessor takes with so few warps: each of its schedulers has work if
    there are four, and something else to do while one of them waits if there are eight."""
    return max(1.0, SCHEDULERS / warps) + HIDDEN_COST * max(0.0, 2 * SCHEDULERS / warps - 1)


def _step_cycles(sizes: Sizes, tile: BlockTile) -> float:
    """Cycles of a multiprocessor for one step of a block: it multiplies, reads from shared memory,
    and brings the next panels there.  What takes longest hides most of the rest."""
    each = sizes.element_bytes
    elements = (tile.rows + tile.columns) * tile.depth
    products = tile.rows * tile.columns * tile.depth
    read = tile.parts * (tile.part_rows + tile.part_columns) * tile.depth * each
    chunks = sum(tile.depth * width // side.chunk for side, width in sizes.sides(tile))
    copied = chunks * COPY_INSTRUCTIONS
    if tile.is_matrix:
        loads = read / (LARGEST_ACCESS if each == 2 else 2 * each)
        rate = 2 * MATRIX_MULTIPLY_ADDS / each
        issued = (loads + copied) / MULTIPLY_ADDS + products / rate
    else:
        # Threads of a warp that read the same element are served at once: about half of them.
        read //= 2
        vectors = ceil(tile.part_rows / 4) + ceil(tile.part_columns / 4)
        issued = (products + tile.threads * tile.depth * vectors + copied) / MULTIPLY_ADDS
    cycles = (issued, read / SHARED_BYTES, elements * each / MEMORY_BYTES)
    return max(cycles) + HIDDEN_COST * (sum(cycles) - max(cycles))


def _is_candidate(target: GpuTarget, sizes: Sizes, tile: BlockTile) -> bool:
    """Whether a multiprocessor holds the tile, and it is not twice as large as the result."""
    fits = tile.rows < 2 * max(sizes.rows, 16) and tile.columns < 2 * max(sizes.columns, 16)
    return fits and resident_blocks(target, sizes, tile) > 0


def resident_blocks(target: GpuTarget, sizes: Sizes, tile: BlockTile) -> int:
    """How many blocks a multiprocessor runs at once."""
    registers = tile.registers(sizes)
    if registers > target.max_registers:
        return 0
    shared = tile.shared_bytes(sizes.element_bytes)
    return target.resident_blocks(tile.threads, shared, registers)


def _splits(target: GpuTarget, sizes: Sizes, tile: BlockTile) -> Iterator[int]:
    """In how many parts a reduction may be cut: more than one where blocks are few."""
    splits = 1
    while splits <= LARGEST_SPLIT and splits * tile.depth * 2 <= max(sizes.depth, 2 * tile.depth):
        yield splits
        if sizes.tiles(tile) * splits >= target.processors:
            return
        splits *= 2


def _thread_tiles(target: GpuTarget) -> Iterator[BlockTile]:
    """Tiles of threads: powers of two, in blocks of whole warps."""
    sides, parts = (1, 2, 4, 8, 16, 32, 64, 128), (1, 2, 4, 8)
    for rows, columns, part_rows, part_columns in product(sides, sides, parts, parts):
        if part_rows > rows or part_columns > columns:
            continue
        tile = BlockTile(rows, columns, 16, part_rows, part_columns)
        if target.warp <= tile.threads <= min(256, target.max_threads):
            yield tile


def _matrix_tiles(target: GpuTarget) -> Iterator[BlockTile]:
    """Tiles of warps, whose parts are multiples of 16 x 16, the least that is loaded at once."""
    sides, parts = (16, 32, 64, 128, 256), (16, 32, 64)
    stages = (2, 3, 4) if target.has_async_copy else (2,)
    for rows, columns, part_rows, part_columns in product(sides, sides, parts, parts):
        if part_rows > rows or part_columns > columns:
            continue
        for depth, stage in product((32, 64), stages):
            tile = BlockTile(rows, columns, depth, part_rows, part_columns, stage, True)
            if tile.threads <= 256:
                yield tile
