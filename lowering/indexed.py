"""Elements of a kernel's values on demand: from a value and indices to a scalar expression.

A kernel's region is a block of tensor ops.  `IndexedEmitter.element(value, indices)` gives the
expression of one element: a load where the value has a buffer, else the op's own rule applied to
elements of its operands (`element_rules`).  Whole tensors appear only where a kernel stores them.

Inside `scope`s, an element that is used more than once is bound once (`Let`), and what does not
depend on a loop's variable is bound outside of that loop.  Without an open scope expressions come
as they are, nested, for callers that cannot place statements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from mapsto.ir.core import Block, Operation, Value
from mapsto.ir.dims import Dim
from mapsto.ir.errors import MissingLowering
from mapsto.ir.liveness import count_uses
from mapsto.lowering.indices import Composite, Index, IndexExpression, ValueOf
from mapsto.lowering.loops import (
    Apply,
    Buffer,
    Constant,
    Expression,
    IndexValue,
    Let,
    Load,
    Ref,
    Statement,
    all_of,
    constant,
    select,
)

__all__ = ["IndexedEmitter", "Indices", "Rule"]

Indices = tuple[Index, ...]
Rule = Callable[["IndexedEmitter", Operation, Indices, Expression | None], Expression]
"""The element of an op's result at some indices; where the guard is false, no memory is touched."""

_Key = tuple[Value, Indices, Expression | None]


@dataclass(slots=True)
class _Scope:
    """An open block of statements and the elements that are known in it."""

    statements: list[Statement] = field(default_factory=list)
    known: dict[_Key, Expression] = field(default_factory=dict)


class _Inside(dict[str, int]):
    """Levels where there is one block only: every name belongs to it."""

    def __missing__(self, name: str) -> int:
        return 1


class IndexedEmitter:
    """Generates the elements of the values of one block.

    `buffers` are the values that are in memory, `rules` the table of how the others are computed
    (`element_rules.ELEMENT_RULES`).  `errors` (i32[1]) receives the code of a failed
    check, such as a gather's index out of range.  `merged` tells which placeholder variables, read
    together, are one index: `(i.0, i.1) -> i` (see `kernel_space`).  `extents` are of indices that
    are never negative, and always less than that.
    """

    def __init__(
        self,
        block: Block,
        buffers: Mapping[Value, Buffer],
        rules: Mapping[type[Operation], Rule],
        errors: Buffer | None = None,
    ) -> None:
        self.buffers = dict(buffers)
        self.errors = errors
        self._rules = rules
        self._uses = count_uses(block)
        self._scopes: list[_Scope] = []
        self._levels: dict[str, int] = {}
        self._names = 0
        self._addresses: dict[Value, Callable[[Indices], Indices]] = {}
        self.merged: dict[Indices, Index] = {}
        self.extents: dict[Index, Dim] = {}

    # ---- scopes

    @contextmanager
    def scope(self, *variables: str) -> Iterator[list[Statement]]:
        """Opens a block in which the loop variables are bound; gives its statements."""
        opened = _Scope()
        self._scopes.append(opened)
        for name in variables:
            self._levels[name] = len(self._scopes)
        yield opened.statements
        self._scopes.pop()

    @contextmanager
    def floating_scope(self) -> Iterator[list[Statement]]:
        """Opens a block whose place in the function is unknown: everything is bound inside."""
        outer, self._scopes = self._scopes, []
        levels, self._levels = self._levels, _Inside()
        with self.scope() as statements:
            yield statements
        self._scopes, self._levels = outer, levels

    def append(self, *statements: Statement) -> None:
        """Adds statements to the innermost open block."""
        self._scopes[-1].statements.extend(statements)

    def declare(self, buffer: Buffer) -> Buffer:
        """Notes that a buffer is allocated in the innermost open block."""
        self._levels[buffer.name] = len(self._scopes)
        return buffer

    def fresh(self, prefix: str) -> str:
        """A name that no other part of this kernel has."""
        self._names += 1
        return f"{prefix}{self._names}"

    def let(self, prefix: str, expression: Expression) -> Expression:
        """Binds an expression in the innermost block; literals and names stay as they are."""
        if isinstance(expression, Constant | Ref):
            return expression
        return self._bind(prefix, expression, len(self._scopes))

    def keep(
        self, value: Value, buffer: Buffer, address: Callable[[Indices], Indices] | None = None
    ) -> None:
        """Says that a value is in memory from here on; `address` gives the buffer's indices."""
        self.buffers[value] = buffer
        self._levels[buffer.name] = len(self._scopes)
        if address is not None:
            self._addresses[value] = address

    def know(self, value: Value, indices: Indices, expression: Expression) -> None:
        """Says what an element is from here to the end of the innermost open block."""
        self._scopes[-1].known[value, indices, None] = expression

    # ---- elements

    def element(
        self, value: Value, indices: Sequence[Index], guard: Expression | None = None
    ) -> Expression:
        """The element of a value at the indices.

        Where the guard is false no memory is touched, and the element is anything; so what is there
        wherever the loops are is read without asking, and once where a loop does not change it.
        """
        if guard is not None and self.errors is None and self._is_inside(value, indices):
            guard = None
        key = (value, tuple(indices), guard)
        found = self._find(key)
        if found is not None:
            return found
        if value in self.buffers:
            return self._place(key, self.load(value, key[1], guard))
        op = value.owner
        assert isinstance(op, Operation), "a block argument without a buffer"
        rule = self._rules.get(type(op))
        if rule is None:
            raise MissingLowering(op, "native code")
        return self._place(key, rule(self, op, key[1], guard))

    def _is_inside(self, value: Value, indices: Sequence[Index]) -> bool:
        """Whether the value has an element at the indices, as far as their extents tell."""
        pairs = zip(indices, value.shape, strict=True)
        return all(self.extents.get(index) == extent for index, extent in pairs)

    def guarded(
        self,
        value: Value,
        indices: Sequence[Index],
        inside: Expression | None,
        guard: Expression | None,
        otherwise: bool | int | float = 0,
    ) -> Expression:
        """The element where `inside` holds, else `otherwise`."""
        if inside is None:
            return self.element(value, indices, guard)
        both = all_of(guard, inside)
        if value in self.buffers:
            return self.load(value, tuple(indices), both, otherwise)
        inner = self.element(value, indices, both)
        return select(inside, inner, constant(otherwise, value.dtype))

    def load(
        self,
        value: Value,
        indices: Indices,
        guard: Expression | None = None,
        otherwise: bool | int | float = 0,
    ) -> Load:
        """The load of an element of a value that has a buffer."""
        default = constant(otherwise, value.dtype).value
        return Load(self.buffers[value], self.address(value, indices), guard, default)

    def address(self, value: Value, indices: Indices) -> Indices:
        """Where in its buffer an element of a value is."""
        return self._addresses.get(value, self.merge)(indices)

    def merge(self, indices: Indices) -> Indices:
        """The indices with placeholder variables that stand together replaced by one variable."""
        for parts, whole in self.merged.items():
            for start in range(len(indices) - len(parts) + 1):
                if indices[start : start + len(parts)] == parts:
                    indices = (*indices[:start], whole, *indices[start + len(parts) :])
                    break
        return indices

    # ---- placing elements in blocks

    def _find(self, key: _Key) -> Expression | None:
        unguarded = (key[0], key[1], None)
        for scope in reversed(self._scopes):
            found = scope.known.get(key) or scope.known.get(unguarded)
            if found is not None:
                return found
        return None

    def _place(self, key: _Key, expression: Expression) -> Expression:
        if not self._scopes or not isinstance(expression, Apply | Load):
            return expression
        level = max(1, self._level(expression))
        value = key[0]
        if level == len(self._scopes) and self._uses[value] <= 1:
            return expression
        op = value.owner
        bound = self._bind(op.name if isinstance(op, Operation) else "element", expression, level)
        self._scopes[level - 1].known[key] = bound
        return bound

    def _bind(self, prefix: str, expression: Expression, level: int) -> Ref:
        name = self.fresh(prefix)
        self._levels[name] = level
        self._scopes[level - 1].statements.append(Let(name, expression))
        return Ref(name, expression.type)

    def _level(self, expression: Expression | None) -> int:
        """The innermost block that the expression depends on, counted from 1; 0 for none."""
        match expression:
            case Ref(name):
                return self._levels[name]
            case IndexValue(index):
                return self._index_level(index)
            case Load(buffer, indices, guard):
                levels = [self._index_level(index) for index in indices]
                return max(self._levels.get(buffer.name, 0), self._level(guard), *levels, 0)
            case Apply():
                return max(map(self._level, expression.operands))
        return 0

    def _index_level(self, index: Index) -> int:
        if not isinstance(index, IndexExpression):
            return 0
        levels = [self._atom_level(atom) for monomial, _ in index.terms for atom in monomial]
        return max(levels, default=0)

    def _atom_level(self, atom: str | Composite | ValueOf) -> int:
        match atom:
            case ValueOf(expression):
                return self._level(expression)
            case Composite(_, left, right):
                return max(self._index_level(left), self._index_level(right))
            case _:
                return 0 if atom.startswith("$") else self._levels[atom]
