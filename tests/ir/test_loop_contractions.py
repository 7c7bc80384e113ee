"""Contractions of all steps at once: which leave loops, and what training is left with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from derivative_checks import function_of, run, vjp_function
from rule_checks import N, after, function, left, tensor

from mapsto import ir
from mapsto.ir.core import Module
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.passes.loop_contractions import LoopContractions
from mapsto.ir.pipeline import DEFAULT
from mapsto.ir.rewriting import fired

B, V = ir.Builder, ir.Value
Values = Sequence[V]
STEPS, BATCH, WIDTH, INPUTS = 6, 2, 12, 8
ROWS, MATRIX, XS = tensor(BATCH, WIDTH), tensor(WIDTH, WIDTH), tensor(STEPS, BATCH, WIDTH)


def matmul(b: B, x: V, w: V, reassociate: bool = True) -> V:
    maps = (ir.projection((0, 2), 3), ir.projection((2, 1), 3))
    extents = (x.shape[0], w.shape[1], x.shape[1])
    attributes = {"maps": maps, "extents": extents, "rank": 2, "reassociate": reassociate}
    return b.emit(ir.Contract, x, w, **attributes)


def of_inputs(b: B, w: V, h: V, xs: V) -> Values:
    """h' = tanh(h + x w)"""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        turned = i.emit(ir.Transpose, w, permutation=(1, 0))
        new = i.emit(ir.Tanh, i.emit(ir.Add, *carried, matmul(i, slices[0], turned)))
        return [new], [new]

    finals, outputs = ir.scan(b, step, [h], [xs])
    return [*finals, *outputs]


def of_outputs(b: B, w: V, h: V, xs: V) -> Values:
    """h' = tanh(h + x), y = h' w, from the last to the first"""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        new = i.emit(ir.Tanh, i.emit(ir.Add, *carried, *slices))
        return [new], [matmul(i, new, w)]

    finals, outputs = ir.scan(b, step, [h], [xs], reverse=True)
    return [*finals, *outputs]


def outer(b: B, x: V, y: V, reassociate: bool = True) -> V:
    """The sum over rows of their outer products."""
    maps = (ir.projection((2, 0), 3), ir.projection((2, 1), 3))
    extents = (x.shape[1], y.shape[1], x.shape[0])
    attributes = {"maps": maps, "extents": extents, "rank": 2, "reassociate": reassociate}
    return b.emit(ir.Contract, x, y, **attributes)


def summed(b: B, w: V, h: V, xs: V) -> Values:
    """Adds up two products of a state and its input, and something else."""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        state, total = carried
        new = i.emit(ir.Sin, i.emit(ir.Add, state, *slices))
        some = i.emit(ir.Add, outer(i, new, *slices), i.emit(ir.Tanh, outer(i, new, new)))
        return [new, i.emit(ir.Add, i.emit(ir.Add, some, total), outer(i, *slices, new))], []

    return ir.scan(b, step, [h, w], [xs])[0]


TYPES = (MATRIX, ROWS, XS)
LAWS: dict[str, tuple[Callable[..., Values], list[object]]] = {
    "product_before_loop": (of_inputs, ["transpose", "contract", "scan", ["add", "tanh"]]),
    "product_after_loop": (of_outputs, ["scan", ["add", "tanh"], "contract"]),
    "sum_after_loop": (
        summed,
        ["scan", ["add", "sin", "contract", "tanh", "add"], "contract", "add", "contract", "add"],
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_law(law: str) -> None:
    build, expected = LAWS[law]
    before = fired[law]
    assert left(after(function(build, *TYPES), LoopContractions())) == expected
    assert fired[law] > before


@pytest.mark.parametrize("law", LAWS)
def test_any_number_of_steps(law: str) -> None:
    build, expected = LAWS[law]
    module = function(build, MATRIX, ROWS, tensor(N, BATCH, WIDTH))
    found = after(module, LoopContractions())
    assert left(found) == expected
    arrays = [np.ones((WIDTH, WIDTH)), np.ones((BATCH, WIDTH)), np.ones((0, BATCH, WIDTH))]
    arguments = [array.astype(np.float32) for array in arrays]
    pairs = zip(
        ir.evaluate(module, "f", arguments), ir.evaluate(found, "f", arguments), strict=True
    )
    for before, result in pairs:
        np.testing.assert_array_equal(before, result)


def of_state(b: B, w: V, h: V, xs: V) -> Values:
    """A product of what is carried: nothing to take out."""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        return [i.emit(ir.Add, matmul(i, *carried, w), *slices)], []

    return ir.scan(b, step, [h], [xs])[0]


def used_twice(b: B, w: V, h: V, xs: V) -> Values:
    """What is added up is needed at once as well."""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        product = outer(i, *slices, *slices)
        total = i.emit(ir.Add, carried[0], product)
        return [total], [i.emit(ir.Exp, total)]

    finals, outputs = ir.scan(b, step, [w], [xs])
    return [*finals, *outputs]


def in_order(b: B, w: V, h: V, xs: V) -> Values:
    """A sum whose order is fixed."""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        return [i.emit(ir.Add, *carried, outer(i, *slices, *slices, reassociate=False))], []

    return ir.scan(b, step, [w], [xs])[0]


def reducing_output(b: B, w: V, h: V, xs: V) -> Values:
    """The output is much smaller than what it is computed from."""

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        new = i.emit(ir.Sin, i.emit(ir.Add, *carried, *slices))
        maps = (ir.identity_map(2), ir.projection((1, 1), 2))
        return [new], [ir.contract(i, [new, w], maps, (BATCH, WIDTH), 0)]

    finals, outputs = ir.scan(b, step, [h], [xs])
    return [*finals, *outputs]


@pytest.mark.parametrize("law", LAWS)
def test_many_rows_stay(law: str) -> None:
    """Where a step has many rows, it uses what is in the cache."""
    types = (MATRIX, tensor(4 * WIDTH, WIDTH), tensor(STEPS, 4 * WIDTH, WIDTH))
    names = left(after(function(LAWS[law][0], *types), LoopContractions()))
    assert "contract" not in names


@pytest.mark.parametrize("build", [of_state, used_twice, in_order, reducing_output])
def test_what_stays(build: Callable[..., Values]) -> None:
    module = function(build, *TYPES)
    names = left(after(module, LoopContractions()))
    assert "contract" not in names


def recurrent_loss(b: B, *arguments: V) -> V:
    """A recurrent network with bias, and the square sum of its states."""
    w, u, bias, h, xs = arguments

    def step(i: B, carried: Values, slices: Values) -> tuple[Values, Values]:
        total = i.emit(ir.Add, matmul(i, slices[0], w), matmul(i, carried[0], u))
        spread = i.emit(ir.Broadcast, bias, shape=total.shape, dims=(1,))
        new = i.emit(ir.Tanh, i.emit(ir.Add, total, spread))
        return [new], [new]

    (states,) = ir.scan(b, step, [h], [xs])[1]
    return ir.reduce_axes(b, "sum", b.emit(ir.Mul, states, states), (0, 1, 2))


def test_training_a_recurrent_network() -> None:
    """Each loop is left with one product: that of the state and of its cotangent.  The gradients of
    weights and bias are contractions over all steps."""
    F64 = ir.DType.F64
    shapes = [(INPUTS, WIDTH), (WIDTH, WIDTH), (WIDTH,), (BATCH, WIDTH), (STEPS, BATCH, INPUTS)]
    f = function_of("f", [ir.TensorType(F64, shape) for shape in shapes], recurrent_loss)
    module = Module.of(f, vjp_function("g", f, [0, 1, 2]))
    found = PassRunner(DEFAULT).run(module)
    forward, backward = (op for op in found["g"].operations() if isinstance(op, ir.Scan))
    for loop in (forward, backward):
        assert sum(isinstance(op, ir.Contract) for op in loop.body.operations) == 1
    assert len(backward.carried) == 1
    outside = [op for op in found["g"].block.operations if isinstance(op, ir.Contract)]
    assert len(outside) == 4  # x w, and the gradients of w, u and the bias
    arguments = [np.random.default_rng(0).standard_normal(shape) for shape in (*shapes, ())]
    pairs = zip(run(module, "g", arguments), ir.evaluate(found, "g", arguments), strict=True)
    for expected, actual in pairs:
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
