"""`if` on what is known only when the program runs: one branch by a truth value, selection by a
tensor."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import initial_slots, run_map, run_slots

import mapsto as mt
from mapsto import ir
from mapsto.dsl.program import Program

X = np.array([1.0, -2.0, 3.0])
YES, NO = np.array(True), np.array(False)


def ops(text: str, **types: ir.TensorType) -> list[str]:
    """The names of the operations of the map `f`."""
    function = Program.loads(text).elaborate_map("f", types).function
    return [op.name for op in function.block.operations]


CONDITION = ir.TensorType(ir.DType.BOOL)
VECTOR = ir.TensorType(ir.DType.F64, (3,))


def test_one_branch_runs() -> None:
    text = "map f(c: bool, x: f64[n]) -> f64[n]: if c then exp(x) else 2 * x"
    np.testing.assert_allclose(run_map(text, {"c": YES, "x": X}), np.exp(X))
    np.testing.assert_allclose(run_map(text, {"c": NO, "x": X}), 2 * X)
    assert "if" in ops(text, c=CONDITION, x=VECTOR)


def test_a_tensor_of_truth_values_selects() -> None:
    text = "map f(x: f64[n]) -> f64[n]: if x > 0 then exp(x) else 2 * x"
    np.testing.assert_allclose(run_map(text, {"x": X}), np.where(X > 0, np.exp(X), 2 * X))
    assert "if" not in ops(text, x=VECTOR)


def test_at_each_index_elements_are_selected() -> None:
    text = "map f(x: f64[n]) -> f64[n]: [i] |-> if x[i] > 0 then exp(x[i]) else 2 * x[i]"
    np.testing.assert_allclose(run_map(text, {"x": X}), np.where(X > 0, np.exp(X), 2 * X))
    assert "if" not in ops(text, x=VECTOR)


def test_values_that_exist_are_selected() -> None:
    text = "map f(c: bool, x: f64[n], y: f64[n]) -> f64[n]: if c then x else y"
    np.testing.assert_allclose(run_map(text, {"c": NO, "x": X, "y": 2 * X}), 2 * X)
    assert "if" not in ops(text, c=CONDITION, x=VECTOR, y=VECTOR)


def test_branches_broadcast_and_numbers_adapt() -> None:
    text = "map f(c: bool, x: f64[n], y: f64) -> f64[n]: if c then 1 + y else 2 * x"
    np.testing.assert_allclose(run_map(text, {"c": YES, "x": X, "y": np.array(2.0)}), [3, 3, 3])
    text = "map f(c: bool, x: f64[n]) -> f64[n]: if c then exp(x) else 0"
    np.testing.assert_allclose(run_map(text, {"c": NO, "x": X}), np.zeros(3))


@pytest.mark.parametrize("choice", ["if x > 0 then 0.5 else -1", "-(if x > 0 then -0.5 else 1)"])
@pytest.mark.parametrize("form", ["({}) * x", "x * ({})"])
def test_numbers_take_the_dtype_of_the_other_operand(choice: str, form: str) -> None:
    text = f"map f(x: f64[n]) -> f64[n]: {form.format(choice)}"
    np.testing.assert_allclose(run_map(text, {"x": X}), np.where(X > 0, 0.5, -1) * X)


def test_structures() -> None:
    text = """
map f(c: bool, x: f64[n]):
    if c then (exp(x), (sum(x), 1)) else (x, (prod(x), 2))
"""
    first, (second, third) = run_map(text, {"c": NO, "x": X})
    np.testing.assert_allclose(first, X)
    assert (second, third) == (-6, 2)


STATEMENT = """
map f(c: bool, x: f64[n]):
    let y = x
    let kind = "same"
    if c:
        let y = exp(x)
        let z = sum(y)
    elif sum(x) > 100:
        let z = 1
    else:
        let z = sum(x)
    if kind == "same" then y * z else x
"""


def test_statements_choose_what_they_bind() -> None:
    np.testing.assert_allclose(run_map(STATEMENT, {"c": YES, "x": X}), np.exp(X) * np.exp(X).sum())
    np.testing.assert_allclose(run_map(STATEMENT, {"c": NO, "x": X}), X * X.sum())


STATES = """
module Counter():
    state count: f32 = 0
    state last: f32[n] = 0

    map (x: f32[n]) -> f32:
        if sum(x) > 0:
            count <- count + 1
            last <- x
        else:
            count <- count - 1
        count

    map each(x: f32[n, d]) -> f32[n]:
        map one(x: f32[d]) -> f32:
            let y = 2 * sum(x)
            if y > 0:
                let y = sqrt(y)
            y
        vmap(one)(x)
"""


def test_states_are_updated_by_the_branch_that_runs() -> None:
    counter = Program.loads(STATES).instantiate("Counter")
    elaborated = counter.elaborate("", {"x": ir.TensorType(ir.DType.F32, (2,))})
    slots = initial_slots(counter)
    for x in ([1, 2], [3, 4], [-5, 0]):
        run_slots(elaborated, slots, {"x": np.float32(x)})
    assert slots["count"] == 1
    assert slots["last"].tolist() == [3, 4]


def test_an_if_statement_under_vmap_selects() -> None:
    counter = Program.loads(STATES).instantiate("Counter")
    x = np.float32([[1, 1], [-1, -1]])
    elaborated = counter.elaborate("each", {"x": ir.TensorType(ir.DType.F32, (2, 2))})
    np.testing.assert_allclose(run_slots(elaborated, {}, {"x": x}), [2, -4])


def test_branches_in_a_step() -> None:
    text = """
map f(x: f64[n]):
    map step(total: f64, x: f64) -> (f64, f64):
        let next = if x > 0 then total + exp(x) else total
        (next, next)
    scan(step, 0, x)
"""
    final, _ = run_map(text, {"x": X})
    np.testing.assert_allclose(final, np.exp(X[X > 0]).sum())


def test_effects_belong_to_their_branch() -> None:
    text = """
map f(x: f64) -> f64:
    if x > 0:
        assert(x < 2, "too large")
    x
"""
    function = Program.loads(text).elaborate_map("f", {"x": ir.TensorType(ir.DType.F64)}).function
    (branch,) = [op for op in function.block.operations if op.name == "if"]
    assert [op.name for op in branch.regions[0].block.operations][-2:] == ["assert", "return"]


ASSERTED = """
map f(x: f64[n]) -> f64[n]:
    map one(x: f64) -> f64:
        if x > 0:
            assert(x < 2, "too large")
            x
        else:
            assert(x > -2, "too small")
            -x
    {apply}
"""


def passes(apply: str, x: list[float]) -> bool:
    """Runs the map; AssertionFailed where an assertion does not hold."""
    run_map(ASSERTED.replace("{apply}", apply), {"x": np.array(x)})
    return True


def test_assertions_count_where_their_branch_is_taken() -> None:
    assert passes("vmap(one)(x)", [1.0, -1.0])
    with pytest.raises(ir.AssertionFailed, match="too large"):
        passes("vmap(one)(x)", [3.0, -1.0])
    with pytest.raises(ir.AssertionFailed, match="too small"):
        passes("[i] |-> one(x[i])", [1.0, -3.0])


def test_what_must_not_be_reached() -> None:
    text = """
map f(x: f64) -> f64:
    if x > 0:
        sqrt(x)
    else:
        assert(false, "no root")
        x
"""
    assert run_map(text, {"x": np.array(4.0)}) == 2
    with pytest.raises(ir.AssertionFailed, match="no root"):
        run_map(text, {"x": np.array(-4.0)})


def test_a_name_of_one_branch_that_the_library_has_too() -> None:
    """`r2` is a metric of the library: what a branch calls so is no other value of it."""
    lib = mt.loads(
        """
map f(x: f64[n]) -> f64[n]:
    if mean(x) > 1:
        let r2 = (low = x, high = 2 * x)
        let x = r2.high
    x
"""
    )
    for x in (np.array([1.0, 2.0]), np.array([0.5, 0.25])):
        np.testing.assert_array_equal(lib.f(x), 2 * x if x.mean() > 1 else x)
