"""Regions: blocks that are built where they see everything, closed over what they use of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Location, Operation, Region, Trait, Value
from mapsto.ir.substitution import Values, copy_operation
from mapsto.ir.types import TensorType

__all__ = [
    "build_block",
    "captured_values",
    "closed_over",
    "enclosed",
    "is_number",
    "silenced",
    "with_regions",
]


def build_block(
    types: Sequence[TensorType],
    body: Callable[[Builder, Sequence[Value]], Sequence[Value]],
    hints: Sequence[str] = (),
    location: Location | None = None,
) -> Block:
    """The block on arguments of these types that returns what `body(build, arguments)` gives.

    The body may use values of enclosing blocks; `closed_over` makes arguments of them.
    """
    build = Builder(Block(types, hints), location)
    return build.returning(*body(build, build.block.arguments))


def enclosed(
    arguments: Sequence[Value],
    operations: Iterable[Operation],
    returned: Sequence[Value],
    replaced: Mapping[Value, Value] | None = None,
) -> Block:
    """A block of copies of the operations, with arguments in place of the values `arguments`, and
    other values `replaced` as the mapping says."""
    from mapsto.ir.ops.control import Return

    block = Block([value.type for value in arguments], [value.hint for value in arguments])
    values: Values = {**(replaced or {}), **dict(zip(arguments, block.arguments, strict=True))}
    block.operations += [copy_operation(op, values, {}) for op in operations]
    block.operations.append(Return([values.get(value, value) for value in returned]))
    return block


def with_regions(block: Block, change: Callable[[Block], Block]) -> Block:
    """The block with the blocks of its regions changed; those inside them are left to `change`."""
    if not any(op.regions for op in block.operations):
        return block
    values: Values = {}
    operations: list[Operation] = []
    for op in block.operations:
        operands = [values.get(value, value) for value in op.operands]
        if not op.regions and operands == list(op.operands):
            operations.append(op)
            continue
        regions = [Region(change(region.block)) for region in op.regions]
        operations.append(op.rebuilt(operands, regions))
        for old, new in zip(op.results, operations[-1].results, strict=True):
            new.hint = old.hint
            values[old] = new
    return block.with_operations(operations)


def silenced(block: Block) -> Block:
    """The block without what stands in it, or in its regions, for its effect alone."""
    block = with_regions(block, silenced)
    kept = [op for op in block.operations if op.results or not op.has(Trait.EFFECT)]
    return block.with_operations(kept)


def captured_values(blocks: Iterable[Block]) -> list[Value]:
    """What the blocks use and do not define, in the order of first use."""
    found: dict[Value, None] = {}
    for block in blocks:
        inside = {*block.arguments}
        for op in block.operations:
            # Regions inside are closed: what they use of here are operands of their operations.
            found.update((value, None) for value in op.operands if value not in inside)
            inside.update(op.results)
    return list(found)


def closed_over(blocks: Sequence[Block]) -> tuple[list[Value], list[Region]]:
    """Regions of the blocks that capture nothing, and the values to give to each of them.

    Those become arguments before the others, in every region the same.  A number that is captured
    is written again inside instead.
    """
    captured = captured_values(blocks)
    numbers = [op for value in captured if is_number(value) and (op := value.defining_op)]
    given = [value for value in captured if not is_number(value)]
    return given, [Region(_closed(block, given, numbers)) for block in blocks]


def _closed(block: Block, given: Sequence[Value], numbers: Sequence[Operation]) -> Block:
    used = {value for op in block.operations for value in op.operands}
    needed = [op for op in numbers if op.result in used]
    arguments = (*given, *block.arguments)
    return enclosed(arguments, [*needed, *block.operations[:-1]], block.returned)


def is_number(value: Value) -> bool:
    """Whether the value is one number everywhere, known when the program is compiled."""
    from mapsto.ir.ops.shaping import Constant

    op = value.defining_op
    return isinstance(op, Constant) and op.splat is not None
