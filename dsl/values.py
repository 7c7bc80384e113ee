"""Values of elaboration: what an expression of the language stands for while IR is built from it.

A tensor is an IR value; everything else (numbers, maps, modules, lists) exists only until the
program is elaborated.  Inside an index lambda a tensor may depend on index variables: `axes` names
the leading axes of its IR value that stand for them, and the other axes are its own shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeGuard

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import DiagnosticError
from mapsto.dsl.source import Span

if TYPE_CHECKING:
    from mapsto.dsl.frame import Frame
    from mapsto.dsl.instances import Instance
    from mapsto.dsl.scope import Scope

__all__ = [
    "Access",
    "Applicable",
    "Argument",
    "Builtin",
    "Closure",
    "Composition",
    "ConstantMap",
    "Deferred",
    "Dimensions",
    "Effect",
    "ElementType",
    "Expected",
    "Formula",
    "Frozen",
    "Group",
    "IndexVariable",
    "Indices",
    "Key",
    "Mode",
    "ModeFlag",
    "ModuleClass",
    "Namespace",
    "Nothing",
    "Number",
    "ParameterTree",
    "Partial",
    "Position",
    "Precision",
    "Product",
    "Slot",
    "Tensor",
    "Text",
    "TrainClass",
    "Transform",
    "Truth",
    "Unknowable",
    "Unknown",
    "Value",
]

_serials = itertools.count()


class Value:
    """Base of the values of elaboration."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class IndexVariable:
    """An index bound by a lambda or a reduction; `span` is where its extent came from."""

    name: str
    extent: ir.Dim
    span: Span
    serial: int = field(default_factory=lambda: next(_serials))


@dataclass(frozen=True, slots=True)
class Tensor(Value):
    """A tensor: the axes of `value` are `axes`, by ascending serial number, then its shape."""

    value: ir.Value
    axes: tuple[IndexVariable, ...] = ()

    @property
    def dtype(self) -> ir.DType:
        """The element type."""
        return self.value.dtype

    @property
    def shape(self) -> tuple[ir.Dim, ...]:
        """The shape at one point of the indices that it depends on."""
        return self.value.shape[len(self.axes) :]

    @property
    def type(self) -> ir.TensorType:
        """The type at one point of the indices that it depends on."""
        return ir.TensorType(self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Position(Value):
    """An affine combination of index variables, `sum(coefficient * variable) + constant`."""

    terms: tuple[tuple[IndexVariable, ir.Dim], ...]
    constant: ir.Dim = 0

    @staticmethod
    def of(variable: IndexVariable) -> Position:
        """The variable itself."""
        return Position(((variable, 1),))

    @property
    def plain(self) -> IndexVariable | None:
        """The variable that the position is exactly, else None."""
        if len(self.terms) != 1 or self.constant != 0 or self.terms[0][1] != 1:
            return None
        return self.terms[0][0]

    @property
    def variables(self) -> tuple[IndexVariable, ...]:
        """The variables that it depends on."""
        return tuple(variable for variable, _ in self.terms)

    def plus(self, other: Position) -> Position:
        """The sum of two positions."""
        total: dict[IndexVariable, ir.Dim] = {}
        for variable, coefficient in (*self.terms, *other.terms):
            total[variable] = total.get(variable, 0) + coefficient
        terms = tuple((v, c) for v, c in total.items() if c != 0)
        return Position(terms, self.constant + other.constant)

    def times(self, factor: ir.Dim) -> Position:
        """The position scaled by a whole number."""
        terms = tuple((v, c * factor) for v, c in self.terms if factor != 0)
        return Position(terms, self.constant * factor)


@dataclass(frozen=True, slots=True)
class Access:
    """The element of a tensor at these positions, one for each axis of the IR value."""

    tensor: ir.Value
    positions: tuple[Position, ...]

    @property
    def variables(self) -> frozenset[IndexVariable]:
        """The index variables that the element depends on."""
        return frozenset(v for position in self.positions for v in position.variables)


@dataclass(frozen=True, slots=True)
class Product(Value):
    """A scalar in index scope: a product of accesses, kept apart so that a reduction over it is one
    contraction."""

    factors: tuple[Access, ...]

    @property
    def dtype(self) -> ir.DType:
        """The element type."""
        return self.factors[0].tensor.dtype


@dataclass(frozen=True, slots=True)
class Number(Value):
    """A number known during elaboration; a whole one may be symbolic.  It takes the element type
    that its context asks for."""

    value: ir.Dim | float


@dataclass(frozen=True, slots=True)
class Formula(Value):
    """A real number that depends on symbolic sizes, such as `1.0 / n`: an op of other numbers.
    Like a number it takes the element type that its context asks for."""

    op: type[ir.Operation]
    operands: tuple[Number | Formula, ...]


@dataclass(frozen=True, slots=True)
class Truth(Value):
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class ModeFlag(Value):
    """The name `training`: a truth value that the elaboration at hand decides."""


@dataclass(frozen=True, slots=True)
class Text(Value):
    """A string."""

    value: str


@dataclass(frozen=True, slots=True)
class Nothing(Value):
    """`none`: an optional argument that is not given."""


@dataclass(frozen=True, slots=True)
class Group(Value):
    """A list, a tuple, or a record, which is a tuple whose items have names."""

    items: tuple[Value, ...]
    is_list: bool = False
    names: tuple[str, ...] = ()

    def with_items(self, items: Iterable[Value]) -> Group:
        """The same kind of group, of other items."""
        return Group(tuple(items), self.is_list, self.names)

    def is_like(self, other: Value) -> TypeGuard[Group]:
        """Whether another value has items in the same places."""
        return (
            isinstance(other, Group)
            and len(self.items) == len(other.items)
            and self.names == other.names
        )


@dataclass(frozen=True, slots=True)
class ElementType(Value):
    """A dtype; calling it converts."""

    dtype: ir.DType


@dataclass(frozen=True, slots=True)
class Dimensions(Value):
    """What `...s` stands for in a type: any number of dimensions."""

    dims: tuple[ir.Dim, ...]


@dataclass(frozen=True, slots=True)
class Indices(Value):
    """What `...s` stands for in index notation: any number of indices."""

    variables: tuple[IndexVariable, ...]


@dataclass(frozen=True, slots=True)
class Key(Value):
    """A source of random numbers: a seed (i64[]) and the number of a stream."""

    seed: ir.Value
    stream: int


@dataclass(frozen=True, slots=True)
class Expected:
    """What the context asks of an expression: an element type and a shape, where known; of a tuple
    or a record what it asks of each item."""

    dtype: ir.DType | None = None
    shape: tuple[ir.Dim, ...] | None = None
    items: tuple[Expected | None, ...] = ()
    is_hint: bool = False
    """Whether the shape only says what another operand has, which may be broadcast."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a call, evaluated; `name` is None for a positional one."""

    name: str | None
    value: Value
    span: Span
    name_span: Span | None = None


class Applicable(Value):
    """Base of what can be called on tensors."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Closure(Applicable):
    """A map of the language and the scope that it was defined in."""

    definition: syntax.MapDefinition
    scope: Scope
    title: str
    """The name in messages, such as `relu` or `Dense`."""


@dataclass(frozen=True, slots=True, eq=False)
class Builtin(Applicable):
    """A function that the elaborator knows."""

    name: str
    summary: str
    apply: Callable[[Frame, Span, tuple[Argument, ...], Expected | None], Value]
    reduction: bool = False
    """Whether `name[k](e)` reduces over bound indices."""
    usage: str = ""
    """The names of the arguments, for the documentation; `?` behind those that may be left out."""


@dataclass(frozen=True, slots=True, eq=False)
class Effect(Value):
    """A statement of the elaborator's that is written as a call and gives no value."""

    name: str
    summary: str
    run: Callable[[Frame, Span, tuple[Argument, ...]], None]
    usage: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Composition(Applicable):
    """Maps applied one after another: `chain([f, g])`."""

    functions: tuple[Value, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ConstantMap(Applicable):
    """The map that gives the same number whatever its arguments are: a number as a `map`."""

    value: Number | Formula


@dataclass(frozen=True, slots=True, eq=False)
class Transform(Applicable):
    """A map made of a map: `grad(f)`."""

    kind: str
    function: Value
    argnums: tuple[int | str, ...]
    """The arguments to differentiate by: their positions or names."""
    single: bool
    """Whether one derivative is given as it is rather than in a tuple."""
    has_aux: bool = False
    """Whether a gradient comes with the results besides the first."""
    in_axes: Value | None = None
    out_axes: Value | None = None
    """The axes of arguments and results that `vmap` goes by, if they are told."""


@dataclass(frozen=True, slots=True, eq=False)
class Mode(Applicable):
    """A map for which `training` is fixed: `train_mode(f)`, `eval_mode(f)`."""

    function: Value
    training: bool


@dataclass(frozen=True, slots=True, eq=False)
class Frozen(Applicable):
    """A map whose parameters are constants to derivatives: `frozen(f)`."""

    function: Value


@dataclass(frozen=True, slots=True, eq=False)
class Partial(Applicable):
    """A map with some of its arguments: `partial(normal, std=0.02)`."""

    function: Value
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Precision(Applicable):
    """A map whose products are computed in another element type: `in_precision(f, bf16)`."""

    function: Value
    dtype: ir.DType


@dataclass(frozen=True, slots=True, eq=False)
class ModuleClass(Value):
    """A module of the language, which a call instantiates."""

    definition: syntax.ModuleDefinition
    scope: Scope


@dataclass(frozen=True, slots=True, eq=False)
class TrainClass(Value):
    """A `train` block."""

    definition: syntax.TrainDefinition
    scope: Scope


@dataclass(frozen=True, slots=True, eq=False)
class Namespace(Value):
    """An imported file."""

    scope: Scope
    title: str


@dataclass(frozen=True, slots=True, eq=False)
class Deferred(Value):
    """A constant whose tensors are built anew in each elaboration that uses it."""

    expression: syntax.Expression
    scope: Scope


@dataclass(frozen=True, slots=True, eq=False)
class Slot(Value):
    """A parameter or a state of a module instance, before its tensor is looked up."""

    instance: Instance
    declaration: syntax.ParamDeclaration | syntax.StateDeclaration

    @property
    def name(self) -> str:
        """The name in the module."""
        return self.declaration.name.name

    @property
    def is_state(self) -> bool:
        """Whether it may be updated."""
        return isinstance(self.declaration, syntax.StateDeclaration)


class Unknowable(DiagnosticError):
    """While a program is checked: a value depends on something that only a use of it gives."""


@dataclass(frozen=True, slots=True, eq=False)
class Unknown(Value):
    """What a definition is checked without: the result of a mistake that was noted already, or an
    argument that stands for any map or module.  To use it raises `cause`."""

    cause: DiagnosticError


@dataclass(frozen=True, slots=True, eq=False)
class ParameterTree(Value):
    """A tensor for each parameter of a module instance, such as its gradient.

    `paths` names the tensors where they do not belong to one instance.
    """

    instance: Instance | None
    tensors: dict[tuple[Instance, str], Tensor]
    paths: Mapping[tuple[Instance, str], str] = field(default_factory=dict)

    def __iter__(self) -> Iterator[tuple[tuple[Instance, str], Tensor]]:
        return iter(self.tensors.items())
