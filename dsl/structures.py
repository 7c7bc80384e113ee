"""Structures of tensors: tuples and lists, nested at will, that hold tensors at their leaves.

What works on any structure (derivatives, control flow, `vmap`) takes one apart with `tensors_in`
and puts another together with `rebuilt`; a new kind of structure is added here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mapsto.dsl.frame import Frame
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import as_tensor
from mapsto.dsl.values import Group, Tensor, Value

__all__ = ["leaves", "mapped", "rebuilt", "same_structure", "tensors_in"]


def leaves(value: Value) -> Iterator[Value]:
    """What a structure holds, in order; anything that is no structure is a leaf."""
    if isinstance(value, Group):
        for item in value.items:
            yield from leaves(item)
    else:
        yield value


def mapped(function: Callable[[Value], Value], value: Value) -> Value:
    """The structure with the function of each leaf in its place."""
    if isinstance(value, Group):
        return Group(tuple([mapped(function, item) for item in value.items]), value.is_list)
    return function(value)


def tensors_in(frame: Frame, span: Span, value: Value) -> list[Tensor]:
    """The leaves as tensors; DiagnosticError where one is none."""
    return [as_tensor(frame, span, leaf) for leaf in leaves(value)]


def rebuilt(value: Value, tensors: Sequence[Value]) -> Value:
    """The structure of a value with these leaves, in order."""
    given = iter(tensors)
    return mapped(lambda _: next(given), value)


def same_structure(first: Value, second: Value) -> bool:
    """Whether two values have leaves at the same places."""
    if isinstance(first, Group) and isinstance(second, Group):
        pairs = zip(first.items, second.items, strict=False)
        return len(first.items) == len(second.items) and all(
            same_structure(one, other) for one, other in pairs
        )
    return not isinstance(first, Group) and not isinstance(second, Group)
