"""Loops and branches that several tests differentiate and transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mapsto import ir
from mapsto.ir import Builder, DType, TensorType, Value

Values = Sequence[Value]
Body = Callable[..., Value | Values]
F64, I32, BOOL = DType.F64, DType.I32, DType.BOOL
WIDTH, STEPS = 3, 4
SCALAR, STATE = TensorType(F64), TensorType(F64, (WIDTH,))
MATRIX, SEQUENCE = TensorType(F64, (WIDTH, WIDTH)), TensorType(F64, (STEPS, WIDTH))


@dataclass(frozen=True)
class FlowProgram:
    """A function of control flow with arguments of these types."""

    name: str
    types: tuple[TensorType, ...]
    body: Body
    seed: int = 0

    def __str__(self) -> str:
        return self.name

    def arguments(self) -> list[np.ndarray]:
        """Arguments to apply it to."""
        random = np.random.default_rng(self.seed)
        return [_array(random, type_) for type_ in self.types]


def _array(random: np.random.Generator, type_: TensorType) -> np.ndarray:
    if type_.dtype.is_float:
        return random.uniform(-1, 1, type_.shape)
    return random.integers(0, 2, type_.shape).astype(type_.dtype.numpy)


def apply(build: Builder, w: Value, x: Value) -> Value:
    """The matrix applied to the vector."""
    maps = [ir.projection((1, 0), 2), ir.projection((1,), 2)]
    return ir.contract(build, [w, x], maps, (x.shape[0], x.shape[0]), 1)


def total(build: Builder, x: Value) -> Value:
    """The sum of all elements."""
    return ir.reduce_axes(build, "sum", x, tuple(range(x.type.rank)))


# ---- scans


def recurrent(b: Builder, w: Value, h: Value, xs: Value) -> Values:
    """A recurrent network: h' = tanh(w h + x), all states."""

    def step(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        new = i.emit(ir.Tanh, i.emit(ir.Add, apply(i, w, *carried), *slices))
        return [new], [new]

    finals, outputs = ir.scan(b, step, [h], [xs])
    return [*finals, *outputs]


def recurrent_from_zero(b: Builder, w: Value, xs: Value) -> Values:
    """The initial state is constant: its tangent is zero at first."""
    return recurrent(b, w, b.constant(0, F64, (WIDTH,)), xs)


def backward(b: Builder, w: Value, h: Value, xs: Value) -> Values:
    """A loop from the last step to the first, with a scalar factor, and outputs of two kinds."""

    def step(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        new = i.emit(ir.Sin, i.emit(ir.Mul, apply(i, w, *carried), *slices))
        return [new], [i.emit(ir.Mul, new, *slices), total(i, new)]

    finals, outputs = ir.scan(b, step, [h], [xs], reverse=True)
    return [*finals, *outputs]


def counting(b: Builder, x: Value, xs: Value) -> Values:
    """Carries a number of steps, which has no tangent, and a mask beside the values."""

    def step(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        count, state = carried
        weight = i.emit(ir.Broadcast, i.emit(ir.Cast, count, dtype=F64), shape=(WIDTH,), dims=())
        grown = i.emit(ir.Mul, state, i.emit(ir.Sin, i.emit(ir.Add, weight, *slices)))
        positive = i.emit(ir.Gt, grown, i.like(0, grown))
        kept = i.emit(ir.Select, positive, grown, i.emit(ir.Mul, grown, state))
        return [i.emit(ir.Add, count, i.like(1, count)), kept], [positive]

    finals, _ = ir.scan(b, step, [b.constant(1, I32), x], [xs])
    return finals[1]


def exchanging(b: Builder, x: Value, y: Value, xs: Value) -> Values:
    """Carried values that change places: one gets its tangent from the other at the second step."""

    def step(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        first, second, third = carried
        return [i.emit(ir.Mul, second, *slices), i.emit(ir.Exp, third), first], [second]

    finals, outputs = ir.scan(b, step, [x, b.constant(0.5, F64, (WIDTH,)), y], [xs])
    return [*finals, *outputs]


def overwritten(b: Builder, x: Value, xs: Value) -> Values:
    """What is carried in is used once and then replaced by what has no tangent."""

    def step(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        fixed = i.emit(ir.Floor, i.emit(ir.Mul, *carried, *slices))
        return [fixed], [i.emit(ir.Mul, *carried, *carried)]

    finals, outputs = ir.scan(b, step, [x], [xs])
    return [*finals, *outputs]


def passing(b: Builder, w: Value, x: Value, xs: Value) -> Values:
    """Carries its weights, which no step changes, and reads what is computed from them."""

    def step(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        weights, state = carried
        scaled = i.emit(ir.Tanh, i.emit(ir.Mul, weights, weights))
        return [weights, i.emit(ir.Add, apply(i, scaled, state), *slices)], []

    finals, _ = ir.scan(b, step, [w, x], [xs])
    return finals


def nested(b: Builder, w: Value, x: Value, xs: Value) -> Values:
    """A loop in a loop; the inner one sees what the outer carries."""

    def outer(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        def inner(j: Builder, deep: Values, elements: Values) -> tuple[Values, Values]:
            product = j.emit(ir.Mul, *deep, j.emit(ir.Cos, *elements))
            return [product], [j.emit(ir.Add, product, *elements)]

        start = total(i, *slices)
        finals, outputs = ir.scan(i, inner, [start], [i.emit(ir.Sin, apply(i, w, *carried))])
        return list(outputs), list(finals)

    finals, outputs = ir.scan(b, outer, [x], [xs])
    return [*finals, *outputs]


def fixed_length(b: Builder, w: Value, x: Value) -> Values:
    """No sequence: a number of steps."""

    def step(i: Builder, carried: Values, _: Values) -> tuple[Values, Values]:
        return [i.emit(ir.Sin, apply(i, w, *carried))], []

    return ir.scan(b, step, [x], extent=STEPS)[0]


def empty(b: Builder, w: Value, x: Value) -> Values:
    """No step at all."""

    def step(i: Builder, carried: Values, _: Values) -> tuple[Values, Values]:
        new = apply(i, w, *carried)
        return [new], [new]

    finals, outputs = ir.scan(b, step, [x], extent=0)
    return [*finals, *outputs]


SCANS = [
    FlowProgram("recurrent", (MATRIX, STATE, SEQUENCE), recurrent),
    FlowProgram("recurrent-from-zero", (MATRIX, SEQUENCE), recurrent_from_zero),
    FlowProgram("backward", (MATRIX, STATE, SEQUENCE), backward),
    FlowProgram("counting", (STATE, SEQUENCE), counting),
    FlowProgram("exchanging", (STATE, STATE, SEQUENCE), exchanging),
    FlowProgram("overwritten", (STATE, SEQUENCE), overwritten),
    FlowProgram("passing", (MATRIX, STATE, SEQUENCE), passing),
    FlowProgram("nested", (MATRIX, STATE, SEQUENCE), nested),
    FlowProgram("fixed-length", (MATRIX, STATE), fixed_length),
    FlowProgram("empty", (MATRIX, STATE), empty),
]


# ---- branches


def positive(build: Builder, x: Value) -> Value:
    """Whether the sum is above 0."""
    return build.emit(ir.Gt, total(build, x), build.constant(0, F64))


def chosen(b: Builder, c: Value, w: Value, x: Value) -> Values:
    """Branches that need different things of the forward pass."""

    def first(i: Builder) -> Values:
        hidden = i.emit(ir.Tanh, apply(i, w, x))
        return [i.emit(ir.Mul, hidden, i.emit(ir.Exp, x)), total(i, hidden)]

    def second(i: Builder) -> Values:
        return [i.emit(ir.Sin, i.emit(ir.Mul, x, x)), i.constant(2, F64)]

    return ir.branch(b, c, first, second)


def chosen_by_value(b: Builder, x: Value, y: Value) -> Values:
    """The condition is computed from what is differentiated; one branch is constant."""
    return ir.branch(
        b,
        positive(b, x),
        lambda i: [i.emit(ir.Mul, i.emit(ir.Exp, x), y), y],
        lambda i: [i.constant(1, F64, (WIDTH,)), x],
    )


def chosen_in_loop(b: Builder, w: Value, x: Value, xs: Value) -> Values:
    """A branch at each step."""

    def step(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
        def first(j: Builder) -> Values:
            return [j.emit(ir.Sin, apply(j, w, *carried))]

        def second(j: Builder) -> Values:
            return [j.emit(ir.Mul, j.emit(ir.Tanh, *carried), *slices)]

        new = ir.branch(i, positive(i, *slices), first, second)
        return list(new), list(new)

    finals, outputs = ir.scan(b, step, [x], [xs])
    return [*finals, *outputs]


def loop_in_branch(b: Builder, c: Value, w: Value, x: Value, xs: Value) -> Values:
    """A loop in a branch."""
    return ir.branch(b, c, lambda i: recurrent(i, w, x, xs), lambda i: [x, i.emit(ir.Mul, xs, xs)])


TRUTH = TensorType(BOOL)
BRANCHES = [
    FlowProgram("chosen", (TRUTH, MATRIX, STATE), chosen),
    FlowProgram("chosen-other", (TRUTH, MATRIX, STATE), chosen, seed=1),
    FlowProgram("chosen-by-value", (STATE, STATE), chosen_by_value),
    FlowProgram("chosen-by-value-other", (STATE, STATE), chosen_by_value, seed=1),
    FlowProgram("chosen-in-loop", (MATRIX, STATE, SEQUENCE), chosen_in_loop),
    FlowProgram("loop-in-branch", (TRUTH, MATRIX, STATE, SEQUENCE), loop_in_branch),
    FlowProgram("loop-in-branch-other", (TRUTH, MATRIX, STATE, SEQUENCE), loop_in_branch, seed=1),
]


# ---- loops with a condition


def until_small(b: Builder, w: Value, x: Value) -> Values:
    """x times sin(w) until its square sum is below 0.01, and how often."""

    def condition(i: Builder, carried: Values) -> Values:
        size = total(i, i.emit(ir.Mul, carried[0], carried[0]))
        return [i.emit(ir.Gt, size, i.constant(0.01, F64))]

    def step(i: Builder, carried: Values) -> Values:
        count = i.emit(ir.Add, carried[1], i.like(1, carried[1]))
        return [i.emit(ir.Mul, carried[0], i.emit(ir.Sin, w)), count]

    return ir.while_loop(b, condition, step, [x, b.constant(0, I32)])[:1]


LOOPS = [FlowProgram("until-small", (STATE, STATE), until_small)]
