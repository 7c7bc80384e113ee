"""Closing a block: values that it uses but does not compute become arguments of a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapsto import ir
from mapsto.ir.substitution import copy_into

__all__ = ["close", "free_values"]


def free_values(block: ir.Block, results: Sequence[ir.Value]) -> list[ir.Value]:
    """The values that the operations and results use and no operation of the block computes."""
    computed = {result for op in block.operations for result in op.results}
    used = [value for op in block.operations for value in op.operands]
    return [v for v in dict.fromkeys((*used, *results)) if v not in computed]


def close(
    name: str,
    build: ir.Builder,
    arguments: Sequence[ir.Value],
    results: Sequence[ir.Value],
    attributes: Mapping[str, ir.Attribute] | None = None,
    location: ir.Location | None = None,
) -> ir.Function:
    """A function of these free values, in order, that computes the results."""
    body = build.returning(*results)
    target = ir.Block([value.type for value in arguments], [value.hint for value in arguments])
    values = dict(zip(arguments, target.arguments, strict=True))
    outputs = copy_into(body, target, values)
    closed = ir.Builder(target, location)
    return ir.finish_function(name, closed, outputs, dict(attributes or {}), location)
