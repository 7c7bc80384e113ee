"""Custom gradients: taken in place of the body's, in every mode and order."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_checks import function_of, jvp_function, run, vjp_function

from mapsto import ir
from mapsto.ir import DType

F64 = DType.F64
VECTOR = ir.TensorType(F64, (3,))
GENERATOR = np.random.default_rng(2)


def straight_through(build: ir.Builder, x: ir.Value) -> ir.Value:
    """floor(x), whose gradient is declared to be 3 x."""
    return build.emit(ir.Floor, x)


def its_gradient(build: ir.Builder, x: ir.Value, dy: ir.Value) -> ir.Value:
    slope = build.emit(ir.Mul, build.like(3, x), x)
    return build.emit(ir.Mul, slope, dy)


def user(build: ir.Builder, x: ir.Value) -> ir.Value:
    y = build.emit(ir.Mul, x, x)
    attributes = {"callee": "floor", "gradient": "floor_gradient"}
    symbols = {key: ir.SymbolReference(name) for key, name in attributes.items()}
    return build.emit(ir.CustomCall, y, **symbols, results=(VECTOR,))


FUNCTIONS = [
    function_of("floor", [VECTOR], straight_through),
    function_of("floor_gradient", [VECTOR, VECTOR], its_gradient),
    function_of("f", [VECTOR], user),
]
SLOPE_OF_USER = 6
"""floor(x^2) is declared to have the derivative 3 x^2 * 2 x."""


def test_reverse_mode_takes_it() -> None:
    x, ct = GENERATOR.standard_normal((2, 3))
    g = vjp_function("g", FUNCTIONS[2], [0])
    (found,) = run(ir.Module.of(*FUNCTIONS, g), "g", [x, ct])
    np.testing.assert_allclose(found, SLOPE_OF_USER * x**3 * ct)


def test_forward_mode_takes_its_transpose() -> None:
    x, t = GENERATOR.standard_normal((2, 3))
    g = jvp_function("g", FUNCTIONS[2], [0])
    (found,) = run(ir.Module.of(*FUNCTIONS, g), "g", [x, t])
    np.testing.assert_allclose(found, SLOPE_OF_USER * x**3 * t)


@pytest.mark.parametrize("second", [vjp_function, jvp_function])
@pytest.mark.parametrize("first", [vjp_function, jvp_function])
def test_second_derivatives_differentiate_the_gradient(first, second) -> None:  # type: ignore[no-untyped-def]
    x, direction, along = GENERATOR.standard_normal((3, 3))
    g = first("g", FUNCTIONS[2], [0])
    h = second("h", g, [0])
    (found,) = run(ir.Module.of(*FUNCTIONS, g, h), "h", [x, direction, along])
    np.testing.assert_allclose(found, 3 * SLOPE_OF_USER * x**2 * direction * along)


def test_several_arguments_and_results() -> None:
    """f(x, k, y) = (x*y, k, x+y) with the gradients (2 dp, 5 ds) of x and y; k is an integer."""
    integers = ir.TensorType(DType.I32, (3,))

    def body(build: ir.Builder, x: ir.Value, k: ir.Value, y: ir.Value) -> list[ir.Value]:
        return [build.emit(ir.Mul, x, y), k, build.emit(ir.Add, x, y)]

    def gradient(build: ir.Builder, *arguments: ir.Value) -> list[ir.Value]:
        dp, ds = arguments[3:]
        return [build.emit(ir.Mul, dp, build.like(c, dp)) for dp, c in ((dp, 2), (ds, 5))]

    def caller(build: ir.Builder, *arguments: ir.Value) -> list[ir.Value]:
        symbols = {"callee": ir.SymbolReference("f"), "gradient": ir.SymbolReference("f_gradient")}
        types = (VECTOR, integers, VECTOR)
        return list(build.op(ir.CustomCall, *arguments, **symbols, results=types).results)

    types = [VECTOR, integers, VECTOR]
    f = function_of("f", types, body)
    df = function_of("f_gradient", [*types, VECTOR, VECTOR], gradient)
    c = function_of("caller", types, caller)
    functions = [f, df, c, vjp_function("g", c, [2, 0]), jvp_function("h", c, [0])]
    x, y, dp, ds = GENERATOR.standard_normal((4, 3))
    k = np.arange(3, dtype=np.int32)
    by_y, by_x = run(ir.Module.of(*functions), "g", [x, k, y, dp, ds])
    np.testing.assert_allclose((by_y, by_x), (5 * ds, 2 * dp))
    tangents = run(ir.Module.of(*functions), "h", [x, k, y, dp])
    np.testing.assert_allclose(tangents, (2 * dp, np.zeros(3)))
