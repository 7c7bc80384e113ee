"""Random numbers: their distributions, bits, keys, shapes, and keys as states of modules."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

import mapsto as mt
from mapsto.dsl.checking import check
from mapsto.dsl.diagnostics import Kind
from mapsto.dsl.source import Source
from mapsto.ir.ops.random import philox

N = 20_000

LIB = mt.loads("""
map draws(key: i64[]):
    let wide: f64[2000] = uniform(fold_key(key, 1), -1, 3)
    let half: f16[2000] = normal(fold_key(key, 2))
    let bytes: u8[2000] = random_bits(fold_key(key, 3))
    (
        uniform(key, -1, 3, shape=[20000]),
        normal(key, 1, 2, shape=[20000]),
        truncated_normal(key, 1, 2, -1, 0.5, shape=[20000]),
        exponential(key, 4, shape=[20000]),
        gumbel(key, shape=[20000]),
        f32(bernoulli(key, 0.25, shape=[20000])),
        f32(randint(key, -3, 7, shape=[20000])),
        f32(categorical(key, broadcast(log(f32(iota(4)) / 6), [20000, 4]))),
        wide,
        f32(half),
        bytes,
    )

map keys(key: i64[], steps: i32[n]) -> (i64[5], i64[n], i64):
    (split_key(key, 5), [i] |-> fold_key(key, steps[i]), next_key(key))

map apart(key: i64[]): vmap(sample)(split_key(key, 3))
map sample(key: i64) -> (f32[4], i32[2]): (normal(key), randint(key, 0, 1000))
map single(key: i64[], k: int): sample(split_key(key, 3)[k])
map quantiles(p: f64[n]): (normal_quantile(p), normal_probability(normal_quantile(p)))
map orders(key: i64[], x: f32[n, d]):
    (permutation(key, 1000), shuffle(key, x), vmap(order)(split_key(key, 600)))
map order(key: i64) -> i32[3]: permutation(key, 3)
map fraction(x: f64[n]): (quotient(x, [1, 2.0], [3, 0, 1]), polynomial(x, [1, 0, 2]))

module Noise(rate: f32 = 0.5):
    state key: i64 ~ fresh_key

    map (x: f32[n]) -> f32[n]:
        let now = key
        key <- next_key(now)
        where(bernoulli(now, rate, shape=x.shape), x, 0)

module Two():
    layers = [Noise(), Noise()]
    map (x: f32[n]) -> (f32[n], f32[n]): (layers[0](x), layers[1](x))
""")
DRAWS = LIB.draws(3)


def truncated(low: float, high: float) -> statistics.NormalDist:
    """Mean and standard deviation of a standard normal number between two bounds."""
    normal = statistics.NormalDist()
    a, b, mass = normal.pdf(low), normal.pdf(high), normal.cdf(high) - normal.cdf(low)
    mean = (a - b) / mass
    return statistics.NormalDist(mean, (1 + (low * a - high * b) / mass - mean**2) ** 0.5)


MIDDLE = truncated(-1, 0.5)


@pytest.mark.parametrize(
    ("number", "mean", "deviation"),
    [
        (0, 1, 4 / 12**0.5),
        (1, 1, 2),
        (2, 1 + 2 * MIDDLE.mean, 2 * MIDDLE.stdev),
        (3, 0.25, 0.25),
        (4, 0.5772, np.pi / 6**0.5),
        (5, 0.25, 0.1875**0.5),
        (6, 1.5, 8.25**0.5),
        (7, 14 / 6, 5**0.5 / 3),
        (8, 1, 4 / 12**0.5),
        (9, 0, 1),
        (10, 127.5, 73.9),
    ],
)
def test_mean_and_standard_deviation(number: int, mean: float, deviation: float) -> None:
    x = np.asarray(DRAWS[number], float)
    error = deviation / len(x) ** 0.5
    assert abs(x.mean() - mean) < 4 * error
    assert abs(x.std() - deviation) < 6 * error


def test_ranges() -> None:
    uniform, _, truncated, exponential, gumbel, _, whole = DRAWS[:7]
    assert uniform.min() >= -1 and uniform.max() < 3
    assert truncated.min() >= -1 and truncated.max() <= 2
    assert exponential.min() >= 0 and np.isfinite(gumbel).all()
    assert set(whole) == set(range(-3, 7))


def test_the_normal_distribution_in_bins() -> None:
    edges = np.linspace(-2, 2, 9)
    expected = np.diff([statistics.NormalDist(1, 2).cdf(1 + 2 * x) for x in edges]) * N
    found, _ = np.histogram((DRAWS[1] - 1) / 2, edges)
    assert ((found - expected) ** 2 / expected).sum() < 27  # chi-squared, 8 bins, 1 in 1000


def test_native_code_gives_the_bits_of_the_reference() -> None:
    exact = (0, 5, 6, 8, 10)
    for number, (native, reference) in enumerate(zip(DRAWS, LIB.draws.reference(3), strict=True)):
        if number in exact:
            np.testing.assert_array_equal(native, reference)
        else:
            np.testing.assert_allclose(native, reference, rtol=2e-3, atol=2e-5)


def test_keys_are_streams_of_philox() -> None:
    steps = np.arange(4, dtype=np.int32)
    split, folded, following = LIB.keys(11, steps)
    words = philox(np.asarray(11, np.uint64), 0x73706C74, 10).astype(np.uint64)
    expected = (words[::2] << np.uint64(32) | words[1::2]).astype(np.int64)
    np.testing.assert_array_equal(split, expected)
    everything = {*split.tolist(), *folded.tolist(), int(following)}
    others = LIB.keys(12, steps)
    everything |= {*others[0].tolist(), *others[1].tolist(), int(others[2])}
    assert len(everything) == 20


def test_a_key_for_each_point() -> None:
    numbers, whole = LIB.apart(5)
    for k in range(3):
        one, two = LIB.single(5, k)
        np.testing.assert_array_equal(numbers[k], one)
        np.testing.assert_array_equal(whole[k], two)


def test_the_quantile_of_the_normal_distribution() -> None:
    p = np.array([1e-300, 1e-20, 1e-5, 0.07, 0.3, 0.5, 0.92, 0.93, 1 - 1e-7])
    expected = [statistics.NormalDist().inv_cdf(x) for x in p]
    found, again = LIB.quantiles(p)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(again, p, rtol=1e-10, atol=1e-16)


def test_permutations() -> None:
    x = np.arange(20, dtype=np.float32).reshape(10, 2)
    order, shuffled, small = LIB.orders(4, x)
    assert sorted(order) == list(range(1000))
    assert not np.array_equal(order, np.arange(1000))
    rows = {tuple(row) for row in shuffled}
    assert rows == {tuple(row) for row in x} and not np.array_equal(shuffled, x)
    _, counts = np.unique(small, axis=0, return_counts=True)
    assert len(counts) == 6
    assert ((counts - 100) ** 2 / 100).sum() < 21  # chi-squared, 5 degrees, 1 in 1000


def test_polynomials() -> None:
    x = np.array([-1.5, 0, 2])
    ratio, square = LIB.fraction(x)
    np.testing.assert_allclose(ratio, (1 + 2 * x) / (3 + x**2))
    np.testing.assert_allclose(square, 1 + 2 * x**2)


def test_a_state_keeps_a_key() -> None:
    x = np.ones(64, np.float32)
    first, second = LIB.Noise(seed=1), LIB.Noise(seed=1)
    draws = [first(x), first(x)]
    assert not np.array_equal(*draws)
    np.testing.assert_array_equal(second(x), draws[0])
    np.testing.assert_array_equal(second(x), draws[1])
    assert not np.array_equal(LIB.Noise(seed=2)(x), draws[0])


def test_keys_are_saved_and_loaded(tmp_path: Path) -> None:
    x = np.ones(64, np.float32)
    first = LIB.Noise(seed=1)
    first(x)
    first.save(tmp_path / "noise.safetensors")
    again = LIB.Noise(seed=7).load(tmp_path / "noise.safetensors")
    np.testing.assert_array_equal(again(x), first(x))


def test_each_path_has_a_key_of_its_own() -> None:
    net = LIB.Two(seed=1)
    one, two = net(np.ones(64, np.float32))
    assert not np.array_equal(one, two)
    assert list(net.states) == ["layers.0.key", "layers.1.key"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("map f(key: i64) -> i32[4]: uniform(key)", Kind.DTYPE_NOT_ACCEPTED),
        ("map f(key: i64) -> f32[4]: random_bits(key)", Kind.DTYPE_NOT_ACCEPTED),
        ("map f(key: i64) -> bool[4]: random(key)", Kind.DTYPE_NOT_ACCEPTED),
        ("map f(key: i64): normal(key)", Kind.UNKNOWN_RESULT_SHAPE),
        ("map f(keys: i64[n]) -> f32[4]: random(keys)", Kind.WRONG_KIND),
        ("map f(key: i64): normal(key, shape=[2, -1])", Kind.NEGATIVE_DIMENSION),
        ("map f(key: i64): normal(key, shape=[0.5])", Kind.NOT_A_WHOLE_NUMBER),
        ("map f(key: i64) -> f32[4]: random(key, stream=-1)", Kind.NOT_A_WHOLE_NUMBER),
        ("map f(key: i64) -> f32[4]: normal(key, shape=[3])", Kind.WRONG_SHAPE),
    ],
)
def test_mistakes(text: str, kind: Kind) -> None:
    (diagnostic,) = check(Source("test.mto", text))
    assert diagnostic.kind is kind
