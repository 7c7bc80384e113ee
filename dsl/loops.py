"""Loops that run: `scan` over sequences and `while` under a condition, with carried values.

The step is elaborated once, on values that stand for what a step gets, into a region of an op; what
it uses from around it becomes an operand.  Parameters and states of modules that the step updates
are carried too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mapsto import ir
from mapsto.dsl.branches import branch
from mapsto.dsl.calling import Given, Table, flag, functions_of, map_argument
from mapsto.dsl.carried import Carried
from mapsto.dsl.diagnostics import Help, Kind
from mapsto.dsl.evaluation import apply, scalar_or_tensor
from mapsto.dsl.frame import Facts, Frame, SlotKey, fail
from mapsto.dsl.instances import Instance
from mapsto.dsl.mapping import move_axis
from mapsto.dsl.reductions import reduce_variables
from mapsto.dsl.source import Span
from mapsto.dsl.static_values import static_dim
from mapsto.dsl.structures import describe_structure, leaves, rebuilt, tensors_in
from mapsto.dsl.tensors import as_tensor, describe
from mapsto.dsl.tracing import Trace, block_of, trace
from mapsto.dsl.values import (
    Argument,
    Builtin,
    Closure,
    Expected,
    Group,
    IndexVariable,
    Number,
    Tensor,
    Truth,
    Value,
)
from mapsto.ir.regions import closed_over

__all__ = ["LOOPS"]


def _place(step: Argument) -> Span:
    """Where a step gives its result."""
    function = step.value.call if isinstance(step.value, Instance) else step.value
    if isinstance(function, Closure) and function.definition.body.statements:
        return function.definition.body.statements[-1].span
    return step.span


def _call(frame: Frame, span: Span, function: Argument, *arguments: Argument) -> Value:
    given = tuple([Argument(None, argument.value, argument.span) for argument in arguments])
    return apply(function.value, frame, span, given)


# ---- scan


@dataclass(frozen=True, slots=True)
class _Sequence:
    """A tensor that a scan reads along its first axis: with that axis first in the IR value too."""

    value: ir.Value
    axes: tuple[IndexVariable, ...]

    def fresh(self) -> Tensor:
        """An element, as a step sees it."""
        type = self.value.type
        return Tensor(ir.Value(type.with_shape(type.shape[1:]), None, 0), self.axes)


def _scan(frame: Frame, span: Span, given: Given) -> Value:
    map_argument(given["step"])
    xs = given.get("xs")
    extent = _length(frame, span, given)
    if xs is None:
        count = frame.emit(span, ir.Iota, axis=0, type=ir.TensorType(ir.DType.I32, (extent,)))
        xs = Argument(None, Tensor(count), span)
    sequences = [_sequence(frame, xs.span, leaf) for leaf in leaves(xs.value)]
    init = given["init"]
    carried = Carried(frame, init.value, init.span)
    step = _Step(frame, span, given["step"], carried, xs, sequences)
    carried.guess(frame, step.first)
    return step.scan(extent, flag(given, "reverse"))


def _length(frame: Frame, span: Span, given: Given) -> ir.Dim:
    """The number of steps, which all sequences and `length` agree on."""
    found: ir.Dim | None = None
    known = ""
    if "length" in given:
        found, known = _count(given["length"]), "`length`"
    xs = given.get("xs")
    for leaf in leaves(xs.value) if xs is not None else ():
        assert xs is not None
        tensor = as_tensor(frame, xs.span, leaf) if scalar_or_tensor(leaf) else None
        if tensor is None or not tensor.shape:
            fail(Kind.NOT_A_SEQUENCE, xs.span, found=describe(leaf))
        if found is not None and tensor.shape[0] != found:
            facts: Facts = {"type": tensor.type, "found": tensor.shape[0], "expected": found}
            fail(Kind.LENGTHS_DIFFER, xs.span, other=known, **facts)
        found, known = tensor.shape[0], str(tensor.type)
    if found is None:
        fail(Kind.LENGTH_UNKNOWN, span, help=Help.GIVE_LENGTH)
    return found


def _count(given: Argument) -> ir.Dim:
    """A number of steps that is known before it runs."""
    count = static_dim(given.value, given.span)
    if isinstance(count, int) and count < 0:
        fail(Kind.NEGATIVE_DIMENSION, given.span, value=count)
    return count


def _sequence(frame: Frame, span: Span, leaf: Value) -> _Sequence:
    tensor = as_tensor(frame, span, leaf)
    return _Sequence(move_axis(frame, span, tensor.value, len(tensor.axes), 0), tensor.axes)


@dataclass(frozen=True, slots=True)
class _Step:
    """The step of a scan with what it is applied to."""

    frame: Frame
    span: Span
    function: Argument
    carried: Carried
    xs: Argument
    sequences: Sequence[_Sequence]

    def first(self) -> Value:
        """What the first step carries on."""
        slices = [sequence.fresh() for sequence in self.sequences]
        return self._run(self.carried.first, slices)[0]

    def _run(self, carried: Value, slices: Sequence[Tensor]) -> tuple[Value, Value]:
        """What a step carries on, and its output."""
        first = Argument(None, carried, self.carried.span)
        element = Argument(None, rebuilt(self.xs.value, slices), self.xs.span)
        result = _call(self.frame, self.function.span, self.function, first, element)
        if not isinstance(result, Group) or len(result.items) != 2:
            found = describe_structure(result)
            fail(Kind.STEP_WITHOUT_PAIR, _place(self.function), found=found)
        return result.items[0], result.items[1]

    def scan(self, extent: ir.Dim, reverse: bool) -> Value:
        """Emits the op; gives the pair of what is carried at the end and the outputs."""
        frame, span = self.frame, self.span
        place = _place(self.function)
        while True:
            fresh = self.carried.fresh()
            slices = [sequence.fresh() for sequence in self.sequences]
            functions = dict(frame.session.functions)
            structure = self.carried.structure(fresh)
            with self.carried.doubtful(place):
                built = trace(frame, partial(self._run, structure, slices))
            after, output = built.result
            with built.resumed(frame):
                if self.carried.settle(frame, place, after):
                    news = self.carried.fitted(frame, place, after)
                    outputs = tensors_in(frame, place, output)
                    break
            frame.session.functions = functions
        keys = list(built.updated)
        arguments = [
            *(tensor.value for tensor in fresh),
            *(built.stand_in(frame, key) for key in keys),
            *(tensor.value for tensor in slices),
        ]
        states = [built.updated[key] for key in keys]
        returned = [*news, *states, *(tensor.value for tensor in outputs)]
        constants, regions = closed_over([block_of(built, arguments, returned)])
        starting = self.carried.starting(frame)
        op = frame.operation(
            span,
            ir.Scan,
            *built.actual(constants),
            *starting,
            *(built.before(frame, key) for key in keys),
            *(sequence.value for sequence in self.sequences),
            regions=regions,
            constants=len(constants),
            carried=len(starting) + len(keys),
            extent=extent,
            reverse=reverse,
        )
        return self._results(op, keys, output, outputs)

    def _results(
        self,
        op: ir.Operation,
        keys: Sequence[SlotKey],
        output: Value,
        outputs: Sequence[Tensor],
    ) -> Value:
        frame, count = self.frame, len(self.carried.types)
        final = _tensors(self.carried, op.results)
        for key, value in zip(keys, op.results[count:], strict=False):
            frame.session.assign(key, value)
        stacked = [
            Tensor(move_axis(frame, self.span, value, 0, len(tensor.axes)), tensor.axes)
            for value, tensor in zip(op.results[count + len(keys) :], outputs, strict=True)
        ]
        return Group((self.carried.structure(final), rebuilt(output, stacked)))


def _tensors(carried: Carried, values: Sequence[ir.Value]) -> list[Tensor]:
    """The carried values after the loop, which come first among the op's results."""
    return [Tensor(v, type.axes) for v, type in zip(values, carried.types, strict=False)]


# ---- while


@dataclass(frozen=True, slots=True)
class _Loop:
    """The condition and the step of a `while` with what they are applied to."""

    frame: Frame
    span: Span
    condition: Argument
    step: Argument
    carried: Carried

    def first(self) -> Value:
        """What the first step carries on."""
        return self._next(self.carried.first)

    def _next(self, carried: Value) -> Value:
        return _call(self.frame, self.step.span, self.step, self._argument(carried))

    def _argument(self, carried: Value) -> Argument:
        return Argument(None, carried, self.carried.span)

    def holds(self, carried: Value) -> Tensor:
        """The condition at each point."""
        frame, span = self.frame, _place(self.condition)
        value = _call(frame, self.condition.span, self.condition, self._argument(carried))
        if scalar_or_tensor(value) or isinstance(value, Truth):
            tensor = as_tensor(frame, span, value)
            if not tensor.shape and tensor.dtype is ir.DType.BOOL:
                return tensor
        found = describe_structure(value)
        return fail(Kind.CONDITION_NOT_SCALAR, span, construct="`while`", found=found)

    def _advance(self, carried: Value) -> tuple[Value, tuple[IndexVariable, ...]]:
        """What is carried on at the points at which the condition holds, and its indices."""
        with self.frame.session.scratch():
            axes = self.holds(carried).axes
        if not axes:
            return self._next(carried), ()
        return self._masked(carried), axes

    def _masked(self, carried: Value) -> Value:
        """What a step carries on where the condition holds, else what it got."""
        frame, place = self.frame, _place(self.step)

        def step() -> Value:
            after = self._next(carried)
            Carried(frame, carried, self.carried.span).settle(frame, place, after)
            return after

        return branch(frame, place, self.holds(carried), step, lambda: carried)

    def run(self) -> Value:
        """Emits the op; gives what is carried at the end."""
        frame, place = self.frame, _place(self.step)
        while True:
            fresh = self.carried.fresh()
            functions = dict(frame.session.functions)
            structure = self.carried.structure(fresh)
            with self.carried.doubtful(place):
                body = trace(frame, partial(self._advance, structure))
            after, axes = body.result
            with body.resumed(frame):
                covered = self.carried.cover(axes)
                if self.carried.settle(frame, place, after) and covered:
                    news = self.carried.fitted(frame, place, after)
                    break
            frame.session.functions = functions
        return self._emit(body, fresh, news)

    def _emit(self, body: Trace[Any], fresh: Sequence[Tensor], news: list[ir.Value]) -> Value:
        frame, span = self.frame, self.span
        before = self.carried.fresh()
        test = trace(frame, lambda: self._any(self.carried.structure(before)))
        keys = list(body.updated)
        for key in test.updated:
            fail(Kind.STATE_IN_CONDITION, self.condition.span, name=key[1])
        blocks = [
            block_of(test, _arguments(frame, test, before, keys), [test.result.value]),
            block_of(
                body,
                _arguments(frame, body, fresh, keys),
                [*news, *(body.updated[k] for k in keys)],
            ),
        ]
        constants, regions = closed_over(blocks)
        starting = self.carried.starting(frame)
        op = frame.operation(
            span,
            ir.While,
            *test.actual(body.actual(constants)),
            *starting,
            *(body.before(frame, key) for key in keys),
            regions=regions,
            constants=len(constants),
        )
        for key, value in zip(keys, op.results[len(starting) :], strict=True):
            frame.session.assign(key, value)
        return self.carried.structure(_tensors(self.carried, op.results))

    def _any(self, carried: Value) -> Tensor:
        """Whether the condition holds at some point."""
        tensor = self.holds(carried)
        if not tensor.axes:
            return tensor
        return reduce_variables(self.frame, self.span, "any", tensor, tensor.axes)

    def bounded(self, bound: ir.Dim) -> Value:
        """The loop with at most so many steps, as a scan in which the last ones do nothing."""
        length = Argument(None, Number(bound), self.span)
        step = Argument(None, Builtin("while", "", self._masked_step), self.step.span)
        init = Argument(None, self.carried.first, self.carried.span)
        result = _scan(self.frame, self.span, {"step": step, "init": init, "length": length})
        assert isinstance(result, Group)
        return result.items[0]

    def _masked_step(
        self,
        frame: Frame,
        span: Span,
        arguments: tuple[Argument, ...],
        expected: Expected | None,
    ) -> Value:
        """A step as `scan` takes it, without an output."""
        return Group((self._masked(arguments[0].value), Group(())))


def _arguments(
    frame: Frame, built: Trace[Any], carried: Sequence[Tensor], keys: Sequence[SlotKey]
) -> list[ir.Value]:
    """What a block of a `while` takes: the carried values, then the states."""
    states = [built.stand_in(frame, key) for key in keys]
    return [*(tensor.value for tensor in carried), *states]


def _while(frame: Frame, span: Span, given: Given) -> Value:
    for name in ("condition", "step"):
        map_argument(given[name])
    init = given["init"]
    carried = Carried(frame, init.value, init.span)
    loop = _Loop(frame, span, given["condition"], given["step"], carried)
    if "bound" in given:
        return loop.bounded(_count(given["bound"]))
    carried.guess(frame, loop.first)
    return loop.run()


_FUNCTIONS: Table = {
    "scan": (
        _scan,
        "a step, `(carry, x) -> (carry, y)`, repeated along the first axes of `xs`; gives the last"
        " carry and the outputs, stacked",
        ("step", "init", "xs", "reverse", "length"),
        2,
    ),
    "while": (
        _while,
        "a step, `carry -> carry`, repeated while the condition holds, at most `bound` times",
        ("condition", "step", "init", "bound"),
        3,
    ),
}

LOOPS = functions_of(_FUNCTIONS)
"""The loops by name."""
