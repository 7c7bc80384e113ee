"""Loops and branches natively: every op against the reference evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from harness import Native, build, check, machines, random_arguments

from mapsto import ir
from mapsto.ir.bodies import alias_pairs
from mapsto.ir.dims import symbol
from mapsto.ir.ops.contraction import contract, reduce_axes
from mapsto.ir.ops.flow import branch, scan, while_loop
from mapsto.ir.types import DType
from mapsto.lowering.apart_rules import register_apart_rule
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Allocate
from mapsto.lowering.outline import outline_text
from mapsto.runtime.threads import set_threads, threads

BOOL, F32, F64, I64 = DType.BOOL, DType.F32, DType.F64, DType.I64
n, t = symbol("n"), symbol("t")


def product(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    return contract(b, [x, w], maps, (x.shape[0], w.shape[1], x.shape[1]), 2)


def recurrent(b: ir.Builder, w: ir.Value, h: ir.Value, xs: ir.Value, reverse: bool = False):
    """A recurrent network: what is carried is read by a product, and so exchanged."""

    def step(b, carried, slices):
        new = b.emit(ir.Tanh, b.emit(ir.Add, product(b, carried[0], w), slices[0]))
        return [new], [new]

    finals, outputs = scan(b, step, [h], [xs], reverse=reverse)
    return [*finals, *outputs]


def cumulative(b: ir.Builder, total: ir.Value, xs: ir.Value):
    """A running sum: what is carried is updated in place."""

    def step(b, carried, slices):
        new = b.emit(ir.Add, carried[0], slices[0])
        return [new], [b.emit(ir.Mul, new, new)]

    finals, outputs = scan(b, step, [total], [xs])
    return [*finals, *outputs]


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_recurrent_scan(steps: int, reverse: bool) -> None:
    types = [(F32, (20, 20)), (F32, (3, 20)), (F32, (steps, 3, 20))]
    check(build("f", types, lambda b, w, h, xs: recurrent(b, w, h, xs, reverse)))


def test_sizes_and_steps_that_are_known_at_run_time() -> None:
    function = build("f", [(F32, (20, 20)), (F32, (n, 20)), (F32, (t, n, 20))], recurrent)
    natives = check(function, sizes={"n": 3, "t": 4})
    for sizes in ({"n": 1, "t": 0}, {"n": 0, "t": 3}, {"n": 5, "t": 1}):
        arguments = random_arguments(function, sizes=sizes)
        expected = ir.evaluate(ir.Module.of(function), "f", arguments)
        for native in natives:
            for actual, wanted in zip(native(arguments), expected, strict=True):
                np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=1e-4)


def test_a_scan_that_updates_in_place() -> None:
    check(build("f", [(F32, (n, 9)), (F32, (t, n, 9))], cumulative), sizes={"n": 4, "t": 3})


def test_carried_values_that_change_places() -> None:
    """Fibonacci's numbers: each step gives what it got as another argument."""

    def body(b, x, y):
        finals, outputs = scan(b, fibonacci, [x, y], extent=t)
        return [*finals, *outputs]

    def fibonacci(b, carried, _):
        x, y = carried
        return [y, b.emit(ir.Add, x, y)], [x]

    function = build("f", [(I64, ()), (I64, ()), (F32, (t,))], lambda b, x, y, _: body(b, x, y))
    for steps in (0, 1, 2, 7):
        check(function, sizes={"t": steps}, on=machines()[:1])


def test_what_a_step_returns_is_what_it_got() -> None:
    """Constants, slices and carried values as results, one of them twice, and a number."""

    def step(b, carried, slices):
        one = b.constant(1.0, F32, (5,))
        same = b.emit(ir.Add, slices[0], constants[0])
        return [carried[0], slices[0], same], [constants[0], slices[0], same, same, one, carried[1]]

    constants: list[ir.Value] = []

    def body(b, c, x, y, z, xs):
        constants.append(c)
        finals, outputs = scan(b, step, [x, y, z], [xs])
        return [*finals, *outputs]

    vector = (F32, (5,))
    function = build("f", [vector, vector, vector, vector, (F32, (t, 5))], body)
    for steps in (0, 1, 4):
        check(function, sizes={"t": steps}, on=machines()[:1])


def test_views_at_the_edges_of_a_region() -> None:
    def body(b, x, xs):
        def step(b, carried, slices):
            flat = b.emit(ir.Reshape, carried[0], shape=(24,))
            new = b.emit(ir.Tanh, b.emit(ir.Add, flat, slices[0]))
            return [b.emit(ir.Reshape, new, shape=(4, 6))], [b.emit(ir.Reshape, new, shape=(2, 12))]

        start = b.emit(ir.Reshape, x, shape=(4, 6))
        finals, outputs = scan(b, step, [start], [b.emit(ir.Reshape, xs, shape=(3, 24))])
        return [b.emit(ir.Reshape, finals[0], shape=(24,)), *outputs]

    check(build("f", [(F32, (2, 12)), (F32, (3, 2, 12))], body))


def newton(b: ir.Builder, x: ir.Value) -> ir.Value:
    """The square root by Newton's method, all elements until the worst is good."""

    def unfinished(b, carried):
        error = b.emit(ir.Abs, b.emit(ir.Sub, b.emit(ir.Mul, *[carried[0]] * 2), x))
        worst = reduce_axes(b, "max", error, list(range(x.type.rank)))
        return [b.emit(ir.Gt, worst, b.constant(1e-9, F64))]

    def step(b, carried):
        (y,) = carried
        total = b.emit(ir.Add, y, b.emit(ir.Div, x, y))
        return [b.emit(ir.Mul, total, b.like(0.5, total))]

    return while_loop(b, unfinished, step, [b.emit(ir.Max, x, b.like(1.0, x))])[0]


def test_a_loop_with_a_condition() -> None:
    function = build("f", [(F64, (n, 5))], lambda b, x: newton(b, x))
    for value in (0.3, 2.0, 1.0):
        check(function, [np.full((3, 5), value)])


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_a_loop_with_a_condition_that_exchanges_what_it_carries(steps: int) -> None:
    def body(b, w, x, count):
        def more(b, carried):
            return [b.emit(ir.Gt, carried[1], b.constant(0, I64))]

        def step(b, carried):
            return [product(b, carried[0], w), b.emit(ir.Sub, carried[1], b.constant(1, I64))]

        return list(while_loop(b, more, step, [x, count]))

    function = build("f", [(F32, (16, 16)), (F32, (3, 16)), (I64, ())], body)
    arguments = random_arguments(function)
    check(function, [*arguments[:2], np.asarray(steps)])


def choose(b: ir.Builder, condition: ir.Value, x: ir.Value, w: ir.Value) -> list[ir.Value]:
    def first(b):
        y = product(b, x, w)
        return [y, y, x]

    def second(b):
        return [b.emit(ir.Neg, x), b.constant(2.0, F32, x.shape), w_rows(b)]

    def w_rows(b):
        return b.emit(ir.Slice, w, starts=(0, 0), sizes=x.shape, steps=(1, 1))

    return list(branch(b, condition, first, second))


@pytest.mark.parametrize("holds", [False, True])
def test_branches(holds: bool) -> None:
    types = [(DType.BOOL, ()), (F32, (3, 16)), (F32, (16, 16))]
    function = build("f", types, choose)
    check(function, [np.asarray(holds), *random_arguments(function)[1:]])


def test_a_branch_inside_a_scan_inside_a_scan() -> None:
    """And a loop with a condition inside the branch."""

    def body(b, start, rows):
        def outer(b, carried, slices):
            finals, outputs = scan(b, inner, carried, slices)
            return finals, [*outputs, *finals]

        def inner(b, carried, slices):
            total = b.emit(ir.Add, carried[0], slices[0])
            large = b.emit(ir.Gt, total, b.constant(1.5, F64))

            def halved(b):
                def still_large(b, state):
                    return [b.emit(ir.Gt, state[0], b.constant(0.5, F64))]

                def half(b, state):
                    return [b.emit(ir.Mul, state[0], b.constant(0.5, F64))]

                return while_loop(b, still_large, half, [total])

            (new,) = branch(b, large, halved, lambda b: [total])
            return [new], [new, total]

        finals, outputs = scan(b, outer, [start], [rows])
        return [*finals, *outputs]

    function = build("f", [(F64, ()), (F64, (t, n))], body)
    for sizes in ({"t": 3, "n": 4}, {"t": 2, "n": 0}, {"t": 0, "n": 1}):
        check(function, sizes=sizes, on=machines()[-1:])


def test_an_index_outside_stops_a_scan() -> None:
    def body(b, table, indices):
        def step(b, carried, slices):
            row = b.emit(ir.Gather, table, slices[0], axes=(0,))
            return [b.emit(ir.Add, carried[0], row)], []

        return scan(b, step, [b.constant(0.0, F32, (3,))], [indices])[0]

    function = build("f", [(F32, (4, 3)), (I64, (5,))], body)
    native = Native(function, machines()[0])
    table = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(native([table, np.arange(5) % 4])[0], np.full(3, 5.0))
    assert native([table, np.array([0, 1, 4, 0, 0])]) == 1


def test_what_is_carried_is_updated_in_place_where_that_is_possible() -> None:
    """Of two carried values, one is read by a product: that one is exchanged."""

    def body(b, w, h, c, xs):
        def step(b, carried, slices):
            gate = product(b, carried[0], w)
            new = b.emit(ir.Add, b.emit(ir.Mul, carried[1], slices[0]), gate)
            return [b.emit(ir.Tanh, new), new], []

        return scan(b, step, [h, c], [xs])[0]

    types = [(F32, (16, 16)), (F32, (3, 16)), (F32, (3, 16)), (F32, (4, 3, 16))]
    function = build("f", types, body, aliases=((1, 2),))
    (native, *_) = check(function)
    lowered = native.compiled.functions["f"]
    (loop,) = lowered.bodies
    assert alias_pairs(loop.function) == [(1, 2)]
    assert not lowered.plan.copies, "the cell's state is updated in the caller's memory"


def test_a_loop_takes_over_an_operand_that_is_needed_no_more() -> None:
    def body(b, x, xs):
        def step(b, carried, slices):
            return [b.emit(ir.Add, carried[0], slices[0])], []

        return scan(b, step, [b.emit(ir.Exp, x)], [xs])[0]

    function = build("f", [(F32, (64,)), (F32, (3, 64))], body)
    (native, *_) = check(function)
    assert native.compiled.functions["f"].plan.arena_bytes == 0


def test_kernels_of_bodies_are_compiled_once() -> None:
    types = [(F32, (20, 20)), (F32, (3, 20)), (F32, (2, 3, 20)), (F32, (5, 3, 20))]

    def body(b, w, h, xs, ys):
        return [*recurrent(b, w, h, xs), *recurrent(b, w, h, ys)]

    (native, *_) = check(build("f", types, body), on=machines()[:1])
    first, second = native.compiled.functions["f"].bodies
    assert [c.loops for c in first.kernel_calls] == [c.loops for c in second.kernel_calls]


def transposed_product(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
    maps = [ir.projection((0, 2), 3), ir.projection((1, 2), 3)]
    return contract(b, [x, w], maps, (x.shape[0], w.shape[0], x.shape[1]), 2)


def product_from_left(b: ir.Builder, x: ir.Value, w: ir.Value) -> ir.Value:
    """w x, where a step's value is the right factor."""
    maps = [ir.projection((0, 2), 3), ir.projection((2, 1), 3)]
    return contract(b, [w, x], maps, (w.shape[0], x.shape[1], x.shape[0]), 2)


@pytest.mark.parametrize(
    ("multiply", "shape"),
    [
        *((product, (rows, 40)) for rows in (1, 21)),
        *((transposed_product, (rows, 40)) for rows in (1, 21)),
        (product_from_left, (40, 150)),
    ],
)
def test_weights_are_packed_once_ahead_of_a_loop(multiply, shape) -> None:
    def body(b, w, x, xs):
        def step(b, carried, slices):
            return [b.emit(ir.Add, multiply(b, carried[0], w), slices[0])], []

        return scan(b, step, [x], [xs])[0]

    function = build("f", [(F32, (40, 40)), (F32, shape), (F32, (t, *shape))], body)
    for native in check(function, sizes={"t": 3}):
        (loop,) = native.compiled.functions["f"].bodies
        assert len(loop.preparation) == 1
        (call,) = loop.kernel_calls
        local = [s.buffer for s in statements(call.loops.body) if isinstance(s, Allocate)]
        copied = {b.name for b in local if b.name.startswith("packed")}
        weights = "packed_rows" if multiply is product_from_left else "packed_columns"
        assert weights not in copied


def test_weights_of_a_loop_with_a_condition_are_packed_ahead() -> None:
    def body(b, w, v, x):
        def more(b, carried):
            total = reduce_axes(b, "sum", product(b, carried[0], v), [0, 1])
            return [b.emit(ir.Lt, total, b.constant(1e6, F32))]

        def step(b, carried):
            return [product(b, carried[0], w)]

        return list(while_loop(b, more, step, [x]))

    function = build("f", [(F32, (24, 24)), (F32, (24, 24)), (F32, (n, 24))], body)
    given = [np.abs(a) + 0.1 for a in random_arguments(function, sizes={"n": 5})]
    for native in check(function, given):
        assert [len(b.preparation) for b in native.compiled.functions["f"].bodies] == [1, 1]


def test_constants_of_a_program_are_packed_before_it_runs() -> None:
    def body(b, w, v, x):
        return product(b, product(b, x, w), v)

    types = [(F32, (40, 36)), (F32, (36, 24)), (F32, (n, 40))]
    for native in check(build("f", types, body, constants=(0,)), sizes={"n": 21}):
        (packs,) = native.compiled.functions["f"].preparation
        assert not packs.loops.sizes
        assert native.compiled.prepared_bytes("f") >= 40 * 36 * 4


@pytest.mark.parametrize("constants", [(0, 1), (0,), (1,)])
def test_what_loops_pack_is_packed_before_a_program_runs(constants) -> None:
    """Of loops in loops too, whose bodies stay as they are."""

    def outer(b, w, v, x, xs):
        def step(b, carried, slices):
            def more(b, inner):
                return [b.emit(ir.Lt, reduce_axes(b, "sum", inner[0], [0, 1]), b.constant(9, F32))]

            def again(b, inner):
                return [b.emit(ir.Add, inner[0], b.emit(ir.Abs, product(b, inner[0], w)))]

            (grown,) = while_loop(b, more, again, [b.emit(ir.Abs, slices[0])])
            return [b.emit(ir.Tanh, product(b, carried[0], v))], [grown]

        finals, outputs = scan(b, step, [x], [xs])
        return [*finals, *outputs]

    types = [(F32, (24, 24)), (F32, (24, 24)), (F32, (n, 24)), (F32, (t, n, 24))]
    function = build("f", types, outer, constants=constants)
    for native in check(function, sizes={"n": 7, "t": 3}):
        program = native.compiled.functions["f"]
        is_whole = constants == (0, 1)
        assert native.compiled.prepared_bytes("f") == is_whole * program.bodies[0].prepared_bytes
        text = outline_text(program)
        assert ("  ahead f.scan0.body(x0, x1, ahead+0)\n" in text) is is_whole


def test_what_a_size_decides_is_not_packed_before_it_is_known() -> None:
    types = [(F32, (20, n)), (F32, (3, 20))]
    function = build("f", types, lambda b, w, x: product(b, x, w), constants=(0,))
    for native in check(function, sizes={"n": 33}):
        assert native.compiled.prepared_bytes("f") == 0


def test_what_runs_once_packs_nothing_ahead() -> None:
    function = build("f", [(F32, (20, 20)), (F32, (3, 20)), (F32, (1, 3, 20))], recurrent)
    (native, *_) = check(function, on=machines()[:1])
    assert not native.compiled.functions["f"].bodies[0].preparation


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    """Parallel kernels in a body, one that packs ahead and one whose rows are tasks."""

    def body(b, w, x, xs):
        def step(b, carried, slices):
            gate = b.emit(ir.Sigmoid, product(b, carried[0], w))
            return [b.emit(ir.Mul, gate, slices[0])], [reduce_axes(b, "sum", gate, [0])]

        finals, outputs = scan(b, step, [x], [xs])
        return [*finals, *outputs]

    types = [(F32, (256, 256)), (F32, (64, 256)), (F32, (5, 64, 256))]
    function = build("f", types, body)
    native = Native(function, machines()[0], threads=True)
    arguments = random_arguments(function)
    before, results = threads(), []
    try:
        for count in (1, 2, 3):
            set_threads(count)
            results.append([array.tobytes() for array in native(arguments)])
    finally:
        set_threads(before)
    assert results[0] == results[1] == results[2]
    check(function, arguments, on=machines()[:1])


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("is_updated", [False, True])
def test_a_branch_that_changes_nothing_costs_nothing(holds: bool, is_updated: bool) -> None:
    """The other branch updates in place; what is needed afterwards as it was, is copied first."""

    def body(b, condition, x, y, w):
        def changed(b):
            return [b.emit(ir.Exp, x), product(b, y, w)]

        results = branch(b, condition, changed, lambda b: [x, y])
        return list(results) if is_updated else [*results, b.emit(ir.Add, x, y)]

    square = (F32, (16, 16))
    aliases = ((0, 1), (1, 2)) if is_updated else ()
    function = build("f", [(BOOL, ()), square, square, square], body, aliases)
    arguments = [np.asarray(holds), *random_arguments(function)[1:]]
    for native in check(function, arguments):
        lowered = native.compiled.functions["f"]
        first, second = lowered.bodies
        assert not second.calls and not second.plan.copies
        assert len(first.plan.copies) == 1, "the product cannot write over its factor"
        assert not lowered.plan.copies


def test_an_op_of_an_extension_is_lowered_apart() -> None:
    class Moved(ir.Operation):
        """Moves a tensor elsewhere."""

        name = "test.moved"
        traits = ir.Trait.APART

        def infer(self):
            return (self.operands[0].type,)

        def evaluate(self, *operands):
            return operands

    class Move:
        def scratch_bytes(self, sizes, op, bodies):
            return sizes.bytes(op.operands[0])

        def write(self, writer) -> None:
            (value,) = writer.op.operands
            writer.copy(writer.scratch, writer.operands[0], value)
            writer.copy(writer.results[0], writer.scratch, value)

    register_apart_rule(Moved, Move())

    def body(b, x):
        return b.emit(ir.Exp, b.emit(Moved, b.emit(ir.Neg, x)))

    check(build("f", [(F32, (n, 7))], body), sizes={"n": 3})
