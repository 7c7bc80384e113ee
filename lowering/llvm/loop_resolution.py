"""Indices with their variables replaced, each found once.

The body of an unrolled loop is emitted again and again: most of what its indices come to was found
a turn before, for the same values of those variables that matter to it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from mapsto.lowering.index_facts import simplify_index
from mapsto.lowering.indices import (
    COMPOSITES,
    Atom,
    Composite,
    Index,
    IndexExpression,
    ValueOf,
    atoms,
    linear_parts,
    map_atoms,
)

__all__ = ["Resolver"]

Bindings = Mapping[str, Index]
Ranges = Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is in an index: names, whether something is no polynomial, and whether values are."""

    names: tuple[str, ...]
    has_composites: bool
    has_values: bool


class Resolver:
    """Replaces and simplifies, with what was found before."""

    def __init__(self) -> None:
        self._contents: dict[IndexExpression, _Contents] = {}
        self._found: dict[Hashable, Index] = {}
        self._parts: dict[tuple[IndexExpression, str], tuple[Index, Index] | None] = {}

    def contents(self, index: IndexExpression) -> _Contents:
        """What is in an index, inside of its composite atoms too."""
        found = self._contents.get(index)
        if found is None:
            found = self._contents[index] = _contents_of(index)
        return found

    def simplified(self, index: IndexExpression, ranges: Ranges) -> Index:
        """The index without what the ranges of its variables decide."""
        contents = self.contents(index)
        if not contents.has_composites:
            return index
        key = "simplified", index, *map(ranges.get, contents.names)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = simplify_index(index, ranges)
        return found

    def bound(self, index: Index, bindings: Bindings) -> Index:
        """The index, in which there are no values of expressions, with its variables replaced."""
        if isinstance(index, int):
            return index
        contents = self.contents(index)
        key = index, *map(bindings.get, contents.names)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = map_atoms(index, lambda a: self._bound_atom(a, bindings))
        return found

    def _bound_atom(self, atom: Atom, bindings: Bindings) -> Index | None:
        if isinstance(atom, str):
            return bindings.get(atom)
        assert isinstance(atom, Composite), "values of expressions are computed before"
        left, right = self.bound(atom.left, bindings), self.bound(atom.right, bindings)
        return COMPOSITES[atom.kind](left, right)

    def linear_parts(self, index: Index, name: str) -> tuple[Index, Index] | None:
        """As `indices.linear_parts`."""
        if isinstance(index, int):
            return 0, index
        key = index, name
        if key not in self._parts:
            self._parts[key] = linear_parts(index, name)
        return self._parts[key]


def _contents_of(index: IndexExpression) -> _Contents:
    inside = tuple(dict.fromkeys(atoms(index)))
    return _Contents(
        names=tuple(atom for atom in inside if isinstance(atom, str)),
        has_composites=any(isinstance(atom, Composite) for atom in inside),
        has_values=any(isinstance(atom, ValueOf) for atom in inside),
    )
