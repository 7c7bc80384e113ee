"""Names that a kernel does not use yet."""

from __future__ import annotations

from collections.abc import Iterable

from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Allocate, For, Let, LoopFunction, Statement

__all__ = ["Names"]


class Names:
    """Gives names apart from those of a function and from each other."""

    def __init__(self, function: LoopFunction) -> None:
        self._used = {buffer.name for buffer in function.buffers} | set(_bound(function.body))

    def fresh(self, prefix: str) -> str:
        """The prefix itself if it is free, else with a number."""
        name, number = prefix, 1
        while name in self._used:
            number += 1
            name = f"{prefix}_{number}"
        self._used.add(name)
        return name


def _bound(body: Iterable[Statement]) -> Iterable[str]:
    for statement in statements(body):
        match statement:
            case For(variable=name) | Let(name):
                yield name
            case Allocate(buffer):
                yield buffer.name
