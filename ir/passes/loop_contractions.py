"""Contractions of all steps at once: before a loop, or after it.

A recurrent network multiplies its inputs by weights at each step, and its gradient adds up products
over the steps.  Neither needs the state that is carried, so each is one contraction with the steps
as one more index, which is read and packed once: what Appleyard et al., "Optimizing performance of
recurrent neural networks on GPUs", 2016, do by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mapsto.ir.affine import AffineExpr, AffineMap, axis
from mapsto.ir.bounds import nonnegative
from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Module, Operation, Value
from mapsto.ir.invariants import VIEWS
from mapsto.ir.liveness import count_uses
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.elementwise import Add
from mapsto.ir.ops.flow import Scan
from mapsto.ir.passes.base import Pass
from mapsto.ir.passes.loops import LOOP_RULES
from mapsto.ir.rewriting import Pattern, Rewriter, rewrite, rewrite_module
from mapsto.ir.scan_parts import Bound, Carried, ScanParts
from mapsto.ir.substitution import Values, copy_operation

__all__ = ["LoopContractions"]

Results = Sequence[Value] | None

LARGEST_GROWTH = 16
"""How many times more elements than what is there already is written for all steps at once."""

LEAST_RATIO = 4
"""How many times more elements than a step's operand weights (or their gradient) have, so that it
pays to read them once: a step with many rows uses them well, and has its operand in the cache."""


@rewrite
def product_before_loop(op: Scan, rewriter: Rewriter) -> Results:
    """In a loop over t, sum_k(x[t, k] * w[k]) is an element of y[t] = sum_k(x[t, k] * w[k]) for all
    t, where x is a sequence and w a constant of the loop"""
    sources = _Sources(ScanParts.of(op), rewriter.build)
    chosen = [o for o in op.body.operations if isinstance(o, Contract) and sources.is_ready(o)]
    if not chosen:
        return None
    parts = sources.parts
    products = tuple(
        Bound(_for_all_steps(o, sources.operand, parts, rewriter), o.result) for o in chosen
    )
    rest = tuple(o for o in parts.operations if o not in chosen)
    changed = replace(parts, sequences=(*parts.sequences, *products), operations=rest)
    finals, outputs = changed.emit(rewriter.build)
    return [*finals, *outputs]


@rewrite
def product_after_loop(op: Scan, rewriter: Rewriter) -> Results:
    """An output y[t] = sum_k(x[t, k] * w[k]) of a loop, where w is a constant of it and x, which is
    computed at each step, an output too, is computed after the loop"""
    parts, uses = ScanParts.of(op), count_uses(op.body)
    sources = _Sources(parts, rewriter.build)
    chosen = {
        value: made
        for value in parts.outputs
        if isinstance(made := value.defining_op, Contract)
        and uses[value] == 1
        and made in parts.operations
        and sources.is_worth_stacking(made)
    }
    if not chosen:
        return None
    kept = [value for value in parts.outputs if value not in chosen]
    new = [v for made in chosen.values() for v in made.operands if not sources.is_known(v)]
    outputs = list(dict.fromkeys([*kept, *new]))
    finals, stacked = replace(parts, outputs=tuple(outputs)).emit(rewriter.build)
    sources.stacked = dict(zip(outputs, stacked, strict=True))
    found = {
        value: _for_all_steps(made, sources.operand, parts, rewriter)
        for value, made in chosen.items()
    }
    rest = [found[v] if v in found else sources.stacked[v] for v in parts.outputs]
    return [*finals, *rest]


@rewrite
def sum_after_loop(op: Scan, rewriter: Rewriter) -> Results:
    """What a loop over t adds to a carried value, sum_k(x[t, k] * y[t, k]), is added after it:
    sum_tk(x[t, k] * y[t, k]), where x is a sequence and y, if it is none, becomes an output"""
    parts, uses = ScanParts.of(op), count_uses(op.body)
    sources = _Sources(parts, rewriter.build)
    sums = [_Sum(state, sources, uses.__getitem__) for state in parts.carried]
    if not any(total.moved for total in sums):
        return None
    new = [v for t in sums for o in t.moved for v in o.operands if not sources.is_known(v)]
    outputs = tuple(dict.fromkeys([*parts.outputs, *new]))
    inner = Builder(Block(()), op.location)
    carried = tuple(replace(t.state, returned=t.rest_of_step(inner)) for t in sums)
    operations = (*parts.operations, *inner.block.operations)
    changed = replace(parts, carried=carried, outputs=outputs, operations=operations)
    finals, stacked = changed.emit(rewriter.build)
    sources.stacked = dict(zip(outputs, stacked, strict=True))
    results = []
    for final, total in zip(finals, sums, strict=True):
        for made in total.moved:
            final = rewriter.emit(Add, final, _sum_of_steps(made, sources, rewriter))
        results.append(final)
    return [*results, *(sources.stacked[value] for value in parts.outputs)]


class _Sources:
    """What is known of values of the body outside of the loop."""

    def __init__(self, parts: ScanParts, build: Builder) -> None:
        self.parts = parts
        self.build = build
        self.constants: Values = {part.argument: part.operand for part in parts.constants}
        self.sequences: Values = {part.argument: part.operand for part in parts.sequences}
        self.stacked: Values = {}

    def is_fixed(self, value: Value) -> bool:
        """Whether the value is a constant of the loop, or a view of constants."""
        op = value.defining_op
        if op is None:
            return value in self.constants
        return isinstance(op, VIEWS) and all(map(self.is_fixed, op.operands))

    def is_known(self, value: Value) -> bool:
        """Whether the values of all steps are known outside."""
        return value in self.sequences or self.is_fixed(value)

    def operand(self, value: Value) -> tuple[Value, bool]:
        """The value outside of the loop, and whether there is one for each step."""
        if value in self.sequences:
            return self.sequences[value], True
        if value in self.stacked:
            return self.stacked[value], True
        return self._fixed(value), False

    def _fixed(self, value: Value) -> Value:
        op = value.defining_op
        if value not in self.constants and op is not None:
            moved: Values = {operand: self._fixed(operand) for operand in op.operands}
            self.build.append(copy_operation(op, moved, {}))
            self.constants[value] = moved[value]
        return self.constants[value]

    def is_ready(self, op: Contract) -> bool:
        """Whether a product of a slice with constants may be computed before the loop."""
        sliced = [value for value in op.operands if value in self.sequences]
        others = [value for value in op.operands if value not in self.sequences]
        is_product = len(sliced) == 1 and others and op.reduced
        if not is_product or not all(map(self.is_fixed, others)):
            return False
        pays = any(_is_much_larger(weights, sliced[0]) for weights in others)
        return pays and _fits(op.result, sliced[0])

    def is_worth_stacking(self, op: Contract) -> bool:
        """Whether a product of a value of the steps with constants may be computed after it."""
        unknown = [value for value in op.operands if not self.is_fixed(value)]
        is_product = len(op.operands) == 2 and len(unknown) == 1 and op.reduced
        if not is_product or unknown[0] in self.sequences:
            return False
        if not any(_is_much_larger(weights, unknown[0]) for weights in op.operands):
            return False
        return unknown[0] in self.parts.outputs or _fits(unknown[0], op.result)

    def may_be_summed_later(self, op: Operation | None) -> bool:
        """Whether a sum of products over the steps takes little that is not kept anyway."""
        if not isinstance(op, Contract) or op.kind != "sum" or not op.attributes["reassociate"]:
            return False
        outputs = self.parts.outputs
        unknown = (v for v in op.operands if not self.is_known(v) and v not in outputs)
        new = list(dict.fromkeys(unknown))
        if len(op.operands) == 1:
            return not new
        if not all(self.is_fixed(v) or _is_much_larger(op.result, v) for v in op.operands):
            return False
        kept = [v for v in op.operands if v in self.sequences or v in outputs]
        return not new or (len(new) == 1 and any(_fits(new[0], v) for v in kept))


class _Sum:
    """A carried value to which each step adds terms, some of which may be added after the loop."""

    def __init__(self, state: Carried, sources: _Sources, uses: Callable[[Value], int]) -> None:
        self.state = state
        terms = _terms(state.returned, uses)
        is_sum = terms.count(state.argument) == 1 and uses(state.argument) == 1
        others = [term for term in terms if term is not state.argument] if is_sum else []
        self.moved: list[Contract] = []
        self.rest: list[Value] = []
        for term in others:
            made = term.defining_op
            if isinstance(made, Contract) and uses(term) == 1 and sources.may_be_summed_later(made):
                self.moved.append(made)
            else:
                self.rest.append(term)

    def rest_of_step(self, build: Builder) -> Value:
        """Emits what a step still adds."""
        if not self.moved:
            return self.state.returned
        total = self.state.argument
        for term in self.rest:
            total = build.emit(Add, total, term)
        return total


def _terms(value: Value, uses: Callable[[Value], int]) -> list[Value]:
    """The terms of a sum that is used nowhere else."""
    op = value.defining_op
    if not isinstance(op, Add) or uses(value) != 1:
        return [value]
    return [term for operand in op.operands for term in _terms(operand, uses)]


def _fits(value: Value, other: Value) -> bool:
    """Whether the value provably has at most so many times the other's elements."""
    return nonnegative(LARGEST_GROWTH * other.type.elements - value.type.elements)


def _is_much_larger(weights: Value, value: Value) -> bool:
    """Whether it pays to read the weights once for all steps."""
    return nonnegative(weights.type.elements - LEAST_RATIO * value.type.elements)


def _for_all_steps(
    op: Contract,
    source: Callable[[Value], tuple[Value, bool]],
    parts: ScanParts,
    rewriter: Rewriter,
) -> Value:
    """The contraction of all steps, the step as the first index of its result."""
    rank = len(op.extents) + 1
    positions = range(1, rank)
    operands, maps = _widened(op, source, positions, axis(0, rank))
    attributes = {
        **op.attributes,
        "extents": (parts.extent, *op.extents),
        "rank": op.rank + 1,
        "maps": maps,
    }
    return rewriter.emit(Contract, *operands, **attributes)


def _sum_of_steps(op: Contract, sources: _Sources, rewriter: Rewriter) -> Value:
    """The sum of the contraction over all steps, the step as its last index."""
    rank = len(op.extents) + 1
    operands, maps = _widened(op, sources.operand, range(rank - 1), axis(rank - 1, rank))
    attributes = {**op.attributes, "extents": (*op.extents, sources.parts.extent), "maps": maps}
    return rewriter.emit(Contract, *operands, **attributes)


def _widened(
    op: Contract,
    source: Callable[[Value], tuple[Value, bool]],
    positions: Sequence[int],
    step: AffineExpr,
) -> tuple[list[Value], tuple[AffineMap, ...]]:
    """The operands outside of the loop, and their maps in a domain with the steps."""
    rank = len(step.coefficients)
    operands, maps = [], []
    for value, map_ in zip(op.operands, op.maps, strict=True):
        operand, has_steps = source(value)
        moved = tuple(_moved(expr, positions, rank) for expr in map_.results)
        operands.append(operand)
        maps.append(AffineMap(rank, (step, *moved) if has_steps else moved))
    return operands, tuple(maps)


def _moved(expr: AffineExpr, positions: Sequence[int], rank: int) -> AffineExpr:
    """The expression where old dimension i is dimension `positions[i]` of `rank`."""
    total = AffineExpr((0,) * rank, expr.constant)
    for position, coefficient in zip(positions, expr.coefficients, strict=True):
        total = total + axis(position, rank).scaled(coefficient)
    return total


STEP_RULES: tuple[Pattern, ...] = (product_before_loop, product_after_loop, sum_after_loop)


@dataclass(frozen=True)
class LoopContractions(Pass):
    """Takes contractions that need no carried value out of loops, for all steps at once, together
    with the rules of `loops`.

        %y = scan %w, %h, %xs ..              %1 = contract %xs, %w
          %1 = contract %x, %w          =>    %y = scan %h, %1 ..
          %2 = add %1, %h                       %2 = add %x1, %h

    It does so where weights are at least 4 times larger than what a step multiplies with them (few
    rows), and what is written for all steps is at most 16 times larger than what is there already.
    Sums change their order, so they have to be free to.
    """

    name = "loop-contractions"

    def run(self, module: Module) -> Module:
        return rewrite_module(module, (*LOOP_RULES, *STEP_RULES))
