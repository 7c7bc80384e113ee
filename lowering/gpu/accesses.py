"""Which memory the threads of a block touch, and which thread touches an element.

An `Access` may have an owner: a form of its index that tells the thread.  Two accesses of one form
touch the same element only in the same thread, so they never race:

- `a*thread + c` along some axis, or as the flat index of all axes, and what a loop from there in
  steps of `a` times the number of threads touches (the form is the index in its first round), and
  what is less than `a` behind (the form is the index of the first in a chunk), laid out or not;
- the quotient and the rest of such a form by a number, along two axes;
- everything in statements that one thread executes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import permutations

from mapsto.lowering.index_facts import index_bounds
from mapsto.lowering.indices import (
    Composite,
    Index,
    atom_index,
    atoms,
    flat_offset,
    folded,
    index_terms,
    linear_parts,
    map_atoms,
    modulo,
    substitute_index,
    variable,
)
from mapsto.lowering.loop_walk import direct_expressions, direct_indices, statements, subexpressions
from mapsto.lowering.loops import (
    Apply,
    AsyncCopy,
    Buffer,
    Constant,
    Expression,
    For,
    If,
    IndexValue,
    Load,
    LoadMatrix,
    Reduce,
    Space,
    Statement,
    Store,
)

__all__ = ["Access", "BlockMemory", "in_step", "mentions", "static_loops"]


@dataclass(frozen=True, slots=True)
class Access:
    """A read or write of a buffer; `bounds`: the first and the last element that it may be, where
    that is known; `constant`: of a write of a literal, the literal."""

    buffer: Buffer
    indices: tuple[Index, ...]
    writes: bool
    owners: frozenset[Hashable] = frozenset()
    bounds: tuple[int, int] | None = None
    constant: Constant | None = None

    def races(self, other: Access) -> bool:
        """Whether two threads may touch the same element by these, one of them writing."""
        if not (self.writes or other.writes) or not _overlap(self.buffer, other.buffer):
            return False
        if self.constant is not None and self.constant == other.constant:
            return False
        if self.buffer.shape != other.buffer.shape:
            return True
        return not self.owners & other.owners and not self._is_apart(other)

    def _is_apart(self, other: Access) -> bool:
        """Whether no element is within the bounds of both."""
        if self.bounds is None or other.bounds is None:
            return False
        return self.bounds[1] < other.bounds[0] or other.bounds[1] < self.bounds[0]


def _overlap(a: Buffer, b: Buffer) -> bool:
    return a.name == b.name or (a.may_alias and b.may_alias)


def mentions(name: str, statement: Statement) -> bool:
    """Whether the condition or the bounds of a statement have the name in them."""
    found = any(name in atoms(index) for index in direct_indices(statement))
    return found or any(
        isinstance(part, IndexValue) and name in atoms(part.index)
        for expression in direct_expressions(statement)
        for part in subexpressions(expression)
    )


def in_step(loop: For, thread: str, count: int) -> bool:
    """Whether a loop starts at a multiple of the thread's number, or that and more, and goes on in
    steps of that multiple of the number of threads."""
    parts = linear_parts(loop.start, thread)
    slope = None if parts is None else parts[0]
    return isinstance(slope, int) and slope > 0 and loop.step == slope * count


def static_loops(body: Iterable[Statement]) -> dict[str, int]:
    """The variables of loops from 0 to a known number, with the greatest of these."""
    found: dict[str, int] = {}
    for statement in statements(body):
        if isinstance(statement, For) and statement.start == 0 and isinstance(statement.stop, int):
            name = statement.variable
            found[name] = max(found.get(name, 0), statement.stop)
    return found


def _slope(index: Index, name: str) -> int:
    """The constant by which a variable is multiplied in an index; 0 where it is none."""
    parts = linear_parts(index, name)
    return parts[0] if parts is not None and isinstance(parts[0], int) else 0


@dataclass(frozen=True, slots=True)
class BlockMemory:
    """What threads of a block have in common: `thread` is the variable of their number, `stable`
    the names that are the same throughout the block, `written` those of buffers that are written.
    """

    thread: str
    count: int
    stable: frozenset[str]
    written: frozenset[str]
    rounds: Mapping[str, Index] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=dict)
    """Variables that are less than these numbers, and not negative."""
    below: int = 0
    """Where only threads below this number come; 0: all do."""
    multiple: int = 1
    """Where only threads come whose numbers are multiples of this."""

    def accesses(self, statement: Statement) -> Iterator[Access]:
        """Those of a statement and all inside."""
        yield from self.direct(statement)
        match statement:
            case For(variable=name, start=start, body=body):
                inside = self
                if in_step(statement, self.thread, self.count):
                    inside = replace(self, rounds={**self.rounds, name: start})
                for nested in body:
                    yield from inside.accesses(nested)
            case If(condition, then, otherwise):
                multiple = self._divisor(condition)
                some = replace(self, below=self._limit(condition), multiple=multiple)
                for nested in then:
                    yield from some.accesses(nested)
                for nested in otherwise:
                    yield from self.accesses(nested)

    def direct(self, statement: Statement) -> Iterator[Access]:
        """Those of a statement itself."""
        for expression in direct_expressions(statement):
            yield from self._reads(expression)
        for index in direct_indices(statement):
            yield from self._reads(IndexValue(index))
        match statement:
            case Reduce(atomic=True):
                return
            case AsyncCopy(buffer, indices):
                yield self._access(buffer, indices, True)
            case LoadMatrix(source=source, source_indices=indices):
                yield Access(source, indices, False)
        if isinstance(statement, Store | Reduce) and statement.buffer.space is not Space.REGISTER:
            literal = statement.value if isinstance(statement.value, Constant) else None
            constant = literal if isinstance(statement, Store) else None
            write = self._access(statement.buffer, statement.indices, True)
            yield replace(write, constant=constant)
            if isinstance(statement, Reduce):
                yield self._access(statement.buffer, statement.indices, False)

    def _reads(self, expression: Expression) -> Iterator[Access]:
        for part in subexpressions(expression):
            if isinstance(part, Load) and self._matters(part.buffer):
                yield self._access(part.buffer, part.indices, False)

    def _matters(self, buffer: Buffer) -> bool:
        return buffer.space is not Space.REGISTER and (
            buffer.name in self.written or buffer.may_alias
        )

    def _limit(self, condition: Expression) -> int:
        """The number below which threads have a condition, where it is one on that number."""
        limit = self.below or self.count
        match condition:
            case Apply("eq", (IndexValue(index), IndexValue(0))) if index == self._number:
                return 1
            case Apply("lt", (IndexValue(index), IndexValue(int(most)))) if index == self._number:
                return min(limit, most)
        return self.below

    def _divisor(self, condition: Expression) -> int:
        """The number of whose multiples a condition is true, if it is one of that kind."""
        match condition:
            case Apply("eq", (IndexValue(index), IndexValue(0))):
                for atom in atoms(index):
                    if isinstance(atom, Composite) and isinstance(atom.right, int):
                        is_rest = index == modulo(self._number, atom.right)
                        return atom.right if is_rest else self.multiple
        return self.multiple

    @property
    def _number(self) -> Index:
        return variable(self.thread)

    def _access(self, buffer: Buffer, indices: tuple[Index, ...], writes: bool) -> Access:
        flat = flat_offset(indices, buffer.shape)
        bounds = index_bounds(flat, {self.thread: (0, (self.below or self.count) - 1)})
        return Access(buffer, indices, writes, self._owners(buffer, indices), bounds)

    def _owners(self, buffer: Buffer, indices: tuple[Index, ...]) -> frozenset[Hashable]:
        if self.below == 1:
            return frozenset({"alone"})
        first = [self._in_first_round(index) for index in indices]
        flat = self._first_of_chunk(folded(flat_offset(first, buffer.shape)))
        first = [self._first_of_chunk(index) for index in first]
        forms = {axis: index for axis, index in enumerate(first) if self._tells_thread(index)}
        if self._tells_thread(flat):
            forms[len(first)] = flat
        own = [(axis, form, self.multiple) for axis, form in forms.items()]
        return frozenset((*own, *self._divided(indices)))

    def _divided(self, indices: tuple[Index, ...]) -> Iterator[Hashable]:
        """Pairs of axes along which an index that tells the thread is divided: by its quotient and
        its rest."""
        first = [self._in_first_round(index) for index in indices]
        for (a, quotient), (b, rest) in permutations(enumerate(first), 2):
            for atom in atoms(quotient):
                if not isinstance(atom, Composite) or atom.kind != "floordiv":
                    continue
                whole, by = atom.left, atom.right
                left = self._in_whole_turns(quotient - atom_index(atom), by)
                others = left, rest - modulo(whole, by)
                if self._tells_thread(whole) and all(map(self._is_same, others)):
                    yield a, b, whole, *others

    def _in_whole_turns(self, index: Index, by: Index) -> Index:
        """An index, to which a quotient by some number was added, without what whole turns of all
        threads add."""
        for name in {atom for atom in atoms(index) if isinstance(atom, str)}:
            turn = None if self._is_stable(name) else linear_parts(index, name)
            whole = turn is not None and isinstance(turn[0], int) and isinstance(by, int)
            if turn is not None and whole and turn[0] * by % self.count == 0:
                index = turn[1]
        return index

    def _is_same(self, index: Index) -> bool:
        """Whether an index is the same in all threads of a block, at all times."""
        names = (atom for atom in atoms(index) if not isinstance(atom, Composite))
        return all(
            isinstance(name, str) and name != self.thread and self._is_stable(name)
            for name in names
        )

    def _in_first_round(self, index: Index) -> Index:
        """The index in the first round of loops in steps of the number of threads; of a multiple,
        the quotient tells the thread as well, and stands for its number."""
        first = substitute_index(index, self.rounds)
        quotient = Composite("floordiv", self._number, self.multiple)
        return map_atoms(first, lambda atom: self._number if atom == quotient else None)

    def _in_first_turn(self, index: Index) -> Index:
        """The index without whole turns, `threads` times a loop's variable: whatever its value, no
        thread comes to another one's element by it."""
        parts = linear_parts(index, self.thread)
        if parts is None or not isinstance(parts[0], int) or parts[0] == 0:
            return index
        for name in {atom for atom in atoms(index) if isinstance(atom, str)}:
            turn = None if self._is_stable(name) else linear_parts(index, name)
            whole = turn is not None and isinstance(turn[0], int)
            if turn is not None and whole and turn[0] % (parts[0] * self.count) == 0:
                index = turn[1]
        return index

    def _first_of_chunk(self, index: Index) -> Index:
        """The index of the first element of a chunk in the first turn; that in the first turn where
        it is not in the thread's chunk."""
        index = self._in_first_turn(index)
        slope = _slope(index, self.thread)
        slopes = {name: _slope(index, name) for name in self.lanes}
        near = {name: each for name, each in slopes.items() if each > 0}
        if slope <= sum(each * (self.lanes[name] - 1) for name, each in near.items()):
            return index
        first = substitute_index(index, dict.fromkeys(near, 0))
        constant = dict(index_terms(first)).get((), 0)
        return first - constant + constant % (slope * self.count)

    def _tells_thread(self, index: Index) -> bool:
        """Whether an index is another one in each thread of a block."""
        parts = linear_parts(index, self.thread)
        varies = parts is not None and isinstance(parts[0], int) and parts[0] != 0
        return varies and all(isinstance(a, str) and self._is_stable(a) for a in atoms(index))

    def _is_stable(self, name: str) -> bool:
        return name == self.thread or name in self.stable or name.startswith("$")
