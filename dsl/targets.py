"""What `let`, `for` and lists bind: a name, or a tuple of names that takes a value apart."""

from __future__ import annotations

from collections.abc import Iterator

from mapsto.dsl import syntax
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Facts, Frame, fail
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import describe
from mapsto.dsl.values import Group, Value

__all__ = ["bind_target", "target_names"]


def bind_target(frame: Frame, target: syntax.Target, value: Value, span: Span) -> None:
    """Gives the names of a target their parts of a value, which is written at `span`.

    DiagnosticError where the value has another number of parts.
    """
    if isinstance(target, syntax.Identifier):
        frame.scope.bind(target.name, value, target.span)
        return
    items = value.items if isinstance(value, Group) else ()
    if len(items) != len(target.items):
        expected = len(target.items)
        facts: Facts = {"expected": expected, "found": describe(value), "count": len(items)}
        fail(Kind.CANNOT_UNPACK, span, **facts)
    for part, item in zip(target.items, items, strict=True):
        bind_target(frame, part, item, part.span)


def target_names(target: syntax.Target) -> Iterator[str]:
    """The names that a target binds, in order."""
    if isinstance(target, syntax.Identifier):
        yield target.name
        return
    for part in target.items:
        yield from target_names(part)
