"""The threads of a block, in the interpreter of the loop IR: they run by turns.

A thread runs until it comes to what it does together with others: a barrier, or something that the
threads of a warp do as one.  When all of them have come to the same, they go on.  It is an error if
they come to different ones, or if some have ended.

Between two barriers nothing orders the threads of a block.  An element that one of them writes and
another one reads or writes meanwhile is a race, and an error.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from mapsto.lowering.loop_values import (
    LoopError,
    State,
    evaluate,
    index_value,
    place_of,
    read_element,
)
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loop_warps import WARP, exchange, offer, take
from mapsto.lowering.loops import (
    AsyncCopy,
    Barrier,
    Buffer,
    CommitCopies,
    For,
    If,
    Let,
    LoadMatrix,
    LoopKind,
    MatrixMultiply,
    Shuffle,
    Space,
    Statement,
    WaitCopies,
)

__all__ = ["run_threads"]

_Place = tuple[str, tuple[int, ...]]
_Meeting = tuple[Statement, Any]
"""What a thread has come to, and what it brings there."""
_Thread = Generator[_Meeting, Any, None]


def run_threads(state: State, loop: For, run: Callable[[State, Statement], None]) -> None:
    """Run the thread loops that a statement is, `run` being how other statements are."""
    loops = [loop]
    while isinstance(inner := loops[-1].body[0], For) and inner.kind is LoopKind.THREAD:
        loops.append(inner)
    ranges = (range(index_value(state, each.stop)) for each in loops)
    body, races = loops[-1].body, _Races()
    special = _special_statements(body)
    threads = []
    for number, place in enumerate(product(*ranges)):
        variables = dict(zip((each.variable for each in loops), place, strict=True))
        own = _own(state, variables, _Observed(races, number))
        threads.append(_Runner(own, run, special).block(body))
    _take_turns(threads, races)


def _own(state: State, variables: dict[str, int], observer: _Observed) -> State:
    """The state of a thread: what it binds and allocates is its own."""
    return State(
        state.sizes,
        {**state.variables, **variables},
        dict(state.lets),
        dict(state.arrays),
        dict(state.written),
        observer,
    )


# ---- turns


def _take_turns(threads: Sequence[_Thread], races: _Races) -> None:
    """Run threads from barrier to barrier until all end."""
    warps = [threads[first : first + WARP] for first in range(0, len(threads), WARP)]
    while True:
        came = [_to_barrier(warp) for warp in warps]
        if any(each is not came[0] for each in came):
            raise LoopError("threads of a block end, or wait at another barrier, while some wait")
        if came[0] is None:
            return
        races.forget()


def _to_barrier(warp: Sequence[_Thread]) -> Statement | None:
    """Run the threads of a warp to the next barrier; None: they have ended."""
    gifts: Sequence[Any] = [None] * len(warp)
    while True:
        meetings = [_advance(thread, gift) for thread, gift in zip(warp, gifts, strict=True)]
        statement = meetings[0] and meetings[0][0]
        if any((meeting and meeting[0]) is not statement for meeting in meetings):
            raise LoopError("threads of a warp are at different places when they should meet")
        if statement is None or isinstance(statement, Barrier):
            return statement
        gifts = exchange(statement, [meeting[1] for meeting in meetings if meeting])


def _advance(thread: _Thread, gift: Any) -> _Meeting | None:
    try:
        return thread.send(gift)
    except StopIteration:
        return None


# ---- one thread


_MEETINGS = (Barrier, LoadMatrix, MatrixMultiply)
_COPIES = (AsyncCopy, CommitCopies, WaitCopies)
_Copy = tuple[Buffer, tuple[int, ...], list[Any]]


@dataclass(slots=True)
class _Runner:
    """Runs the statements of a thread, and keeps the copies that are under way."""

    state: State
    run: Callable[[State, Statement], None]
    special: frozenset[int]
    begun: list[_Copy] = field(default_factory=list)
    groups: list[list[_Copy]] = field(default_factory=list)

    def block(self, body: tuple[Statement, ...]) -> _Thread:
        """Run statements up to the next meeting, and so on."""
        for statement in body:
            if id(statement) in self.special:
                yield from self._special(statement)
            else:
                self.run(self.state, statement)

    def _special(self, statement: Statement) -> _Thread:
        state = self.state
        match statement:
            case Let(value=Shuffle()) | Barrier() | LoadMatrix() | MatrixMultiply():
                take(state, statement, (yield statement, offer(state, statement)))
            case If(condition, then, otherwise):
                yield from self.block(then if evaluate(state, condition) else otherwise)
            case For(variable, start, stop):
                first, last = index_value(state, start), index_value(state, stop)
                for number in range(first, last, statement.step):
                    state.variables[variable] = number
                    yield from self.block(statement.body)
            case AsyncCopy():
                self._begin_copy(statement)
            case CommitCopies():
                self.groups.append(self.begun)
                self.begun = []
            case WaitCopies(pending):
                while len(self.groups) > pending:
                    self._finish(self.groups.pop(0))

    def _begin_copy(self, copy: AsyncCopy) -> None:
        """Read what is copied; until it is waited for the target is undefined."""
        state, source = self.state, copy.source
        values = [0] * copy.count
        if source.guard is None or evaluate(state, source.guard):
            values = [
                read_element(state, source.buffer, (*source.indices[:-1], source.indices[-1] + n))
                for n in range(copy.count)
            ]
        place = place_of(state, copy.buffer, copy.indices)
        for each in _neighbours(place, copy.count):
            # The copy stands for its value: no two are the same.
            state.written[copy.buffer.name][each] = False
            if state.observer is not None:
                state.observer.writes(copy.buffer, each, values)
        self.begun.append((copy.buffer, place, values))

    def _finish(self, group: list[_Copy]) -> None:
        for buffer, first, values in group:
            for place, value in zip(_neighbours(first, len(values)), values, strict=True):
                self.state.arrays[buffer.name][place] = value
                self.state.written[buffer.name][place] = True


def _neighbours(place: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    return [(*place[:-1], place[-1] + n) for n in range(count)]


def _special_statements(body: tuple[Statement, ...]) -> frozenset[int]:
    """The statements in which a thread may meet others, or copy: their identities."""
    return frozenset(id(s) for s in statements(body) if any(map(_is_special, statements((s,)))))


def _is_special(statement: Statement) -> bool:
    if isinstance(statement, Let):
        return isinstance(statement.value, Shuffle)
    return isinstance(statement, (*_MEETINGS, *_COPIES))


# ---- races


@dataclass(slots=True)
class _Races:
    """Who has read and written which element since the last barrier; -1: several have."""

    readers: dict[_Place, int] = field(default_factory=dict)
    writers: dict[_Place, tuple[int, Any]] = field(default_factory=dict)

    def forget(self) -> None:
        """A barrier: what comes after is ordered."""
        self.readers.clear()
        self.writers.clear()

    def read(self, thread: int, place: _Place) -> None:
        """A thread reads an element."""
        writer = self.writers.get(place)
        if writer is not None and writer[0] != thread:
            raise LoopError(_race(place, "read", thread, writer[0]))
        self.readers[place] = thread if self.readers.get(place, thread) == thread else -1

    def write(self, thread: int, place: _Place, value: Any) -> None:
        """A thread writes an element; it is no race if several write the same."""
        writer, reader = self.writers.get(place), self.readers.get(place, thread)
        if writer is not None and writer[0] != thread and writer[1] != value:
            raise LoopError(_race(place, "written", thread, writer[0]))
        if reader != thread:
            raise LoopError(_race(place, "written", thread, reader))
        self.writers[place] = thread, value


def _race(place: _Place, what: str, thread: int, other: int) -> str:
    name, indices = place
    by = f"thread {other} uses" if other >= 0 else "others use"
    return f"`{name}` is {what} at {list(indices)} by thread {thread}, while {by} it"


@dataclass(frozen=True, slots=True)
class _Observed:
    """Accesses of one thread."""

    races: _Races
    thread: int

    def reads(self, buffer: Buffer, place: tuple[int, ...]) -> None:
        """An element is read."""
        if buffer.space is not Space.REGISTER:
            self.races.read(self.thread, (buffer.name, place))

    def writes(self, buffer: Buffer, place: tuple[int, ...], value: Any) -> None:
        """An element is written."""
        if buffer.space is not Space.REGISTER:
            self.races.write(self.thread, (buffer.name, place), value)
