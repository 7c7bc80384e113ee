"""Values against declared types: of results, of `let`, of arguments."""

from __future__ import annotations

from mapsto.dsl import syntax
from mapsto.dsl.arguments import check_kind
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.dimensions import Unifier, dtype_of, evaluate_type, free_names, is_kind
from mapsto.dsl.evaluation import scalar_or_tensor
from mapsto.dsl.frame import Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import as_tensor, coerce, describe
from mapsto.dsl.values import Argument, Expected, Group, Value

__all__ = ["conform", "fitting_group", "type_of_result"]


def type_of_result(type: syntax.TypeExpression | None, inner: Frame) -> Expected | None:
    """What a declared type asks of a value, as far as its names have values."""
    if isinstance(type, syntax.TupleType):
        return Expected(items=tuple([type_of_result(item, inner) for item in type.items]))
    if type is None or is_kind(type):
        return None
    dtype = dtype_of(type, inner)
    if any(free_names(item, inner) for item in type.shape or ()):
        return Expected(dtype)
    return Expected(dtype, evaluate_type(type, inner).shape)


def fitting_group(type: syntax.TupleType, value: Value, span: Span, what: str) -> Group:
    """The value, if it is a tuple or a record with as many items, and the names, of the type."""
    names = tuple([name.name for name in type.names])
    fits = isinstance(value, Group) and len(value.items) == len(type.items)
    if not fits or not isinstance(value, Group) or sorted(value.names) != sorted(names):
        fail(Kind.WRONG_VALUE, span, what=what, expected=type.span.text, found=describe(value))
    if not names:
        return value
    items = [value.items[value.names.index(name)] for name in names]
    return Group(tuple(items), names=names)


def conform(
    inner: Frame, type: syntax.TypeExpression | None, value: Value, span: Span, what: str
) -> Value:
    """The value in the declared type; names without a value get theirs from it."""
    if type is None:
        return as_tensor(inner, span, value) if scalar_or_tensor(value) else value
    if isinstance(type, syntax.TupleType):
        group = fitting_group(type, value, span, what)
        pairs = zip(type.items, group.items, strict=True)
        return group.with_items([conform(inner, t, item, span, what) for t, item in pairs])
    if is_kind(type):
        return check_kind(type.name.name, what, Argument(None, value, span))
    if any(free_names(item, inner) for item in type.shape or ()) or dtype_of(type, inner) is None:
        tensor = as_tensor(inner, span, value, dtype_of(type, inner))
        unifier = Unifier(inner, what)
        unifier.unify(type, tensor.type, span, what)
        unifier.finish()
        return tensor
    wanted = evaluate_type(type, inner)
    return coerce(inner, span, value, wanted, what=what, declared=type.span)
