"""The regions of ops that are lowered on their own, as functions.

A body has the interface of a function: arguments, results, and `aliases`, the results that take the
place of arguments.  From step to step of a loop these are the values carried along.  `constants`
are the numbers of the arguments that all steps have in common; those of a program are the same at
each call, as the parameters of a net that is frozen.
"""

from __future__ import annotations

from mapsto.ir.core import Attribute, Function, Operation, Value

__all__ = ["alias_pairs", "body_functions", "constant_arguments"]


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
    names = [prefix + name.replace(" ", "_") for name in op.region_names]
    return tuple(
        Function(name, region.block, _facts(op, number))
        for number, (name, region) in enumerate(zip(names, op.regions, strict=True))
    )


def _facts(op: Operation, number: int) -> dict[str, Attribute]:
    constants = tuple(range(op.region_constants(number)))
    return {"aliases": op.region_aliases(number), "constants": constants}


def constant_arguments(function: Function) -> frozenset[Value]:
    """The arguments of a body that all steps have in common, of a program that all calls have."""
    numbers = function.attributes.get("constants", ())
    assert isinstance(numbers, tuple)
    return frozenset(function.arguments[number] for number in numbers if isinstance(number, int))
