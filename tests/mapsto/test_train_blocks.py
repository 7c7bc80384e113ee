"""`train` blocks: several losses and optimizers, metrics that gather, gradients that are kept."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt

PAIR = """
train Pair(
        first = Dense(3),
        second = Dense(3),
        optimizer = [(first, SGD(lr=0.1)), (second, SGD(lr=0.2))]):
    loss one[first](x: f32[n, 4], y: f32[n, 3]) = mse(first(x), y)
    loss two[second](x: f32[n, 4]) = mse(second(x), stop_gradient(first(x)))
"""

SINGLE = """
train Fit(net = Dense(3), optimizer = Adam(lr=0.05)):
    loss(x: f32[n, 4], y: f32[n, 3]) = mse(net(x), y)
    metric error(x: f32[n, 4], y: f32[n, 3]) = mae(net(x), y)
"""

GATHERING = '''
module Largest():
    """The largest value so far."""
    state value: f32 = 0

    map (x: f32[n]) -> f32:
        value <- maximum(value, max(x))
        value

train Fit(net = Dense(2), optimizer = SGD(lr=0.0)):
    largest = Largest()
    loss(x: f32[n, 2]) = mean(net(x)^2)
    metric mean_size(x: f32[n, 2]) = mean(x)
    metric size(x: f32[n, 2]) = largest(reshape(x, [2 * n]))
    metric counts(x: f32[n, 2]) = sum(x > 0.5, axis=0)
'''


def data(examples: int = 24) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.normal(size=(examples, 4)).astype(np.float32)
    return {"x": x, "y": x @ random.normal(size=(4, 3)).astype(np.float32)}


def mse_gradient(w, b, x, y):
    """The value of mse(x @ w + b, y) and its gradients."""
    error = x @ w + b - y
    slope = 2 * error / error.size
    return np.mean(error**2), x.T @ slope, slope.sum(0)


def test_each_loss_trains_its_nets_in_order() -> None:
    run = mt.loads(PAIR).Pair(seed=1)
    batch = data()
    run.step(**batch)  # The arrays appear.
    before = {path: array.astype(np.float64) for path, array in run.arrays.items()}
    found = run.step(**batch)
    x, y = batch["x"], batch["y"]
    one, dw, db = mse_gradient(before["first.w"], before["first.b"], x, y)
    w, b = before["first.w"] - 0.1 * dw, before["first.b"] - 0.1 * db
    # The second loss sees the first net as the first loss left it.
    two, dv, dc = mse_gradient(before["second.w"], before["second.b"], x, x @ w + b)
    expected = {
        "first.w": w,
        "first.b": b,
        "second.w": before["second.w"] - 0.2 * dv,
        "second.b": before["second.b"] - 0.2 * dc,
    }
    assert found == pytest.approx({"loss": one + two, "one": one, "two": two}, rel=1e-5)
    for path, array in expected.items():
        np.testing.assert_allclose(run.arrays[path], array, rtol=1e-4, atol=1e-6)


def test_nets_of_one_block_begin_differently() -> None:
    run = mt.loads(PAIR.replace("lr=0.1", "lr=0.0").replace("lr=0.2", "lr=0.0")).Pair(seed=1)
    run.step(**data())
    first, second = (run.nets[name].params["w"] for name in ("first", "second"))
    assert np.abs(first - second).max() > 0.1


def test_a_chosen_loss() -> None:
    run = mt.loads(PAIR).Pair(seed=1)
    batch = data()
    run.step(**batch)
    own = ("first.", "second.")
    before = {path: a.copy() for path, a in run.arrays.items() if path.startswith(own)}
    value = run.step_two(x=batch["x"])
    assert isinstance(value, dict) and value["two"] == value["loss"]
    changed = {path for path, array in before.items() if (array != run.arrays[path]).any()}
    assert changed == {"second.w", "second.b"}
    with pytest.raises(AttributeError, match="step_three"):
        run.step_three(x=batch["x"])


def test_several_losses_in_fit_and_evaluation() -> None:
    run = mt.loads(PAIR).Pair(seed=1)
    history = run.fit(data(), data(), epochs=60, batch=8, progress=False)
    last = history.epochs[-1]
    assert set(last.train) == {"one", "two"}
    assert last.loss == pytest.approx(sum(last.train.values()))
    assert last.test["loss"] == pytest.approx(last.test["one"] + last.test["two"])
    assert last.loss < 0.05 * history.losses[0]


def test_parameters_without_an_optimizer_that_moves_them_stay() -> None:
    text = SINGLE.replace("Adam(lr=0.05)", '[("b", SGD(lr=0.0)), ("*", Adam(lr=0.05))]')
    run = mt.loads(text).Fit()
    run.step(**data())
    assert not run.arrays["b"].any()
    assert run.arrays["w"].any()
    own = {path for path in run.arrays if path.startswith("optimizer.")}
    assert "optimizer.1.w.m" in own and "optimizer.1.b.m" not in own


def test_metrics_gather_over_unequal_batches() -> None:
    run = mt.loads(GATHERING).Fit()
    x = np.linspace(-1, 1, 14, dtype=np.float32).reshape(7, 2)
    for _ in range(2):  # Each evaluation begins anew.
        found = run.evaluate_data({"x": x}, batch=3)
        assert found["mean_size"] == pytest.approx(x.mean(), abs=1e-6)
        assert found["size"] == x.max()
        assert run.evaluate(x=x[:5])["size"] == x[:5].max()
    assert not any("largest" in path for path in run.arrays)


def test_figures_that_are_arrays() -> None:
    run = mt.loads(GATHERING.replace("sum(x > 0.5, axis=0)", "sum(x, axis=0)")).Fit()
    x = np.linspace(-1, 1, 16, dtype=np.float32).reshape(8, 2)
    found = run.fit({"x": x}, {"x": x}, batch=4, progress=False).epochs[0].test
    np.testing.assert_allclose(found["counts"], x.sum(axis=0) / 2, rtol=1e-6)


def test_kept_gradients_make_the_step_of_the_whole_batch() -> None:
    library, batch = mt.loads(SINGLE), data()
    whole, parts = library.Fit(seed=2), library.Fit(seed=2)
    for _ in range(3):
        whole.step(**batch)
        for start in (0, 8):
            parts.keep_gradients(**{k: v[start : start + 8] for k, v in batch.items()})
        parts.step(**{k: v[16:] for k, v in batch.items()})
    for path, array in whole.arrays.items():
        np.testing.assert_allclose(parts.arrays[path], array, rtol=2e-5, atol=1e-6)


def test_accumulation_in_fit_and_its_resumption(tmp_path) -> None:
    library, batch = mt.loads(SINGLE), data()
    options = {"batch": 5, "accumulate": 2, "progress": False, "checkpoint_steps": 1}
    whole, part, resumed = (library.Fit(seed=2) for _ in range(3))
    whole.fit(batch, epochs=3, **options)
    part.fit(batch, epochs=3, max_steps=6, checkpoint=tmp_path / "c", **options)
    resumed.fit(batch, epochs=3, checkpoint=tmp_path / "c", resume=True, **options)
    for path, array in whole.arrays.items():
        assert resumed.arrays[path].tobytes() == array.tobytes(), path


def test_configuration_of_the_default_net() -> None:
    library = mt.loads(SINGLE)
    run = library.Fit(**{"net.units": 3, "optimizer.lr": 0.0})
    run.step(**data())
    before = run.arrays["w"].copy()
    run.step(**data())
    assert (run.arrays["w"] == before).all()
    with pytest.raises(mt.DiagnosticsError, match="`Dense` has no argument `width`"):
        library.Fit(**{"net.width": 3})
    with pytest.raises(mt.DiagnosticsError):
        library.Fit(**{"nett.units": 3})


def test_streams_and_memory_maps_train_alike(tmp_path) -> None:
    library, batch = mt.loads(SINGLE), data()
    for name, array in batch.items():
        np.save(tmp_path / f"{name}.npy", array)

    def batches(epoch: int):
        for start in range(0, 24, 8):
            yield {k: v[start : start + 8] for k, v in batch.items()}

    runs = [library.Fit(seed=3) for _ in range(4)]
    options = {"epochs": 4, "progress": False}
    runs[0].fit(batch, batch=8, shuffle=False, **options)
    runs[1].fit(tmp_path, batch=8, shuffle=False, **options)
    runs[2].fit(batches, **options)
    runs[3].fit((b for epoch in range(4) for b in batches(epoch)), steps_per_epoch=3, **options)
    for other in runs[1:]:
        for path, array in runs[0].arrays.items():
            assert other.arrays[path].tobytes() == array.tobytes()


def test_a_stream_that_resumes(tmp_path) -> None:
    library, batch = mt.loads(SINGLE), data()

    def numbers():
        while True:
            yield from ({k: v[s : s + 8] for k, v in batch.items()} for s in (0, 8, 16, 4))

    options = {"steps_per_epoch": 3, "checkpoint": tmp_path / "c", "progress": False}
    whole, part, resumed = (library.Fit(seed=3) for _ in range(3))
    whole.fit(numbers(), epochs=4, steps_per_epoch=3, progress=False)
    part.fit(numbers(), epochs=4, max_steps=7, **options)
    resumed.fit(numbers(), epochs=4, resume=True, **options)
    for path, array in whole.arrays.items():
        assert resumed.arrays[path].tobytes() == array.tobytes()


def test_windows_of_a_text() -> None:
    text = np.arange(50, dtype=np.uint8)
    run = mt.loads("""
train Fit(net = Dense(2), optimizer = SGD()):
    loss(x: i32[n, 8], y: i32[n, 8]) = mean(net(f32(y - x)))
""").Fit()
    x, y = mt.windows(text[:-1], 8, stride=4), mt.windows(text[1:], 8, stride=4)
    assert x.shape == (11, 8) and y[0].tolist() == list(range(1, 9))
    assert run.fit({"x": x, "y": y}, batch=4, progress=False).epochs[0].examples == 11


def test_a_schedule_observes_the_monitored_figure(tmp_path) -> None:
    text = SINGLE.replace("Adam(lr=0.05)", "SGD(lr=ReduceOnPlateau(0.1, patience=0))")
    library, batch = mt.loads(text), data()
    run = library.Fit(seed=1)
    # The held-out loss cannot fall: it is of labels that have nothing to do with the data.
    held_out = {"x": batch["x"], "y": 100 * np.sign(batch["y"][::-1])}
    options = {"checkpoint": tmp_path / "c", "resume": True, "progress": False}
    history = run.fit(batch, held_out, epochs=4, **options)
    (rate,) = (a for path, a in run.arrays.items() if path.endswith("lr.current"))
    worse = [e.test["loss"] for e in history.epochs]
    falls = sum(later >= 0.9999 * min(worse[: i + 1]) for i, later in enumerate(worse[1:]))
    assert rate == pytest.approx(0.1 * 0.1**falls) and falls > 0
    again = library.Fit(seed=1)
    again.fit(batch, held_out, epochs=4, **options)
    assert again.step(**batch) == run.step(**batch)


def test_optimizers_of_trees_see_what_they_are_for() -> None:
    text = """
module ByNorm():
    \"\"\"Steps of length 1 over all parameters, and their number.\"\"\"
    state steps: i32 = 0

    map (p: tree, g: tree) -> tree:
        steps <- steps + 1
        p - g / norm(g)
"""
    for optimizer, length in (("ByNorm()", 1), ('[("*.w", ByNorm()), ("*.b", ByNorm())]', 2**0.5)):
        block = SINGLE.replace("Adam(lr=0.05)", optimizer).replace("Dense(3)", "Net()")
        net = "\nmodule Net():\n    only = Dense(3)\n    map (x: f32[n, d]): only(x)\n"
        run = mt.loads(text + net + block).Fit(seed=1)
        run.step(**data())
        before = {path: run.net.params[path].copy() for path in ("only.w", "only.b")}
        run.step(**data())
        change = np.sqrt(sum(((run.arrays[p] - a) ** 2).sum() for p, a in before.items()))
        assert change == pytest.approx(length, rel=1e-5)
        steps = {path: int(a) for path, a in run.arrays.items() if path.endswith("steps")}
        assert set(steps.values()) == {2} and len(steps) == round(length**2)


def test_frozen_parameters_cost_nothing() -> None:
    text = """
module Net():
    body = Dense(5, tanh)
    head = Dense(3)

    map (x: f32[n, d]): head(body(x))

train Fit(net = Net(), optimizer = [("body.*", Frozen()), ("*", SGD(lr=0.1))]):
    loss(x: f32[n, 4], y: f32[n, 3]) = mse(net(x), y)
"""
    batch, library = data(), mt.loads(text)
    run = library.Fit(seed=1)
    run.step(**batch)
    before = {path: array.copy() for path, array in run.net.params.items()}
    run.step(**batch)
    changed = {path for path, array in run.net.params.items() if (array != before[path]).any()}
    assert changed == {"head.w", "head.b"}
    types = {"x": mt.f32[24, 4], "y": mt.f32[24, 3]}

    def contractions(trainer: mt.Trainer) -> int:
        return trainer.compiled_step.ir(**types).count(" contract ")

    everything = mt.loads(text.replace("Frozen()", "SGD(lr=0.1)")).Fit(seed=1)
    # Neither the gradients by the body's weights and biases nor the cotangent of its result.
    assert contractions(run) == contractions(everything) - 3


def test_averaged_weights_are_evaluated() -> None:
    text = SINGLE.replace("Adam(lr=0.05)", "EMA(SGD(lr=0.5), decay=0.5)")
    run, batch = mt.loads(text).Fit(seed=1), data()
    run.evaluate(**batch)
    averages: dict[str, np.ndarray] = {}
    for _ in range(3):
        run.step(**batch)
        for path, array in run.net.params.items():
            averages[path] = (averages.get(path, array) + array) / 2
    raw = mse_gradient(run.arrays["w"], run.arrays["b"], batch["x"], batch["y"])[0]
    expected = mse_gradient(averages["w"], averages["b"], batch["x"], batch["y"])[0]
    assert raw != pytest.approx(expected, rel=1e-3)
    assert run.evaluate(**batch)["loss"] == pytest.approx(expected, rel=1e-5)
    run.average_weights()
    np.testing.assert_allclose(run.net.params["w"], averages["w"], rtol=1e-5)


RECORDS = """
module Range():
    state low: f32 = 0
    state high: f32 = 0

    map (x: f32[n, m]):
        low <- minimum(low, min(x))
        high <- maximum(high, max(x))
        (low = low, high = high)

train Fit(net = Dense(3), optimizer = SGD(lr=0.1)):
    seen = Range()

    loss(x: f32[n, 4], y: f32[n, 3]):
        let found = net(x)
        (value = mse(found, y), error = mae(found, y), shape = found)

    metric range(x: f32[n, 4]) = seen(x)
    metric sizes(x: f32[n, 4]) = (mean(abs(x)), mean(x^2))
"""


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_records_of_figures(precision: str) -> None:
    run, batch = mt.loads(RECORDS).Fit(seed=1), data()
    options = {"batch": 10, "precision": precision, "progress": False}
    epoch = run.fit(batch, batch, **options).epochs[0]
    assert set(epoch.train) == {"loss.error"} and epoch.train["loss.error"] > 0
    found = run.step(**batch)
    assert isinstance(found, dict) and set(found) == {"loss", "loss.error"}
    x = batch["x"]
    assert (epoch.test["range.low"], epoch.test["range.high"]) == (x.min(), x.max())
    assert epoch.test["sizes"] == pytest.approx(np.abs(x).mean(), rel=1e-5)
    assert epoch.test["sizes.1"] == pytest.approx((x**2).mean(), rel=1e-5)


def test_lists_of_numbers_are_arrays() -> None:
    trainers = [mt.loads(SINGLE).Fit(seed=2) for _ in range(2)]
    arrays = data(8)
    lists = {name: array.tolist() for name, array in arrays.items()}
    for run, given in zip(trainers, (arrays, lists), strict=True):
        run.fit(given, epochs=2, batch=4, progress=False)
    for path, array in trainers[0].arrays.items():
        assert np.array_equal(array, trainers[1].arrays[path])
    for wrong in ([["a"] * 4] * 8, [[1.0], [1.0, 2.0]]):
        with pytest.raises(mt.DataError, match="`x`"):
            trainers[0].fit({**arrays, "x": wrong}, progress=False)


@pytest.mark.parametrize("option", [{"epochs": "2"}, {"batch": 2.5}, {"max_steps": 1e3}])
def test_counts_are_whole_numbers(option) -> None:
    run = mt.loads(SINGLE).Fit(seed=2)
    with pytest.raises(mt.TrainingError, match=f"{next(iter(option))} is .* whole number"):
        run.fit(data(8), **{"batch": 4, "progress": False, **option})
    run.fit(data(8), epochs=np.int64(1), batch=np.int32(4), progress=False)
