"""Runs kernels: groups of threads at the same instruction, the hindmost group first.

All threads of a chunk of blocks begin as one group.  A branch on which they differ splits it;
groups that meet merge.  The group at the lowest position always goes first, which brings threads
together where branches of structured programs join, without an analysis of control flow.
Threads that wait, for their block at a barrier or for their warp, are parked at the instruction
until the others come.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ptx import warps
from ptx.errors import Divergence, Endless, Fault, InvalidProgram
from ptx.memory import GlobalMemory, GlobalView, LocalMemory, Memory, SharedMemory
from ptx.preparing import Launchable, Step, with_place
from ptx.state import ALL, Geometry, Lanes, Memories, State, Triple
from ptx.syntax import Kernel, Variable

Array = np.ndarray

CHUNK = 1 << 14
"""How many threads run at once: many to hide the cost of NumPy calls, few for the caches."""


def launch(
    kernel: Launchable,
    grid: Triple,
    block: Triple,
    arguments: Sequence[object],
    memory: GlobalMemory,
    dynamic_shared: int = 0,
    limit: int = 20_000_000,
) -> None:
    """Runs a grid.  `arguments`: addresses and other integers, or NumPy scalars; `limit`: how many
    instructions each chunk of blocks may execute.  Raises what is wrong (see `errors`)."""
    geometry = Geometry(grid, block)
    _check_launch(kernel, geometry)
    view = memory.opened(kernel.granules["global"])
    parameters = _parameters(kernel.kernel, arguments)
    per_chunk = max(1, CHUNK // geometry.threads)
    for first in range(0, geometry.blocks, per_chunk):
        blocks = min(per_chunk, geometry.blocks - first)
        memories = _memories(kernel, view, parameters, geometry, blocks, dynamic_shared)
        state = State(geometry, first, blocks, kernel.widths, memories)
        with np.errstate(all="ignore"):
            _Chunk(kernel, state, limit).run()
    memory.close(view)


def _check_launch(kernel: Launchable, geometry: Geometry) -> None:
    threads = geometry.threads
    if not 1 <= threads <= 1024 or min(geometry.grid) < 1:
        raise InvalidProgram(f"a launch of {geometry.grid} blocks of {geometry.block} threads")
    directives = kernel.kernel.directives
    most = int(np.prod(directives.get("maxntid", (1024,))))
    exact = int(np.prod(directives.get("reqntid", (threads,))))
    if threads > most or threads != exact:
        raise InvalidProgram(f"{kernel.kernel.name} is not made for {threads} threads")


def _memories(
    kernel: Launchable,
    view: GlobalView,
    parameters: bytes,
    geometry: Geometry,
    blocks: int,
    dynamic: int,
) -> Memories:
    ranges = list(kernel.shared)
    if dynamic:
        if kernel.dynamic_start is None:
            raise InvalidProgram("the kernel has no shared memory of a size given at launch")
        ranges.append((kernel.dynamic_start, kernel.dynamic_start + dynamic))
    return Memories(
        view,
        SharedMemory.of(ranges, blocks, kernel.granules["shared"]),
        LocalMemory.of(kernel.local_size, blocks * geometry.threads, kernel.granules["local"]),
        _read_only("const", kernel.constants),
        _read_only("param", parameters),
    )


def _read_only(name: str, contents: bytes) -> Memory:
    data = np.frombuffer(contents.ljust(-(-len(contents) // 8) * 8 + 8, b"\0"), np.uint8)
    return Memory(name, data, np.ones(len(data), bool), 1)


def _parameters(kernel: Kernel, arguments: Sequence[object]) -> bytes:
    if len(arguments) != len(kernel.parameters):
        raise InvalidProgram(f"{kernel.name} takes {len(kernel.parameters)} arguments")
    contents = b""
    for parameter, value in zip(kernel.parameters, arguments, strict=True):
        start = -(-len(contents) // parameter.alignment) * parameter.alignment
        contents = contents.ljust(start, b"\0") + _bytes_of(parameter, value)
    return contents


def _bytes_of(parameter: Variable, value: object) -> bytes:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value % (1 << 8 * parameter.size)).to_bytes(parameter.size, "little")
    data = np.asarray(value).tobytes()
    if len(data) != parameter.size:
        raise InvalidProgram(f"{parameter.name} has {parameter.size} bytes, not {len(data)}")
    return data


class _Chunk:
    """The groups of a chunk: where threads are."""

    def __init__(self, kernel: Launchable, state: State, limit: int) -> None:
        self.kernel = kernel
        self.steps = kernel.steps
        self.state = state
        self.limit = limit
        self.ready: dict[int, Lanes] = {0: ALL}
        self.parked: dict[int, Array] = {}

    def run(self) -> None:
        while self.ready:
            position = min(self.ready)
            lanes = self.ready.pop(position)
            self._run_group(position, lanes, min(self.ready, default=len(self.steps)))
        if self.parked:
            self._report_parked()

    def _run_group(self, position: int, lanes: Lanes, stop: int) -> None:
        """From a position on, until the group ends, waits, splits or comes to others."""
        while position < stop or position == stop == len(self.steps):
            if position == len(self.steps):
                return self._exit(lanes)
            step = self.steps[position]
            self._count(position, lanes)
            try:
                following = self._advance(step, position, lanes)
            except Fault as error:
                raise with_place(self.kernel.kernel, step.instruction, error) from None
            if following is None:
                return None
            position, lanes = following
        return self._join(position, lanes)

    def _count(self, position: int, lanes: Lanes) -> None:
        self.limit -= 1
        if self.limit < 0:
            instruction = self.steps[position].instruction
            raise Endless(f"{self.kernel.kernel.name} is at line {instruction.line} and goes on")
        self.kernel.counts[position] += self.state.size(lanes)

    def _advance(self, step: Step, position: int, lanes: Lanes) -> tuple[int, Lanes] | None:
        """Executes a step; where the group goes on, or None if it has ended or was put aside."""
        active = self._active(step, lanes)
        if active is None:
            return position + 1, lanes
        if step.action == "run" and step.meeting is None:
            assert step.execute is not None
            step.execute(self.state, active)
            return position + 1, lanes
        if step.action == "branch":
            return self._branch(step.targets[0], position, lanes, active)
        if step.action == "branch by index":
            self._branch_by_index(step, active)
            return self._others(position, lanes, active)
        if step.action == "exit":
            self._exit(active)
            return self._others(position, lanes, active)
        if step.action == "trap":
            raise Fault(f"{self.state.thread(int(self.state.indices(active)[0]))} trapped")
        self._wait(step, position, active)
        return self._others(position, lanes, active)

    def _active(self, step: Step, lanes: Lanes) -> Lanes | None:
        """The lanes that execute a step; None for none of them."""
        if step.guard is None:
            return lanes
        chosen = np.broadcast_to(step.guard(self.state, lanes), (self.state.size(lanes),))
        if not chosen.any():
            return None
        return self.state.narrowed(lanes, chosen)

    def _others(self, position: int, lanes: Lanes, gone: Lanes) -> tuple[int, Lanes] | None:
        """The group without those that left it."""
        if self.state.size(gone) == self.state.size(lanes):
            return None
        rest = np.setdiff1d(self.state.indices(lanes), self.state.indices(gone), True)
        self._join(position + 1, rest)
        return None

    def _branch(
        self, goal: int, position: int, lanes: Lanes, taken: Lanes
    ) -> tuple[int, Lanes] | None:
        everyone = self.state.size(taken) == self.state.size(lanes)
        if everyone and position < goal < min(self.ready, default=goal + 1):
            return goal, lanes
        self._join(goal, taken)
        return self._others(position, lanes, taken)

    def _branch_by_index(self, step: Step, lanes: Lanes) -> None:
        assert step.index is not None
        index = np.broadcast_to(step.index(self.state, lanes), (self.state.size(lanes),))
        for value in np.unique(index):
            if value >= len(step.targets):
                raise Fault(f"a branch to target {value} of {len(step.targets)}")
            self._join(step.targets[value], self.state.indices(lanes)[index == value])

    def _join(self, position: int, lanes: Lanes) -> None:
        """Adds threads to those that are ready at a position."""
        indices = self.state.indices(lanes)
        if position in self.ready:
            indices = np.union1d(indices, self.state.indices(self.ready[position]))
        self.ready[position] = self.state.lanes(indices)

    def _exit(self, lanes: Lanes) -> None:
        self.state.exited[lanes] = True

    def _wait(self, step: Step, position: int, lanes: Lanes) -> None:
        """Parks threads at a step and lets those go on that are complete."""
        here = self.state.indices(lanes)
        if position in self.parked:
            here = np.union1d(here, self.parked.pop(position))
        waiting = self.state.lanes(here)
        complete = self._complete(step, waiting)
        if not complete.all():
            self.parked[position] = here[~complete]
        if complete.any():
            go_on = self.state.narrowed(waiting, complete)
            self._execute_together(step, go_on)
            self._join(position + 1, go_on)

    def _complete(self, step: Step, waiting: Lanes) -> Array:
        """Which of the waiting threads wait for nobody any more."""
        state = self.state
        if step.meeting is not None:
            return warps.complete(state, waiting, step.meeting(state, waiting))
        block = state.block[waiting]
        return np.bincount(block, minlength=state.blocks)[block] == state.threads

    def _execute_together(self, step: Step, lanes: Lanes) -> None:
        if step.execute is not None:
            step.execute(self.state, lanes)
        if step.action == "barrier":
            self.state.pass_barrier(lanes)
        elif step.action == "warp barrier":
            self.state.pass_warp_barrier(lanes)

    def _report_parked(self) -> None:
        """Divergence: says who waits where, and where a thread is that they wait for."""
        position, lanes = next(iter(self.parked.items()))
        step = self.steps[position]
        first = int(lanes[0])
        missing = self._missing(step, first, lanes)
        others = [p for p, waiting in self.parked.items() if missing in waiting]
        where = f"waits at line {self.steps[others[0]].instruction.line}" if others else "has ended"
        waits = f"{self.state.thread(first)} and {len(lanes) - 1} others wait"
        error = Divergence(f"{waits}, but {self.state.thread(missing)} {where}")
        raise with_place(self.kernel.kernel, step.instruction, error)

    def _missing(self, step: Step, lane: int, here: Array) -> int:
        """A thread that a waiting one waits for."""
        state = self.state
        wanted = state.block == state.block[lane]
        if step.meeting is not None:
            mask = step.meeting(state, np.array([lane]))
            wanted = (state.warp_start == state.warp_start[lane]) & ((mask >> state.lane) & 1 == 1)
        wanted[here] = False
        return int(np.flatnonzero(wanted)[0])
