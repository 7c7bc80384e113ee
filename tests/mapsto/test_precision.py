"""Mixed precision: products in a half type, everything else in f32, and scaled losses for f16."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt

PROGRAM = """
module Net():
    first = Dense(24, tanh)
    second = Dense(3)

    map (x: f32[n, 8]) -> f32[n, 3]:
        second(first(x))

map rounded(x: f32[n, k], w: f32[k, m]) -> f32[n, m]: in_precision(matmul, bf16)(x, w)

map matmul(x: f32[n, k], w: f32[k, m]) -> f32[n, m]: x @ w

map kept(x: f32[n, k], w: f32[k, m]) -> f32[n, m]:
    in_precision(in_precision(matmul, f32), bf16)(x, w)

map total(x: f32[n]) -> f32: in_precision(added, f16)(x)

map added(x: f32[n]) -> f32: sum(x) + sum(exp(x))

map slope(x: f32[n, k], w: f32[k, m]) -> f32[k, m]: grad(energy, argnums=1)(x, w)

map energy(x: f32[n, k], w: f32[k, m]) -> f32: sum(rounded(x, w)^2) / 2

train Fit(net = Net(), optimizer = Adam(lr=0.01)):
    loss(x: f32[n, 8], y: f32[n, 3]) = mse(net(x), y)
"""

USES = """
map softmax_of_product(x: f32[n, k], w: f32[k, m]) -> f32[n, m]: softmax(x @ w)

map softmax_of_product_rounded(x: f32[n, k], w: f32[k, m]) -> f32[n, m]:
    in_precision(softmax_of_product, bf16)(x, w)

map softmax_of_product_sum(x: f32[n, k], w: f32[k, m]) -> f32: sum(softmax_of_product(x, w)^2)

map softmax_of_product_rounded_sum(x: f32[n, k], w: f32[k, m]) -> f32:
    sum(softmax_of_product_rounded(x, w)^2)

map pooled(x: f32[n, k], w: f32[k, m]) -> f32[m]:
    let weight = [i] |-> x[i, 0]^2
    [c] |-> sum[i](tanh(x @ w)[i, c] * weight[i]) / sum(weight)

map pooled_rounded(x: f32[n, k], w: f32[k, m]) -> f32[m]: in_precision(pooled, bf16)(x, w)

map pooled_sum(x: f32[n, k], w: f32[k, m]) -> f32: sum(pooled(x, w)^2)

map pooled_rounded_sum(x: f32[n, k], w: f32[k, m]) -> f32: sum(pooled_rounded(x, w)^2)
"""


@pytest.fixture(scope="module")
def library() -> mt.Library:
    return mt.loads(PROGRAM)


def bf16(x: np.ndarray) -> np.ndarray:
    """Rounded to the nearest bf16, ties to even."""
    bits = x.astype(np.float32).view(np.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return (rounded & 0xFFFF0000).astype(np.uint32).view(np.float32)


def data() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(96, 8)).astype(np.float32)
    return {"x": x, "y": np.tanh(x @ random.normal(size=(8, 3))).astype(np.float32)}


@pytest.mark.parametrize("sizes", [(5, 7, 3), (40, 700, 48)])
def test_products_round_operands_and_result(
    library: mt.Library, sizes: tuple[int, int, int]
) -> None:
    n, k, m = sizes
    random = np.random.default_rng(1)
    x, w = (random.normal(size=shape).astype(np.float32) for shape in ((n, k), (k, m)))
    exact = bf16(x).astype(np.float64) @ bf16(w).astype(np.float64)
    found = library.rounded(x, w)
    assert (bf16(found) == found).all()
    # Half a unit in the last place, and what the order of the sum changes in f32.
    np.testing.assert_allclose(found, exact, rtol=2**-8, atol=1e-4)
    assert (library.kept(x, w) == library.matmul(x, w)).all()


def test_sums_and_functions_stay_in_f32(library: mt.Library) -> None:
    x = np.full(4096, 0.01, np.float32)
    np.testing.assert_allclose(library.total(x), 40.96 + 4096 * np.exp(0.01), rtol=1e-5)


def test_derivatives_round_too(library: mt.Library) -> None:
    random = np.random.default_rng(1)
    x, w = (random.normal(size=shape).astype(np.float32) for shape in ((5, 7), (7, 3)))
    expected = bf16(x).T @ bf16(library.rounded(x, w))
    np.testing.assert_allclose(library.slope(x, w), expected, rtol=2**-7, atol=1e-2)


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_trains_as_f32_does(library: mt.Library, precision: str) -> None:
    losses = {}
    for name in ("f32", precision):
        run = library.Fit(seed=1)
        history = run.fit(data(), epochs=12, batch=16, precision=name, progress=False)
        losses[name] = history.losses
        assert all(array.dtype != np.float16 for array in run.arrays.values())
    np.testing.assert_allclose(losses[precision], losses["f32"], rtol=0.05)
    assert losses[precision] != losses["f32"]


def test_steps_that_overflow_are_left_out(library: mt.Library) -> None:
    run = library.Fit(seed=1)
    run.set_precision("f16")
    batch = data()
    run.step(**batch)
    assert run.arrays["scaling.scale"] == 65536
    before = {path: array.copy() for path, array in run.arrays.items()}
    run.arrays["scaling.scale"][...] = 2.0**40
    loss = run.step(**batch)
    assert isinstance(loss, float) and np.isfinite(loss)
    assert run.arrays["scaling.scale"] == 2.0**39
    changed = {path for path, array in run.arrays.items() if (array != before[path]).any()}
    assert changed == {"scaling.scale", "scaling.good"}
    run.arrays["scaling.scale"][...] = before["scaling.scale"]
    run.arrays["scaling.good"][...] = 1999
    run.step(**batch)
    assert run.arrays["scaling.scale"] == 2 * 65536
    assert (run.arrays["first.w"] != before["first.w"]).any()


def test_accumulation_in_f16_resumes_in_the_same_bits(library: mt.Library, tmp_path) -> None:
    options = {"batch": 16, "accumulate": 2, "precision": "f16", "progress": False}
    whole, resumed = library.Fit(seed=1), library.Fit(seed=1)
    whole.fit(data(), epochs=2, **options)
    saved = {"checkpoint": tmp_path / "c", "resume": True, "checkpoint_steps": 1}
    library.Fit(seed=1).fit(data(), epochs=2, max_steps=3, **saved, **options)
    resumed.fit(data(), epochs=2, **saved, **options)
    for path, array in whole.arrays.items():
        assert resumed.arrays[path].tobytes() == array.tobytes()


def test_unknown_precision(library: mt.Library) -> None:
    with pytest.raises(mt.TrainingError, match="precision is 'f8', expected one of f32, bf16, f16"):
        library.Fit().fit(data(), precision="f8")


@pytest.mark.parametrize("name", ["softmax_of_product", "pooled"])
def test_rounded_values_in_other_arithmetic(library: mt.Library, name: str) -> None:
    """LLVM must not do in bf16 what stands between conversions: x86 has no instructions for it."""
    lib = mt.loads(f"{PROGRAM}\n{USES}")
    random = np.random.default_rng(2)
    x, w = (random.normal(size=shape).astype(np.float32) for shape in ((20, 32), (32, 32)))
    exact, rounded = (getattr(lib, f"{name}{kind}")(x, w) for kind in ("", "_rounded"))
    np.testing.assert_allclose(rounded, exact, rtol=0.05, atol=0.05)
    slopes = [mt.grad(getattr(lib, f"{name}{kind}_sum"))(x, w) for kind in ("", "_rounded")]
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    "body",
    [
        "where(x > 0, x, 0)",
        "outer(x, x) - mean(outer(x, x), axis=0)",
        "let (last, all) = scan(step, x[0], x)\n    all",
        "adaptive_max_pool1d(x, 3)",
        "pad(x, 2) * sum(x)",
    ],
)
def test_values_of_bf16_are_chosen_and_kept(body: str) -> None:
    """Choices, loops and what is computed before them move values of bf16 without arithmetic."""
    step = "map step(a: bf16, b: bf16) -> (bf16, bf16): (b, a + b)\n"
    inner = f"map inner(x: bf16[n]):\n    {body}\n"
    library = mt.loads(f"{step}{inner}map f(x: f32[n]):\n    f32(inner(bf16(x)))\n")
    x = np.random.default_rng(3).integers(-4, 5, 37).astype(np.float32)
    np.testing.assert_allclose(library.f(x), library.f.reference(x), rtol=1e-2, atol=1e-2)
