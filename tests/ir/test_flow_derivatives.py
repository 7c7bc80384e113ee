"""Derivatives of control flow: a table of programs to order 2, and what is (not) kept for them."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_checks import (
    central_differences,
    check_derivatives,
    check_function,
    function_of,
    jvp_function,
    run,
    vjp_function,
)
from flow_programs import BRANCHES, LOOPS, SCANS, STATE, FlowProgram, until_small

from mapsto import ir
from mapsto.ir.pass_runner import PassRunner
from mapsto.ir.pipeline import parse_pipeline


@pytest.mark.parametrize("program", SCANS + BRANCHES, ids=str)
def test_orders_1_and_2(program: FlowProgram) -> None:
    function = function_of("f", program.types, program.body)
    check_function(function, program.arguments(), 2, 1e-5)


def test_both_branches_are_taken() -> None:
    """The table has arguments for both."""
    named = {program.name: program.arguments() for program in BRANCHES}
    assert named["chosen"][0] != named["chosen-other"][0]
    assert named["loop-in-branch"][0] != named["loop-in-branch-other"][0]
    sums = named["chosen-by-value"][0].sum(), named["chosen-by-value-other"][0].sum()
    assert (sums[0] > 0) != (sums[1] > 0)
    steps = named["chosen-in-loop"][2].sum(axis=1)
    assert (steps > 0).any() and (steps < 0).any()


@pytest.mark.parametrize("program", LOOPS, ids=str)
def test_while_in_forward_mode(program: FlowProgram) -> None:
    """Twice: the derivative along a direction, and of that along another."""
    f = function_of("f", program.types, program.body)
    floats = range(len(program.types))
    g = jvp_function("g", f, floats)
    h = jvp_function("h", g, [0, 1])
    module = ir.Module.of(f, g, h)
    arguments = program.arguments()
    directions = [np.random.default_rng(1).standard_normal(a.shape) for a in arguments]
    expected = central_differences(module, "f", arguments, floats, directions)
    np.testing.assert_allclose(run(module, "g", [*arguments, *directions]), expected, rtol=1e-6)
    inputs = [*arguments, *directions]
    expected = central_differences(module, "g", inputs, [0, 1], directions)
    np.testing.assert_allclose(run(module, "h", [*inputs, *directions]), expected, rtol=1e-6)


def test_while_in_reverse_mode_is_an_error() -> None:
    def body(b: ir.Builder, w: ir.Value, x: ir.Value) -> ir.Value:
        b.location = ir.Location("net.mto", 3, 5)
        (result,) = until_small(b, w, x)
        return result

    f = function_of("f", [STATE, STATE], body)
    message = r"net.mto:3:5: the op `while` has no derivative: reverse mode goes back .* a bound"
    with pytest.raises(ir.MissingDerivative, match=message):
        run(ir.Module.of(f, vjp_function("g", f, [0])), "g", [np.ones(3)] * 3)


# ---- what is kept


def gradient(program: FlowProgram) -> ir.Function:
    f = function_of("f", program.types, program.body)
    floats = [i for i, v in enumerate(f.arguments) if v.dtype.is_float]
    module = ir.Module.of(f, vjp_function("g", f, floats))
    return PassRunner(parse_pipeline("differentiate,dce,cse,loops,dce")).run(module)["g"]


def named(name: str) -> FlowProgram:
    return next(program for program in SCANS + BRANCHES if program.name == name)


def stacked(name: str) -> list[list[str]]:
    """What the first scan gives for each step: the op that computes it, or `argument`."""
    scan = next(op for op in gradient(named(name)).operations() if isinstance(op, ir.Scan))
    outputs = scan.body.returned[len(scan.carried) :]
    return [v.defining_op.name if v.defining_op else "argument" for v in outputs]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # The state before and after a step; 1 - tanh(x)^2 is computed again.
        ("recurrent", ["argument", "tanh"]),
        # The factor of the slices, which are read again, and the exponential.
        ("exchanging", ["argument", "exp"]),
        # The factor of a square; what replaces the carried value has no tangent.
        ("overwritten", ["argument"]),
        # tanh(w * w) is the same at every step.
        ("passing", ["argument"]),
        ("fixed-length", ["argument", "cos"]),
    ],
)
def test_residuals_of_scans(name: str, expected: list[str]) -> None:
    assert sorted(stacked(name)) == expected


def test_slices_and_constants_are_read_again() -> None:
    """The transposed loop reads the sequence and the weights themselves."""
    g = gradient(named("backward"))
    first, second = (op for op in g.operations() if isinstance(op, ir.Scan))
    assert first.is_reverse and not second.is_reverse
    assert first.sequences[0] in second.sequences
    assert first.constants[0] in second.constants


def test_branches_share_the_places_of_residuals() -> None:
    """One branch needs three vectors, the other one: no more than three are given."""
    first, _ = (op for op in gradient(named("chosen")).operations() if isinstance(op, ir.If))
    assert len(first.results) <= 3


def test_what_has_no_tangent_is_not_carried_backwards() -> None:
    g = gradient(named("counting"))
    _, second = (op for op in g.operations() if isinstance(op, ir.Scan))
    assert len(second.carried) == 1


# ---- gradients of one's own inside loops


def test_custom_gradients_in_loops() -> None:
    """h' = f(h, x) where f = h * x * x has a derivative of its own, which is the true one."""
    F64 = ir.DType.F64
    vector = ir.TensorType(F64, (3,))

    def product(b: ir.Builder, h: ir.Value, x: ir.Value) -> ir.Value:
        return b.emit(ir.Mul, h, b.emit(ir.Mul, x, x))

    def pullback(b: ir.Builder, h: ir.Value, x: ir.Value, ct: ir.Value) -> list[ir.Value]:
        by_h = b.emit(ir.Mul, ct, b.emit(ir.Mul, x, x))
        scaled = b.emit(ir.Mul, b.emit(ir.Mul, ct, h), x)
        return [by_h, b.emit(ir.Add, scaled, scaled)]

    def body(b: ir.Builder, h: ir.Value, xs: ir.Value) -> ir.Value:
        def step(i, carried, slices):  # type: ignore[no-untyped-def]
            names = {"callee": ir.SymbolReference("product"), "gradient": ir.SymbolReference("own")}
            return [i.emit(ir.CustomCall, *carried, *slices, **names, results=(vector,))], []

        return ir.scan(b, step, [h], [xs])[0][0]

    module = ir.Module.of(
        function_of("product", [vector] * 2, product),
        function_of("own", [vector] * 3, pullback),
        function_of("f", [vector, ir.TensorType(F64, (4, 3))], body),
    )
    random = np.random.default_rng(0)
    arguments = [random.uniform(0.5, 1, 3), random.uniform(0.5, 1, (4, 3))]
    check_derivatives(module, "f", arguments, 2, 1e-5, 0)
