"""Structures of tensors: tuples, records and lists, nested at will, with tensors at their leaves.

What works on any structure (derivatives, control flow, `vmap`) takes one apart with `tensors_in`
and puts another together with `rebuilt`; a new kind of structure is added here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.frame import Frame, SlotKey, fail
from mapsto.dsl.source import Span
from mapsto.dsl.tensors import as_tensor, describe
from mapsto.dsl.values import Group, Nothing, ParameterTree, Tensor, Value

__all__ = [
    "describe_structure",
    "leaves",
    "mapped",
    "over_trees",
    "rebuilt",
    "same_structure",
    "tensors_in",
]


def leaves(value: Value) -> Iterator[Value]:
    """What a structure holds, in order: `none` holds nothing, any other value is a leaf."""
    if isinstance(value, Group):
        for item in value.items:
            yield from leaves(item)
    elif isinstance(value, ParameterTree):
        yield from value.tensors.values()
    elif not isinstance(value, Nothing):
        yield value


def mapped(function: Callable[[Value], Value], value: Value) -> Value:
    """The structure with the function of each leaf in its place."""
    if isinstance(value, Group):
        return value.with_items([mapped(function, item) for item in value.items])
    if isinstance(value, ParameterTree):
        return _tree(value, {key: function(tensor) for key, tensor in value})
    return value if isinstance(value, Nothing) else function(value)


def _tree(like: ParameterTree, leaves: Mapping[SlotKey, Value]) -> ParameterTree:
    tensors = {key: leaf for key, leaf in leaves.items() if isinstance(leaf, Tensor)}
    assert len(tensors) == len(leaves), "the leaves of a tree are tensors"
    return ParameterTree(like.instance, tensors, like.paths)


def over_trees(
    frame: Frame,
    span: Span,
    values: Sequence[Value],
    function: Callable[[SlotKey, list[Value]], Value],
) -> Value:
    """The tree of what a function gives at each parameter, from the key and the tensors of the
    trees among the values there; other values are the same everywhere.

    Where the function gives tuples, a tuple of trees.
    """
    trees = [value for value in values if isinstance(value, ParameterTree)]
    for tree in trees[1:]:
        if tree.tensors.keys() != trees[0].tensors.keys():
            fail(Kind.TREES_DIFFER, span)
    results = {
        key: function(key, [v.tensors[key] if isinstance(v, ParameterTree) else v for v in values])
        for key in trees[0].tensors
    }
    return _transposed(frame, span, trees[0], results)


def _transposed(
    frame: Frame, span: Span, like: ParameterTree, results: Mapping[SlotKey, Value]
) -> Value:
    """A tree of tuples as a tuple of trees."""
    first = next(iter(results.values()), None)
    if not isinstance(first, Group):
        return _tree(like, {key: as_tensor(frame, span, v) for key, v in results.items()})
    parts = [
        {key: value.items[i] for key, value in results.items() if isinstance(value, Group)}
        for i in range(len(first.items))
    ]
    return first.with_items([_transposed(frame, span, like, part) for part in parts])


def tensors_in(frame: Frame, span: Span, value: Value) -> list[Tensor]:
    """The leaves as tensors; DiagnosticError where one is none."""
    return [as_tensor(frame, span, leaf) for leaf in leaves(value)]


def rebuilt(value: Value, tensors: Sequence[Value]) -> Value:
    """The structure of a value with these leaves, in order."""
    given = iter(tensors)
    return mapped(lambda _: next(given), value)


def same_structure(first: Value, second: Value) -> bool:
    """Whether two values have leaves at the same places."""
    if isinstance(first, Group) and first.is_like(second):
        pairs = zip(first.items, second.items, strict=True)
        return all(same_structure(one, other) for one, other in pairs)
    if isinstance(first, Nothing) or isinstance(second, Nothing):
        return first == second
    if isinstance(first, ParameterTree) and isinstance(second, ParameterTree):
        return first.tensors.keys() == second.tensors.keys()
    return not isinstance(first, Group | ParameterTree) and not isinstance(
        second, Group | ParameterTree
    )


def describe_structure(value: Value) -> str:
    """A structure in the words of a message: `(f32[n], i32[])`."""
    if isinstance(value, Group):
        parts = [describe_structure(item) for item in value.items]
        if value.names:
            named = zip(value.names, parts, strict=True)
            parts = [f"{name}: {part}" for name, part in named]
        inside = ", ".join(parts)
        return f"[{inside}]" if value.is_list else f"({inside})"
    return describe(value)
