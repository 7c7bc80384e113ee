"""Layers and activations: gradients in double precision against differences of values, by all
inputs and parameters at once along a random direction."""

from __future__ import annotations

import numpy as np
import pytest
from elaborating import Array, call_module, evaluate, initial_slots, run_map, type_of

from mapsto.dsl.elaborated import Elaborated, flatten, unflatten
from mapsto.dsl.program import Program

Shapes = list[tuple[int, ...]]

MAPS: list[tuple[str, Shapes]] = [
    ("relu(a)", [(3, 4)]),
    ("relu6(4 * a)", [(3, 4)]),
    ("leaky_relu(a)", [(3, 4)]),
    ("prelu(a, b)", [(2, 3, 4), (3,)]),
    ("elu(a, 0.7)", [(3, 4)]),
    ("selu(a)", [(3, 4)]),
    ("celu(a, 0.7)", [(3, 4)]),
    ("gelu(a)", [(3, 4)]),
    ("gelu_tanh(a)", [(3, 4)]),
    ("silu(a)", [(3, 4)]),
    ("mish(a)", [(3, 4)]),
    ("softplus(a, 2)", [(3, 4)]),
    ("softsign(a)", [(3, 4)]),
    ("logsigmoid(a)", [(3, 4)]),
    ("tanhshrink(a)", [(3, 4)]),
    ("softshrink(a)", [(3, 4)]),
    ("hardshrink(a)", [(3, 4)]),
    ("threshold(a, 0.1, 2)", [(3, 4)]),
    ("hardtanh(a)", [(3, 4)]),
    ("hardsigmoid(3 * a)", [(3, 4)]),
    ("hardswish(3 * a)", [(3, 4)]),
    ("glu(a)", [(3, 4)]),
    ("swiglu(a)", [(3, 4)]),
    ("geglu(a)", [(3, 4)]),
    ("softmax(a, axis=0)", [(3, 4)]),
    ("log_softmax(a)", [(3, 4)]),
    ("softmin(a)", [(3, 4)]),
    ("conv1d(a, b, stride=2, padding=1, groups=2)", [(2, 4, 7), (6, 2, 3)]),
    ("conv2d(a, b, stride=[1, 2], dilation=2, groups=3)", [(1, 3, 7, 6), (3, 1, 2, 3)]),
    ('conv3d(a, b, padding="same")', [(1, 2, 3, 4, 2), (2, 2, 3, 2, 3)]),
    ("conv_transpose1d(a, b, stride=2, output_padding=1)", [(2, 2, 4), (2, 3, 3)]),
    ("conv_transpose2d(a, b, stride=2, padding=1, groups=2)", [(1, 4, 3, 3), (4, 2, 3, 2)]),
    ("conv_transpose3d(a, b)", [(1, 2, 2, 3, 2), (2, 2, 2, 2, 2)]),
    ("max_pool1d(a, 3, stride=2)", [(2, 7)]),
    ("max_pool2d(a, 3, stride=2, padding=1)", [(2, 6, 5)]),
    ("max_pool3d(a, 2)", [(2, 4, 5, 2)]),
    ("avg_pool1d(a, 3, padding=1, count_padding=false)", [(2, 7)]),
    ("avg_pool2d(a, [2, 3], stride=1)", [(2, 6, 5)]),
    ("avg_pool3d(a, 2)", [(2, 4, 5, 2)]),
    ("adaptive_avg_pool1d(a, 3)", [(2, 7)]),
    ("adaptive_avg_pool2d(a, [3, 2])", [(2, 7, 3)]),
    ("adaptive_max_pool1d(a, 3)", [(2, 7)]),
    ("adaptive_max_pool2d(a, 2)", [(2, 5, 3)]),
    ("global_avg_pool(a)", [(2, 3, 4, 5)]),
    ("global_max_pool(a)", [(2, 3, 4, 5)]),
    ("standardize(a)", [(2, 5)]),
    ("layer_norm(a, b, c)", [(2, 3, 5), (5,), (5,)]),
    ("rms_norm(a, b)", [(2, 3, 5), (5,)]),
    ("group_norm(a, 2, b, c)", [(2, 4, 3), (4,), (4,)]),
    ("instance_norm(a, b, c)", [(2, 4, 3), (4,), (4,)]),
    ("batch_norm(a, b, c^2, c, b)", [(2, 4, 3), (4,), (4,)]),
    ("batch_statistics(a)[0] * batch_statistics(a)[1]", [(2, 4, 3)]),
    ("weight_norm(a, b)", [(3, 4), (4,)]),
    ("unit(a)", [(4,)]),
    ("sparsemax(a)", [(3, 5)]),
    ("attention(a, b, c, causal=true)", [(2, 3, 4), (2, 5, 4), (2, 5, 3)]),
    ("grouped_attention(a, b, c)", [(1, 4, 3, 2), (1, 2, 3, 2), (1, 2, 3, 2)]),
    ("split_heads(a, 2)", [(2, 3, 4)]),
    ("join_heads(a)", [(2, 3, 4, 2)]),
    ("rotary(a, start=3, base=100.0)", [(2, 3, 4)]),
    ("a * sinusoidal_positions(3, 5, f64)", [(3, 5)]),
    ("upsample_nearest(a, 2)", [(1, 2, 2, 3)]),
    ("upsample_bilinear(a, 2)", [(1, 2, 2, 3)]),
    ("resize_bilinear(a, [3, 2], align_corners=true)", [(1, 2, 2, 3)]),
    ("pixel_shuffle(a, 2)", [(1, 4, 2, 3)]),
    ("pixel_unshuffle(a, 2)", [(1, 2, 2, 4)]),
    ("rnn(a, b, c, d, e)[0]", [(2, 3, 4), (4, 2), (2, 2), (2,), (2, 2)]),
    ("gru(a, b, c, d, e, f)[1]", [(2, 3, 4), (4, 6), (2, 6), (6,), (2,), (2, 2)]),
    ("lstm(a, b, c, d, e, f)[2]", [(2, 3, 4), (4, 8), (2, 8), (8,), (2, 2), (2, 2)]),
]

MODULES: list[tuple[str, Shapes]] = [
    ("Dense(3, tanh)", [(2, 4)]),
    ("Dense(3, bias=false)", [(2, 4)]),
    ("Dense(3, bias=false)", [(2, 4)]),
    ("Bilinear(3)", [(2, 4), (2, 5)]),
    ("PReLU()", [(2, 3, 4)]),
    ("Conv1d(4, 3, groups=2)", [(2, 2, 5)]),
    ("Conv2d(4, [1, 3], activation=silu)", [(2, 3, 2, 5)]),
    ("Conv3d(2, 2)", [(1, 2, 3, 3, 2)]),
    ("ConvTranspose1d(4, 3, stride=2, groups=2)", [(2, 2, 4)]),
    ("ConvTranspose2d(2, 2, stride=2)", [(1, 3, 2, 3)]),
    ("ConvTranspose3d(2, 2)", [(1, 2, 2, 3, 2)]),
    ("LayerNorm()", [(3, 5)]),
    ("RMSNorm()", [(3, 5)]),
    ("GroupNorm(2)", [(2, 4, 3)]),
    ("InstanceNorm()", [(2, 4, 3)]),
    ("Flatten()", [(2, 3, 4)]),
    ("BatchNorm()", [(3, 2, 4)]),
    ("train_mode(BatchNorm())", [(3, 2, 4)]),
    ("train_mode(Dropout(0.4))", [(3, 4)]),
    ("train_mode(ChannelDropout(0.4))", [(3, 4, 2)]),
    ("Upsample(2)", [(1, 2, 2, 3)]),
    ("LearnedPositions(5)", [(2, 3, 4)]),
    ("FeedForward(3, 4, silu)", [(2, 3)]),
    ("MultiHeadAttention(4, 2, causal=true, rotate=true)", [(2, 3, 4)]),
    ("MultiHeadAttention(8, 4, groups=2)", [(2, 3, 4), (2, 5, 6)]),
    ("TransformerEncoderBlock(4, 2, 6)", [(2, 3, 4)]),
    ("TransformerDecoderBlock(4, 2, 6, pre_norm=false)", [(2, 3, 4), (2, 2, 5)]),
    ("Dense(3, reparametrization=WeightNorm())", [(2, 4)]),
    ("Conv1d(3, 2, reparametrization=ChannelWeightNorm())", [(2, 2, 4)]),
    ("Dense(3, reparametrization=SpectralNorm())", [(2, 4)]),
    ("Conv1d(3, 2, reparametrization=ChannelSpectralNorm())", [(2, 2, 4)]),
    ("Residual(Dense(4, tanh))", [(2, 4)]),
    ("Sequential([Dense(4, tanh), Dense(3)])", [(2, 4)]),
]

RECURRENT: list[tuple[str, Shapes]] = [
    ("RNN(2, layers=2)", [(2, 3, 2), (2, 2, 2)]),
    ("GRU(2, bidirectional=true)", [(2, 3, 2)]),
    ("train_mode(LSTM(2, layers=2, dropout=0.3))", [(2, 3, 2)]),
    ("RNNLayer(2, sigmoid)", [(2, 3, 2)]),
    ("GRULayer(2, reverse=true)", [(2, 3, 2), (2, 2)]),
    ("LSTMLayer(2)", [(2, 3, 2), (2, 2), (2, 2)]),
]

PROGRAM = """
module Net():
    inner = {layer}

    map ({inputs}): {body}

map weighted(net: module, {inputs}, u: f64[{shape}]) -> f64:
    sum(net({names}) * u)

map slopes(net: module, {inputs}, u: f64[{shape}]):
    value_and_grad(weighted, [{by}])(net, {names}, u)
"""


def run(elaborated: Elaborated, slots: dict[str, Array], inputs: dict[str, Array]) -> object:
    """The result of a map of a net."""
    specs = (*elaborated.parameters, *elaborated.states)
    arrays = [slots[spec.path.removeprefix("net.")] for spec in specs]
    arrays += [inputs[spec.name] for spec in elaborated.inputs]
    return unflatten(elaborated.result, evaluate(elaborated, arrays))


def check_gradient(layer: str, body: str, shapes: Shapes) -> None:
    random = np.random.default_rng(7)
    inputs = {
        name: random.normal(size=shape) for name, shape in zip("abcdef", shapes, strict=False)
    }
    fields = {
        "layer": layer,
        "body": body.format(names=", ".join(inputs)),
        "names": ", ".join(inputs),
        "inputs": ", ".join(f"{n}: f64[{', '.join(map(str, x.shape))}]" for n, x in inputs.items()),
        "by": ", ".join(map(str, range(len(inputs) + 1))),
    }
    plain = Program.loads(PROGRAM.format(**fields, shape="")).instantiate("Net")
    result = plain.elaborate("", {name: type_of(x) for name, x in inputs.items()})
    (kind,) = flatten(result.result)
    shape = kind.shape
    program = Program.loads(PROGRAM.format(**fields, shape=", ".join(map(str, shape))))
    net = program.instantiate("Net")
    given = inputs | {"u": random.normal(size=shape)}
    types = {name: type_of(x) for name, x in given.items()}
    elaborated = program.elaborate_map("slopes", types, {"net": net})
    slots = initial_slots(net)
    states = net.state_paths()
    slots |= {p: random.normal(size=x.shape) for p, x in slots.items() if p not in states}
    _, (by_parameters, *by_inputs) = run(elaborated, slots, given)
    found = dict(zip(inputs, by_inputs, strict=True)) | by_parameters
    here = inputs | {path: x for path, x in slots.items() if path not in states}
    assert set(found) == set(here)
    direction = {name: random.normal(size=x.shape) for name, x in here.items()}
    step = 1e-6
    ends = []
    for sign in (1, -1):
        there = {name: x + sign * step * direction[name] for name, x in here.items()}
        value, _ = run(elaborated, slots | there, given | {n: there[n] for n in inputs})
        ends.append(float(value))
    expected = (ends[0] - ends[1]) / (2 * step)
    slope = sum(float(np.sum(found[name] * direction[name])) for name in found)
    assert slope == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(("text", "shapes"), MAPS, ids=[text for text, _ in MAPS])
def test_gradient_of_map(text: str, shapes: Shapes) -> None:
    check_gradient("0", text, shapes)


@pytest.mark.parametrize(("text", "shapes"), MODULES, ids=[text for text, _ in MODULES])
def test_gradient_of_module(text: str, shapes: Shapes) -> None:
    check_gradient(text, "inner({names})", shapes)


@pytest.mark.parametrize(("text", "shapes"), RECURRENT, ids=[text for text, _ in RECURRENT])
def test_gradient_of_recurrent_module(text: str, shapes: Shapes) -> None:
    check_gradient(text, "inner({names})[0]", shapes)


def test_states_of_layers() -> None:
    """`start_state` is 0 unless one is given; `run_layers` takes one `layer_state` for each."""
    source = (
        "map f(x: f64[2, 3, 4], s: f64[5, 2, 2]):\n"
        "    (start_state(x, 2), start_state(x, 2, layer_state(s, 1)))"
    )
    states = np.arange(20.0).reshape(5, 2, 2)
    zeros, given = run_map(source, {"x": np.zeros((2, 3, 4)), "s": states})
    np.testing.assert_array_equal(zeros, np.zeros((2, 2)))
    np.testing.assert_array_equal(given, states[1])


WINDOWS: list[tuple[str, float]] = [
    ("window_count(7, 3, 2, 1, 1)", 4),
    ('window_count(7, 3, 2, "same", 1)', 4),
    ("window_start(3, 1, 2)", 1),
    ('window_start(3, "same", 2)', 2),
    ("pool_strides(none, 3, 2)[1]", 3),
    ("pool_strides([1, 2], 3, 2)[1]", 2),
    ("transposed_size(4, 3, 2, 1, 1, 1)", 8),
    ("sum(inside_count(4, 3, 1, 1, 4))", 10),
    ("part_weights(5, 2)[1, 2]", 1 / 3),
]


@pytest.mark.parametrize(("text", "expected"), WINDOWS)
def test_windows(text: str, expected: float) -> None:
    assert run_map(f"map f(): f64({text})", {}) == pytest.approx(expected)


def test_channels() -> None:
    x, scale = np.ones((2, 3, 4)), np.array([1.0, 2, 3])
    source = "map f(x: f64[n, c, t], s: f64[c]): (add_bias(x, s), scale_channels(x, s, s))"
    shifted, scaled = run_map(source, {"x": x, "s": scale})
    np.testing.assert_array_equal(shifted[1, :, 2], [2, 3, 4])
    np.testing.assert_array_equal(scaled[1, :, 2], [2, 4, 6])


def test_kernels_are_initialized_by_what_they_read_and_make() -> None:
    """`kernel_values` has `glorot_uniform` see a matrix of 9 * 2 rows and 9 * 4 columns."""
    net = Program.loads("module M():\n    c = Conv2d(4, 3)\n    map (x: f64[n, 2, h, w]): c(x)")
    instance = net.instantiate("M")
    instance.elaborate("", {"x": type_of(np.zeros((1, 2, 5, 5)))})
    kernel = initial_slots(instance)["c.w"]
    assert kernel.shape == (4, 2, 3, 3)
    limit = (6 / (9 * (2 + 4))) ** 0.5
    assert 0.9 * limit < np.abs(kernel).max() <= limit


def test_embedding_leaves_out_the_padding() -> None:
    source = (
        "module Net():\n    words = Embedding(4, 2, padding=1, initializer=ones)\n"
        "    map (ids: i32[n]) -> f64[n, 2]: words(ids)"
    )
    net = Program.loads(source).instantiate("Net")
    found = call_module(net, ids=np.array([3, 1, 0], np.int32))
    np.testing.assert_array_equal(found, [[1, 1], [0, 0], [1, 1]])


CACHED = """
module Net():
    block = TransformerEncoderBlock(6, 3, 8, {options}, causal=true, rotate=true)
    places = LearnedPositions(7)

    map (x: f64[n, t, 6]): block(places(x))

    map in_parts(x: f64[n, t, 6]):
        let cache = block.attention.empty_cache(n, 6, f64)
        let (first, cache) = block.step(places(x[:, :3]), cache, 0)
        let (second, cache) = block.step(places.step(x[:, 3:4], 3), cache, 3)
        let (third, cache) = block.step(places.step(x[:, 4:], 4), cache, 4)
        concat([first, second, third], axis=1)
"""


@pytest.mark.parametrize("options", ["groups=1", "pre_norm=false"])
def test_a_cache_continues_a_sequence(options: str) -> None:
    net = Program.loads(CACHED.format(options=options)).instantiate("Net")
    x = np.random.default_rng(0).normal(size=(2, 6, 6))
    np.testing.assert_allclose(call_module(net, "in_parts", x=x), call_module(net, x=x), rtol=1e-9)


def test_power_iteration_finds_the_greatest_singular_value() -> None:
    m = np.random.default_rng(0).normal(size=(4, 3))
    source = (
        "map f(m: f64[4, 3], r: f64[3]):\n    let right = r\n    for step in range(60):\n"
        "        let right = improved(m, right)\n    singular_value(m, right)"
    )
    found = run_map(source, {"m": m, "r": np.ones(3)})
    assert found == pytest.approx(np.linalg.svd(m).S[0])


def test_padding_is_no_key() -> None:
    kept = np.array([[True, True, False]])
    source = (
        "map f(k: bool[n, s], x: f64[n, s, d]):\n"
        "    attention(x, x, x, mask=reshape(keys_mask(k), [n, 1, s]))"
    )
    x = np.random.default_rng(0).normal(size=(1, 3, 2))
    without = "map f(x: f64[n, s, d], y: f64[n, t, d]): attention(x, y, y)"
    short = run_map(without, {"x": x, "y": x[:, :2]})
    np.testing.assert_allclose(run_map(source, {"k": kept, "x": x}), short, rtol=1e-12)


def test_a_frozen_base_has_no_slope() -> None:
    source = (
        "module Net():\n    base = Dense(3)\n    change = LowRank(base, 3, rank=2)\n"
        "    map (x: f64[n, 4]): change(x)\n"
        "    map slopes(x: f64[n, 4]): grad(total)(change, x)\n"
        "map total(net: module, x: f64[n, 4]) -> f64: sum(net(x)^2)"
    )
    net = Program.loads(source).instantiate("Net")
    slopes = call_module(net, "slopes", x=np.ones((2, 4)))
    assert {path: bool(slope.any()) for path, slope in slopes.items()} == {
        "base.w": False,
        "base.b": False,
        "a": False,
        "b": True,
    }


def test_dropped_elements_are_made_up_for() -> None:
    found = run_map(
        "map f(x: f64[n], k: bool[n]): dropped(x, k, 0.5)",
        {"x": np.ones(2), "k": np.array([True, False])},
    )
    np.testing.assert_array_equal(found, [2, 0])


def test_weights_of_interpolation_sum_to_1() -> None:
    for corners in ("true", "false"):
        weights = run_map(f"map f(): interpolation(3, 7, {corners})", {})
        np.testing.assert_allclose(weights.sum(1), np.ones(7))
