"""The derivative of `if`: an `if` of the derivatives of its branches.

For reverse mode each branch gives what its linear part needs (residuals); a second `if`, on the
same condition, has the linear parts, and its transpose has their transposes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mapsto.ir.builder import Builder
from mapsto.ir.core import Block, Operation, Value
from mapsto.ir.linearize import push_forward, split_linear
from mapsto.ir.liveness import keep_live
from mapsto.ir.ops.flow import If
from mapsto.ir.regions import closed_over, enclosed
from mapsto.ir.residuals import Residuals, choose_residuals
from mapsto.ir.transposition import transpose_operations
from mapsto.ir.types import TensorType

__all__ = ["linearize_if", "pull_back_if", "push_if"]

Derived = tuple[Sequence[Value], Sequence[Value | None]]


def push_if(op: If, build: Builder, tangents: Sequence[Value | None]) -> Derived:
    """Emits one `if` whose branches give values and their tangents; gives both."""
    branches = [_pushed(op, block, tangents, transposable=False) for block in op.branches]
    active = _active(branches)
    blocks = []
    for branch in branches:
        found = branch.tangents_or_zeros(active)
        blocks.append(enclosed((), branch.build.block.operations, (*branch.results, *found)))
    results = _emit(build, op.condition, blocks)
    return _derived(results[: len(op.results)], results[len(op.results) :], active)


def linearize_if(op: If, build: Builder, tangents: Sequence[Value | None]) -> Derived:
    """Emits an `if` of the primal parts, and one that is linear in the tangents."""
    branches = [_pushed(op, block, tangents, transposable=True) for block in op.branches]
    active = _active(branches)
    split = [_split(branch, op, tangents, active) for branch in branches]
    slots = _Slots([part.residuals.kept for part in split])
    primal = []
    for number, (branch, part) in enumerate(zip(branches, split, strict=True)):
        scratch = Builder(Block(()), op.location)
        scratch.block.operations += part.primal
        kept = slots.filled(scratch, number)
        primal.append(enclosed((), scratch.block.operations, (*branch.results, *kept)))
    results = _emit(build, op.condition, primal)
    count = len(op.results)
    linear = []
    for number, part in enumerate(split):
        replaced = slots.sources(number, results[count:])
        operations = (*part.residuals.repeated, *part.linear)
        linear.append(enclosed((), operations, part.tangents, replaced))
    return _derived(results[:count], _emit(build, op.condition, linear), active)


def pull_back_if(
    op: If, build: Builder, cotangents: Sequence[Value | None], linear: Sequence[bool]
) -> Sequence[Value | None]:
    """Emits the transpose of an `if` that is linear in some of its arguments."""
    pulled = [_pulled_back(op, block, cotangents, linear[1:]) for block in op.branches]
    reached = [i for i in range(len(op.arguments)) if any(i in found for _, found in pulled)]
    blocks = []
    for (scratch, found), branch in zip(pulled, op.branches, strict=True):
        parts = [found.get(i) or scratch.like(0, branch.arguments[i]) for i in reached]
        replaced = dict(zip(branch.arguments, op.arguments, strict=True))
        operations = keep_live(scratch.block.operations, parts)
        blocks.append(enclosed((), operations, parts, replaced))
    results = dict(zip(reached, _emit(build, op.condition, blocks), strict=True))
    return [None, *(results.get(i) for i in range(len(op.arguments)))]


def _emit(build: Builder, condition: Value, blocks: Sequence[Block]) -> Sequence[Value]:
    arguments, regions = closed_over(blocks)
    return build.op(If, condition, *arguments, regions=regions).results


def _derived(results: Sequence[Value], tangents: Sequence[Value], active: Sequence[int]) -> Derived:
    found = dict(zip(active, tangents, strict=True))
    return results, [found.get(number) for number in range(len(results))]


# ---- pushing forward


@dataclass(frozen=True, slots=True)
class _PushedBranch:
    """The operations of a branch, which use the arguments of the `if` itself, with tangents."""

    build: Builder
    results: tuple[Value, ...]
    tangents: tuple[Value | None, ...]

    def tangents_or_zeros(self, active: Sequence[int]) -> list[Value]:
        """The tangents of these results."""
        return [self.tangents[i] or self.build.like(0, self.results[i]) for i in active]


def _pushed(
    op: If, block: Block, tangents: Sequence[Value | None], transposable: bool
) -> _PushedBranch:
    build = Builder(Block(()), op.location)
    given = {i: t for i, t in enumerate(tangents[1:]) if t is not None}
    pushed = push_forward(build, block, op.arguments, given, {}, transposable)
    build.location = op.location
    return _PushedBranch(build, pushed.results, pushed.tangents)


def _active(branches: Sequence[_PushedBranch]) -> list[int]:
    """The results that have a tangent in some branch."""
    pairs = zip(*(branch.tangents for branch in branches), strict=True)
    return [i for i, pair in enumerate(pairs) if any(tangent is not None for tangent in pair)]


@dataclass(frozen=True, slots=True)
class _SplitBranch:
    """A branch in two parts: what does not depend on tangents, and what is linear in them."""

    primal: Sequence[Operation]
    linear: Sequence[Operation]
    residuals: Residuals
    tangents: Sequence[Value]


def _split(
    branch: _PushedBranch, op: If, given: Sequence[Value | None], active: Sequence[int]
) -> _SplitBranch:
    tangents = branch.tangents_or_zeros(active)
    roots = [*branch.results, *tangents]
    operations = keep_live(branch.build.block.operations, roots)
    seeds = [tangent for tangent in given if tangent is not None]
    primal, linear = split_linear(operations, seeds)
    known = {*seeds, *(value for part in linear for value in part.results)}
    used = [*(value for part in linear for value in part.operands), *tangents]
    residuals = choose_residuals((v for v in used if v not in known), op.arguments, primal)
    kept = keep_live(primal, [*branch.results, *residuals.kept])
    return _SplitBranch(kept, linear, residuals, tangents)


class _Slots:
    """Results by which branches give their residuals: those of one type share a result."""

    def __init__(self, kept: Sequence[Sequence[Value]]) -> None:
        self.types: list[TensorType] = []
        self.places = [self._assigned(values) for values in kept]

    def _assigned(self, values: Sequence[Value]) -> dict[int, Value]:
        """The values by the number of their slot."""
        places: dict[int, Value] = {}
        for value in values:
            fitting = (
                slot
                for slot, type_ in enumerate(self.types)
                if type_ == value.type and slot not in places
            )
            slot = next(fitting, len(self.types))
            if slot == len(self.types):
                self.types.append(value.type)
            places[slot] = value
        return places

    def filled(self, build: Builder, branch: int) -> list[Value]:
        """What a branch gives for all slots: its residuals, zeros for those of the other."""
        places = self.places[branch]
        return [
            places[slot] if slot in places else build.zeros(type_)
            for slot, type_ in enumerate(self.types)
        ]

    def sources(self, branch: int, results: Sequence[Value]) -> dict[Value, Value]:
        """The results that hold a branch's residuals."""
        return {value: results[slot] for slot, value in self.places[branch].items()}


# ---- pulling back


def _pulled_back(
    op: If, block: Block, cotangents: Sequence[Value | None], linear: Sequence[bool]
) -> tuple[Builder, Mapping[int, Value]]:
    """The operations of a transposed branch, and the cotangents of arguments by number."""
    pairs = zip(block.arguments, linear, strict=True)
    seeds = [argument for argument, is_linear in pairs if is_linear]
    primal, linear_part = split_linear(block.operations[:-1], seeds)
    scratch = Builder(Block(()), op.location)
    scratch.block.operations += primal
    given = zip(block.returned, cotangents, strict=True)
    outputs = [(value, cotangent) for value, cotangent in given if cotangent is not None]
    found = transpose_operations(scratch, linear_part, seeds, outputs)
    scratch.location = op.location
    return scratch, {i: found[a] for i, a in enumerate(block.arguments) if a in found}
