"""Simpler control flow: what is known of it before it runs, and what need not stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Module, Operation, Region, Value
from mapsto.ir.invariants import hoist_invariants
from mapsto.ir.kernel_key import block_key
from mapsto.ir.ops.flow import If, Scan, While
from mapsto.ir.ops.shaping import Broadcast, Constant, Reshape
from mapsto.ir.passes.base import Pass
from mapsto.ir.regions import enclosed, is_number
from mapsto.ir.rewriting import Pattern, Rewriter, rewrite, rewrite_module
from mapsto.ir.scan_parts import Bound, ScanParts
from mapsto.ir.substitution import Values, copy_into, copy_operation

__all__ = ["LOOP_RULES", "Loops"]

Results = Sequence[Value] | None


# ---- loops with a number of steps


@rewrite
def scan_without_steps(op: Scan, rewriter: Rewriter) -> Results:
    """A scan of no steps gives what it carries, and outputs without elements."""
    if op.extent != 0:
        return None
    return [*op.carried, *(rewriter.build.zeros(output.type) for output in op.outputs)]


@rewrite
def scan_of_one_step(op: Scan, rewriter: Rewriter) -> Results:
    """A scan of one step is that step."""
    if op.extent != 1:
        return None
    slices = [rewriter.emit(Reshape, s, shape=s.shape[1:]) for s in op.sequences]
    operands = (*op.constants, *op.carried, *slices)
    returned = _inlined(rewriter.build, op.body, operands)
    count = len(op.carried)
    stacked = [rewriter.emit(Reshape, v, shape=(1, *v.shape)) for v in returned[count:]]
    return [*returned[:count], *stacked]


@rewrite
def unchanged_carry(op: Scan, rewriter: Rewriter) -> Results:
    """What every step carries on as it is, is a constant of the loop."""
    parts = ScanParts.of(op)
    fixed = [i for i, state in enumerate(parts.carried) if state.returned is state.argument]
    if not fixed:
        return None
    constants = (Bound(parts.carried[i].operand, parts.carried[i].argument) for i in fixed)
    carried = tuple(state for i, state in enumerate(parts.carried) if i not in fixed)
    changed = replace(parts, constants=(*parts.constants, *constants), carried=carried)
    finals, outputs = changed.emit(rewriter.build)
    rest = iter(finals)
    states = [op.carried[i] if i in fixed else next(rest) for i in range(len(parts.carried))]
    return [*states, *outputs]


@rewrite
def number_in_scan(op: Scan, rewriter: Rewriter) -> Results:
    """A number that a loop reads is written in its body, where rules see it."""
    parts = ScanParts.of(op)
    bound = [part for part in (*parts.constants, *parts.sequences) if is_number(part.operand)]
    if not bound:
        return None
    inner = Builder(Block(()), op.location)
    values = {part.argument: _number(inner, part) for part in bound}
    returned = [values.get(value, value) for value in parts.returned]
    moved: Values = dict(values)
    inner.block.operations += [copy_operation(o, moved, {}) for o in parts.operations]
    returned = [moved.get(value, value) for value in parts.returned]
    return _emitted(_with_body(parts, inner.block.operations, returned), rewriter)


@rewrite
def repeated_operand(op: Scan, rewriter: Rewriter) -> Results:
    """A tensor that a loop reads in two places of one kind is read in one."""
    parts = ScanParts.of(op)
    values: Values = {}
    for bound in (parts.constants, parts.sequences):
        first: dict[Value, Value] = {}
        for part in bound:
            kept = first.setdefault(part.operand, part.argument)
            if kept is not part.argument:
                values[part.argument] = kept
    if not values:
        return None
    operations = [copy_operation(o, values, {}) for o in parts.operations]
    returned = [values.get(value, value) for value in parts.returned]
    return _emitted(_with_body(parts, operations, returned), rewriter)


@rewrite
def repeated_output(op: Scan, rewriter: Rewriter) -> Results:
    """Two outputs of one value are one."""
    parts = ScanParts.of(op)
    kept = list(dict.fromkeys(parts.outputs))
    if len(kept) == len(parts.outputs):
        return None
    finals, outputs = replace(parts, outputs=tuple(kept)).emit(rewriter.build)
    found = dict(zip(kept, outputs, strict=True))
    return [*finals, *(found[value] for value in parts.outputs)]


@rewrite
def known_output(op: Scan, rewriter: Rewriter) -> Results:
    """An output that is the slice of a sequence is the sequence; one that is the same at every
    step, a broadcast."""
    parts = ScanParts.of(op)
    sequences = {part.argument: part.operand for part in parts.sequences}
    fixed = {part.argument: part.operand for part in parts.constants}
    known = [value in sequences or value in fixed for value in parts.outputs]
    if not any(known):
        return None
    unknown = [value for value, is_known in zip(parts.outputs, known, strict=True) if not is_known]
    finals, outputs = replace(parts, outputs=tuple(unknown)).emit(rewriter.build)
    rest, results = iter(outputs), list(finals)
    for value, output in zip(parts.outputs, op.outputs, strict=True):
        if value in sequences:
            results.append(sequences[value])
        elif value in fixed:
            dims = tuple(range(1, output.type.rank))
            results.append(rewriter.emit(Broadcast, fixed[value], shape=output.shape, dims=dims))
        else:
            results.append(next(rest))
    return results


@rewrite
def invariant_in_scan(op: Scan, rewriter: Rewriter) -> Results:
    """What a loop computes from its constants alone is computed once, before it."""
    parts = ScanParts.of(op)
    always_runs = isinstance(parts.extent, int) and parts.extent > 0
    constants, operations = hoist_invariants(
        rewriter.build, parts.constants, parts.operations, parts.returned, always_runs
    )
    if len(constants) == len(parts.constants):
        return None
    return _emitted(replace(parts, constants=constants, operations=operations), rewriter)


def _number(inner: Builder, part: Bound) -> Value:
    """The number that the operand is, in the type of the argument."""
    source = part.operand.defining_op
    assert isinstance(source, Constant)
    return inner.emit(Constant, value=source.attributes["value"], type=part.argument.type)


def _with_body(
    parts: ScanParts, operations: Sequence[Operation], returned: Sequence[Value]
) -> ScanParts:
    """The parts with another body."""
    count = len(parts.carried)
    states = zip(parts.carried, returned[:count], strict=True)
    return replace(
        parts,
        carried=tuple(replace(state, returned=value) for state, value in states),
        outputs=tuple(returned[count:]),
        operations=tuple(operations),
    )


def _emitted(parts: ScanParts, rewriter: Rewriter) -> Sequence[Value]:
    finals, outputs = parts.emit(rewriter.build)
    return [*finals, *outputs]


def _inlined(build: Builder, block: Block, arguments: Sequence[Value]) -> Sequence[Value]:
    """Copies the operations of a region to where it stands; gives its results there."""
    return copy_into(block, build.block, dict(zip(block.arguments, arguments, strict=True)))


# ---- loops with a condition


@rewrite
def while_without_steps(op: While, rewriter: Rewriter) -> Results:
    """A loop whose condition never holds gives what it carries."""
    (condition,) = op.condition.returned
    return op.carried if is_number(condition) and not _truth(condition) else None


@rewrite
def number_in_while(op: While, rewriter: Rewriter) -> Results:
    """A number that a loop reads is written in its regions, where rules see it."""
    numbers = [i for i, operand in enumerate(op.constants) if is_number(operand)]
    if not numbers:
        return None
    kept = [i for i in range(len(op.operands)) if i not in numbers]
    regions = [Region(_with_numbers(op, block, numbers)) for block in (op.condition, op.body)]
    operands = [op.operands[i] for i in kept]
    constants = len(op.constants) - len(numbers)
    return rewriter.build.op(While, *operands, regions=regions, constants=constants).results


@rewrite
def invariant_in_while(op: While, rewriter: Rewriter) -> Results:
    """What a loop computes from its constants alone is computed once, before it.  Its condition is
    evaluated in any case, its body may not be."""
    count = len(op.constants)
    parts = []
    for block, always_runs in ((op.condition, True), (op.body, False)):
        pairs = zip(op.constants, block.arguments, strict=False)
        constants, operations = hoist_invariants(
            rewriter.build,
            [Bound(*pair) for pair in pairs],
            block.operations[:-1],
            block.returned,
            always_runs,
        )
        parts.append((block, constants[count:], operations))
    hoisted = [part for _, constants, _ in parts for part in constants]
    if not hoisted:
        return None
    regions = []
    for block, _, operations in parts:
        outer, states = block.arguments[:count], block.arguments[count:]
        arguments = (*outer, *(part.argument for part in hoisted), *states)
        regions.append(Region(enclosed(arguments, operations, block.returned)))
    operands = (*op.constants, *(part.operand for part in hoisted), *op.carried)
    constants_now = count + len(hoisted)
    return rewriter.build.op(While, *operands, regions=regions, constants=constants_now).results


def _with_numbers(op: Operation, block: Block, numbers: Sequence[int], skipped: int = 0) -> Block:
    """The block with the numbers that these operands are written in it; the first operands
    `skipped` are no arguments of it."""
    inner = Builder(Block(()), op.location)
    values: Values = {}
    for i in numbers:
        argument = block.arguments[i - skipped]
        values[argument] = _number(inner, Bound(op.operands[i], argument))
    operations = [copy_operation(o, values, {}) for o in block.operations[:-1]]
    kept = [a for i, a in enumerate(block.arguments, skipped) if i not in numbers]
    returned = [values.get(value, value) for value in block.returned]
    return enclosed(kept, [*inner.block.operations, *operations], returned)


def _truth(value: Value) -> bool:
    source = value.defining_op
    assert isinstance(source, Constant)
    return bool(source.splat)


# ---- branches


@rewrite
def if_of_constant(op: If, rewriter: Rewriter) -> Results:
    """A branch that is known to be taken stands by itself."""
    if not is_number(op.condition):
        return None
    first, second = op.branches
    taken = first if _truth(op.condition) else second
    return _inlined(rewriter.build, taken, op.arguments)


@rewrite
def if_of_equal_branches(op: If, rewriter: Rewriter) -> Results:
    """Branches that compute the same need no condition."""
    first, second = op.branches
    if block_key(first) != block_key(second):
        return None
    return _inlined(rewriter.build, first, op.arguments)


@rewrite
def number_in_if(op: If, rewriter: Rewriter) -> Results:
    """A number that a branch reads is written in it; so is what its condition is there."""
    numbers = [i for i, operand in enumerate(op.operands) if i > 0 and is_number(operand)]
    if not numbers:
        return None
    regions = [Region(_with_numbers(op, block, numbers, skipped=1)) for block in op.branches]
    operands = [operand for i, operand in enumerate(op.operands) if i not in numbers]
    return rewriter.build.op(If, *operands, regions=regions).results


@rewrite
def condition_in_branch(op: If, rewriter: Rewriter) -> Results:
    """In the first branch the condition of the `if` is true, in the second false."""
    places = [i for i, operand in enumerate(op.arguments) if operand is op.condition]
    if not places:
        return None
    regions = []
    for block, truth in zip(op.branches, (True, False), strict=True):
        inner = Builder(Block(()), op.location)
        condition = op.condition.dtype
        values: Values = {block.arguments[i]: inner.constant(truth, condition) for i in places}
        operations = [copy_operation(o, values, {}) for o in block.operations[:-1]]
        kept = [a for i, a in enumerate(block.arguments) if i not in places]
        returned = [values.get(value, value) for value in block.returned]
        regions.append(Region(enclosed(kept, [*inner.block.operations, *operations], returned)))
    operands = [operand for i, operand in enumerate(op.arguments) if i not in places]
    return rewriter.build.op(If, op.condition, *operands, regions=regions).results


@rewrite
def result_of_both_branches(op: If, rewriter: Rewriter) -> Results:
    """A result that is the same argument of both branches is that argument."""
    first, second = op.branches
    known: dict[int, Value] = {}
    for number, (x, y) in enumerate(zip(first.returned, second.returned, strict=True)):
        if x in first.arguments and y in second.arguments and x.index == y.index:
            known[number] = op.arguments[x.index]
    if not known:
        return None
    rest = [number for number in range(len(op.results)) if number not in known]
    regions = [
        Region(
            enclosed(
                block.arguments, block.operations[:-1], [block.returned[number] for number in rest]
            )
        )
        for block in op.branches
    ]
    results = rewriter.build.op(If, *op.operands, regions=regions).results
    found = {**known, **dict(zip(rest, results, strict=True))}
    return [found[number] for number in range(len(op.results))]


LOOP_RULES: tuple[Pattern, ...] = (
    scan_without_steps,
    scan_of_one_step,
    unchanged_carry,
    number_in_scan,
    repeated_operand,
    repeated_output,
    known_output,
    invariant_in_scan,
    while_without_steps,
    number_in_while,
    invariant_in_while,
    if_of_constant,
    if_of_equal_branches,
    number_in_if,
    condition_in_branch,
    result_of_both_branches,
)


@dataclass(frozen=True)
class Loops(Pass):
    """Simplifies control flow by the rules of this file.

        %y = scan %w, %x {extent = n} ..        %1 = exp %w
          %1 = exp %w                     =>    %y = scan %1, %x {extent = n} ..
          %2 = mul %x, %1                         %2 = mul %x, %1

    Computations leave loops only where they cannot fail, or where the loop is known to run.  Views
    and numbers stay in loops: they cost nothing where they are read.
    """

    name = "loops"

    def run(self, module: Module) -> Module:
        return rewrite_module(module, LOOP_RULES)
