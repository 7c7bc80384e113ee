"""`scan` and `while`: carried structures, numbers that adapt, captured values, states, indices."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import call_module, initial_slots, run_map, run_slots, type_of

from mapsto import ir
from mapsto.dsl.program import Program

X = np.array([1.0, 2.0, 3.0, 4.0])
TABLE = np.arange(6.0).reshape(3, 2)
STEPS = """
map add(total: f64, x: f64) -> (f64, f64):
    let next = total + x
    (next, next)

map decay(state: f64, x: f64) -> (f64, f64):
    (0.5 * state + x, state)
"""


def run(body: str, **arguments: np.ndarray) -> object:
    """The value of a map `f` that may use the steps."""
    return run_map(STEPS + body, arguments)


def decayed(x: np.ndarray, start: float = 0.0) -> tuple[float, list[float]]:
    outputs = []
    for element in x:
        outputs.append(start)
        start = 0.5 * start + element
    return start, outputs


def test_scan_gives_the_last_carry_and_all_outputs() -> None:
    final, outputs = run("map f(x: f64[n]): scan(add, 0.0, x)", x=X)  # type: ignore[misc]
    assert final == 10
    np.testing.assert_allclose(outputs, np.cumsum(X))


def test_reverse_starts_at_the_end_and_keeps_positions() -> None:
    text = "map f(x: f64[n]): scan(add, 0, x, reverse=true)"
    final, outputs = run(text, x=X)  # type: ignore[misc]
    assert final == 10
    np.testing.assert_allclose(outputs, np.cumsum(X[::-1])[::-1])


def test_without_sequences_a_step_gets_its_number() -> None:
    text = """
map f(x: f64):
    map power(value: f64, i: i32) -> (f64, i32): (value * x, i)
    scan(power, 1, length=5)
"""
    final, numbers = run(text, x=np.array(3.0))  # type: ignore[misc]
    assert final == 243
    assert numbers.dtype == np.int32 and numbers.tolist() == [0, 1, 2, 3, 4]


def test_structures_nest() -> None:
    text = """
map f(x: f64[n], y: i32[n]):
    map step(carry: (f64, (i32, f64)), given: (f64, i32)) -> ((f64, (i32, f64)), (f64, (i32, f64))):
        let (a, rest) = carry
        let (b, c) = rest
        let (x, y) = given
        ((a + x, (b + y, c * x)), (a, (y, x)))
    scan(step, (0, (0, 1)), (x, y))
"""
    (a, (b, c)), outputs = run(text, x=X, y=np.arange(4, dtype=np.int32))  # type: ignore[misc]
    assert (a, b, c) == (10, 6, 24) and b.dtype == np.int32
    np.testing.assert_allclose(outputs[0], [0, 1, 3, 6])
    np.testing.assert_allclose(outputs[1][1], X)


@pytest.mark.parametrize("start", ["0", "0.0", "x[0] - x[0]", "f64(0)"])
def test_numbers_take_the_type_that_the_step_gives(start: str) -> None:
    final, _ = run(f"map f(x: f64[n]): scan(add, {start}, x)", x=X)  # type: ignore[misc]
    assert final.dtype == np.float64 and final == 10


def test_a_number_may_become_a_vector() -> None:
    text = """
map f(x: f64[n, d]):
    map step(total: f64[d], x: f64[d]) -> (f64[d], f64): (total + x, sum(total))
    scan(step, 0, x)
"""
    final, outputs = run(text, x=TABLE)  # type: ignore[misc]
    np.testing.assert_allclose(final, TABLE.sum(0))
    np.testing.assert_allclose(outputs, [0, 1, 6])


def test_no_steps() -> None:
    final, outputs = run("map f(x: f64[n]): scan(add, 5, x)", x=X[:0])  # type: ignore[misc]
    assert final == 5 and outputs.shape == (0,)


def test_a_step_sees_what_is_around_it() -> None:
    text = """
map f(x: f64[n], k: f64, bias: f64[n]):
    let scale = 2 * k
    map step(total: f64, x: f64) -> (f64, f64): (total + scale * x, total + sum(bias))
    scan(step, k, x)
"""
    final, outputs = run(text, x=X, k=np.array(0.5), bias=X)  # type: ignore[misc]
    assert final == 10.5
    np.testing.assert_allclose(outputs, 10 + 0.5 + np.array([0, 1, 3, 6]))


def test_scan_at_each_index() -> None:
    text = """
map f(x: f64[m, n]):
    map last(row: f64[n]) -> f64:
        let (final, outputs) = scan(decay, 0, row)
        final + sum(outputs)
    [i] |-> last(x[i, :])
"""
    expected = [sum(decayed(row)[1]) + decayed(row)[0] for row in TABLE]
    np.testing.assert_allclose(run(text, x=TABLE), expected)


@pytest.mark.parametrize("call", ["vmap(last)(x)", "[i] |-> last(x[i])"])
def test_a_step_that_depends_on_an_index(call: str) -> None:
    """Neither the first carry nor the sequence has the index: the carry gets it."""
    text = f"""
map f(x: f64[m], y: f64[n]):
    map last(scale: f64) -> f64:
        map step(total: f64, y: f64) -> (f64, f64): (total + scale * y, y)
        let (final, outputs) = scan(step, 0, y)
        final
    {call}
"""
    np.testing.assert_allclose(run(text, x=X, y=X[:2]), 3 * X)


def test_outputs_at_each_index_are_stacked_behind_it() -> None:
    text = """
map f(x: f64[m, n]) -> f64[m, n]:
    map outputs(row: f64[n]) -> f64[n]:
        let (final, ys) = scan(decay, 1, row)
        ys
    vmap(outputs)(x)
"""
    np.testing.assert_allclose(run(text, x=TABLE), [decayed(row, 1.0)[1] for row in TABLE])


def test_scans_nest() -> None:
    text = """
map f(x: f64[m, n]):
    map rows(total: f64, row: f64[n]) -> (f64, f64):
        let (final, outputs) = scan(add, total, row)
        (final, sum(outputs))
    scan(rows, 0, x)
"""
    final, outputs = run(text, x=TABLE)  # type: ignore[misc]
    assert final == 15
    np.testing.assert_allclose(outputs, np.cumsum(TABLE.ravel()).reshape(3, 2).sum(1))


WHILE = """
map go(x: f64) -> bool: x < 100

map double(x: f64) -> f64: 2 * x
"""


@pytest.mark.parametrize("bound", ["", ", bound=20"])
def test_while(bound: str) -> None:
    text = WHILE + f"map f(x: f64): while(go, double, x{bound})"
    assert run(text, x=np.array(3.0)) == 192
    assert run(text, x=np.array(300.0)) == 300


def test_while_stops_at_its_bound() -> None:
    text = WHILE + "map f(x: f64): while(go, double, x, bound=3)"
    assert run(text, x=np.array(3.0)) == 24


@pytest.mark.parametrize("bound", ["", ", bound=8"])
def test_while_at_each_point_stops_on_its_own(bound: str) -> None:
    text = f"""
map f(x: f64[n], limit: f64):
    map halve(x: f64) -> (f64, i32):
        map go(state: (f64, i32)) -> bool: state[0] > limit
        map step(state: (f64, i32)) -> (f64, i32): (state[0] / 2, state[1] + 1)
        while(go, step, (x, 0){bound})
    vmap(halve)(x)
"""
    values, counts = run(text, x=X, limit=np.array(1.5))  # type: ignore[misc]
    np.testing.assert_allclose(values, [1, 1, 1.5, 1])
    assert counts.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("bound", ["", ", bound=8"])
def test_a_condition_that_depends_on_an_index(bound: str) -> None:
    """The carried value starts without the index and gets it by the condition."""
    text = f"""
map f(limits: f64[n]):
    map count(limit: f64) -> f64:
        map go(x: f64) -> bool: x < limit
        map step(x: f64) -> f64: x + 1
        while(go, step, 0{bound})
    [i] |-> count(limits[i])
"""
    np.testing.assert_allclose(run(text, limits=X - 0.5), [1, 2, 3, 4])


MODULE = """
module Net():
    cell = Dense(2, tanh)
    state steps: f32 = 0
    state seen: f32[d] = 0

    map (x: f32[t, d]) -> f32[t, 2]:
        let before = steps

        map step(h: f32[2], x: f32[d]) -> (f32[2], f32[2]):
            steps <- steps + 1
            seen <- seen + x * before
            let new = cell(concat([h, x]))
            (new, new)

        let (last, all) = scan(step, full([2], 0.0), x)
        all

    map collatz(x: f32) -> f32:
        map go(x: f32) -> bool: x > 1
        map next(x: f32) -> f32:
            steps <- steps + 1
            if x % 2 == 0 then x / 2 else 3 * x + 1
        while(go, next, x)
"""


def test_parameters_that_only_a_step_uses_appear() -> None:
    net = Program.loads(MODULE).instantiate("Net")
    x = np.ones((3, 4), np.float32)
    result = call_module(net, x=x)
    slots = initial_slots(net)
    assert slots["cell.w"].shape == (6, 2)
    h = np.zeros(2, np.float32)
    for row, found in zip(x, result, strict=True):
        h = np.tanh(np.concatenate([h, row]) @ slots["cell.w"] + slots["cell.b"])
        np.testing.assert_allclose(found, h, rtol=1e-6)


def test_states_are_carried() -> None:
    net = Program.loads(MODULE).instantiate("Net")
    x = np.ones((3, 4), np.float32)
    elaborated = net.elaborate("", {"x": type_of(x)})
    slots = initial_slots(net)
    for _ in range(2):
        run_slots(elaborated, slots, {"x": x})
    assert slots["steps"] == 6
    np.testing.assert_allclose(slots["seen"], np.full(4, 9))


def test_while_carries_states() -> None:
    net = Program.loads(MODULE).instantiate("Net")
    elaborated = net.elaborate("collatz", {"x": ir.TensorType(ir.DType.F32)})
    slots = initial_slots(net)
    assert run_slots(elaborated, slots, {"x": np.float32(6)}) == 1
    assert slots["steps"] == 8


def test_steps_may_be_instances_and_methods() -> None:
    text = """
module Cell():
    param w: f32[d, d] ~ identity_matrix

    map (h: f32[d], x: f32[d]) -> (f32[d], f32[d]): (h @ w + x, h)

    map twice(h: f32[d], x: f32[d]) -> (f32[d], f32[d]): (2 * h @ w + x, h)

map identity_matrix() -> f32[n, n]: [i, j] |-> if i == j then 1 else 0

module Net():
    cell = Cell()

    map (x: f32[t, d]):
        let (first, all) = scan(cell, x[0], x)
        let (second, rest) = scan(cell.twice, x[0], x)
        (first, second)
"""
    x = np.ones((3, 2), np.float32)
    first, second = call_module(Program.loads(text).instantiate("Net"), x=x)
    np.testing.assert_allclose(first, [4, 4])
    np.testing.assert_allclose(second, [15, 15])


def test_the_body_is_elaborated_once_whatever_the_length() -> None:
    program = Program.loads(STEPS + "map f(x: f64[n]): scan(add, 0, x)")
    elaborated = program.elaborate_map("f", {"x": ir.TensorType(ir.DType.F64, (1000,))})
    names = [op.name for op in elaborated.function.block.operations]
    assert names.count("scan") == 1 and len(names) < 5


def test_records_are_carried() -> None:
    text = """
map f(x: f64[n]):
    map step(c: (sum: f64, count: i32), x: f64):
        ((sum = c.sum + x, count = c.count + 1), (twice = 2 * x, before = c.sum))
    scan(step, (sum = 0, count = 0), x)
"""
    last, all_steps = run(text, x=X)  # type: ignore[misc]
    assert (last.sum, last.count) == (10, 4)
    np.testing.assert_allclose(all_steps.before, [0, 1, 3, 6])


def test_outputs_may_be_nothing() -> None:
    text = """
map f(x: f64[n]) -> f64:
    map step(total: f64, x: f64): (total + x, none)
    let (last, nothing) = scan(step, 0, x)
    last
"""
    assert run(text, x=X) == 10


@pytest.mark.parametrize("form", ["scan", "while", "bounded"])
def test_derivatives_of_loops(form: str) -> None:
    """x^8 by three squarings."""
    loops = {
        "scan": "scan(numbered, x, length=3)[0]",
        "while": "while(go, square, (x, 0))[0]",
        "bounded": "while(go, square, (x, 0), bound=5)[0]",
    }
    text = f"""
map numbered(x: f64, i: i32) -> (f64, i32): (x * x, i)
map go(state: (f64, i32)) -> bool: state[1] < 3
map square(state: (f64, i32)) -> (f64, i32): (state[0]^2, state[1] + 1)
map power(x: f64) -> f64: {loops[form]}
map f(x: f64):
    let (value, slope) = jvp(power)(x, 1.0)
    slope
map g(x: f64): grad(power)(x)
map second(x: f64):
    let (value, slope) = jvp(f)(x, 1.0)
    slope
"""
    x = np.array(1.1)
    np.testing.assert_allclose(run(text, x=x), 8 * x**7)
    np.testing.assert_allclose(run_map(STEPS + text, {"x": x}, name="second"), 56 * x**6)
    if form == "while":
        with pytest.raises(ir.MissingDerivative, match=r"<text>:\d+:\d+: the op `while`"):
            run_map(STEPS + text, {"x": x}, name="g")
    else:
        np.testing.assert_allclose(run_map(STEPS + text, {"x": x}, name="g"), 8 * x**7)
