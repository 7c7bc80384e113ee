"""Kernels of ops that are computed as a whole: running reductions, orders, scatters, updates."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Native, build, check, machines

from mapsto import ir
from mapsto.ir.dims import symbol
from mapsto.ir.types import DType
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import For

n = symbol("n")
NATIVE = machines()[:1]
NUMBERS = [d for d in DType if d not in (DType.BOOL, DType.BF16)]


def along_axes(b, x):
    """Every running reduction along each axis, both ways."""
    for axis in range(3):
        for reverse in (False, True):
            order = {"axis": axis, "reverse": reverse}
            for kind in ("sum", "max"):
                yield b.emit(ir.Cumulative, x, kind=kind, **order)
            if x.dtype.is_float:
                yield b.emit(ir.Recurrence, x, x, **order)


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
def test_running_reductions(dtype: DType) -> None:
    check(build("f", [(dtype, (3, 5, 19))], lambda b, x: list(along_axes(b, x))), on=NATIVE)


def test_running_reductions_at_all_widths_and_sizes() -> None:
    function = build("f", [(DType.F32, (3, n, 21))], lambda b, x: list(along_axes(b, x)))
    check(function, sizes={"n": 9})
    for size in (0, 1):
        check(function, sizes={"n": size}, on=NATIVE)
    products = [("prod", True), ("min", False)]

    def body(b, x):
        return [
            b.emit(ir.Cumulative, x, kind=k, axis=0, reverse=reverse) for k, reverse in products
        ]

    check(build("f", [(DType.F64, (33,))], body))


def test_running_sums_of_half_precision_are_kept_in_single() -> None:
    ones = np.full((1, 3000), 0.25, np.float16)
    function = build("f", [(DType.F16, (1, 3000))], lambda b, x: _sums(b, x))
    (result,) = check(function, [ones], on=NATIVE)[0]([ones])
    np.testing.assert_array_equal(result[0, -1], np.float16(750))


def _sums(b, x):
    return b.emit(ir.Cumulative, x, kind="sum", axis=1)


def test_running_sums_in_many_tasks() -> None:
    for shape, axis in [((2000, 300), 1), ((300, 2000), 0), ((3, 100, 3000), 1)]:
        check(
            build(
                "f",
                [(DType.F32, shape)],
                lambda b, x, axis=axis: b.emit(ir.Cumulative, x, kind="sum", axis=axis),
            ),
            on=NATIVE,
            tolerance=1e-4,
        )


def orders(b, x):
    """Positions along both axes, all of them and the first two."""
    return [
        b.emit(ir.ArgSort, x, axis=axis, count=count, descending=descending)
        for axis in (0, 1)
        for descending in (False, True)
        for count in (x.shape[axis], 2)
    ]


@pytest.mark.parametrize("dtype", [d for d in DType if d is not DType.BF16], ids=str)
def test_orders(dtype: DType) -> None:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 5, (9, 70)).astype(dtype.numpy)
    if dtype.is_float:
        x.flat[::11] = np.nan
        x.flat[::13] = -np.inf
        x.flat[::17] = -0.0
    check(build("f", [(dtype, (9, 70))], orders), [x], on=NATIVE)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 65])
def test_orders_of_rows_of_any_length(size: int) -> None:
    def body(b, x):
        return b.emit(ir.ArgSort, x, axis=1, count=n)

    function = build("f", [(DType.F32, (3, n))], body)
    check(function, sizes={"n": size}, on=NATIVE if size < 65 else None)


def test_orders_in_many_tasks() -> None:
    def body(b, x):
        return [b.emit(ir.ArgSort, x, axis=1, count=count) for count in (700, 10)]

    check(build("f", [(DType.F32, (600, 700))], body), on=NATIVE)


SCATTERS = [ir.ScatterAdd, ir.ScatterMax, ir.ScatterMin]


@pytest.mark.parametrize("dtype", [DType.F32, DType.I8, DType.F16], ids=str)
@pytest.mark.parametrize("record", SCATTERS, ids=lambda r: r.name)
def test_scatters(record, dtype: DType) -> None:
    generator = np.random.default_rng(0)
    updates = generator.integers(-9, 9, (40, 7, 3)).astype(dtype.numpy)
    i = generator.integers(0, 5, 40).astype(np.int32)
    function = build("f", [(dtype, (40, 7, 3)), (DType.I32, (40,))], _with_points(record))
    check(function, [updates, i], on=NATIVE)


def _with_points(record):
    def body(b, updates, i):
        facts = {"starts": (0, 0, 0), "sizes": (40, 1, 1), "steps": (1, 1, 1)}
        line = b.emit(ir.Reshape, b.emit(ir.Slice, updates, **facts), shape=(40,))
        whole = b.emit(record, updates, i, axes=(1,), shape=(7, 5, 3))
        return [whole, b.emit(record, line, i, axes=(0,), shape=(5,))]

    return body


def test_scatters_in_many_tasks_keep_the_order_of_updates() -> None:
    """Sums of f32 in another order would have other bits: the reference adds in order."""
    generator = np.random.default_rng(1)
    ids = generator.integers(0, 3000, 2000).astype(np.int32)
    updates = (generator.normal(size=(2000, 48)) * 1e3).astype(np.float32)
    arguments = [(DType.F32, (2000, 48)), (DType.I32, (2000,))]
    function = build(
        "f", arguments, lambda b, u, i: b.emit(ir.ScatterAdd, u, i, axes=(0,), shape=(3000, 48))
    )
    native = Native(function, machines()[0])
    assert "parallel" in str([k.body for k in native.compiled.kernels])
    (found,) = native([updates, ids])
    (expected,) = ir.evaluate(ir.Module.of(function), "f", [updates, ids])
    np.testing.assert_array_equal(found, expected)


def test_a_scatter_of_rows_that_count_up_goes_over_its_own_updates() -> None:
    def body(b, x, i):
        rows = b.emit(ir.Iota, axis=0, type=i.type)
        return b.emit(ir.ScatterAdd, x, rows, i, axes=(0, 1), shape=(500, 300))

    arguments = [(DType.F32, (500, 300)), (DType.I32, (500, 300))]
    generator = np.random.default_rng(2)
    ids = generator.integers(0, 300, (500, 300)).astype(np.int32)
    x = generator.normal(size=(500, 300)).astype(np.float32)
    check(build("f", arguments, body), [x, ids], on=NATIVE)


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16], ids=str)
def test_half_precision_is_added_in_single(dtype: DType) -> None:
    """Thousands of halves are more than such a type could count in steps of 1/2."""

    def body(b, x):
        half = b.emit(ir.Cast, x, dtype=dtype)
        zeros = b.constant(0, DType.I32, (5000,))
        line = ir.TensorType(dtype, (5000, 4))
        ones = b.constant(1, dtype, line.shape)
        maps = [ir.projection((0, 1), 2), ir.projection((0, 1), 2)]
        sums = [
            ir.scatter_sum(b, half, [zeros], (0,), (2, 4)),
            b.emit(ir.Recurrence, ones, half, axis=0),
            b.emit(ir.Cumulative, half, kind="sum", axis=0),
            ir.reduce_axes(b, "sum", half, [0]),
            ir.reduce_axes(b, "sum", b.emit(ir.Transpose, half, permutation=(1, 0)), [1]),
            ir.reduce_axes(b, "sum", half, [0, 1]),
            ir.contract(b, [half, ones], maps, (5000, 4), 0),
            b.emit(ir.Slice, half, starts=(0, 0), sizes=(1, 1), steps=(1, 1)),
        ]
        return [b.emit(ir.Cast, total, dtype=DType.F32) for total in sums]

    native = Native(build("f", [(DType.F32, (5000, 4))], body), machines()[0])
    found = native([np.full((5000, 4), 0.5, np.float32)])
    wanted = [2500, 2500, 2500, 2500, 2500, 10_000, 10_000, 0.5]
    for total, number in zip(found, wanted, strict=True):
        np.testing.assert_allclose(total.max(), number, rtol=1e-2)


def update(b, x, part, start):
    return b.emit(ir.DynamicUpdate, x, part, start, axes=(1,))


PARTS = [(DType.F32, (4, n, 5)), (DType.F32, (4, 3, 5)), (DType.I64, ())]


def test_a_part_is_replaced() -> None:
    function = build("f", PARTS, update)
    generator = np.random.default_rng(3)
    for size, start in [(3, 0), (9, 0), (9, 6)]:
        x, part = (generator.normal(size=(4, d, 5)).astype(np.float32) for d in (size, 3))
        check(function, [x, part, np.array(start)], on=NATIVE)


@pytest.mark.parametrize("start", [-1, 7, 2**40])
def test_a_part_that_does_not_fit_is_an_error_code(start: int) -> None:
    native = Native(build("f", PARTS, update), machines()[0])
    x, part = np.ones((4, 9, 5), np.float32), np.ones((4, 3, 5), np.float32)
    assert native([x, part, np.array(start)]) == 1


@pytest.mark.parametrize("in_place", [False, True])
def test_a_part_is_replaced_in_place(in_place: bool) -> None:
    """Where the memory is the operand's, no loop runs over the whole tensor."""
    function = build("f", PARTS, update, aliases=[(0, 0)] if in_place else [])
    arguments = [np.ones((4, 9, 5), np.float32), np.zeros((4, 3, 5), np.float32), np.array(4)]
    (native,) = check(function, arguments, on=NATIVE)
    (kernel,) = native.compiled.kernels
    stops = str([loop.stop for loop in statements(kernel.body) if isinstance(loop, For)])
    assert ("$n" in stops) is not in_place
