"""Blocks without what nothing needs, down into regions.

Of control flow that is needed only in part, the rest goes: carried values that neither a result
needs nor a later step, outputs, operands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Operation, Region, Value
from mapsto.ir.ops.flow import If, Scan, While
from mapsto.ir.regions import enclosed
from mapsto.ir.scan_parts import ScanParts
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["pruned", "pruned_operations"]


def pruned(block: Block) -> Block:
    """The block without operations, and parts of operations, that its results do not need; its
    arguments and what has an effect stay."""
    operations, values = _pruned(block.operations[:-1], block.returned)
    return block.with_operations([*operations, copy_operation(block.terminator, values, {})])


def pruned_operations(
    operations: Sequence[Operation], roots: Sequence[Value]
) -> tuple[Sequence[Operation], Sequence[Value]]:
    """The operations that the roots need, and the roots as they are computed there."""
    kept, values = _pruned(operations, roots)
    return kept, [values.get(root, root) for root in roots]


def _pruned(
    operations: Sequence[Operation], roots: Iterable[Value]
) -> tuple[list[Operation], Values]:
    """The operations that are needed, and what replaces values of those that are new."""
    live = _live_values(operations, roots)
    build, values = Builder(Block(())), Values()
    for op in operations:
        if not _is_needed(op, live):
            continue
        narrow = _NARROWED.get(type(op))
        if narrow is None:
            build.append(_moved(op, values))
            continue
        build.location = op.location
        used = [number for number, result in enumerate(op.results) if result in live]
        moved = copy_operation(op, values, {})
        for number, result in zip(used, narrow(moved, used, build), strict=True):
            result.hint = op.results[number].hint
            values[op.results[number]] = result
    return build.block.operations, values


def _moved(op: Operation, values: Values) -> Operation:
    """The operation on the values that replace its operands."""
    if all(operand not in values for operand in op.operands):
        return op
    return copy_operation(op, values, {})


def _is_needed(op: Operation, live: set[Value]) -> bool:
    return op.has_effect or any(result in live for result in op.results)


# ---- what is needed


def _live_values(operations: Sequence[Operation], roots: Iterable[Value]) -> set[Value]:
    """What the roots need, and what has effects."""
    live = set(roots)
    for op in reversed(operations):
        if _is_needed(op, live):
            needed = _NEEDED.get(type(op))
            live.update(op.operands if needed is None else needed(op, live))
    return live


def _needed_by_scan(op: Scan, live: set[Value]) -> list[Value]:
    _, inside = _live_states(op, live)
    pairs = zip(op.operands, op.body.arguments, strict=True)
    return [operand for operand, argument in pairs if argument in inside]


def _live_states(op: Scan, live: set[Value]) -> tuple[list[int], set[Value]]:
    """The carried values that are needed, by number, and what is needed of the body's values."""
    states = ScanParts.of(op).carried
    outputs = op.body.returned[len(states) :]
    roots = [value for value, result in zip(outputs, op.outputs, strict=True) if result in live]
    kept = [number for number, result in enumerate(op.finals) if result in live]
    while True:
        returned = [*roots, *(states[number].returned for number in kept)]
        inside = _live_values(op.body.operations[:-1], returned)
        known = {*kept, *(i for i, state in enumerate(states) if state.argument in inside)}
        if len(known) == len(kept):
            return kept, {*inside, *(states[number].argument for number in kept)}
        kept = sorted(known)


def _needed_by_while(op: While, live: set[Value]) -> list[Value]:
    kept = _live_while_states(op, live)
    asked = _live_values(op.condition.operations[:-1], op.condition.returned)
    returned = [op.body.returned[number] for number in kept]
    inside = _live_values(op.body.operations[:-1], returned)
    fixed = zip(op.constants, op.condition.arguments, op.body.arguments, strict=False)
    constants = [operand for operand, c, b in fixed if c in asked or b in inside]
    return [*constants, *(op.carried[number] for number in kept)]


def _live_while_states(op: While, live: set[Value]) -> list[int]:
    """The carried values that results, the condition or other carried values need."""
    start = len(op.constants)
    asked = _live_values(op.condition.operations[:-1], op.condition.returned)
    roots = {number for number, result in enumerate(op.results) if result in live}
    roots |= {i for i, argument in enumerate(op.condition.arguments[start:]) if argument in asked}
    kept = sorted(roots)
    while True:
        returned = [op.body.returned[number] for number in kept]
        inside = _live_values(op.body.operations[:-1], returned)
        known = {*kept, *(i for i, a in enumerate(op.body.arguments[start:]) if a in inside)}
        if len(known) == len(kept):
            return kept
        kept = sorted(known)


def _needed_by_if(op: If, live: set[Value]) -> list[Value]:
    used = [number for number, result in enumerate(op.results) if result in live]
    needed = [op.condition]
    for block in op.branches:
        inside = _live_values(block.operations[:-1], [block.returned[number] for number in used])
        pairs = zip(op.arguments, block.arguments, strict=True)
        needed += [operand for operand, argument in pairs if argument in inside]
    return needed


_NEEDED: dict[type[Operation], Callable[..., list[Value]]] = {
    Scan: _needed_by_scan,
    While: _needed_by_while,
    If: _needed_by_if,
}
"""For control flow: the operands that are needed where some values are."""


# ---- what is left


def _narrowed_scan(op: Scan, used: Sequence[int], build: Builder) -> list[Value]:
    parts = ScanParts.of(op)
    live = {op.results[number] for number in used}
    kept, _ = _live_states(op, live)
    count = len(parts.carried)
    states = [parts.carried[number] for number in kept]
    outputs = [parts.outputs[number - count] for number in used if number >= count]
    returned = [*(state.returned for state in states), *outputs]
    operations, computed = pruned_operations(parts.operations, returned)
    carried = zip(states, computed, strict=False)
    narrowed = replace(
        parts,
        carried=tuple(replace(state, returned=value) for state, value in carried),
        outputs=tuple(computed[len(states) :]),
        operations=tuple(operations),
    )
    finals, stacked = narrowed.emit(build)
    found = dict(zip(kept, finals, strict=True))
    return [*(found[number] for number in used if number < count), *stacked]


def _narrowed_while(op: While, used: Sequence[int], build: Builder) -> list[Value]:
    live = {op.results[number] for number in used}
    kept, needed = _live_while_states(op, live), set(_needed_by_while(op, live))
    start = len(op.constants)
    constants = [i for i, operand in enumerate(op.constants) if operand in needed]
    chosen = [*constants, *(start + number for number in kept)]
    blocks = []
    for block, roots in (
        (op.condition, op.condition.returned),
        (op.body, [op.body.returned[number] for number in kept]),
    ):
        operations, returned = pruned_operations(block.operations[:-1], roots)
        blocks.append(enclosed([block.arguments[i] for i in chosen], operations, returned))
    results = build.op(
        While,
        *(op.operands[i] for i in chosen),
        regions=[Region(block) for block in blocks],
        constants=len(constants),
    ).results
    found = dict(zip(kept, results, strict=True))
    return [found[number] for number in used]


def _narrowed_if(op: If, used: Sequence[int], build: Builder) -> Sequence[Value]:
    needed = {*_needed_by_if(op, {op.results[number] for number in used})}
    chosen = [i for i, operand in enumerate(op.arguments) if operand in needed]
    regions = []
    for block in op.branches:
        roots = [block.returned[number] for number in used]
        operations, returned = pruned_operations(block.operations[:-1], roots)
        arguments = [block.arguments[i] for i in chosen]
        regions.append(Region(enclosed(arguments, operations, returned)))
    operands = [op.arguments[i] for i in chosen]
    return build.op(If, op.condition, *operands, regions=regions).results


_NARROWED: dict[type[Operation], Callable[..., Sequence[Value]]] = {
    Scan: _narrowed_scan,
    While: _narrowed_while,
    If: _narrowed_if,
}
"""For control flow: emits what is left of it where only some results are used; gives those."""
