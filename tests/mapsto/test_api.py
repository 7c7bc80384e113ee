"""The Python API: maps, modules and their parameters, arguments of all kinds, errors."""

import array
import gc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import mapsto as mt

LIB = mt.loads('''
width = 3

map add(a: f32[n], b: f32[n]) -> f32[n]:
    """The sum."""
    a + b

map scale(x: f32[n], k: int = 2, f: map = relu) -> f32[n]:
    f(x) * k

map parts(x: f32[n, m]) -> (f32[n], f32):
    (sum(x, axis=1), sum(x))

map affine(p: any, x: f32[n]) -> f32[n]:
    x * p.scale + p.shift

map layer(p: any, x: f32[n]) -> f32:
    sum(p.pair[0] * x) * p.scale + sum(p.pair[1])

map twice[T](x: T[n]) -> T[n]:
    x + x

map take(x: f32[n], i: i32[k]) -> f32[k]:
    [j] |-> x[i[j]]

module Model(units: int = 3, activation: map = identity):
    """A layer and what it has seen."""
    layer = Dense(units, activation)
    state calls: f32 = 0

    map (x: f32[n, d]) -> f32[n, units]:
        layer(x)

    map count(x: f32[n, d]) -> f32:
        calls <- calls + 1
        calls

train Fit(net = Model(2), optimizer = SGD()):
    loss(x: f32[n, d], y: f32[n, 2]) = mse(net(x), y)

map error(net: module, x: f32[n, d], y: f32[n, k]) -> f32:
    mse(net(x), y)

map errors(nets: list, x: f32[n, d], y: f32[n, k]) -> f32:
    mse(chain(nets)(x), y)
''')
X = np.arange(4, dtype=np.float32)
BATCH = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)


# ---- libraries


def test_definitions_are_attributes() -> None:
    assert {"add", "Model"} <= set(dir(LIB))
    assert LIB.width == 3
    assert LIB.pi == pytest.approx(np.pi)
    assert LIB.add.__doc__ == "The sum." and LIB.add.__name__ == "add"
    assert LIB.Model.__doc__ == "A layer and what it has seen."
    assert repr(LIB.add) == "<map add(a: f32[n], b: f32[n]) -> f32[n]>"
    assert "add, scale" in repr(LIB)


def test_unknown_definitions() -> None:
    with pytest.raises(AttributeError, match="<text> defines no 'subtract'; it defines width, add"):
        LIB.subtract  # noqa: B018


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "one.mto"
    path.write_text("map one() -> f32: 1\n")
    assert mt.load(path).one() == 1
    with pytest.raises(FileNotFoundError):
        mt.load(tmp_path / "two.mto")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        mt.load(path)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(mt.DiagnosticsError) as caught:
        mt.loads("map f(x: f32[n]:\n    x\n\nmap g(y: f32[n) -> f32:\n    y\n", name="wrong.mto")
    assert len(caught.value.diagnostics) == 2
    assert "wrong.mto:1:" in str(caught.value) and "wrong.mto:4:" in str(caught.value)


# ---- arguments


def test_arguments_by_position_and_by_name() -> None:
    for result in (LIB.add(X, X), LIB.add(X, b=X), LIB.add(b=X, a=X)):
        np.testing.assert_array_equal(result, 2 * X)
    assert LIB.add(X, X).dtype == np.float32


@pytest.mark.parametrize(
    "given",
    [
        [0, 1, 2, 3],
        (0.0, 1, 2, 3.0),
        array.array("f", [0, 1, 2, 3]),
        memoryview(X),
        np.arange(8, dtype=np.float32)[::2] / 2,
        X[::-1].copy()[::-1],
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_an_array(given: object) -> None:
    np.testing.assert_array_equal(LIB.add(given, X), 2 * X)


def test_dlpack() -> None:
    class Foreign:
        """Another library's array."""

        def __dlpack__(self, **options: object) -> object:
            return X.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return X.__dlpack_device__()

    np.testing.assert_array_equal(LIB.add(Foreign(), X), 2 * X)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1"])
def test_generic_maps_keep_the_dtype(dtype: str) -> None:
    result = LIB.twice(np.arange(5).astype(dtype))
    assert result.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(result, 2 * np.arange(5))


def test_numbers_take_the_declared_dtype_or_the_languages_own() -> None:
    assert LIB.twice([1.0, 2.0]).dtype == np.float32
    assert LIB.twice([1, 2]).dtype == np.int32
    assert LIB.relu(3.0) == 3


def test_no_elements() -> None:
    assert LIB.add([], []).shape == (0,)
    assert LIB.add(X[:0], X[:0]).shape == (0,)


def test_static_arguments() -> None:
    np.testing.assert_array_equal(LIB.scale(X), 2 * X)
    np.testing.assert_array_equal(LIB.scale(X, 5), 5 * X)
    np.testing.assert_array_equal(LIB.scale(X, k=3), 3 * X)
    np.testing.assert_array_equal(LIB.scale(-X, f=LIB.add.program.value("abs")), 2 * X)
    np.testing.assert_allclose(LIB.scale(X, f=LIB.tanh), 2 * np.tanh(X), rtol=1e-6)
    np.testing.assert_array_equal(LIB.scale(-X, f=LIB.relu), 0 * X)


def test_several_results() -> None:
    rows, total = LIB.parts(BATCH)
    np.testing.assert_allclose(rows, BATCH.sum(1), rtol=1e-5)
    assert total.shape == () and total == pytest.approx(BATCH.sum(), rel=1e-5)


class Affine(NamedTuple):
    """A configuration, or a structure of arrays."""

    scale: object
    shift: object


def test_a_configuration_is_compiled_for_once() -> None:
    """A named tuple without arrays is static, and told from others by its items."""
    affine = LIB.affine
    for _ in range(2):
        np.testing.assert_array_equal(affine(Affine(3, 1), X), 3 * X + 1)
        assert len(affine._specializations) == 1
    np.testing.assert_array_equal(affine(Affine(X, np.float32(2)), X), X * X + 2)


def test_structures_of_arrays_where_any_is_declared() -> None:
    for pair in ([X, X + 1], (X, X + 1)):
        given = {"pair": pair, "scale": 2.0}
        assert LIB.layer(given, X) == 2 * (X * X).sum() + (X + 1).sum()
        slope = mt.grad(LIB.layer)(given, X)
        np.testing.assert_array_equal(slope.pair[0], 2 * X)
        np.testing.assert_array_equal(slope.pair[1], np.ones(4))
        assert slope.scale == (X * X).sum()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LIB.layer({"a b": X}, X), "the key 'a b' of the argument p is no name"),
        (lambda: LIB.layer({"pair": (X, "x")}, X), "the argument p.pair.1 is an array, found str"),
        (lambda: LIB.add(X), "the argument b is missing"),
        (lambda: LIB.add(X, X, X), r"expected at most 2 arguments \(a, b\), found 3"),
        (lambda: LIB.add(X, X, c=X), "there is no parameter c; there are a, b"),
        (lambda: LIB.add(X, a=X), "the argument a is given twice"),
        (lambda: LIB.add("0123", X), "the argument a is an array, found str"),
        (lambda: LIB.add(b"0123", X), "the argument a is an array, found bytes"),
        (lambda: LIB.add(None, X), "the argument a is an array, found NoneType"),
        (lambda: LIB.add([[1], [1, 2]], X), "the argument a is no array: .*inhomogeneous"),
        (lambda: LIB.add(["a", "b"], X), r"expected a: f32\[2\], found <U1\[2\]"),
        (lambda: LIB.add(X.astype(complex), X), "the argument a has elements of type complex128"),
        (lambda: LIB.add(X.astype(">f4"), X), "the argument a has elements of type >f4"),
        (lambda: LIB.take(X, [1.5]), r"expected i: i32\[1\], found f64\[1\]"),
        (lambda: LIB.take(X, [2**40]), "out of bounds for int32"),
    ],
)
def test_wrong_arguments(call, message: str) -> None:
    with pytest.raises(mt.ArgumentError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LIB.add(X.astype("f8"), X), r"expected f32\[n\], found f64\[4\]"),
        (lambda: LIB.add(X, X[:2]), r"expected f32\[n\], found f32\[2\]"),
        (lambda: LIB.add(X, X[:2]), "`n` is 4 here"),
        (lambda: LIB.add(BATCH, X), r"expected f32\[n\], found f32\[6, 5\]"),
        (lambda: LIB.scale(X, k=1.5), "`k` takes a whole number .* found the number 1.5"),
        (lambda: LIB.scale(X, f="a"), "`f` takes a map, found a string"),
        (lambda: LIB.Model(units="a"), "`units` takes a whole number"),
        (lambda: LIB.Model(size=3), "`Model` has no argument `size`"),
    ],
)
def test_arguments_of_wrong_types(call, message: str) -> None:
    with pytest.raises(mt.DiagnosticsError, match=message):
        call()


def test_a_wrong_call_leaves_the_map_usable() -> None:
    for _ in range(2):
        np.testing.assert_array_equal(LIB.add(X, X), 2 * X)
        with pytest.raises(mt.DiagnosticsError):
            LIB.add(X, X[:2])
        with pytest.raises(mt.ExecutionError, match="an index is outside"):
            LIB.take(X, [4])
        np.testing.assert_array_equal(LIB.take(X, [3, 0]), X[[3, 0]])


# ---- modules


def test_parameters_appear_at_the_first_call_or_at_init() -> None:
    net = LIB.Model(4)
    assert len(net.params) == 0
    with pytest.raises(KeyError, match="none yet: call the module or `init` first"):
        net.params["layer.w"]
    assert net.init(x=mt.f32[None, 5]) is net
    assert {path: a.shape for path, a in net.params.items()} == {
        "layer.w": (5, 4),
        "layer.b": (4,),
    }
    with pytest.raises(KeyError, match=r"Model has no parameter 'w'; it has layer\.w, layer\.b"):
        net.params["w"]


def test_init_takes_types() -> None:
    with pytest.raises(mt.ArgumentError, match="x is no type such as"):
        LIB.Model().init(x=3)  # type: ignore[arg-type]
    with pytest.raises(mt.DiagnosticsError, match="`Model` has no argument `y`"):
        LIB.Model().init(y=mt.f32[3, 3])
    with pytest.raises(mt.DiagnosticsError, match=r"expected f32\[n, d\], found f32\[3\]"):
        LIB.Model().init(x=mt.f32[3])


def test_a_failed_call_fixes_no_sizes() -> None:
    net = LIB.Model()
    with pytest.raises(mt.DiagnosticsError):
        net(X)
    assert net(BATCH).shape == (6, 3)


def test_parameters_are_views() -> None:
    """What is written to them is what the next call reads; no copies in between."""
    net = LIB.Model(2, seed=1)
    first = net(BATCH)
    w, b = net.params["layer.w"], net.params["layer.b"]
    assert w is net.params["layer.w"]
    np.testing.assert_allclose(first, BATCH @ w + b, rtol=1e-5, atol=1e-6)
    w[...] = 0
    b[...] = [1, 2]
    np.testing.assert_array_equal(net(BATCH), np.tile([1, 2], (6, 1)))
    np.testing.assert_array_equal(net(BATCH[:3]), np.tile([1, 2], (3, 1)))


def test_sizes_are_fixed_once() -> None:
    net = LIB.Model().init(x=mt.f32[None, 5])
    with pytest.raises(mt.DiagnosticsError, match="`d` is 5 here"):
        net(BATCH[:, :4])


def test_named_maps_and_states() -> None:
    net = LIB.Model()
    assert [float(net.count(BATCH)) for _ in range(3)] == [1, 2, 3]
    assert net.states["calls"] == 3
    assert "calls" not in net.params
    with pytest.raises(AttributeError, match="Model has no map 'other'"):
        net.other  # noqa: B018


def test_configuration() -> None:
    assert LIB.Model(units=7)(BATCH).shape == (6, 7)
    assert (LIB.Model(4, LIB.sigmoid)(BATCH) > 0).all()
    with pytest.raises(TypeError, match="Model takes 2 arguments, found 3"):
        LIB.Model(1, LIB.relu, 2)
    with pytest.raises(TypeError, match="Model is given units twice"):
        LIB.Model(1, units=2)


def test_configuration_of_training() -> None:
    net, y = LIB.Model(2, seed=1), BATCH[:, :2]
    expected = LIB.error(net, BATCH, y)
    run = LIB.Fit(net, LIB.SGD(lr=0.1), seed=3)
    assert run.net is net
    assert run.step(x=BATCH, y=y) == pytest.approx(float(expected), rel=1e-5)
    assert run.step(x=BATCH, y=y) < expected
    with pytest.raises(TypeError, match="Fit takes 2 arguments, found 3"):
        LIB.Fit(net, LIB.SGD(), 0)
    with pytest.raises(mt.DiagnosticsError, match=r"(?s)`Fit` has no argument `nett`.*`net`\?"):
        LIB.Fit(nett=net)
    with pytest.raises(mt.DiagnosticsError, match="the number 3 cannot be called"):
        LIB.Fit(3).step(x=BATCH, y=y)


def test_evaluating_a_data_set_weighs_batches_by_size() -> None:
    y = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
    run = LIB.Fit(seed=3)
    figures = run.evaluate_data({"x": BATCH, "y": y}, batch=4)
    whole = run.evaluate(x=BATCH, y=y)
    assert figures.keys() == whole.keys()
    assert figures["loss"] == pytest.approx(whole["loss"], rel=1e-5)


def test_save_and_load(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    net = LIB.Model(seed=1)
    expected = net(BATCH)
    net.save(path)
    fresh = LIB.Model().load(path)
    assert fresh.params["layer.w"].shape == (5, 3)
    np.testing.assert_array_equal(fresh(BATCH), expected)
    other = LIB.Model(seed=2)
    view = other.init(x=mt.f32[None, 5]).params["layer.w"]
    other.load(path)
    assert other.params["layer.w"] is view
    np.testing.assert_array_equal(other(BATCH), expected)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    LIB.Model(4).init(x=mt.f32[None, 5]).save(path)
    net = LIB.Model(3).init(x=mt.f32[None, 5])
    before = net.params["layer.w"].copy()
    with pytest.raises(mt.CheckpointError, match=r"layer\.w"):
        net.load(path)
    np.testing.assert_array_equal(net.params["layer.w"], before)
    path.write_bytes(b"no weights at all")
    with pytest.raises(mt.CheckpointError, match="not a valid safetensors file"):
        net.load(path)
    with pytest.raises(mt.CheckpointError, match="cannot be written"):
        net.save(tmp_path / "missing" / "weights.safetensors")


# ---- modules as arguments


def test_modules_are_arguments_of_maps() -> None:
    net, y = LIB.Model(2, seed=1), BATCH[:, :2]
    value = LIB.error(net, BATCH, y)
    assert value == pytest.approx(np.mean((net(BATCH) - y) ** 2), rel=1e-5)
    net.params["layer.w"][...] = 0
    assert LIB.error(net, BATCH, y) == pytest.approx(np.mean(y**2), rel=1e-5)


def test_lists_of_modules_are_arguments() -> None:
    nets, y = [LIB.Model(4, seed=1), LIB.Model(2, seed=2)], BATCH[:, :2]
    expected = np.mean((nets[1](nets[0](BATCH)) - y) ** 2)
    assert LIB.errors(nets, BATCH, y) == pytest.approx(expected, rel=1e-5)


def test_each_module_has_its_own_parameters() -> None:
    """Also when a new instance lies where a forgotten one lay in memory."""
    y = BATCH[:, :2]
    for seed in range(20):
        net = LIB.Model(2, seed=seed)
        expected = LIB.error(net, BATCH, y)
        assert expected == pytest.approx(np.mean((net(BATCH) - y) ** 2), rel=1e-5)
        del net
        gc.collect()


# ---- pipelines, IR, reference


def test_passes() -> None:
    plain = LIB.add.with_passes("differentiate,inline")
    np.testing.assert_array_equal(plain(X, X), 2 * X)
    with pytest.raises(mt.PassError, match="did you mean `default`"):
        LIB.add.with_passes("defualt")
    net = LIB.Model().init(x=mt.f32[None, 5])
    other = net.with_passes("default,-cse")
    assert other.params["layer.w"] is net.params["layer.w"]
    np.testing.assert_array_equal(other(BATCH), net(BATCH))


def test_ir() -> None:
    assert LIB.add.ir(a=mt.f32["n"], b=mt.f32["n"]).splitlines() == [
        "func @add(%a: f32[n], %b: f32[n]) -> (f32[n]) {",
        "  %0 = add %a, %b : f32[n]",
        "  return %0",
        "}",
    ]
    assert "f32[8]" in LIB.scale.ir(x=mt.f32[8], k=3)
    assert "%w: f32[5, 3]" in LIB.Model().ir(x=mt.f32["n", 5])


def test_reference() -> None:
    net, y = LIB.Model(2, seed=1), BATCH[:, :2]
    np.testing.assert_allclose(net.reference(BATCH), net(BATCH), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(LIB.error.reference(net, BATCH, y), LIB.error(net, BATCH, y))
    rows, total = LIB.parts.reference(BATCH)
    assert rows.shape == (6,) and total.shape == ()
    assert float(net.count.reference(BATCH)) == float(net.count.reference(BATCH)) == 1


def test_types() -> None:
    assert str(mt.f32["n", 64]) == "f32[n, 64]"
    assert str(mt.f32[None, None]) == "f32[n, n1]"
    assert str(mt.i32[()]) == "i32[]"
    with pytest.raises(ValueError, match="'n n' is not a name for a size"):
        mt.f32["n n"]
    with pytest.raises(ValueError, match="the extent -1 is negative"):
        mt.f32[-1]


def test_saving_before_there_is_anything_to_save(tmp_path: Path) -> None:
    with pytest.raises(mt.CheckpointError, match="has no parameters yet"):
        LIB.Model().save(tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_weights_of_another_size_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    LIB.Model(4).init(x=mt.f32[None, 5]).save(path)
    other = LIB.Model(3).load(path)
    with pytest.raises(mt.CheckpointError, match=r"weights.safetensors: array `.*` is f32"):
        other(np.zeros((2, 5), np.float32))


SHARED = """
module Inner():
    param w: f32[d] ~ uniform

    map (x: f32[n, d]) -> f32[n, d]:
        x * w

module Outer(first: module, others: list = []):
    param b: f32[d] ~ zeros

    map (x: f32[n, d]) -> f32[n, d]:
        chain([first] + others)(x) + b
"""


def test_instances_in_a_configuration_share_their_parameters(tmp_path) -> None:
    lib, x = mt.loads(SHARED), np.ones((1, 2), np.float32)
    used, fresh = lib.Inner(seed=1), lib.Inner(seed=2)
    used(x)
    outer = lib.Outer(used, others=[fresh])
    np.testing.assert_allclose(outer(x), used(x) * fresh(x))
    assert sorted(outer.params) == ["b", "first.w", "others.0.w"]
    used.params["w"][...] = [3, 4]
    fresh.params["w"][...] = [5, 6]
    np.testing.assert_array_equal(outer(x), [[15, 24]])
    outer.params["first.w"][...] = 1
    np.testing.assert_array_equal(used(x), [[1, 1]])

    outer.save(tmp_path / "outer.safetensors")
    again = lib.Inner(seed=5)
    copy = lib.Outer(again, others=[lib.Inner(seed=6)]).load(tmp_path / "outer.safetensors")
    np.testing.assert_array_equal(copy(x), outer(x))
    np.testing.assert_array_equal(again(x), [[1, 1]])
