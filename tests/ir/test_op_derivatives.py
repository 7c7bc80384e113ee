"""The derivative of every op: a table of op, input ranges and tolerance; orders 1 and 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from derivative_checks import check_function, function_of

from mapsto import ir
from mapsto.ir import DType
from mapsto.ir.core import registered_ops

SHAPE = (3, 4)
F64 = DType.F64


@dataclass(frozen=True)
class Case:
    """An op applied to float arguments of `shapes`, drawn uniformly from `ranges`."""

    op: type[ir.Operation]
    body: Callable[..., ir.Value]
    ranges: tuple[tuple[float, float], ...]
    shapes: tuple[tuple[int, ...], ...]
    tolerance: float = 1e-6
    label: str = ""

    def __str__(self) -> str:
        return self.op.name + (f"-{self.label}" if self.label else "")


def elementwise(op: type[ir.Operation], *ranges: tuple[float, float], **other: object) -> Case:
    def body(build: ir.Builder, *operands: ir.Value) -> ir.Value:
        return build.emit(op, *operands)

    return Case(op, body, ranges, (SHAPE,) * len(ranges), **other)  # type: ignore[arg-type]


def structural(
    op: type[ir.Operation], *shapes: tuple[int, ...], label: str = "", **attributes: object
) -> Case:
    def body(build: ir.Builder, *operands: ir.Value) -> ir.Value:
        return build.emit(op, *operands, **attributes)

    return Case(op, body, ((-1, 1),) * len(shapes), shapes, label=label)


def indices(build: ir.Builder, values: list[int]) -> ir.Value:
    array = np.array(values, np.int32)
    type_ = ir.TensorType(DType.I32, array.shape)
    return build.emit(ir.Constant, value=ir.DenseArray(array), type=type_)


def gathered(build: ir.Builder, x: ir.Value) -> ir.Value:
    return build.emit(ir.Gather, x, indices(build, [2, 0, 2]), axes=(1,))


def gathered_points(build: ir.Builder, x: ir.Value) -> ir.Value:
    points = indices(build, [2, 0, 2]), indices(build, [1, 1, 1])
    return build.emit(ir.Gather, x, *points, axes=(0, 2))


def scattered(build: ir.Builder, x: ir.Value) -> ir.Value:
    return build.emit(ir.ScatterAdd, x, indices(build, [1, 0, 1]), axes=(1,), shape=(4, 3, 2))


def scattered_by(op: type[ir.Operation]) -> Callable[..., ir.Value]:
    def body(build: ir.Builder, x: ir.Value) -> ir.Value:
        # Element 2 gets no update: an infinity, which has no finite differences.
        total = build.emit(op, x, indices(build, [1, 0, 1]), axes=(1,), shape=(3, 3, 2))
        return build.emit(ir.Slice, total, starts=(0, 0, 0), sizes=(3, 2, 2), steps=(1, 1, 1))

    return body


def updated(build: ir.Builder, x: ir.Value, update: ir.Value) -> ir.Value:
    starts = (build.constant(1, DType.I32), build.constant(0, DType.I32))
    return build.emit(ir.DynamicUpdate, x, update, *starts, axes=(0, 2))


def selected(build: ir.Builder, x: ir.Value, y: ir.Value) -> ir.Value:
    return build.emit(ir.Select, build.emit(ir.Lt, x, y), x, y)


def cast_twice(build: ir.Builder, x: ir.Value) -> ir.Value:
    # In f64 throughout, so that finite differences keep their digits.
    return build.emit(ir.Cast, build.emit(ir.Cast, x, dtype=F64), dtype=F64)


def constant_added(build: ir.Builder, x: ir.Value) -> ir.Value:
    return build.emit(ir.Add, x, build.like(2, x))


def matrix_product(build: ir.Builder, x: ir.Value, y: ir.Value) -> ir.Value:
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    return ir.contract(build, [x, y], maps, (3, 2, 4), 2)


WIDE, POSITIVE, OPEN = (-2.0, 2.0), (0.5, 3.0), (-0.9, 0.9)
CASES = [
    elementwise(ir.Neg, WIDE),
    elementwise(ir.Add, WIDE, WIDE),
    elementwise(ir.Sub, WIDE, WIDE),
    elementwise(ir.Mul, WIDE, WIDE),
    elementwise(ir.Div, WIDE, POSITIVE),
    elementwise(ir.Abs, (0.1, 2.0)),
    elementwise(ir.Abs, (-2.0, -0.1), label="negative"),
    elementwise(ir.Sign, (0.1, 2.0)),
    elementwise(ir.Floor, (0.1, 0.9)),
    elementwise(ir.Ceil, (0.1, 0.9)),
    elementwise(ir.Round, (0.1, 0.4)),
    elementwise(ir.Exp, WIDE, tolerance=1e-5),
    elementwise(ir.Expm1, WIDE, tolerance=1e-5),
    elementwise(ir.Log, POSITIVE),
    elementwise(ir.Log1p, OPEN, tolerance=1e-4),
    elementwise(ir.Sqrt, POSITIVE),
    elementwise(ir.Rsqrt, POSITIVE),
    elementwise(ir.Sin, WIDE),
    elementwise(ir.Cos, WIDE),
    elementwise(ir.Tanh, WIDE),
    elementwise(ir.Sigmoid, WIDE),
    elementwise(ir.Erf, WIDE),
    elementwise(ir.Mod, (2.1, 2.9), (1.2, 1.4)),
    elementwise(ir.Pow, POSITIVE, WIDE, tolerance=1e-5),
    elementwise(ir.Max, WIDE, WIDE),
    elementwise(ir.Min, WIDE, WIDE),
    Case(ir.Select, selected, (WIDE, WIDE), (SHAPE, SHAPE)),
    Case(ir.Cast, cast_twice, (WIDE,), (SHAPE,)),
    Case(ir.Constant, constant_added, (WIDE,), (SHAPE,)),
    structural(ir.Broadcast, (4,), shape=(3, 4, 2), dims=(1,)),
    structural(ir.Broadcast, (), label="scalar", shape=(3, 4), dims=()),
    structural(ir.Transpose, (2, 3, 4), permutation=(2, 0, 1)),
    structural(ir.Reshape, (2, 6), shape=(3, 4)),
    structural(ir.Slice, (5, 6), starts=(1, 0), sizes=(3, 6), steps=(1, 1)),
    structural(ir.Slice, (7, 6), label="step", starts=(1, 5), sizes=(3, 2), steps=(2, -3)),
    structural(ir.Slice, (7,), label="reverse", starts=(6,), sizes=(7,), steps=(-1,)),
    structural(ir.Slice, (7, 2), label="empty", starts=(3, 0), sizes=(0, 2), steps=(2, 1)),
    structural(ir.Pad, (2, 3), low=(1, 0), high=(2, 1), value=5),
    structural(ir.Barrier, (2, 3)),
    structural(ir.Concat, (2, 1), (2, 3), (2, 2), axis=1),
    Case(ir.Contract, matrix_product, (WIDE, WIDE), ((3, 4), (4, 2))),
    Case(ir.Gather, gathered, (WIDE,), ((2, 3, 2),)),
    Case(ir.Gather, gathered_points, (WIDE,), ((3, 2, 2),), label="points"),
    Case(ir.ScatterAdd, scattered, (WIDE,), ((3, 4, 2),)),
    Case(ir.ScatterMax, scattered_by(ir.ScatterMax), (WIDE,), ((3, 3, 2),)),
    Case(ir.ScatterMin, scattered_by(ir.ScatterMin), (WIDE,), ((3, 3, 2),)),
    Case(ir.DynamicUpdate, updated, (WIDE, WIDE), ((4, 2, 3), (2, 2, 1))),
    *[
        structural(ir.Cumulative, (3, 4), label=f"{kind}-{way}", kind=kind, axis=1, reverse=reverse)
        for kind in ("sum", "prod", "max", "min")
        for way, reverse in (("forward", False), ("reverse", True))
    ],
    structural(ir.Cumulative, (3, 4), label="axis 0", kind="prod", axis=0),
    structural(ir.Recurrence, (2, 4), (2, 4), axis=1),
    structural(ir.Recurrence, (4, 2), (4, 2), label="reverse", axis=0, reverse=True),
]
STOPPED = {"stop_gradient"}
"""Constant to differentiation although the value depends on the operand."""
EXPANDED = {"return", "call", "custom_call", "remat_call", "jvp", "vjp"}
"""Gone before an op's derivative is asked for."""

FLOW = {"scan", "while", "if"}
"""Have a table of their own, in test_flow_derivatives."""

EFFECTS = {"print", "assert"}
"""Have no results."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_orders_1_and_2(case: Case) -> None:
    generator = np.random.default_rng(len(case.op.name))
    pairs = zip(case.shapes, case.ranges, strict=True)
    arguments = [generator.uniform(low, high, shape) for shape, (low, high) in pairs]
    types = [ir.TensorType(F64, shape) for shape in case.shapes]
    check_function(function_of("f", types, case.body), arguments, 2, case.tolerance)


def test_every_op_is_in_the_table() -> None:
    tested = {case.op.name for case in CASES} | STOPPED | EXPANDED | FLOW | EFFECTS
    own = {n: op for n, op in registered_ops().items() if op.__module__.startswith("mapsto.")}
    missing = [n for n, op in own.items() if n not in tested and not op.not_differentiable]
    assert not missing


def test_half_precision_goes_through_casts() -> None:
    def body(build: ir.Builder, x: ir.Value) -> ir.Value:
        wide = build.emit(ir.Cast, x, dtype=DType.F32)
        return build.emit(ir.Cast, build.emit(ir.Mul, wide, wide), dtype=DType.F16)

    from derivative_checks import run, vjp_function

    f = function_of("f", [ir.TensorType(DType.F16, (3,))], body)
    module = ir.Module.of(f, vjp_function("g", f, [0]))
    x = np.array([1, 2, 3], np.float16)
    (found,) = run(module, "g", [x, np.ones(3, np.float16)])
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, [2, 4, 6])


@pytest.mark.parametrize("op", [ir.Max, ir.Min], ids=lambda op: op.name)
def test_ties_of_extrema_share(op: type[ir.Operation]) -> None:
    from derivative_checks import run, vjp_function

    case = elementwise(op, WIDE, WIDE)
    f = function_of("f", [ir.TensorType(F64, (2,))] * 2, case.body)
    module = ir.Module.of(f, vjp_function("g", f, [0, 1]))
    found = run(module, "g", [np.array([1.0, 2]), np.array([1.0, 2]), np.ones(2)])
    np.testing.assert_array_equal(found, np.full((2, 2), 0.5))
