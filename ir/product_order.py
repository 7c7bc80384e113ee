"""The order in which a product of many tensors is taken, two at a time.

Any order of pairs gives the same sum; they differ in the products they take and in what lies
between (Pfeifer, Haegeman and Verstraete, "Faster identification of optimal contraction sequences
for tensor networks", 2014).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from math import prod

__all__ = ["first_pair"]

Dims = frozenset[int]
"""The indices that a tensor is read by."""

ELEMENT_COST = 8
"""What an element between two products costs, written and read again, in multiply-adds."""

EXHAUSTIVE = 6
"""So many tensors at most are tried in every order; of more the cheapest pair comes first."""


def first_pair(operands: Sequence[Dims], kept: Dims, extents: Mapping[int, int]) -> tuple[int, int]:
    """The positions of the two operands to multiply first, where indices outside of `kept` are
    summed over: those with which the whole product costs least."""
    steps = 1 if len(operands) > EXHAUSTIVE else len(operands)

    @cache
    def cost(left: tuple[Dims, ...], steps: int) -> int:
        """The least cost of that many products of what is left."""
        if len(left) < 2 or not steps:
            return 0
        return min(after(left, pair, steps) for pair in combinations(range(len(left)), 2))

    def after(left: tuple[Dims, ...], pair: tuple[int, int], steps: int) -> int:
        """The least cost with this pair first."""
        rest = [dims for number, dims in enumerate(left) if number not in pair]
        used = left[pair[0]] | left[pair[1]]
        result = used & kept.union(*rest)
        own = count(used) + (ELEMENT_COST * count(result) if rest else 0)
        return own + cost((*rest, result), steps - 1)

    def count(dims: Dims) -> int:
        return prod(extents[d] for d in dims)

    whole = tuple(operands)
    return min(combinations(range(len(whole)), 2), key=lambda pair: after(whole, pair, steps))
