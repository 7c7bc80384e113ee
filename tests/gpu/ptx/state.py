"""The threads of a chunk of blocks: their registers, their numbers, the memory that they see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ptx.errors import Uninitialized
from ptx.memory import GlobalView, LocalMemory, Memory, SharedMemory
from ptx.queue import CopyQueue
from ptx.races import BLOCK_SHIFT, EPOCH_SHIFT, WARP_EPOCH_SHIFT, Access
from ptx.types import unsigned

Array = np.ndarray
Lanes = slice | np.ndarray
"""Threads of a chunk, in order; all of them are a slice, which is quicker."""

ALL: Lanes = slice(None)
WARP = 32
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Geometry:
    """A launch: blocks and threads of a block in three dimensions."""

    grid: Triple
    block: Triple

    @property
    def blocks(self) -> int:
        return int(np.prod(self.grid))

    @property
    def threads(self) -> int:
        """Of a block."""
        return int(np.prod(self.block))

    def name(self, thread: int) -> str:
        """A thread by its number (see `races`)."""
        block, inside = thread >> BLOCK_SHIFT, thread & ((1 << BLOCK_SHIFT) - 1)
        return f"thread {_place(inside, self.block)} of block {_place(block, self.grid)}"

    def block_name(self, block: int) -> str:
        return f"block {_place(block, self.grid)}"


def _place(index: int, extents: Triple) -> Triple:
    x, y, _ = extents
    return index % x, index // x % y, index // (x * y)


@dataclass
class Memories:
    """What threads see; const and param are read only."""

    globals: GlobalView
    shared: SharedMemory
    local: LocalMemory
    const: Memory
    param: Memory


class State:
    """`first`: the number of the chunk's first block."""

    def __init__(
        self,
        geometry: Geometry,
        first: int,
        blocks: int,
        registers: dict[str, int],
        memories: Memories,
    ) -> None:
        """`registers`: their widths in bits."""
        self.geometry = geometry
        self.first = first
        self.blocks = blocks
        self.memories = memories
        self.threads = geometry.threads
        self.count = blocks * self.threads
        inside = np.tile(np.arange(self.threads), blocks)
        self.block = np.repeat(np.arange(blocks), self.threads)
        self.lane = (inside % WARP).astype(np.uint32)
        self.warp_start = self.block * self.threads + inside // WARP * WARP
        number = ((self.block + first) << BLOCK_SHIFT) | inside
        self.keys = number.astype(np.int64)
        self.exited = np.zeros(self.count, bool)
        self.carry = np.zeros(self.count, bool)
        self.everyone = np.arange(self.count)
        self.copies = CopyQueue(memories.shared, self.count)
        self.special = _special_registers(self, inside)
        self.registers = {
            name: np.full(self.count, 0, unsigned(bits)) for name, bits in registers.items()
        }
        self.defined: dict[str, bool | Array] = dict.fromkeys(registers, False)

    def indices(self, lanes: Lanes) -> Array:
        """Lanes as numbers."""
        return self.everyone if isinstance(lanes, slice) else lanes

    def size(self, lanes: Lanes) -> int:
        return self.count if isinstance(lanes, slice) else len(lanes)

    def narrowed(self, lanes: Lanes, chosen: Array) -> Lanes:
        """The lanes for which a mask of their length holds."""
        if chosen.all():
            return lanes
        return self.indices(lanes)[chosen]

    def lanes(self, indices: Array) -> Lanes:
        """Sorted numbers as lanes."""
        return ALL if len(indices) == self.count else indices

    def read(self, name: str, lanes: Lanes) -> Array:
        """The bits of a register; Uninitialized if a thread has not written it."""
        defined = self.defined[name]
        if defined is not True:
            self._check_defined(name, defined, lanes)
        return self.registers[name][lanes]

    def _check_defined(self, name: str, defined: bool | Array, lanes: Lanes) -> None:
        known = defined[lanes] if isinstance(defined, np.ndarray) else np.zeros(1, bool)
        if not known.all():
            lane = int(self.indices(lanes)[np.flatnonzero(~known)[0]])
            raise Uninitialized(f"{name} was never written by {self.thread(lane)}")

    def write(self, name: str, lanes: Lanes, bits: Array) -> None:
        """Sets a register."""
        self.registers[name][lanes] = bits
        if isinstance(lanes, slice):
            self.defined[name] = True
        elif self.defined[name] is not True:
            self._define(name, lanes)

    def _define(self, name: str, lanes: Lanes) -> None:
        defined = self.defined[name]
        if not isinstance(defined, np.ndarray):
            defined = np.zeros(self.count, bool)
            self.defined[name] = defined
        defined[lanes] = True

    def thread(self, lane: int) -> str:
        """A lane, for messages."""
        return self.name(int(self.keys[lane]) & ((1 << WARP_EPOCH_SHIFT) - 1))

    @property
    def name(self) -> Callable[[int], str]:
        """From a thread's number in the grid to words."""
        return self.geometry.name

    def access(self, lanes: Lanes, atomic: bool = False, constant: bool = False) -> Access:
        """How the lanes access memory now."""
        return Access(self.keys[lanes], self.geometry.name, atomic, constant)

    def pass_barrier(self, lanes: Lanes) -> None:
        """All accesses of these whole blocks so far come before all that follow."""
        # A new array: accesses so far keep theirs.
        self.keys = self.keys.copy()
        epoch = (self.keys[lanes] >> EPOCH_SHIFT) + 1
        thread = self.keys[lanes] & ((1 << WARP_EPOCH_SHIFT) - 1)
        self.keys[lanes] = (epoch << EPOCH_SHIFT) | thread
        if isinstance(lanes, slice):
            self.memories.shared.pass_barrier()

    def pass_warp_barrier(self, lanes: Lanes) -> None:
        """The same for warps."""
        self.keys = self.keys.copy()
        self.keys[lanes] += 1 << WARP_EPOCH_SHIFT


def _special_registers(state: State, inside: Array) -> dict[str, Array | np.uint32]:
    """tid and the like, of 32 bits."""
    geometry = state.geometry
    block = state.block + state.first
    special: dict[str, Array | np.uint32] = {"WARP_SZ": np.uint32(WARP)}
    for letter, i in (("x", 0), ("y", 1), ("z", 2)):
        special[f"%tid.{letter}"] = _coordinate(inside, geometry.block, i)
        special[f"%ctaid.{letter}"] = _coordinate(block, geometry.grid, i)
        special[f"%ntid.{letter}"] = np.uint32(geometry.block[i])
        special[f"%nctaid.{letter}"] = np.uint32(geometry.grid[i])
    lane = state.lane
    bit = np.uint32(1) << lane
    special["%laneid"] = lane
    special["%warpid"] = (inside // WARP).astype(np.uint32)
    special["%nwarpid"] = np.uint32(-(-geometry.threads // WARP))
    special["%lanemask_eq"] = bit
    special["%lanemask_lt"] = bit - np.uint32(1)
    special["%lanemask_le"] = bit | (bit - np.uint32(1))
    special["%lanemask_ge"] = ~(bit - np.uint32(1))
    special["%lanemask_gt"] = ~(bit | (bit - np.uint32(1)))
    return special


def _coordinate(index: Array, extents: Triple, axis: int) -> Array:
    before = int(np.prod(extents[:axis]))
    return (index // before % extents[axis]).astype(np.uint32)
