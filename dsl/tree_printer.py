"""The syntax tree as indented text, for `mapsto ir --stage ast`.

Each node is a line with its class, its plain fields and its place; the nodes in it follow,
indented, each after the name of the field that holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from enum import Enum

from mapsto.dsl.source import Span
from mapsto.dsl.syntax import Identifier, Node

__all__ = ["print_tree"]


def print_tree(node: Node) -> str:
    """A node and everything in it, one line each, without a final line end."""
    return "\n".join(_lines(node, "", 0))


def _lines(node: Node, label: str, depth: int) -> Iterator[str]:
    plain = [_plain(name, value) for name, value in _fields(node) if not _is_nested(value)]
    begin = node.span.begin
    words = [type(node).__name__, *plain, f"@{begin.line}:{begin.column}"]
    yield f"{'  ' * depth}{label}{' '.join(words)}"
    for name, value in _fields(node):
        if isinstance(value, Node) and not isinstance(value, Identifier):
            yield from _lines(value, f"{name}: ", depth + 1)
        elif _is_nested(value) and isinstance(value, tuple):
            yield from _list(name, value, depth + 1)


def _list(name: str, items: tuple[Node, ...], depth: int) -> Iterator[str]:
    yield f"{'  ' * depth}{name}:"
    for item in items:
        yield from _lines(item, "", depth + 1)


def _fields(node: Node) -> Iterator[tuple[str, object]]:
    for entry in fields(node):
        value = getattr(node, entry.name)
        if not isinstance(value, Span) and value is not None and value != ():
            yield entry.name, value


def _is_nested(value: object) -> bool:
    """Whether a field is drawn below its node: a node or a list of nodes that are not names."""
    if isinstance(value, tuple):
        return not all(isinstance(item, Identifier) for item in value)
    return isinstance(value, Node) and not isinstance(value, Identifier)


def _plain(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"{name}=[{', '.join(item.name for item in value)}]"
    if isinstance(value, Identifier):
        return f"{name}={value.name}"
    if isinstance(value, Enum):
        return f"{name}={value.value}"
    return f"{name}={value!r}"
