"""Differentiation of functions: nesting, calls, sizes, what is (not) emitted, and errors."""

from __future__ import annotations

import numpy as np
import pytest
from derivative_checks import (
    check_derivatives,
    check_function,
    function_of,
    jvp_function,
    run,
    vjp_function,
)

from mapsto import ir
from mapsto.ir import DType
from mapsto.ir.passes.autodiff import expand_differentiation

F64 = DType.F64
VECTOR = ir.TensorType(F64, (4,))
GENERATOR = np.random.default_rng(0)


def matmul(build: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    return ir.contract(build, [x, w], maps, (x.shape[0], w.shape[1], x.shape[1]), 2)


def dense(build: ir.Builder, x: ir.Value, w: ir.Value, b: ir.Value) -> ir.Value:
    product = matmul(build, x, w)
    bias = build.emit(ir.Broadcast, b, shape=product.shape, dims=(1,))
    return build.emit(ir.Add, product, bias)


def mlp(build: ir.Builder, *arguments: ir.Value) -> ir.Value:
    x, w1, b1, w2, b2 = arguments
    hidden = build.emit(ir.Tanh, dense(build, x, w1, b1))
    out = dense(build, hidden, w2, b2)
    return ir.reduce_axes(build, "sum", build.emit(ir.Mul, out, out), (0, 1))


def mlp_function(batch: ir.Dim = 3) -> ir.Function:
    shapes = [(batch, 4), (4, 5), (5,), (5, 2), (2,)]
    return function_of("loss", [ir.TensorType(F64, s) for s in shapes], mlp)


def mlp_arguments(batch: int = 3) -> list[np.ndarray]:
    shapes = [(batch, 4), (4, 5), (5,), (5, 2), (2,)]
    return [GENERATOR.standard_normal(shape) for shape in shapes]


def cubic(build: ir.Builder, x: ir.Value) -> ir.Value:
    """sum(x^3 sin x): derivatives of any order differ from zero."""
    cube = build.emit(ir.Mul, x, build.emit(ir.Mul, x, x))
    return ir.reduce_axes(build, "sum", build.emit(ir.Mul, cube, build.emit(ir.Sin, x)), (0,))


def expanded(*functions: ir.Function) -> ir.Module:
    return expand_differentiation(ir.Module.of(*functions))


def count(function: ir.Function, record: type[ir.Operation]) -> int:
    return sum(isinstance(op, record) for op in function.operations())


def located(line: int) -> ir.Location:
    return ir.Location("net.mto", line, 5)


def test_mlp_to_order_2() -> None:
    check_function(mlp_function(), mlp_arguments(), 2, 1e-5)


def test_mlp_gradient_has_no_needless_contraction() -> None:
    f = mlp_function()
    g = expanded(f, vjp_function("g", f, [1, 2, 3, 4]))["g"]
    found = [op for op in g.operations() if isinstance(op, ir.Contract)]
    # forward: 2 (the loss is not asked for); backward: 2 for weights, 1 for the hidden layer.
    assert sum(len(op.operands) == 2 for op in found) == 5
    assert sum(len(op.operands) == 1 for op in found) == 2
    assert all(m.is_projection for op in found for m in op.maps)


def test_input_gradient_costs_one_more_contraction() -> None:
    f = mlp_function()
    some, every = vjp_function("some", f, [1, 2, 3, 4]), vjp_function("every", f, range(5))
    module = expanded(f, some, every)
    assert count(module["every"], ir.Contract) == count(module["some"], ir.Contract) + 1


def test_gradient_of_the_last_layer_leaves_the_first_alone() -> None:
    f = mlp_function()
    g = expanded(f, vjp_function("g", f, [4]))["g"]
    assert count(g, ir.Contract) == 3


def test_value_and_gradient_share_the_forward_computation() -> None:
    f = mlp_function()
    build = ir.Builder(ir.Block([v.type for v in f.arguments]))
    one = build.constant(1, F64)
    types = (f.results[0].type, f.arguments[1].type)
    op = build.op(
        ir.Vjp,
        *build.block.arguments,
        one,
        callee=ir.SymbolReference("loss"),
        results=types,
        wrt=(1,),
        outputs=(0,),
    )
    g = expanded(f, ir.finish_function("g", build, op.results))["g"]
    assert count(g, ir.Tanh) == 1
    assert count(g, ir.Contract) == 2 + 1 + 2


def test_hessian_vector_product_is_forward_over_reverse() -> None:
    f = function_of("f", [VECTOR], cubic)
    gradient = vjp_function("gradient", f, [0])
    product = jvp_function("product", gradient, [0])
    x, v = GENERATOR.standard_normal((2, 4))
    (found,) = run(ir.Module.of(f, gradient, product), "product", [x, np.ones(()), v])
    hessian = 6 * x * np.sin(x) + 6 * x**2 * np.cos(x) - x**3 * np.sin(x)
    np.testing.assert_allclose(found, hessian * v, rtol=1e-12)


def test_third_derivative() -> None:
    f = function_of("f", [VECTOR], cubic)
    check_function(f, [GENERATOR.standard_normal(4)], 3, 1e-4)


def test_reverse_over_forward_over_reverse() -> None:
    f = function_of("f", [VECTOR], cubic)
    g = vjp_function("g", f, [0])
    h = jvp_function("h", g, [0])
    x, v = GENERATOR.standard_normal((2, 4))
    module = ir.Module.of(f, g, h)
    check_derivatives(module, "h", [x, np.ones(()), v], 1, 1e-5, 0)


def test_derivative_inside_a_differentiated_function() -> None:
    """f(x) = sum(grad(cubic)(x)^2), as a gradient penalty has it."""
    inner = function_of("inner", [VECTOR], cubic)

    def penalty(build: ir.Builder, x: ir.Value) -> ir.Value:
        one = build.constant(1, F64)
        request = {"callee": ir.SymbolReference("inner"), "wrt": (0,), "outputs": (0,)}
        types = (inner.results[0].type, VECTOR)
        slope = build.op(ir.Vjp, x, one, **request, results=types).results[1]
        return ir.reduce_axes(build, "sum", build.emit(ir.Mul, slope, slope), (0,))

    outer = function_of("outer", [VECTOR], penalty)
    module = ir.Module.of(inner, outer)
    check_derivatives(module, "outer", [GENERATOR.standard_normal(4)], 2, 1e-4, 0)


def test_calls_are_differentiated_through() -> None:
    def twice(build: ir.Builder, x: ir.Value) -> ir.Value:
        attributes = {"callee": ir.SymbolReference("sine"), "results": (VECTOR,)}
        once = build.op(ir.Call, x, **attributes).result
        return build.op(ir.Call, once, **attributes).result

    sine = function_of("sine", [VECTOR], lambda build, x: build.emit(ir.Sin, x))
    f = function_of("f", [VECTOR], twice)
    x, ct = GENERATOR.standard_normal((2, 4))
    (found,) = run(ir.Module.of(sine, f, vjp_function("g", f, [0])), "g", [x, ct])
    np.testing.assert_allclose(found, ct * np.cos(np.sin(x)) * np.cos(x))


def test_named_sizes_of_the_callee_are_those_of_the_operands() -> None:
    f = mlp_function(ir.symbol("n"))
    build = ir.Builder(
        ir.Block([ir.TensorType(F64, (2 * ir.symbol("m"), 4)), *(v.type for v in f.arguments[1:])])
    )
    one = build.constant(1, F64)
    types = (f.results[0].type, build.block.arguments[0].type)
    callee = ir.SymbolReference("loss")
    operands = *build.block.arguments, one
    op = build.op(ir.Vjp, *operands, callee=callee, results=types, wrt=(0,), outputs=(0,))
    g = ir.finish_function("g", build, op.results[1:])
    assert str(expanded(f, g)["g"].results[0].type) == "f64[2*m, 4]"


def test_gradient_with_a_named_batch() -> None:
    check_function(mlp_function(ir.symbol("n")), mlp_arguments(batch=2), 1, 1e-5)


def test_argument_without_influence_has_gradient_zero() -> None:
    def body(build: ir.Builder, x: ir.Value, y: ir.Value) -> ir.Value:
        return build.emit(ir.Mul, x, x)

    f = function_of("f", [VECTOR, VECTOR], body)
    module = expanded(f, vjp_function("g", f, [1]), jvp_function("h", f, [1]))
    ones = np.ones(4)
    for name in "g", "h":
        assert count(module[name], ir.Mul) == 0
        np.testing.assert_array_equal(ir.evaluate(module, name, [ones] * 3)[0], np.zeros(4))


def test_argument_that_is_a_result() -> None:
    f = function_of("f", [VECTOR, VECTOR], lambda build, x, y: [y, x, y])
    check_function(f, list(GENERATOR.standard_normal((2, 4))), 2)


def test_one_value_passed_twice_is_differentiated_where_asked() -> None:
    f = function_of("f", [VECTOR, VECTOR], lambda build, x, y: build.emit(ir.Mul, x, y))

    def body(build: ir.Builder, x: ir.Value, ct: ir.Value) -> ir.Value:
        request = {"callee": ir.SymbolReference("f"), "results": (VECTOR, VECTOR)}
        return build.op(ir.Vjp, x, x, ct, **request, wrt=(0,), outputs=(0,)).results[1]

    g = function_of("g", [VECTOR, VECTOR], body)
    x, ct = GENERATOR.standard_normal((2, 4))
    np.testing.assert_allclose(run(ir.Module.of(f, g), "g", [x, ct])[0], ct * x)


def test_stop_gradient_is_a_constant() -> None:
    def body(build: ir.Builder, x: ir.Value) -> ir.Value:
        return build.emit(ir.Mul, x, build.emit(ir.StopGradient, x))

    f = function_of("f", [VECTOR], body)
    x, ct = GENERATOR.standard_normal((2, 4))
    (found,) = run(ir.Module.of(f, vjp_function("g", f, [0])), "g", [x, ct])
    np.testing.assert_allclose(found, ct * x)


def test_integers_have_no_tangents() -> None:
    indices = ir.TensorType(DType.I32, (3,))

    def body(build: ir.Builder, table: ir.Value, ids: ir.Value) -> ir.Value:
        return build.emit(ir.Gather, table, build.emit(ir.Add, ids, ids), axes=(0,))

    f = function_of("f", [ir.TensorType(F64, (5, 2)), indices], body)
    ids = np.array([0, 2, 1], np.int32)
    check_function(f, [GENERATOR.standard_normal((5, 2)), ids], 2)


def test_positions_and_comparisons_cut_the_derivative() -> None:
    def body(build: ir.Builder, x: ir.Value) -> ir.Value:
        best = build.emit(ir.Cast, build.emit(ir.ArgMax, x, axis=0), dtype=F64)
        spread = build.emit(ir.Broadcast, best, shape=(4,), dims=())
        return build.emit(ir.Mul, x, spread)

    check_function(function_of("f", [VECTOR], body), [np.array([0.1, 0.5, 2.0, -1.0])], 2)


class Opaque(ir.Unary):
    """An op without a derivative."""

    name = "test_opaque"

    def evaluate(self, *operands):  # type: ignore[no-untyped-def]
        return operands


def opaque(build: ir.Builder, x: ir.Value) -> ir.Value:
    build.location = located(7)
    return build.emit(Opaque, x)


def test_missing_derivative_names_op_and_line() -> None:
    f = function_of("f", [VECTOR], opaque)
    message = r"net.mto:7:5: the op `test_opaque` has no derivative"
    for request in vjp_function, jvp_function:
        with pytest.raises(ir.MissingDerivative, match=message):
            expanded(f, request("g", f, [0]))


class Crooked(ir.Unary):
    """An op whose tangent is not linear in that of its operand."""

    name = "test_crooked"

    def jvp(self, build, results, tangents):  # type: ignore[no-untyped-def]
        return [build.emit(ir.Mul, tangents[0], tangents[0])]


def test_rule_that_is_not_linear_is_an_error() -> None:
    f = function_of("f", [VECTOR], lambda build, x: build.emit(Crooked, x))
    with pytest.raises(ir.MissingDerivative, match="`mul` has no derivative"):
        expanded(f, vjp_function("g", f, [0]))


def test_op_without_derivative_beside_the_way_does_no_harm() -> None:
    def body(build: ir.Builder, x: ir.Value, y: ir.Value) -> ir.Value:
        return build.emit(ir.Mul, x, opaque(build, y))

    f = function_of("f", [VECTOR, VECTOR], body)
    (found,) = run(ir.Module.of(f, vjp_function("g", f, [0])), "g", [*np.ones((2, 4)), np.ones(4)])
    np.testing.assert_array_equal(found, np.ones(4))


def test_locations_are_those_of_the_source() -> None:
    def body(build: ir.Builder, x: ir.Value) -> ir.Value:
        build.location = located(3)
        y = build.emit(ir.Sin, x)
        build.location = located(4)
        return build.emit(ir.Mul, y, y)

    f = function_of("f", [VECTOR], body)
    g = expanded(f, vjp_function("g", f, [0]))["g"]
    lines = {op.location.line for op in g.operations() if op.location is not None}
    assert lines == {3, 4}
    assert all(op.location for op in g.operations() if op.name != "return")


def test_gradients_are_named_after_their_arguments() -> None:
    build = ir.Builder(ir.Block([VECTOR], ["weights"]))
    f = ir.finish_function("f", build, [cubic(build, build.block.arguments[0])])
    assert expanded(f, vjp_function("g", f, [0]))["g"].results[0].hint == "d_weights"


def test_recursion_is_an_error() -> None:
    def body(build: ir.Builder, x: ir.Value) -> ir.Value:
        return build.emit(ir.Call, x, callee=ir.SymbolReference("f"), results=(VECTOR,))

    f = function_of("f", [VECTOR], body)
    with pytest.raises(ir.PassError, match="@f is differentiated and calls itself"):
        expanded(f, vjp_function("g", f, [0]))


def test_missing_callee_is_an_error() -> None:
    f = function_of("f", [VECTOR], opaque)
    with pytest.raises(ir.PassError, match="no function @f"):
        expanded(vjp_function("g", f, [0]))
