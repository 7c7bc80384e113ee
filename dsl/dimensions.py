"""Types of tensors: evaluating them, and unifying them with the types of actual values.

A name in a type that has no value yet gets one where it first meets an actual dimension:
`f32[n, d]` against `f32[32, 64]` makes `n` 32 and `d` 64.  Where a name already has a value the two
have to agree.  An expression with one name left, such as `2*d + 1`, is solved if it is linear.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mapsto import ir
from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import Help, Kind, Note, NoteKind
from mapsto.dsl.evaluation import whole_number
from mapsto.dsl.foreign import hint
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.scope import Bound, Scope
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_dim
from mapsto.dsl.tensors import describe, dimension_note
from mapsto.dsl.values import Deferred, Dimensions, ElementType, Group, Number, Unknown, Value

__all__ = [
    "DTYPES",
    "KINDS",
    "Unifier",
    "dimension",
    "dtype_of",
    "evaluate_type",
    "free_names",
    "group_name",
    "is_kind",
    "is_unnamed",
    "names_in_type",
    "shape_of_type",
]

DTYPES = {dtype.value: dtype for dtype in ir.DType if dtype is not ir.DType.U32}
KINDS = frozenset({"int", "float", "str", "map", "module", "list", "dtype", "any", "tree"})
"""Names in the place of a type for what exists only during elaboration."""
_MAXIMUM_SIZE = 2**40


def is_kind(type: syntax.TypeExpression) -> bool:
    """Whether a parameter of this type takes a value of elaboration, not a tensor."""
    return isinstance(type, syntax.ValueType) and type.shape is None and type.name.name in KINDS


def names_in_type(type: syntax.TypeExpression) -> Iterator[str]:
    """The names of dimensions and groups of dimensions that a type mentions."""
    if isinstance(type, syntax.TupleType):
        for item in type.items:
            yield from names_in_type(item)
        return
    for dim in type.shape or ():
        yield from _names_in(dim)


def _names_in(dim: syntax.Expression | syntax.Spread) -> Iterator[str]:
    if isinstance(dim, syntax.Spread):
        yield group_name(dim)
        return
    called = {id(n.function) for n in syntax.walk(dim) if isinstance(n, syntax.Call)}
    for node in syntax.walk(dim):
        if isinstance(node, syntax.Name) and id(node) not in called:
            yield node.name


def is_unnamed(dim: syntax.Expression | syntax.Spread) -> bool:
    """Whether a dimension is `...` alone."""
    return isinstance(dim, syntax.Spread) and dim.name is None


def group_name(spread: syntax.Spread) -> str:
    """The name of `...s`; `...` alone, which no call binds, goes by its spelling."""
    return "..." if spread.name is None else spread.name.name


def free_names(dim: syntax.Expression | syntax.Spread, frame: Frame) -> set[str]:
    """The names in a dimension that have no value yet."""
    return {name for name in _names_in(dim) if frame.scope.binding_of_dimension(name) is None}


def dtype_of(type: syntax.ValueType, frame: Frame) -> ir.DType | None:
    """The dtype of a type; None for a generic one that has no value yet."""
    name = type.name.name
    if name in DTYPES:
        return DTYPES[name]
    bound = frame.scope.binding_of_dimension(name)
    if isinstance(bound, Bound) and isinstance(bound.value, ElementType):
        return bound.value.dtype
    generics = {g for scope in frame.scope.enclosing() for g in scope.generics}
    if name in generics:
        return None
    if name in KINDS:
        fail(Kind.NOT_A_TENSOR_TYPE, type.span, name=name)
    help, suggestion = hint(name, [*DTYPES, *KINDS, *generics])
    return fail(Kind.UNKNOWN_TYPE, type.name.span, help=help, name=name, suggestion=suggestion)


def evaluate_type(type: syntax.ValueType, frame: Frame) -> ir.TensorType:
    """The type, all of whose names have values; a generic dtype without one is f32."""
    dtype = dtype_of(type, frame)
    if dtype is None:
        dtype = ir.DType.F32
        name = type.name.name
        frame.scope.target_of(name).bind(name, ElementType(dtype), type.span)
    return ir.TensorType(dtype, shape_of_type(type, frame))


def shape_of_type(type: syntax.ValueType, frame: Frame) -> tuple[ir.Dim, ...]:
    """The shape of a type, all of whose names have values."""
    dims: list[ir.Dim] = []
    for item in type.shape or ():
        unknown = sorted(free_names(item, frame))
        if unknown:
            fail(Kind.UNKNOWN_DIMENSION, item.span, name=unknown[0])
        dims.extend(_known_dims(item, frame))
    return tuple(dims)


def _known_dims(item: syntax.Expression | syntax.Spread, frame: Frame) -> tuple[ir.Dim, ...]:
    if not isinstance(item, syntax.Spread):
        return (_checked(_size(item, frame), item.span),)
    bound = frame.scope.binding_of_dimension(group_name(item))
    if isinstance(bound, Bound) and isinstance(bound.value, Dimensions):
        return bound.value.dims
    if isinstance(bound, Bound) and isinstance(bound.value, Group):
        return tuple([_checked(static_dim(dim, item.span), item.span) for dim in bound.value.items])
    found = describe(bound.value) if isinstance(bound, Bound) else "a constant"
    return fail(Kind.NOT_A_GROUP, item.span, name=group_name(item), found=found)


def dimension(expression: syntax.Expression, frame: Frame) -> ir.Dim:
    """The size that an expression says."""
    return _checked(whole_number(expression, frame), expression.span)


def _size(expression: syntax.Expression, frame: Frame) -> ir.Dim:
    """A whole number; a name that a member has which is no size is reported."""
    if isinstance(expression, syntax.Name):
        name = expression.name
        bound = frame.scope.binding_of_dimension(name)
        if isinstance(bound, Bound) and not isinstance(bound.value, Number | Unknown | Deferred):
            place = [] if bound.span is None else [bound.span]
            notes = [Note(NoteKind.DEFINED_HERE, span, {"name": name}) for span in place]
            facts: Facts = {"name": name, "found": describe(bound.value), "word": name}
            fail(Kind.NOT_A_SIZE, expression.span, notes=notes, help=Help.OTHER_NAME, **facts)
    return whole_number(expression, frame)


def _checked(dim: ir.Dim, span: Span) -> ir.Dim:
    if isinstance(dim, int) and dim < 0:
        fail(Kind.NEGATIVE_DIMENSION, span, value=dim)
    if isinstance(dim, int) and dim > _MAXIMUM_SIZE:
        fail(Kind.DIMENSION_TOO_LARGE, span, value=dim, limit=_MAXIMUM_SIZE)
    return dim


@dataclass(slots=True)
class Unifier:
    """Unifies the types of several values in turn, so that a later one can fix names of an earlier.

    `frame` is where names in the types have their meaning and get their values; `owner` is what
    the values are given to, in messages.
    """

    frame: Frame
    owner: str
    pending: list[_Mismatch] = field(default_factory=list)

    def unify(self, type: syntax.ValueType, actual: ir.TensorType, span: Span, what: str) -> None:
        """Makes the type that of an actual value, which `what` names and `span` points at."""
        place = _Mismatch(type, actual, span, what)
        self._unify_dtype(place)
        for item, dim in self._pair(place):
            self._unify_dim(item, dim, place)

    def finish(self) -> None:
        """Solves what could not be solved at once."""
        for place in self.pending:
            assert place.item is not None and place.dim is not None
            unknown = sorted(free_names(place.item, self.frame))
            if unknown and not self._solve(place.item, place.dim, unknown, place):
                fail(Kind.CANNOT_INFER, place.item.span, name=unknown[0])
            if not unknown:
                self._compare(_size(place.item, self.frame), place.dim, place)
        self.pending.clear()

    def _unify_dtype(self, place: _Mismatch) -> None:
        dtype = dtype_of(place.type, self.frame)
        if dtype is None:
            name = place.type.name.name
            value = ElementType(place.actual.dtype)
            self.frame.scope.target_of(name).bind(name, value, place.span)
        elif dtype is not place.actual.dtype:
            self._fail_dtype(dtype, place)

    def _fail_dtype(self, dtype: ir.DType, place: _Mismatch) -> None:
        notes = []
        name = place.type.name.name
        bound = self.frame.scope.binding_of_dimension(name)
        if isinstance(bound, Bound) and bound.span is not None:
            notes = [Note(NoteKind.DIMENSION_FROM, bound.span, {"name": name, "value": dtype})]
        expected = place.type.span.text
        facts: Facts = {"what": place.what, "expected": expected, "found": place.actual}
        fail(Kind.WRONG_DTYPE, place.span, notes=notes, help=Help.CAST, **facts)

    def _pair(self, place: _Mismatch) -> list[tuple[syntax.Expression | ir.Dim, ir.Dim]]:
        """Each dimension of the type with the actual one; an unknown `...s` takes the rest."""
        items: list[syntax.Expression | syntax.Spread | ir.Dim] = []
        for item in place.type.shape or ():
            known = isinstance(item, syntax.Spread) and not self._is_open(item)
            items.extend(_known_dims(item, self.frame) if known else (item,))
        actual = place.actual.shape
        spreads = [i for i, item in enumerate(items) if isinstance(item, syntax.Spread)]
        if len(spreads) > 1:
            fail(Kind.AMBIGUOUS_SPREAD, items[spreads[1]].span)  # type: ignore[union-attr]
        if spreads and len(actual) >= len(items) - 1:
            start = spreads[0]
            stop = len(actual) - (len(items) - 1 - start)
            self._bind_group(items[start], actual[start:stop], place)  # type: ignore[arg-type]
            items[start : start + 1] = actual[start:stop]
        elif spreads or len(items) != len(actual):
            self._fail_shape(place, ())
        return list(zip(items, actual, strict=True))  # type: ignore[arg-type]

    def _is_open(self, item: syntax.Spread) -> bool:
        return bool(free_names(item, self.frame))

    def _bind_group(self, item: syntax.Spread, dims: Sequence[ir.Dim], place: _Mismatch) -> None:
        if item.name is not None:
            self._bind(item.name.name, Dimensions(tuple(dims)), place.span)

    def _bind(self, name: str, value: Value, span: Span) -> None:
        self.frame.scope.target_of(name).bind(name, value, span)

    def _unify_dim(self, item: syntax.Expression | ir.Dim, dim: ir.Dim, place: _Mismatch) -> None:
        if not isinstance(item, syntax.Expression):
            return self._compare(item, dim, place)
        unknown = sorted(free_names(item, self.frame))
        if not unknown:
            return self._compare(_size(item, self.frame), dim, place)
        if isinstance(item, syntax.Name):
            return self._bind(item.name, Number(dim), place.span)
        if not self._solve(item, dim, unknown, place):
            self.pending.append(
                _Mismatch(place.type, place.actual, place.span, place.what, item, dim)
            )
        return None

    def _solve(
        self, item: syntax.Expression, dim: ir.Dim, unknown: Sequence[str], place: _Mismatch
    ) -> bool:
        """Binds the one unknown name of a linear expression; False if that is not possible."""
        if len(unknown) != 1:
            return False
        scope = Scope(self.frame.scope)
        hidden = f"?{unknown[0]}"
        scope.bind(unknown[0], Number(ir.symbol(hidden)))
        value = whole_number(item, self.frame.inside(scope))
        try:
            rest = ir.substitute(value, {hidden: 0})
            factor = ir.substitute(value, {hidden: 1}) - rest
        except ZeroDivisionError:
            return False
        if factor == 0 or value != ir.symbol(hidden) * factor + rest:
            return False
        solution = ir.floor_div(dim - rest, factor)
        if solution * factor != dim - rest:
            self._fail_shape(place, (dim, solution))
        self._bind(unknown[0], Number(solution), place.span)
        return True

    def _compare(self, expected: ir.Dim, found: ir.Dim, place: _Mismatch) -> None:
        if expected != found:
            self._fail_shape(place, (expected, found))

    def _fail_shape(self, place: _Mismatch, dims: Sequence[ir.Dim]) -> None:
        notes = self._notes(place.type)
        facts: Facts = {"what": place.what, "expected": place.type.span.text, "found": place.actual}
        fail(Kind.WRONG_SHAPE, place.span, notes=notes, dims=list(map(str, dims)), **facts)

    def _notes(self, type: syntax.ValueType) -> list[Note]:
        """Where the names in the type got their values."""
        notes = []
        for name in dict.fromkeys(names_in_type(type)):
            bound = self.frame.scope.binding_of_dimension(name)
            if not isinstance(bound, Bound) or bound.span is None:
                continue
            value: object = None
            if isinstance(bound.value, Number):
                value = bound.value.value
            elif isinstance(bound.value, Dimensions):
                value = f"[{', '.join(map(str, bound.value.dims))}]"
            if value is not None:
                notes.append(dimension_note(name, value, bound.span))
        return notes


@dataclass(frozen=True, slots=True)
class _Mismatch:
    """A type and the actual type that it meets; a dimension that is left for later."""

    type: syntax.ValueType
    actual: ir.TensorType
    span: Span
    what: str
    item: syntax.Expression | None = None
    dim: ir.Dim | None = None
