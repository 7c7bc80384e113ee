"""Calls that are computed again in the backward pass: equal derivatives, and less is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from derivative_checks import check_derivatives, function_of, jvp_function, vjp_function
from flow_programs import F64, MATRIX, SEQUENCE, STATE, apply

from mapsto import ir
from mapsto.ir.core import Module, Trait
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.pipeline import DEFAULT, parse_pipeline

Builder, Value = ir.Builder, ir.Value
Values = Sequence[Value]


def block_body(b: Builder, w: Value, x: Value) -> Value:
    """Two layers, of which the derivative needs both activations."""
    once = b.emit(ir.Tanh, apply(b, w, x))
    return b.emit(ir.Exp, b.emit(ir.Sin, apply(b, w, once)))


BLOCK = function_of("block", [MATRIX, STATE], block_body)


def call(b: Builder, record: type[ir.Call], *operands: Value) -> Value:
    return b.emit(record, *operands, callee=ir.SymbolReference("block"), results=(STATE,))


def chain(record: type[ir.Call]) -> ir.Function:
    """The block three times."""

    def body(b: Builder, w: Value, x: Value) -> Value:
        for _ in range(3):
            x = call(b, record, w, x)
        return x

    return function_of("f", [MATRIX, STATE], body)


def looped(record: type[ir.Call]) -> ir.Function:
    """The block as the body of a loop."""

    def body(b: Builder, w: Value, x: Value, xs: Value) -> Values:
        def step(i: Builder, carried: Values, slices: Values) -> tuple[Values, Values]:
            new = i.emit(ir.Mul, call(i, record, w, *carried), *slices)
            return [new], []

        return ir.scan(b, step, [x], [xs])[0]

    return function_of("f", [MATRIX, STATE, SEQUENCE], body)


MAKERS = {chain: [MATRIX, STATE], looped: [MATRIX, STATE, SEQUENCE]}


def gradient(make, record: type[ir.Call], text: str = "default") -> ir.Function:  # type: ignore[no-untyped-def]
    f = make(record)
    module = Module.of(BLOCK, f, vjp_function("g", f, range(len(f.arguments))))
    return PassRunner(parse_pipeline(text)).run(module)["g"]


def count(function: ir.Function) -> Counter[str]:
    return Counter(op.name for op in function.operations())


@pytest.mark.parametrize("make", MAKERS)
def test_orders_1_and_2(make) -> None:  # type: ignore[no-untyped-def]
    f = make(ir.RematCall)
    arguments = [np.random.default_rng(3).uniform(-0.5, 0.5, t.shape) for t in MAKERS[make]]
    check_derivatives(Module.of(BLOCK, f), "f", arguments, 2, 1e-5, 0)


@pytest.mark.parametrize("make", MAKERS)
def test_the_gradient_is_that_of_the_call(make) -> None:  # type: ignore[no-untyped-def]
    arguments = [np.random.default_rng(4).uniform(-1, 1, t.shape) for t in (*MAKERS[make], STATE)]
    found = [
        ir.evaluate(Module.of(gradient(make, record)), "g", arguments)
        for record in (ir.Call, ir.RematCall)
    ]
    for expected, actual in zip(*found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_the_forward_computation_is_repeated() -> None:
    """Two forward computations of each block but the last, whose results nothing needs before."""
    kept, again = count(gradient(chain, ir.Call)), count(gradient(chain, ir.RematCall))
    assert kept["tanh"] == 3
    assert again["tanh"] == 5
    assert not again["barrier"]


def test_sharing_does_not_undo_it() -> None:
    """Of the values before the barriers, the backward pass uses only the arguments of calls."""
    g = gradient(chain, ir.RematCall, "default,-barriers,cse,contractions,cse,dce")
    order = {op: i for i, op in enumerate(g.block.operations)}
    first = min(i for op, i in order.items() if op.name == "barrier")
    before = {v for op, i in order.items() if i < first for v in op.results}
    after = {v for op, i in order.items() if i > first for v in op.operands}
    crossing = before & after
    assert all(
        value.defining_op.name in ("exp", "constant") for value in crossing if value.defining_op
    )
    assert count(g)["tanh"] == 5


def test_a_loop_keeps_only_the_arguments_of_the_call() -> None:
    def stacked(record: type[ir.Call]) -> int:
        first, _ = (op for op in gradient(looped, record).operations() if isinstance(op, ir.Scan))
        return len(first.outputs)

    # The state alone, not both activations beside it.
    assert stacked(ir.Call) > 2
    assert stacked(ir.RematCall) <= 2


def test_forward_mode_computes_once() -> None:
    f = chain(ir.RematCall)
    module = PassRunner(DEFAULT).run(Module.of(BLOCK, f, jvp_function("g", f, [0, 1])))
    assert count(module["g"])["tanh"] == 3


class Whisper(ir.Operation):
    """Has an effect."""

    name = "test_whisper"
    traits = Trait.EFFECT

    def infer(self) -> tuple[ir.TensorType, ...]:
        return ()

    def evaluate(self, *operands: np.ndarray) -> Sequence[np.ndarray]:
        return ()


def test_effects_happen_once() -> None:
    def noisy(b: Builder, x: Value) -> Value:
        def step(i: Builder, carried: Values, _: Values) -> tuple[Values, Values]:
            i.op(Whisper, *carried)
            return [i.emit(ir.Sin, *carried)], []

        b.op(Whisper, x)
        return ir.scan(b, step, [x], extent=2)[0][0]

    def body(b: Builder, x: Value) -> Value:
        return b.emit(ir.RematCall, x, callee=ir.SymbolReference("noisy"), results=(STATE,))

    inner, f = function_of("noisy", [STATE], noisy), function_of("f", [STATE], body)
    g = vjp_function("g", f, [0])
    found = count(PassRunner(DEFAULT).run(Module.of(inner, f, g))["g"])
    assert found["test_whisper"] == 2


def test_integers_are_passed_through() -> None:
    count_type = ir.TensorType(ir.DType.I32)

    def body(b: Builder, n: Value, x: Value) -> Values:
        factor = b.emit(ir.Broadcast, b.emit(ir.Cast, n, dtype=F64), shape=(3,), dims=())
        return [b.emit(ir.Add, n, n), b.emit(ir.Sin, b.emit(ir.Mul, x, factor))]

    def outer(b: Builder, n: Value, x: Value) -> Values:
        op = b.op(ir.RematCall, n, x, callee=ir.SymbolReference("h"), results=(count_type, STATE))
        return [op.results[1]]

    h = function_of("h", [count_type, STATE], body)
    f = function_of("f", [count_type, STATE], outer)
    arguments = [np.int32(2), np.array([0.1, 0.2, 0.3])]
    check_derivatives(Module.of(h, f), "f", arguments, 2, 1e-6, 0)
