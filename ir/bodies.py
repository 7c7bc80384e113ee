"""The regions of ops that are lowered on their own, as functions.

A body has the interface of a function: arguments, results, and `aliases`, the results that take the
place of arguments.  From step to step of a loop these are the values carried along.
"""

from __future__ import annotations

from mapsto.ir.core import Function, Operation

__all__ = ["alias_pairs", "body_functions"]


def alias_pairs(function: Function) -> list[tuple[int, int]]:
    """Which results are written to the buffers of which arguments: (result, argument)."""
    pairs = function.attributes.get("aliases", ())
    assert isinstance(pairs, tuple)
    return [
        (pair[0], pair[1])
        for pair in pairs
        if isinstance(pair, tuple) and isinstance(pair[0], int) and isinstance(pair[1], int)
    ]


def body_functions(op: Operation, prefix: str = "") -> tuple[Function, ...]:
    """The regions of an op as functions, which are named `prefix` and what the region is."""
    return tuple(
        Function(
            prefix + name.replace(" ", "_"), region.block, {"aliases": op.region_aliases(number)}
        )
        for number, (name, region) in enumerate(zip(op.region_names, op.regions, strict=True))
    )
