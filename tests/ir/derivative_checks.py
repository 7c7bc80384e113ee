"""Checks of derivatives: forward mode against finite differences, reverse against forward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mapsto import ir
from mapsto.ir.passes.autodiff import expand_differentiation

Array = NDArray[np.generic]
Body = Callable[..., ir.Value]


def function_of(name: str, types: Sequence[ir.TensorType], body: Body) -> ir.Function:
    """The function whose result or results `body(build, *arguments)` emits."""
    build = ir.Builder(ir.Block(types))
    result = body(build, *build.block.arguments)
    return ir.finish_function(name, build, [result] if isinstance(result, ir.Value) else result)


def vjp_function(name: str, callee: ir.Function, wrt: Sequence[int]) -> ir.Function:
    """(arguments, cotangents of the float results) -> cotangents of the arguments in `wrt`."""
    outputs = tuple(i for i, v in enumerate(callee.results) if v.dtype.is_float)
    return _request(ir.Vjp, name, callee, wrt, outputs, [callee.results[i] for i in outputs])


def jvp_function(name: str, callee: ir.Function, wrt: Sequence[int]) -> ir.Function:
    """(arguments, tangents of those in `wrt`) -> tangents of the float results."""
    outputs = tuple(i for i, v in enumerate(callee.results) if v.dtype.is_float)
    return _request(ir.Jvp, name, callee, wrt, outputs, [callee.arguments[i] for i in wrt])


def _request(record, name, callee, wrt, outputs, extra) -> ir.Function:  # type: ignore[no-untyped-def]
    arguments = [v.type for v in callee.arguments]
    build = ir.Builder(ir.Block([*arguments, *(v.type for v in extra)]))
    given = callee.results if record is ir.Jvp else callee.arguments
    derived = [given[i].type for i in (outputs if record is ir.Jvp else wrt)]
    results = tuple(v.type for v in callee.results)
    op = build.op(
        record,
        *build.block.arguments,
        callee=ir.SymbolReference(callee.name),
        results=(*results, *derived),
        wrt=tuple(wrt),
        outputs=outputs,
    )
    return ir.finish_function(name, build, op.results[len(results) :])


def run(module: ir.Module, name: str, arguments: Sequence[Array]) -> tuple[Array, ...]:
    """The results of a function of the module, its differentiation expanded."""
    return ir.evaluate(expand_differentiation(module), name, arguments)


def check_function(
    function: ir.Function,
    arguments: Sequence[Array],
    order: int = 1,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> None:
    """Checks the derivatives of a function up to an order, at f64 arguments."""
    check_derivatives(ir.Module.of(function), function.name, arguments, order, tolerance, seed)


def check_derivatives(
    module: ir.Module,
    name: str,
    arguments: Sequence[Array],
    order: int,
    tolerance: float,
    seed: int,
) -> None:
    """Forward against central differences, reverse against forward, then the same of reverse."""
    function = module[name]
    wrt = [i for i, v in enumerate(function.arguments) if v.dtype.is_float]
    forward = jvp_function(f"{name}_jvp", function, wrt)
    reverse = vjp_function(f"{name}_vjp", function, wrt)
    module = module.with_function(forward).with_function(reverse)
    generator = np.random.default_rng(seed)
    directions = [generator.standard_normal(np.shape(arguments[i])) for i in wrt]
    pushed = run(module, forward.name, [*arguments, *directions])
    differences = central_differences(module, name, arguments, wrt, directions)
    for found, expected in zip(pushed, differences, strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    cotangents = [generator.standard_normal(np.shape(p)) for p in pushed]
    pulled = run(module, reverse.name, [*arguments, *cotangents])
    outer = sum(np.sum(c * p) for c, p in zip(cotangents, pushed, strict=True))
    inner = sum(np.sum(p * d) for p, d in zip(pulled, directions, strict=True))
    np.testing.assert_allclose(inner, outer, rtol=1e-9, atol=1e-9)
    if order > 1:
        inputs = [*arguments, *cotangents]
        check_derivatives(module, reverse.name, inputs, order - 1, tolerance, seed + 1)


def central_differences(
    module: ir.Module,
    name: str,
    arguments: Sequence[Array],
    wrt: Sequence[int],
    directions: Sequence[Array],
    step: float = 1e-5,
) -> list[Array]:
    """The derivative of the float results along the directions, by central differences."""
    module = expand_differentiation(module)

    def at(scale: float) -> list[Array]:
        moved = list(arguments)
        for i, direction in zip(wrt, directions, strict=True):
            moved[i] = moved[i] + scale * direction
        results = ir.evaluate(module, name, moved)
        kept = zip(module[name].results, results, strict=True)
        return [array for value, array in kept if value.dtype.is_float]

    return [(a - b) / (2 * step) for a, b in zip(at(step), at(-step), strict=True)]
