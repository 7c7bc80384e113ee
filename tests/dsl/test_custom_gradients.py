"""Gradients written by hand: taken instead of the body's, compared with it, at any place."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import initial_slots, run_map, run_slots, type_of

from mapsto import ir
from mapsto.dsl.library import DiagnosticsError
from mapsto.dsl.program import Program

X = np.array([0.3, -1.2, 2.0])
ROUND = """
map quantize(x: f64[...s]) -> f64[...s]:
    floor(4 * x + 0.5) / 4
gradient unchecked (dy):
    3 * dy
"""
SIGMOID = """
map squash(x: f64[...s]) -> f64[...s]:
    1 / (1 + exp(-x))
gradient (dy):
    y * (1 - y) * dy
"""


def failure(text: str, name: str = "f", **types: ir.TensorType) -> str:
    """What is wrong with a map."""
    with pytest.raises(DiagnosticsError) as caught:
        Program.loads(text).elaborate_map(name, types)
    return str(caught.value)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_the_gradient_is_taken() -> None:
    text = ROUND + "map f(x: f64[n]) -> f64[n]: grad(g)(x)\nmap g(x: f64[n]): sum(quantize(x)^2)"
    expected = 3 * 2 * np.floor(4 * X + 0.5) / 4
    np.testing.assert_allclose(run_map(text, {"x": X}), expected)


def test_the_value_is_that_of_the_body() -> None:
    text = ROUND + "map f(x: f64[n]) -> f64[n]: quantize(x)"
    np.testing.assert_allclose(run_map(text, {"x": X}), np.floor(4 * X + 0.5) / 4)


def test_forward_mode_takes_the_transpose() -> None:
    text = ROUND + "map f(x: f64[n], v: f64[n]): jvp(quantize)(x, v)"
    _, slope = run_map(text, {"x": X, "v": X})
    np.testing.assert_allclose(slope, 3 * X)


def test_the_result_has_the_name_of_its_cotangent_without_d() -> None:
    text = SIGMOID + "map g(x: f64[n]): sum(squash(x))\nmap f(x: f64[n]): grad(g)(x)"
    np.testing.assert_allclose(run_map(text, {"x": X}), sigmoid(X) * (1 - sigmoid(X)))


@pytest.mark.parametrize("second", ["grad(slope)(x)", "hessian(value)(x)"])
def test_second_derivatives_go_through_the_result(second: str) -> None:
    text = (
        SIGMOID
        + f"""
map value(x: f64): squash(x)
map slope(x: f64): grad(value)(x)
map f(x: f64): {second}
"""
    )
    y = sigmoid(np.array(0.3))
    expected = y * (1 - y) * (1 - 2 * y)
    np.testing.assert_allclose(run_map(text, {"x": np.array(0.3)}), expected)


def test_at_each_index_shared_arguments_sum() -> None:
    text = """
map scaled(x: f64, k: f64) -> f64:
    k * x^2
gradient (dy):
    (2 * k * x * dy, x^2 * dy)

map loss(x: f64[n], k: f64): sum([i] |-> scaled(x[i], k))

map f(x: f64[n], k: f64): grad(loss, argnums=[0, 1])(x, k)
"""
    by_x, by_k = run_map(text, {"x": X, "k": np.array(2.0)})
    np.testing.assert_allclose(by_x, 4 * X)
    np.testing.assert_allclose(by_k, (X**2).sum())


def test_vmap_and_scan() -> None:
    text = (
        SIGMOID
        + """
map loss(x: f64[n, t]):
    map step(h: f64, x: f64) -> (f64, f64):
        let new = squash(h + x)
        (new, new)
    map row(x: f64[t]) -> f64:
        let (last, all) = scan(step, 0, x)
        sum(all)
    sum(vmap(row)(x))

map plain(x: f64[n, t]):
    map step(h: f64, x: f64) -> (f64, f64):
        let new = 1 / (1 + exp(-(h + x)))
        (new, new)
    map row(x: f64[t]) -> f64:
        let (last, all) = scan(step, 0, x)
        sum(all)
    sum(vmap(row)(x))

map f(x: f64[n, t]): grad(loss)(x)

map g(x: f64[n, t]): grad(plain)(x)
"""
    )
    x = np.arange(6.0).reshape(2, 3) / 4
    found, expected = (run_map(text, {"x": x}, name=name) for name in "fg")
    np.testing.assert_allclose(found, expected)


def test_tuples_and_arguments_without_gradient() -> None:
    text = """
map both(pair: (f64[n], f64[n]), k: i32, scale: f64):
    let (a, b) = pair
    (scale * a * b, k, sum(a))
gradient (dproduct, dk, dtotal):
    let (a, b) = pair
    ((scale * dproduct * b + dtotal, scale * dproduct * a), sum(dproduct * a * b))

map loss(a: f64[n], b: f64[n], scale: f64):
    let (product, k, total) = both((a, b), 3, scale)
    sum(product) + 2 * total

map f(a: f64[n], b: f64[n], scale: f64): grad(loss, argnums=[0, 1, 2])(a, b, scale)
"""
    given = {"a": X, "b": 2 * X, "scale": np.array(0.5)}
    by_a, by_b, by_scale = run_map(text, given)
    np.testing.assert_allclose(by_a, X + 2)
    np.testing.assert_allclose(by_b, 0.5 * X)
    np.testing.assert_allclose(by_scale, (2 * X**2).sum())


def test_none_is_zero() -> None:
    text = """
map gate(x: f64[n], k: f64[n]) -> f64[n]:
    x * stop_gradient(k)
gradient (dy):
    (dy * k, none)

map loss(x: f64[n], k: f64[n]): sum(gate(x, k))

map f(x: f64[n], k: f64[n]): grad(loss, argnums=[0, 1])(x, k)
"""
    by_x, by_k = run_map(text, {"x": X, "k": 2 * X})
    np.testing.assert_allclose(by_x, 2 * X)
    np.testing.assert_allclose(by_k, 0)


MODULE = """
module Layer():
    param w: f32[d, d] ~ ones
    state calls: f32 = 0
    state seen: f32 = 0

    map (x: f32[n, d]) -> f32[n, d]:
        calls <- calls + 1
        seen <- sum(x)
        3 * x @ w
    gradient unchecked (dy):
        10 * dy @ transpose(w)

module Net():
    layer = Layer()

    map loss(x: f32[n, d]) -> f32:
        sum(layer(x)) + layer.seen

    map slopes(x: f32[n, d]):
        map at(net: module, x: f32[n, d]) -> f32: net.loss(x)
        grad(at, argnums=[0, 1])(self_net(), x)

module Holder():
    net = Net()

    map (x: f32[n, d]):
        map at(net: module, x: f32[n, d]) -> f32: net.loss(x)
        grad(at, argnums=[0, 1])(net, x)
"""


def test_what_a_body_takes_from_its_module_has_its_own_derivative() -> None:
    """The argument has the declared gradient; parameters and states are as without it."""
    text = MODULE.replace("    map slopes", "    map unused").split("    map unused")[0]
    text += "\n" + MODULE[MODULE.index("module Holder") :]
    holder = Program.loads(text).instantiate("Holder")
    x = np.ones((2, 3), np.float32)
    elaborated = holder.elaborate("", {"x": type_of(x)})
    slots = initial_slots(holder)
    by_net, by_x = run_slots(elaborated, slots, {"x": x})
    assert slots["net.layer.calls"] == 1 and slots["net.layer.seen"] == 6
    np.testing.assert_allclose(by_net["layer.w"], np.full((3, 3), 3 * 2))
    np.testing.assert_allclose(by_x, np.full((2, 3), 10 * 3 + 1))


def test_generic_maps() -> None:
    text = """
map twice[T](x: T[n]) -> T[n]:
    2 * x
gradient (dy):
    2 * dy

map loss(x: f32[n], y: f64[m]): sum(twice(x)) * f32(sum(twice(y)))

map f(x: f32[n], y: f64[m]): grad(loss, argnums=[0, 1])(x, y)
"""
    by_x, by_y = run_map(text, {"x": np.float32(X), "y": X})
    np.testing.assert_allclose(by_x, np.full(3, 4 * X.sum()), rtol=1e-6)
    assert by_y.dtype == np.float64


WRONG = """
map square(x: f32[...s], k: f32) -> f32[...s]:
    k * x^2
gradient (dy):
    (k * x * dy, sum(x^2 * dy))
"""


def test_a_wrong_gradient_is_told_with_both_numbers() -> None:
    text = WRONG + "map f(x: f32[n]) -> f32[n]: square(x, 3.0)"
    message = failure(text, x=ir.TensorType(ir.DType.F32, (100,)))
    assert "the gradient of `square` by `x[0]`" in message
    found, expected = (float(word.strip(",")) for word in message.split() if _is_number(word))
    assert expected == pytest.approx(2 * found, rel=1e-4)
    assert "gradient unchecked (dy):" in message


def _is_number(word: str) -> bool:
    try:
        float(word.strip(","))
    except ValueError:
        return False
    return "." in word


def test_it_is_compared_in_double_precision_whatever_the_dtype() -> None:
    """The error of 1e-4 is far below what bf16 resolves."""
    text = """
map nearly(x: bf16[n]) -> bf16[n]: x * 2
gradient (dy): dy * 2.0002

map f(x: bf16[n]) -> bf16[n]: nearly(x)
"""
    assert "nearly" in failure(text, x=ir.TensorType(ir.DType.BF16, (5,)))


LOOP = """
map root(a: f64) -> f64:
    map far(x: f64) -> bool: abs(x * x - a) > 1e-13
    map step(x: f64) -> f64: 0.5 * (x + a / x)
    while(far, step, 1)
gradient (dy): dy / ({factor} * y)

map f(a: f64) -> f64: grad(root)(a)
"""


def test_where_the_body_has_no_derivative_differences_are_taken() -> None:
    right, wrong = (LOOP.replace("{factor}", factor) for factor in ("2", "3"))
    np.testing.assert_allclose(run_map(right, {"a": np.array(4.0)}), 0.25)
    assert "the gradient of `root`" in failure(wrong, a=ir.TensorType(ir.DType.F64))


def test_what_is_not_finite_cannot_be_compared() -> None:
    text = """
map nothing(x: f64) -> f64: sqrt(-1 - x^2)
gradient (dy): dy

map f(x: f64) -> f64: nothing(x)
"""
    assert "not finite" in failure(text, x=ir.TensorType(ir.DType.F64))


def test_sizes_that_have_to_divide() -> None:
    """The small sizes that are tried first do not fit; those of the call do."""
    text = """
map halves(x: f64[n]) -> f64[2, n / 2]:
    reshape(x, [2, n / 2])
gradient (dy):
    reshape(dy, [n])

map f(x: f64[n]) -> f64[n]:
    map loss(x: f64[n]) -> f64: sum(halves(x)^2)
    grad(loss)(x)
"""
    x = np.arange(6.0)
    np.testing.assert_allclose(run_map(text, {"x": x}), 2 * x)


def test_a_map_inside_a_map_sees_what_is_around_it() -> None:
    text = """
map f(x: f64[n], k: f64[n]) -> (f64[n], f64[n]):
    map loss(x: f64[n], k: f64[n]) -> f64:
        map scaled(x: f64[n]) -> f64[n]:
            k * x
        gradient (dy):
            k * dy
        sum(scaled(x)^2)
    grad(loss, argnums=[0, 1])(x, k)
"""
    by_x, by_k = run_map(text, {"x": X, "k": 2 * X})
    np.testing.assert_allclose(by_x, 2 * X * (2 * X) ** 2)
    np.testing.assert_allclose(by_k, 2 * 2 * X * X**2)
