"""Closing a block: values that it uses but does not compute become arguments of a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mapsto import ir
from mapsto.dsl.frame import Frame
from mapsto.dsl.source import Span
from mapsto.ir.dims import symbols
from mapsto.ir.ops.flow import Scan
from mapsto.ir.substitution import copy_into

__all__ = ["close", "free_values", "size_values"]


def free_values(block: ir.Block, results: Sequence[ir.Value]) -> list[ir.Value]:
    """The values that the operations and results use and no operation of the block computes."""
    computed = {result for op in block.operations for result in op.results}
    used = [value for op in block.operations for value in op.operands]
    return [v for v in dict.fromkeys((*used, *results)) if v not in computed]


def size_values(
    frame: Frame, span: Span, block: ir.Block, arguments: Sequence[ir.Value]
) -> list[ir.Value]:
    """Values around a block that bring it the named sizes which none of its arguments has: as
    those of `full([n], 0)` in a map whose arguments know nothing of n."""
    known = {name for value in arguments for name in value.type.symbols}
    missing = sorted(_sizes(block) - known)
    types = [ir.TensorType(ir.DType.I32, (ir.symbol(name),)) for name in missing]
    return [frame.emit(span, ir.Iota, axis=0, type=type) for type in types]


def _sizes(block: ir.Block) -> frozenset[str]:
    """The named sizes in the types of what a block computes and in its numbers of steps."""
    found: frozenset[str] = frozenset()
    for op in block.operations:
        found = found.union(*(value.type.symbols for value in op.results))
        found |= symbols(op.extent) if isinstance(op, Scan) else frozenset()
        found = found.union(*(_sizes(region.block) for region in op.regions))
    return found


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
