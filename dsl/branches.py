"""Choosing between two values by a condition that is known when the program runs.

By one truth value one of two regions runs.  By a tensor of truth values, or one at each point of
indices, both sides are computed and elements selected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mapsto import ir
from mapsto.dsl.carried import LeafType, adapts
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.evaluation import scalar_or_tensor
from mapsto.dsl.frame import Frame, Guard, fail
from mapsto.dsl.source import Span
from mapsto.dsl.structures import describe_structure, leaves, mapped, rebuilt, same_structure
from mapsto.dsl.tensors import (
    as_tensor,
    broadcast_shape,
    common_dtype,
    describe,
    is_static,
    select,
    sorted_variables,
)
from mapsto.dsl.tracing import Trace, block_of, trace
from mapsto.dsl.values import Group, Position, Tensor, Value
from mapsto.ir.regions import closed_over, is_number

__all__ = ["branch", "branch_all", "choose"]

_A = TypeVar("_A")
Pair = tuple[Value, Value]


def choose(frame: Frame, span: Span, condition: Tensor, then: Value, other: Value) -> Value:
    """`then` where the condition holds, else `other`; item by item for structures."""
    _check_structure(span, then, other)
    chosen = [
        _chosen(frame, span, condition, one, two)
        for one, two in zip(leaves(then), leaves(other), strict=True)
    ]
    return rebuilt(then, chosen)


def _chosen(frame: Frame, span: Span, condition: Tensor, then: Value, other: Value) -> Value:
    if then is other:
        return then
    _check_leaves(span, then, other)
    return select(frame, span, condition, then, other)


def _check_structure(span: Span, then: Value, other: Value) -> None:
    if not same_structure(then, other):
        group = then if isinstance(then, Group) else other
        fail(Kind.CANNOT_SELECT, span, found=describe_structure(group))


def _check_leaves(span: Span, *values: Value) -> None:
    for value in values:
        if not isinstance(value, Position) and not scalar_or_tensor(value) and not is_static(value):
            fail(Kind.CANNOT_SELECT, span, found=describe(value))


def branch(
    frame: Frame,
    span: Span,
    condition: Tensor,
    then: Callable[[], Value],
    otherwise: Callable[[], Value],
) -> Value:
    """The value of `then()` where the condition holds, else that of `otherwise()`."""
    (value,) = branch_all(frame, span, condition, then, otherwise, lambda a, b: [(a, b)])
    return value


def branch_all(
    frame: Frame,
    span: Span,
    condition: Tensor,
    then: Callable[[], _A],
    otherwise: Callable[[], _A],
    pairs: Callable[[_A, _A], Sequence[Pair]],
) -> list[Value]:
    """Elaborates both sides; chooses between their values, which `pairs` arranges, and between the
    parameters and states that they update."""
    if condition.shape or condition.axes:
        return _select_all(frame, span, condition, then, otherwise, pairs)
    with frame.session.guarded(None):
        first, second = trace(frame, then), trace(frame, otherwise)
    return _Branches(frame, span, condition, first, second).merged(
        pairs(first.result, second.result)
    )


def _select_all(
    frame: Frame,
    span: Span,
    condition: Tensor,
    then: Callable[[], _A],
    otherwise: Callable[[], _A],
    pairs: Callable[[_A, _A], Sequence[Pair]],
) -> list[Value]:
    """Both sides computed where they stand."""
    session = frame.session
    before = session.slots()
    with session.guarded(None if condition.shape else Guard(condition, True)):
        first = then()
    after = session.slots()
    for key in after:
        session.assign(key, before.get(key) or session.initial(key))
    with session.guarded(None if condition.shape else Guard(condition, False)):
        second = otherwise()
    for key, current in session.slots().items():
        updated = after.get(key) or session.initial(key)
        if updated is current:
            continue
        chosen = select(frame, span, condition, Tensor(updated), Tensor(current))
        if chosen.axes or chosen.value.type != current.type:
            fail(Kind.STATE_IN_INDEX, span, name=key[1])
        session.assign(key, chosen.value)
    return [choose(frame, span, condition, one, two) for one, two in pairs(first, second)]


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A leaf of what is chosen: its type, and its value inside of both sides."""

    type: LeafType
    sides: tuple[ir.Value, ir.Value]


class _Branches:
    """Two sides that were elaborated into blocks of their own."""

    def __init__(
        self,
        frame: Frame,
        span: Span,
        condition: Tensor,
        first: Trace[Any],
        second: Trace[Any],
    ) -> None:
        self.frame = frame
        self.span = span
        self.condition = condition
        self.traces: tuple[Trace[Any], Trace[Any]] = (first, second)
        self.keys = list(dict.fromkeys((*first.updated, *second.updated)))

    def merged(self, pairs: Sequence[Pair]) -> list[Value]:
        """The chosen values; emits the op where one side computes something."""
        for one, two in pairs:
            _check_structure(self.span, one, two)
        flat = [p for one, two in pairs for p in zip(leaves(one), leaves(two), strict=True)]
        computed = [i for i, (one, two) in enumerate(flat) if not self._is_settled(one, two)]
        fitted = [self._fitted(*flat[i]) for i in computed]
        if self._is_trivial():
            chosen = self._selected(fitted)
        else:
            chosen = self._emitted(fitted)
        results = dict(zip(computed, chosen, strict=True))
        found = [
            results[i] if i in results else self._settled(one, two)
            for i, (one, two) in enumerate(flat)
        ]
        remaining = iter(found)
        return [mapped(lambda _: next(remaining), one) for one, _ in pairs]

    def _is_settled(self, one: Value, two: Value) -> bool:
        """Whether a choice needs nothing that a side computes: of numbers, of one thing."""
        return one == two or (adapts(one) and adapts(two))

    def _settled(self, one: Value, two: Value) -> Value:
        return one if one == two else choose(self.frame, self.span, self.condition, one, two)

    def _fitted(self, one: Value, two: Value) -> _Fitted:
        """A leaf of both sides in the type that both fit into."""
        frame, span = self.frame, self.span
        _check_leaves(span, one, two)
        dtype = common_dtype(frame, span, [one, two])
        tensors = []
        for built, value in zip(self.traces, (one, two), strict=True):
            with built.resumed(frame):
                tensors.append(as_tensor(frame, span, value, dtype))
        axes = sorted_variables(v for tensor in tensors for v in tensor.axes)
        shape = broadcast_shape(frame, span, tensors)
        type = LeafType(ir.TensorType(dtype, shape), axes)
        values = []
        for built, tensor in zip(self.traces, tensors, strict=True):
            with built.resumed(frame):
                values.append(type.spread(frame, span, tensor).value)
        return _Fitted(type, (values[0], values[1]))

    def _is_trivial(self) -> bool:
        """Whether no side computes anything."""
        operations = [op for built in self.traces for op in built.build.block.operations]
        return not self.keys and all(
            len(op.results) == 1 and is_number(op.result) for op in operations
        )

    def _selected(self, fitted: Sequence[_Fitted]) -> list[Value]:
        frame, span = self.frame, self.span
        chosen: list[Value] = []
        for built in self.traces:
            frame.session.build.block.operations += built.build.block.operations
        for leaf in fitted:
            sides = zip(self.traces, leaf.sides, strict=True)
            one, two = [Tensor(built.actual([v])[0], leaf.type.axes) for built, v in sides]
            chosen.append(select(frame, span, self.condition, one, two))
        return chosen

    def _emitted(self, fitted: Sequence[_Fitted]) -> list[Value]:
        frame, keys = self.frame, self.keys
        blocks = []
        for side, built in enumerate(self.traces):
            states = [built.updated.get(key) or built.stand_in(frame, key) for key in keys]
            blocks.append(block_of(built, [], [*(leaf.sides[side] for leaf in fitted), *states]))
        arguments, regions = closed_over(blocks)
        for built in self.traces:
            arguments = built.actual(arguments)
        op = frame.operation(self.span, ir.If, self.condition.value, *arguments, regions=regions)
        for key, value in zip(keys, op.results[len(fitted) :], strict=True):
            frame.session.assign(key, value)
        return [Tensor(v, leaf.type.axes) for v, leaf in zip(op.results, fitted, strict=False)]
