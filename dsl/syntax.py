"""The syntax tree: what the parser makes of a source text, before any name has a meaning.

Nodes are immutable.  Each has the smallest span that covers its text; spans take no part in
comparison, so two trees are equal if they mean the same, wherever they were written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Self

from mapsto.dsl.operators import BinaryOperator, UnaryOperator
from mapsto.dsl.source import Span


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of syntax."""

    span: Span = field(compare=False, repr=False)

    def __deepcopy__(self, memo: object) -> Self:
        """What is copied with all that it refers to refers to the same text."""
        return self


@dataclass(frozen=True, slots=True)
class Identifier(Node):
    """A name where it is introduced or selects something; not an expression."""

    name: str


@dataclass(frozen=True, slots=True)
class Docstring(Node):
    """The documentation of a definition: dedented, without quotes and surrounding blank lines."""

    text: str


# Expressions


@dataclass(frozen=True, slots=True)
class Expression(Node):
    """Base of everything that has a value."""


@dataclass(frozen=True, slots=True)
class Name(Expression):
    """A use of a name: `x`."""

    name: str


@dataclass(frozen=True, slots=True)
class Integer(Expression):
    """An integer literal, not negative: `64`."""

    value: int


@dataclass(frozen=True, slots=True)
class Float(Expression):
    """A floating-point literal, finite and not negative: `1e-3`."""

    value: float


@dataclass(frozen=True, slots=True)
class Boolean(Expression):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class String(Expression):
    """A string literal, escapes replaced: `"same"`."""

    value: str


@dataclass(frozen=True, slots=True)
class ListExpression(Expression):
    """`[a, b]`; `[...s, n]` has all of a list or of a group of dimensions in it."""

    items: tuple[Expression | Spread, ...]


@dataclass(frozen=True, slots=True)
class Comprehension(Expression):
    """`[Dense(n) for n in widths if n > 0]`: a list of the item for each value of the name."""

    item: Expression
    target: Target
    iterable: Expression
    condition: Expression | None


@dataclass(frozen=True, slots=True)
class TupleExpression(Expression):
    """`(a, b)`; one item is written `(a,)`.  A record, `(loss = a, rate = b)`, has names."""

    items: tuple[Expression, ...]
    names: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True)
class Unary(Expression):
    """`-a`, `not a`."""

    operator: UnaryOperator
    operand: Expression


@dataclass(frozen=True, slots=True)
class Binary(Expression):
    """`a + b`; `operator_span` covers the operator alone."""

    operator: BinaryOperator
    left: Expression
    right: Expression
    operator_span: Span = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Conditional(Expression):
    """`if c then a else b`."""

    condition: Expression
    then: Expression
    otherwise: Expression


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """An argument of a call: `x`, or `axis=-1` with a name."""

    name: Identifier | None
    value: Expression


@dataclass(frozen=True, slots=True)
class Call(Expression):
    """`f(x, axis=-1)`.

    A reduction `sum[k](e)` is a call of an `Index` of a `Name`; `layers[0](x)` looks the same
    and is told apart by what the name means.
    """

    function: Expression
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Attribute(Expression):
    """`base.name`."""

    base: Expression
    name: Identifier


@dataclass(frozen=True, slots=True)
class Spread(Node):
    """Any number of dimensions or indices: `...s`, or `...` with no name."""

    name: Identifier | None


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """`start:stop:step` in brackets; each part may be missing."""

    start: Expression | None
    stop: Expression | None
    step: Expression | None


IndexItem = Expression | Slice | Spread


@dataclass(frozen=True, slots=True)
class Index(Expression):
    """`base[i, 1:, ...s]`."""

    base: Expression
    items: tuple[IndexItem, ...]


@dataclass(frozen=True, slots=True)
class BoundedIndex(Node):
    """`i < n` among the indices that a lambda or a reduction binds: i runs from 0 up to n."""

    name: Identifier
    extent: Expression


Binder = Identifier | Spread | BoundedIndex


@dataclass(frozen=True, slots=True)
class IndexLambda(Expression):
    """`[...s, i] |-> body`: the tensor with `body` at each index."""

    binders: tuple[Binder, ...]
    body: Expression


# Types


@dataclass(frozen=True, slots=True)
class ValueType(Node):
    """A type or parameter kind: `f32[n, ...s, 2*d]`, `f32` or `int` (`shape` None), `map`."""

    name: Identifier
    shape: tuple[Expression | Spread, ...] | None


@dataclass(frozen=True, slots=True)
class TupleType(Node):
    """`(f32[n], i32[n])`; the type of a record, `(loss: f32, rate: f32)`, has names."""

    items: tuple[TypeExpression, ...]
    names: tuple[Identifier, ...] = ()


TypeExpression = ValueType | TupleType


# Statements


@dataclass(frozen=True, slots=True)
class Broken(Node):
    """Stands for a line that could not be parsed; a diagnostic tells why."""


@dataclass(frozen=True, slots=True)
class TargetTuple(Node):
    """`(a, b)` in the place of a name: takes a tuple apart; `(a, (b, c))` those in it too."""

    items: tuple[Target, ...]


Target = Identifier | TargetTuple


@dataclass(frozen=True, slots=True)
class Let(Node):
    """`let a = e`, `let a: f32[n] = e`, `let (a, (b, c)) = e`."""

    target: Target
    type: TypeExpression | None
    value: Expression


@dataclass(frozen=True, slots=True)
class StateUpdate(Node):
    """`t <- t + 1`; the target is a `Name` or an `Attribute`."""

    target: Expression
    value: Expression


@dataclass(frozen=True, slots=True)
class ExpressionStatement(Node):
    """An expression on a line of its own; the last of a block is the block's value."""

    value: Expression


@dataclass(frozen=True, slots=True)
class If(Node):
    """`if c:` with a block; `elif` is an `If` alone in `otherwise`."""

    condition: Expression
    then: Block
    otherwise: Block | None


@dataclass(frozen=True, slots=True)
class For(Node):
    """`for i in e:` over a static range or a list."""

    target: Target
    iterable: Expression
    body: Block


@dataclass(frozen=True, slots=True)
class Block(Node):
    """Statements in order: an indented block, or one expression on the header's line."""

    statements: tuple[Statement, ...]


# Definitions


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """`x: f32[n]`, `k: int = 1`, or `net = MLP()` (only in the header of `train`)."""

    name: Identifier
    type: TypeExpression | None
    default: Expression | None


@dataclass(frozen=True, slots=True)
class Gradient(Node):
    """The custom gradient of a map: `gradient (dy):` and a block; `gradient unchecked (dy):`."""

    parameters: tuple[Identifier, ...]
    body: Block
    is_checked: bool = True


@dataclass(frozen=True, slots=True)
class MapDefinition(Node):
    """`map name[T](x: T[...s], k: int = 1) -> T[...s]:` and a body.

    `name` is None for the call of a module.
    """

    name: Identifier | None
    generics: tuple[Identifier, ...]
    parameters: tuple[Parameter, ...]
    result: TypeExpression | None
    docstring: Docstring | None
    body: Block
    gradient: Gradient | None


@dataclass(frozen=True, slots=True)
class ParamDeclaration(Node):
    """`param w: f32[d, units] ~ glorot_uniform`."""

    name: Identifier
    type: TypeExpression
    initializer: Expression | None


@dataclass(frozen=True, slots=True)
class StateDeclaration(Node):
    """`state m: f32[...s] = 0` with a value, `state key: i64 ~ fresh_key` with an initializer."""

    name: Identifier
    type: TypeExpression
    value: Expression | None
    initializer: Expression | None


@dataclass(frozen=True, slots=True)
class Binding(Node):
    """`name = e` at the top of a file or in a module: a constant or submodules."""

    name: Identifier
    value: Expression


@dataclass(frozen=True, slots=True)
class ModuleDefinition(Node):
    """`module Name[T](units: int, activation: map = identity):` and its members."""

    name: Identifier
    generics: tuple[Identifier, ...]
    parameters: tuple[Parameter, ...]
    docstring: Docstring | None
    members: tuple[ModuleMember, ...]


@dataclass(frozen=True, slots=True)
class LossDefinition(Node):
    """`loss(x: f32[n, 64], y: i32[n]) = e`, or with a block; `loss fool[generator](z: f32[n, 8])`
    has a name and trains the nets in brackets."""

    name: Identifier | None
    trained: tuple[Expression, ...]
    parameters: tuple[Parameter, ...]
    result: TypeExpression | None
    body: Block


@dataclass(frozen=True, slots=True)
class MetricDefinition(Node):
    """`metric accuracy(x: f32[n, 64], y: i32[n]) = e`, or with a block."""

    name: Identifier
    parameters: tuple[Parameter, ...]
    result: TypeExpression | None
    body: Block


@dataclass(frozen=True, slots=True)
class TrainDefinition(Node):
    """`train Name(net = MLP(), optimizer = Adam(lr=1e-3)):` and its members."""

    name: Identifier
    parameters: tuple[Parameter, ...]
    docstring: Docstring | None
    members: tuple[TrainMember, ...]


@dataclass(frozen=True, slots=True)
class ImportPath(Node):
    """What is imported: a dotted name (`nn`, `vision.layers`) or the path of a file."""

    text: str
    is_file: bool


@dataclass(frozen=True, slots=True)
class Import(Node):
    """`import nn`, `import "./file.mto" as m`."""

    path: ImportPath
    alias: Identifier | None


@dataclass(frozen=True, slots=True)
class ImportedName(Node):
    """`Adam` or `Adam as A` of a `from` import."""

    name: Identifier
    alias: Identifier | None


@dataclass(frozen=True, slots=True)
class FromImport(Node):
    """`from optim import Adam, SGD as Descent`."""

    path: ImportPath
    names: tuple[ImportedName, ...]


@dataclass(frozen=True, slots=True)
class Program(Node):
    """A whole file."""

    docstring: Docstring | None
    definitions: tuple[Definition, ...]


Statement = Let | StateUpdate | ExpressionStatement | If | For | MapDefinition | Broken
ModuleMember = ParamDeclaration | StateDeclaration | Binding | MapDefinition | Broken
TrainMember = LossDefinition | MetricDefinition | Binding | MapDefinition | Broken
Definition = (
    Import | FromImport | Binding | MapDefinition | ModuleDefinition | TrainDefinition | Broken
)


def children(node: Node) -> Iterator[Node]:
    """The nodes directly inside a node, in the order of the text."""
    for name in _field_names(type(node)):
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Node))


_FIELD_NAMES: dict[type, tuple[str, ...]] = {}


def _field_names(kind: type[Node]) -> tuple[str, ...]:
    names = _FIELD_NAMES.get(kind)
    if names is None:
        names = _FIELD_NAMES[kind] = tuple(entry.name for entry in fields(kind))
    return names


def walk(node: Node) -> Iterator[Node]:
    """A node and all nodes inside it, parents first."""
    stack = [node]
    while stack:
        current = stack.pop()
        yield current
        stack.extend(reversed(list(children(current))))
