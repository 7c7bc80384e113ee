"""Where tensors live: memory shared by lifetime, updates in place, copies where they must be."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from harness import Native, build, check, machines, random_arguments
from random_programs import ProgramWriter

from mapsto import ir
from mapsto.ir.affine import axis
from mapsto.ir.core import Function, Value
from mapsto.ir.dims import dim_value, symbol
from mapsto.ir.fusion import buffer_of, fuse_function
from mapsto.ir.ops.contraction import access, contract, reduce_axes
from mapsto.ir.types import DType
from mapsto.lowering.buffers import Arena, Argument, BufferPlan, Result, assign_buffers, is_step
from mapsto.lowering.cpu.scheduling import DIVISION, cpu_scheduling
from mapsto.lowering.driver import KernelTable, LoweredFunction, lower_function

F32 = DType.F32
n = symbol("n")
VECTOR = (F32, (1024,))
SQUARE = (F32, (64, 64))


def plan_of(function: Function) -> BufferPlan:
    return assign_buffers(fuse_function(function), DIVISION)


def product(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    return contract(b, [x, w], maps, (x.shape[0], w.shape[1], x.shape[1]), 2)


def chain(b: ir.Builder, x: ir.Value, w: ir.Value, length: int) -> ir.Value:
    for _ in range(length):
        x = product(b, x, w)
    return x


def test_a_chain_of_products_takes_two_buffers() -> None:
    """Each product reads one buffer and writes the other; the last writes the result."""
    plan = plan_of(build("f", [SQUARE, SQUARE], lambda b, x, w: chain(b, x, w, 6)))
    assert plan.arena_bytes == 2 * 64 * 64 * 4 == plan.live_bytes


def test_a_chain_of_products_of_unknown_size_takes_two_buffers() -> None:
    function = build("f", [(F32, (n, 64)), SQUARE], lambda b, x, w: chain(b, x, w, 6))
    assert plan_of(function).arena_bytes == 2 * 64 * 4 * n
    for size in (1, 2, 7, 64):
        check(function, sizes={"n": size}, on=machines()[:1])


def test_different_lifetimes_share_memory() -> None:
    """Two branches one after the other, each with a large intermediate."""

    def body(b, x, w):
        first = reduce_axes(b, "sum", chain(b, x, w, 2), [0])
        second = reduce_axes(b, "sum", chain(b, product(b, w, x), w, 2), [0])
        return b.emit(ir.Add, first, second)

    plan = plan_of(build("f", [SQUARE, SQUARE], body))
    assert plan.arena_bytes == plan.live_bytes


def test_a_kernel_takes_over_an_operand_that_is_needed_no_more() -> None:
    """A softmax between two products is computed in place."""

    def body(b, x, w):
        y = product(b, x, w)
        top = b.emit(ir.Broadcast, reduce_axes(b, "max", y, [1]), shape=y.shape, dims=(0,))
        e = b.emit(ir.Exp, b.emit(ir.Sub, y, top))
        total = b.emit(ir.Broadcast, reduce_axes(b, "sum", e, [1]), shape=y.shape, dims=(0,))
        return product(b, b.emit(ir.Div, e, total), w)

    function = build("f", [SQUARE, SQUARE], body)
    plan = plan_of(function)
    assert plan.arena_bytes == 64 * 64 * 4
    check(function)


def test_results_are_written_where_they_belong() -> None:
    plan = plan_of(build("f", [SQUARE, SQUARE], lambda b, x, w: [product(b, x, w), x]))
    assert plan.arena_bytes == 0
    assert {p.number for p in plan.places.values() if isinstance(p, Result)} == {0, 1}


def updated(body, arguments, aliases) -> tuple[Function, BufferPlan]:
    function = build("f", arguments, body, aliases)
    return function, plan_of(function)


def test_an_elementwise_update_is_in_place() -> None:
    def body(b, p, g):
        return [b.emit(ir.Sub, p, g), b.emit(ir.Mul, p, g)]

    function, plan = updated(body, [VECTOR, VECTOR], ((0, 0),))
    assert not plan.copies and plan.arena_bytes == 0
    check(function)


def test_readers_of_the_old_value_come_first() -> None:
    """The update does not depend on the product with the old weights, but has to wait for it."""

    def body(b, w, x, g):
        return [b.emit(ir.Sub, w, g), product(b, x, w)]

    function, plan = updated(body, [SQUARE, SQUARE, SQUARE], ((0, 0),))
    assert not plan.copies
    check(function)


def test_an_update_that_reads_elsewhere_is_copied() -> None:
    """Reversed, transposed and summed arguments are read after the first element is written."""

    def reversed_(b, p):
        return [access(b, p, [axis(0, 1).scaled(-1).shifted(1023)], (1024,))]

    def transposed(b, p):
        return [b.emit(ir.Transpose, p, permutation=(1, 0))]

    def through_product(b, p):
        return [product(b, p, p)]

    for body, argument in ((reversed_, VECTOR), (transposed, SQUARE), (through_product, SQUARE)):
        function, plan = updated(body, [argument], ((0, 0),))
        assert len(plan.copies) == 1
        check(function)


def test_a_sum_that_reads_the_old_value_in_a_later_pass_waits() -> None:
    """Each lane loops over a last outer index of 1, so that the sum has a pass of its own, after
    the one that writes the update."""

    def body(b, p, g):
        h = b.emit(ir.Reshape, g, shape=p.shape)
        return [b.emit(ir.Sub, p, h), reduce_axes(b, "sum", b.emit(ir.Mul, p, h), [0]), h]

    function, _ = updated(body, [(F32, (4, 2, 1)), (F32, (8,))], ((0, 0),))
    check(function)


def test_a_row_is_updated_in_place_after_its_sum() -> None:
    def body(b, p):
        total = reduce_axes(b, "sum", p, [1])
        return [b.emit(ir.Sub, p, b.emit(ir.Broadcast, total, shape=p.shape, dims=(0,)))]

    function, plan = updated(body, [SQUARE], ((0, 0),))
    assert not plan.copies
    check(function)


def test_a_row_is_not_overwritten_before_it_is_summed() -> None:
    """The sum of the old row, also a result, is taken after the update in the order of ops."""

    def body(b, p):
        new = b.emit(ir.Exp, p)
        spread = b.emit(ir.Broadcast, reduce_axes(b, "sum", new, [1]), shape=p.shape, dims=(0,))
        old = b.emit(ir.Broadcast, reduce_axes(b, "max", p, [1]), shape=p.shape, dims=(0,))
        return [new, b.emit(ir.Mul, b.emit(ir.Sub, spread, old), p)]

    function, _ = updated(body, [SQUARE], ((0, 0),))
    check(function)


def test_exchanged_arguments() -> None:
    function, plan = updated(lambda b, x, y: [y, x], [VECTOR, VECTOR], ((0, 0), (1, 1)))
    assert len(plan.copies) == 1
    check(function)


def test_an_argument_that_stays_as_it_is_costs_nothing() -> None:
    function, plan = updated(lambda b, x: [x, b.emit(ir.Exp, x)], [VECTOR], ((0, 0),))
    assert not plan.copies
    check(function)


def test_updates_through_a_view() -> None:
    def body(b, p, g):
        flat = b.emit(ir.Reshape, b.emit(ir.Sub, p, g), shape=(64 * 64,))
        return [b.emit(ir.Reshape, flat, shape=(64, 64)), flat]

    function, _ = updated(body, [SQUARE, SQUARE], ((0, 0),))
    check(function)


def test_both_results_of_a_kernel_never_take_over_the_same_operand() -> None:
    def body(b, x, w):
        y = product(b, x, w)
        first, second = b.emit(ir.Exp, y), b.emit(ir.Sin, y)
        return product(b, first, second)

    function = build("f", [SQUARE, SQUARE], body)
    places = plan_of(function).places.values()
    assert len({p for p in places if isinstance(p, Arena)}) == 2
    check(function)


def test_the_plan_is_the_same_every_time() -> None:
    function = build("f", [SQUARE, SQUARE], lambda b, x, w: chain(b, x, w, 4))
    plans = [plan_of(function), plan_of(function)]
    first, second = ([str(p) for p in plan.places.values()] for plan in plans)
    assert first == second


@pytest.mark.parametrize("size", [0, 1])
def test_empty_and_single_element_tensors(size: int) -> None:
    def body(b, x):
        return [b.emit(ir.Exp, x), reduce_axes(b, "sum", x, [0]), reduce_axes(b, "max", x, [0, 1])]

    check(build("f", [(F32, (n, 3))], body), sizes={"n": size})


def test_a_buffer_with_another_named_size_may_be_empty() -> None:
    """A tensor of n rows cannot live where n times m rows lived: m may be 0."""
    m = symbol("m")

    def body(b, x, y, w, z):
        return [reduce_axes(b, "sum", chain(b, a, w, 3), [0]) for a in (x, y)]

    types = [(F32, (n * m, 64)), (F32, (n, 64)), SQUARE, (F32, (m,))]
    function = build("f", types, body)
    for size in (0, 1, 3):
        check(function, sizes={"n": 7, "m": size})


def test_identical_kernels_are_compiled_once() -> None:
    function = build("f", [SQUARE, SQUARE], lambda b, x, w: chain(b, x, w, 6))
    native = Native(function, machines()[0])
    assert len(native.compiled.kernels) == 1
    assert len(native.compiled.functions["f"].calls) == 6
    assert not isinstance(native(random_arguments(function)), int)


def test_the_places_of_arguments_are_their_own() -> None:
    function = build("f", [SQUARE, SQUARE], lambda b, x, w: product(b, x, w))
    fused = fuse_function(function)
    plan = assign_buffers(fused, DIVISION)
    assert [plan.place(a) for a in fused.arguments] == [Argument(0), Argument(1)]
    assert np.prod(fused.arguments[0].shape) == 64 * 64


def assert_no_overlap(lowered: LoweredFunction, sizes: dict[str, int]) -> None:
    """What lives at the same time is apart in the arena, in this function and in all bodies."""
    steps = [op for op in lowered.function.block.operations if is_step(op)]
    lives: dict[Value, tuple[int, int]] = {}
    for number, op in enumerate(steps):
        lives |= dict.fromkeys(op.results, (number, number))
        for base in filter(lives.__contains__, map(buffer_of, op.operands)):
            lives[base] = (lives[base][0], number)
    placed = [(v, lowered.plan.place(v), *lives[v]) for v in lives]
    inside = [(v, p, first, last) for v, p, first, last in placed if isinstance(p, Arena)]
    for i, (left, place, first, last) in enumerate(inside):
        start, end = _range(place, left, sizes)
        assert end <= dim_value(lowered.plan.arena_bytes, sizes)
        for right, other, begins, ends in inside[i + 1 :]:
            low, high = _range(other, right, sizes)
            takes_over = place == other and begins == last
            apart = end <= low or high <= start or begins > last or ends < first
            assert apart or takes_over, (left, right)
    for body in lowered.bodies:
        assert_no_overlap(body, sizes)


def _range(place: Arena, value: Value, sizes: dict[str, int]) -> tuple[int, int]:
    start = dim_value(place.offset, sizes)
    return start, start + dim_value(value.type.elements, sizes) * value.dtype.bytes


def test_what_lives_at_the_same_time_is_apart() -> None:
    table = KernelTable(cpu_scheduling(machines()[0]))
    with_bodies = 0
    for seed in range(60):
        lowered = lower_function(ProgramWriter(Random(seed)).write(), table)
        with_bodies += bool(lowered.bodies)
        for size in (1, 7):
            assert_no_overlap(lowered, {"n": size})
    assert with_bodies > 5
