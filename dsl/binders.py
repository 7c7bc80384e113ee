"""Which expressions in brackets bind indices: `i`, `i < n`, `...s`."""

from __future__ import annotations

from mapsto.dsl.operators import BinaryOperator
from mapsto.dsl.syntax import (
    Binary,
    Binder,
    BoundedIndex,
    Identifier,
    Name,
    Node,
    Spread,
)

__all__ = ["binder_of"]


def binder_of(item: Node) -> Binder | None:
    """What is written in brackets as the binding of an index; None if it is none."""
    match item:
        case Spread():
            return item
        case Name():
            return Identifier(item.span, item.name)
        case Binary(operator=BinaryOperator.LESS, left=Name() as name):
            return BoundedIndex(item.span, Identifier(name.span, name.name), item.right)
    return None
