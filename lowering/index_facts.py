"""What is known of indices without running: bounds, divisors, and what follows for their form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd, prod

from mapsto.lowering.indices import (
    COMPOSITES,
    Atom,
    Composite,
    Index,
    ValueOf,
    index_terms,
    map_atoms,
)

__all__ = ["index_bounds", "index_multiple", "simplify_index"]


def index_bounds(index: Index, ranges: Mapping[str, tuple[int, int]]) -> tuple[int, int] | None:
    """The least and greatest value of an index that is a sum over variables of known ranges
    (inclusive), or None."""
    low = high = 0
    for monomial, coefficient in index_terms(index):
        ends = (1, 1) if not monomial else _atom_bounds(monomial[0], ranges)
        if ends is None or len(monomial) > 1:
            return None
        low += min(coefficient * ends[0], coefficient * ends[1])
        high += max(coefficient * ends[0], coefficient * ends[1])
    return low, high


def _atom_bounds(atom: Atom, ranges: Mapping[str, tuple[int, int]]) -> tuple[int, int] | None:
    if isinstance(atom, str):
        return ranges.get(atom)
    if isinstance(atom, ValueOf) or not isinstance(atom.right, int) or atom.right <= 0:
        return None
    if atom.kind == "mod":
        return 0, atom.right - 1
    inner = index_bounds(atom.left, ranges) if atom.kind == "floordiv" else None
    return None if inner is None else (inner[0] // atom.right, inner[1] // atom.right)


def index_multiple(index: Index, known: Callable[[str], int] = lambda name: 1) -> int:
    """A number that divides the index whatever its variables are (0 for the index 0); `known` tells
    such a number for a variable."""
    return gcd(
        *(
            coefficient * prod(_atom_multiple(atom, known) for atom in monomial)
            for monomial, coefficient in index_terms(index)
        )
    )


def _atom_multiple(atom: Atom, known: Callable[[str], int]) -> int:
    if isinstance(atom, str):
        return known(atom)
    if isinstance(atom, ValueOf):
        return 1
    left, right = index_multiple(atom.left, known), index_multiple(atom.right, known)
    if atom.kind != "floordiv":
        return gcd(left, right)
    return left // right if isinstance(atom.right, int) and left % right == 0 else 1


def simplify_index(index: Index, ranges: Mapping[str, tuple[int, int]]) -> Index:
    """The index without the divisions, moduli and extrema that known ranges decide, such as
    `(16*i + j) // 16` for `j` in 0..15."""

    def decide(atom: Atom) -> Index | None:
        if not isinstance(atom, Composite):
            return None
        left, right = simplify_index(atom.left, ranges), simplify_index(atom.right, ranges)
        if atom.kind in ("min", "max"):
            return _decided_extremum(atom.kind, left, right, ranges)
        ends = index_bounds(left, ranges)
        if ends is None or not isinstance(right, int) or right <= 0:
            return COMPOSITES[atom.kind](left, right)
        quotient = ends[0] // right
        if quotient != ends[1] // right:
            return COMPOSITES[atom.kind](left, right)
        return quotient if atom.kind == "floordiv" else left - quotient * right

    return map_atoms(index, decide)


def _decided_extremum(
    kind: str, left: Index, right: Index, ranges: Mapping[str, tuple[int, int]]
) -> Index:
    ends = index_bounds(left - right, ranges)
    if ends is not None and (ends[1] <= 0 or ends[0] >= 0):
        return left if (ends[1] <= 0) == (kind == "min") else right
    return COMPOSITES[kind](left, right)
