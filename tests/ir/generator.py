"""Random well-typed functions over all ops, as a hypothesis strategy.

Values stay tame: every op is evaluated as it is drawn and dropped where a result is not finite, is
large, or is so close to a singularity that rounding would be magnified.  Ops with jumps (floor,
comparisons, argmax, casts to integers ..) are applied only to values that are exact in every order
of summation, so that two correct implementations agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from growth import DTYPES, Family, Growth, Program
from growth_families import FAMILIES
from growth_flow import FLOW
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from mapsto import ir

__all__ = ["Program", "programs"]


def programs(
    most_operations: int = 10,
    dtypes: Sequence[ir.DType] = DTYPES,
    families: Sequence[Family] = (*FAMILIES, *FLOW),
) -> SearchStrategy[Program]:
    """Random functions of up to so many operations on arguments of these element types."""
    return st.composite(_draw_program)(most_operations, tuple(dtypes), families)


def _draw_program(
    draw: DrawFn,
    most_operations: int,
    dtypes: tuple[ir.DType, ...],
    families: Sequence[Family],
) -> Program:
    growth = Growth(draw, dtypes)
    for _ in range(draw(st.integers(1, most_operations))):
        growth.grow(families)
    return growth.program()
