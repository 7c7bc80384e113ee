"""Derivatives of control flow: a table of programs to order 2, and what is (not) kept for them."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_checks import (
    central_differences,
    check_function,
    function_of,
    jvp_function,
    run,
    vjp_function,
)
from flow_programs import BRANCHES, LOOPS, SCANS, STATE, FlowProgram, until_small

from mapsto import ir


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
