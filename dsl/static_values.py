"""Numbers that have to be known during elaboration, as a size or a number of parts."""

from __future__ import annotations

from mapsto import ir
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import fail
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import Number, Value

__all__ = ["static_dim", "static_integer"]


def static_dim(value: Value, span: Span) -> ir.Dim:
    """A whole number, perhaps one of named sizes; NOT_A_WHOLE_NUMBER where it is none."""
    if not isinstance(value, Number) or isinstance(value.value, float):
        fail(Kind.NOT_A_WHOLE_NUMBER, span, found=describe(value))
    return value.value


def static_integer(value: Value, span: Span) -> int:
    """A whole number that no named size stands in; NOT_A_WHOLE_NUMBER where it is none."""
    if not isinstance(value, Number) or not isinstance(value.value, int):
        fail(Kind.NOT_A_WHOLE_NUMBER, span, found=describe(value))
    return value.value
