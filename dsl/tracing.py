"""Elaborating a part of a program into a block of its own: a function, or a region of an op.

Inside, every parameter and state of a module has a stand-in, so that a value that the program read
before is told apart from what the parameter or state is when the block runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from mapsto import ir
from mapsto.dsl.frame import Frame, SlotKey

__all__ = ["Trace", "block_of", "trace", "unused_name"]

_T = TypeVar("_T")


@dataclass(slots=True)
class Trace(Generic[_T]):
    """What an elaboration built.

    `inside` are the stand-ins of the parameters and states that were known before, `outside` their
    values around the block; `updated` are those that got a new value inside, with that value.
    """

    build: ir.Builder
    result: _T
    inside: dict[SlotKey, ir.Value]
    outside: dict[SlotKey, ir.Value]
    updated: dict[SlotKey, ir.Value]

    def stand_in(self, frame: Frame, key: SlotKey) -> ir.Value:
        """What a parameter or state is at the start of the block, inside it."""
        known = self.inside.get(key)
        return frame.session.initial(key) if known is None else known

    def before(self, frame: Frame, key: SlotKey) -> ir.Value:
        """What a parameter or state is at the start of the block, around it."""
        known = self.outside.get(key)
        return frame.session.initial(key) if known is None else known

    def actual(self, values: Sequence[ir.Value]) -> list[ir.Value]:
        """Values that the block takes from around it, as they are called there."""
        names = {stand_in: self.outside[key] for key, stand_in in self.inside.items()}
        return [names.get(value, value) for value in values]

    @contextmanager
    def resumed(self, frame: Frame) -> Iterator[None]:
        """Builds on in the block."""
        session = frame.session
        outer, session.build = session.build, self.build
        try:
            yield
        finally:
            session.build = outer


def trace(frame: Frame, run: Callable[[], _T]) -> Trace[_T]:
    """Elaborates what `run` does into a block; parameters and states keep the values that they have
    around it.

    The block uses values of enclosing blocks freely; it has no arguments and no terminator.
    """
    session = frame.session
    outside = session.slots()
    inside = {key: ir.Value(v.type, None, 0, v.hint) for key, v in outside.items()}
    for key, value in inside.items():
        session.assign(key, value)
    try:
        with session.block() as build:
            result = run()
        updated = {
            key: value
            for key, value in session.slots().items()
            if value is not (inside.get(key) or session.initial(key))
        }
    finally:
        for key in session.slots():
            session.assign(key, outside.get(key) or session.initial(key))
    return Trace(build, result, inside, outside, updated)


def block_of(
    built: Trace[_T], arguments: Sequence[ir.Value], results: Sequence[ir.Value]
) -> ir.Block:
    """The block with these free values as its arguments."""
    block = ir.Block(())
    block.arguments = tuple(arguments)
    returning = ir.Builder(ir.Block(()), built.build.location)
    block.operations = [*built.build.block.operations, *returning.returning(*results).operations]
    return block


def unused_name(frame: Frame, title: str) -> str:
    """A name for another function of the module."""
    return f"{title}.{len(frame.session.functions)}"
