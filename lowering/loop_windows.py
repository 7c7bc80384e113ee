"""Windows of images, read from copies with the edges around them.

    for i in 0..14:                                  window[0..16, 0..16] = x with zeros around
      for j in 0..14 vector:                         for i in 0..14:
        for r in 0..3, s in 0..3:                      for j in 0..14 vector:
          total += k[r, s] * (x[i + r - 1,       =>      for r in 0..3, s in 0..3:
            j + s - 1] if inside else 0)                   total += k[r, s] * window[i + r, j + s]
            where inside

A convolution of each channel by itself reads every element several times, at the edges under a
condition; the copy has none, is made of each plane as it is needed, and stays in the caches.  Where
neighbours along the vector are a stride apart, its lines are sorted by phase, so that vectors are
read in one go.  What is read is the same; a sum leaves out no more than products with zeros, which
count where the other factor is not finite: whether they do is open (docs/language.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from mapsto.lowering import indices
from mapsto.lowering.indices import Index, ValueOf, atoms, linear_parts, variable
from mapsto.lowering.loop_rewrite import Rewriter
from mapsto.lowering.loop_walk import expressions, statements, stored_buffers
from mapsto.lowering.loops import (
    Allocate,
    Apply,
    Buffer,
    Expression,
    For,
    If,
    IndexValue,
    Let,
    Load,
    LoopKind,
    Reduce,
    Ref,
    Space,
    Statement,
    all_of,
    constant,
)

__all__ = ["copy_windows"]

LARGEST_COPY = 1 << 17
"""Bytes of a copy, part of the second-level cache."""
LEAST_READS = 2
"""How often an element has to be read on average for its copy to pay."""
MOST_PHASES = 4
"""Lines are sorted by so many phases at most."""

Ranges = Mapping[str, tuple[int, int]]
"""The least and the greatest value of the variables of loops."""


def copy_windows(body: Iterable[Statement]) -> tuple[Statement, ...]:
    """The statements of a kernel, with copies before the loops that read windows."""
    return tuple(_Copier().block(body))


@dataclass(frozen=True, slots=True)
class _Loops:
    """The loops around a statement: the ranges of their variables, as far as they are known, the
    other variables, and the variable of the vector loop."""

    ranges: Ranges = field(default_factory=dict)
    others: frozenset[str] = frozenset()
    lanes: str | None = None

    def inside(self, loop: For) -> _Loops:
        """The loops around the statements of one of them."""
        start, stop, ranges, others = loop.start, loop.stop, dict(self.ranges), self.others
        if isinstance(start, int) and isinstance(stop, int) and start < stop:
            ranges[loop.variable] = start, stop - 1
        else:
            others |= {loop.variable}
        lanes = loop.variable if loop.kind is LoopKind.VECTOR else self.lanes
        return _Loops(ranges, others, lanes)


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis of a buffer as a read sees it: the steps of the loops' variables, and the rest."""

    steps: Mapping[str, int]
    rest: Index

    def ends(self, ranges: Ranges) -> tuple[int, int]:
        """The least and the greatest position, apart from the rest."""
        ends = [sorted(step * end for end in ranges[name]) for name, step in self.steps.items()]
        return sum(low for low, _ in ends), sum(high for _, high in ends)


@dataclass(frozen=True, slots=True)
class _Read:
    """A guarded load of a loop, whose guard says that it is inside of the buffer."""

    load: Load
    axes: tuple[_Axis, ...]
    around: _Loops
    conditions: frozenset[Expression]

    @property
    def moving(self) -> tuple[int, ...]:
        """The axes along which it moves in the loop."""
        return tuple(number for number, axis in enumerate(self.axes) if axis.steps)

    @property
    def place(self) -> tuple[object, ...]:
        """What reads of the same copy have in common."""
        return self.load.buffer, self.moving, tuple(axis.rest for axis in self.axes)


@dataclass(frozen=True, slots=True)
class _Window:
    """A copy of what some reads of a buffer see: of each axis along which they move the positions
    from `low` on, of which there are so many as `counts` says; the last one sorted by phase."""

    buffer: Buffer
    source: Load
    moving: tuple[int, ...]
    lows: tuple[int, ...]
    counts: tuple[int, ...]
    phases: int

    def load(self, read: _Read) -> Load:
        """What is read, in the copy."""
        pairs = zip(self.moving, self.lows, strict=True)
        *outer, last = (read.load.indices[axis] - low for axis, low in pairs)
        if self.phases == 1:
            return Load(self.buffer, (*outer, last))
        phase = indices.modulo(last, self.phases)
        return Load(self.buffer, (*outer, phase, indices.floor_div(last, self.phases)))

    def fill(self) -> list[Statement]:
        """The loops that make the copy."""
        return self._fill((), inside=True)

    def _fill(self, at: tuple[Index, ...], inside: bool) -> list[Statement]:
        """Those of the axes behind some indices of the copy."""
        if len(at) == len(self.moving) - 1:
            return [loop for phase in range(self.phases) for loop in self._line(at, phase, inside)]
        depth = len(at)
        name, count = f"{self.buffer.name}.{depth}", self.counts[depth]
        first, last = self._inside(depth, 0, 1, count) if inside else (0, 0)
        parts = [(0, first, False), (first, last, True), (last, count, False)]
        return [
            For(name, start, stop, tuple(self._fill((*at, variable(name)), within)))
            for start, stop, within in parts
            if start < stop
        ]

    def _line(self, at: tuple[Index, ...], phase: int, inside: bool) -> Iterator[Statement]:
        """One phase of a line: zeros, elements, zeros."""
        name, length = f"{self.buffer.name}.q", self.buffer.shape[-1]
        assert isinstance(length, int), "copies have known sizes"
        column = variable(name)
        place = (*at, phase, column) if self.phases > 1 else (*at, column)
        first, last = (0, 0)
        if inside:
            first, last = self._inside(len(at), phase, self.phases, length)
        zero = self.buffer.store(place, constant(0, self.buffer.dtype))
        copy = self.buffer.store(place, self._element((*at, column * self.phases + phase)))
        for start, stop, statement in ((0, first, zero), (first, last, copy), (last, length, zero)):
            if start < stop:
                yield For(name, start, stop, (statement,), LoopKind.VECTOR)

    def _inside(self, depth: int, phase: int, stride: int, count: int) -> tuple[int, int]:
        """Which of the positions `phase + stride * i` of an axis are in the buffer."""
        size = self.source.buffer.shape[self.moving[depth]]
        assert isinstance(size, int), "axes along which reads move have known sizes"
        low = self.lows[depth] + phase
        first = min(max(-(low // stride), 0), count)
        return first, max(first, min(-((low - size) // stride), count))

    def _element(self, at: tuple[Index, ...]) -> Load:
        place = list(self.source.indices)
        for axis, low, index in zip(self.moving, self.lows, at, strict=True):
            place[axis] = index + low
        return Load(self.source.buffer, tuple(place))


@dataclass(slots=True)
class _Copier:
    """Walks over the statements of a kernel; `copies` is how many it has made."""

    copies: int = 0

    def block(self, body: Iterable[Statement]) -> Iterator[Statement]:
        """The statements, with copies before the outermost loops that read them."""
        for statement in body:
            match statement:
                case For(kind=LoopKind.PARALLEL | LoopKind.SERIAL):
                    yield from self._loop(statement)
                case If(condition, then, otherwise):
                    yield If(condition, tuple(self.block(then)), tuple(self.block(otherwise)))
                case _:
                    yield statement

    def _loop(self, loop: For) -> Iterator[Statement]:
        for reads in _groups(loop):
            window = _window(reads, f"window{self.copies}")
            if window is None:
                continue
            copies = {read.load: (window.load(read), read.conditions) for read in reads}
            copied = _Copied(reads=copies)
            body = copied.block(loop.body)
            if not copied.left(body):
                self.copies += 1
                yield Allocate(window.buffer)
                yield from window.fill()
                loop = replace(loop, body=body)
        yield replace(loop, body=tuple(self.block(loop.body)))


def _groups(loop: For) -> list[list[_Read]]:
    """The reads of a serial loop that see the same windows, each of which goes on with the loop."""
    if loop.kind is not LoopKind.SERIAL or loop.step != 1:
        return []
    stored, found = stored_buffers(loop.body), dict[tuple[object, ...], list[_Read]]()
    for load, around in _loads((loop,), _Loops()):
        buffer = load.buffer
        if buffer.name in stored or buffer.may_alias or loop.variable not in around.ranges:
            continue
        read = _read(load, around)
        if read is not None:
            found.setdefault(read.place, []).append(read)
    return [reads for reads in found.values() if any(_overlaps(r, loop.variable) for r in reads)]


def _loads(body: Iterable[Statement], around: _Loops) -> Iterator[tuple[Load, _Loops]]:
    """The guarded loads, each with the loops around it."""
    for statement in body:
        match statement:
            case For():
                yield from _loads(statement.body, around.inside(statement))
            case If(_, then, otherwise):
                yield from _loads((*then, *otherwise), around)
            case _:
                loads = (e for e in expressions((statement,)) if isinstance(e, Load))
                yield from ((load, around) for load in loads if load.guard is not None)


def _read(load: Load, around: _Loops) -> _Read | None:
    """The load as a read of a window; None where it is none, or conditions are not its edges."""
    found = [_axis(index, around) for index in load.indices]
    axes = tuple(axis for axis in found if axis is not None)
    conditions = frozenset(_conjuncts(load.guard))
    if len(axes) < len(found) or load.otherwise != 0 or not load.type.is_float:
        return None
    if not all(_is_edge(load, condition) for condition in conditions):
        return None
    sizes = [load.buffer.shape[number] for number, axis in enumerate(axes) if axis.steps]
    rests = [axis.rest for axis in axes if axis.steps]
    known = all(isinstance(size, int) for size in (*sizes, *rests))
    return _Read(load, axes, around, conditions) if known and sizes else None


def _axis(index: Index, around: _Loops) -> _Axis | None:
    """An index in terms of the loops' variables; None where it is not linear in them, or has one
    that takes values which are not known before the loops: a copy is made there."""
    steps: dict[str, int] = {}
    for name in around.ranges:
        parts = linear_parts(index, name)
        if parts is None or not isinstance(parts[0], int):
            return None
        if parts[0] != 0:
            steps[name] = parts[0]
        index = parts[1]
    late = any(isinstance(atom, ValueOf) or atom in around.others for atom in atoms(index))
    return None if late else _Axis(steps, index)


def _is_edge(load: Load, condition: Expression) -> bool:
    """Whether a condition says that the load is inside along some axis."""
    match condition:
        case Apply(op, (IndexValue(left), IndexValue(right))):
            gap = left - right
            pairs = zip(load.indices, load.buffer.shape, strict=True)
            return any(
                gap == (place if op == "ge" else place - size)
                for place, size in pairs
                if op in ("ge", "lt") and isinstance(size, int)
            )
    return False


def _overlaps(read: _Read, name: str) -> bool:
    """Whether windows at neighbouring values of a variable have elements in common."""
    return any(name in axis.steps and len(axis.steps) > 1 for axis in read.axes)


def _window(reads: list[_Read], name: str) -> _Window | None:
    """The copy of what the reads see; None where it would be too large or hardly used, or vectors
    would not go along its lines."""
    first = reads[0]
    ends = [[read.axes[axis].ends(read.around.ranges) for read in reads] for axis in first.moving]
    rests = [first.axes[axis].rest for axis in first.moving]
    lows = [
        min(low for low, _ in each) + rest
        for each, rest in zip(ends, rests, strict=True)
        if isinstance(rest, int)
    ]
    counts = [max(high for _, high in each) - min(low for low, _ in each) + 1 for each in ends]
    bytes_ = prod(counts) * first.load.type.bytes
    times = sum(_turns(read) for read in reads)
    phases = _phases(reads)
    if bytes_ > LARGEST_COPY or times < LEAST_READS * prod(counts) or phases is None:
        return None
    line = (counts[-1],) if phases == 1 else (phases, -(-counts[-1] // phases))
    buffer = Buffer(name, first.load.type, (*counts[:-1], *line), Space.LOCAL)
    return _Window(buffer, first.load, first.moving, tuple(lows), tuple(counts), phases)


def _turns(read: _Read) -> int:
    """How often something is read at another place."""
    names = {name for axis in read.axes for name in axis.steps}
    ends = [read.around.ranges[name] for name in names]
    return prod(high - low + 1 for low, high in ends)


def _phases(reads: list[_Read]) -> int | None:
    """The stride of the vectors along the last axis; None where they go along another one, or are
    not all alike."""
    strides = set[int]()
    for read in reads:
        *others, last = read.axes
        lanes = read.around.lanes
        if lanes is None or any(lanes in axis.steps for axis in others):
            return None
        strides.add(last.steps.get(lanes, 1))
    stride = max(strides)
    return stride if len(strides) == 1 and 1 <= stride <= MOST_PHASES else None


def _conjuncts(guard: Expression | None) -> Iterator[Expression]:
    match guard:
        case Apply("and", operands):
            for operand in operands:
                yield from _conjuncts(operand)
        case Expression():
            yield guard


@dataclass(frozen=True, slots=True)
class _Copied(Rewriter):
    """Puts reads of a copy in place of loads, each with the conditions that were its guard, and
    drops these where a sum adds a product with what is read, as that is zero elsewhere."""

    reads: Mapping[Load, tuple[Load, frozenset[Expression]]] = field(default_factory=dict)
    zeros: dict[str, frozenset[Expression]] = field(default_factory=dict)
    """For the name of a binding the conditions without which it is zero."""

    def expression(self, expression: Expression) -> Expression:
        if isinstance(expression, Load) and expression in self.reads:
            return self.reads[expression][0]
        return Rewriter.expression(self, expression)

    def statement(self, statement: Statement) -> Statement:
        match statement:
            case Let(name, value):
                self.zeros[name] = self._needed(value)
            case Reduce(op="add", value=value, guard=guard):
                needed = self._needed(value)
                kept = all_of(*(c for c in _conjuncts(guard) if c not in needed))
                statement = replace(statement, guard=kept)
        return Rewriter.statement(self, statement)

    def left(self, body: Iterable[Statement]) -> bool:
        """Whether sums are left that depend on the conditions."""
        dropped = frozenset().union(*(conditions for _, conditions in self.reads.values()))
        reduces = [s for s in statements(body) if isinstance(s, Reduce)]
        return any(not dropped.isdisjoint(_conjuncts(reduce.guard)) for reduce in reduces)

    def _needed(self, value: Expression) -> frozenset[Expression]:
        """The conditions without which the value is zero."""
        match value:
            case Load() if value in self.reads:
                return self.reads[value][1]
            case Ref(name):
                return self.zeros.get(name, frozenset())
            case Apply("mul", (left, right)):
                return self._needed(left) | self._needed(right)
            case Apply("add" | "sub", (left, right)):
                return self._needed(left) & self._needed(right)
            case Apply("neg" | "cast", (operand,)):
                return self._needed(operand)
        return frozenset()
