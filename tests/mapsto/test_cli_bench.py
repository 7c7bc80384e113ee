"""`mapsto bench`: every kernel with its share, its work, and what it is bound by."""

from __future__ import annotations

import numpy as np
import pytest
from cli_harness import Workspace

from mapsto.commands import bench as command
from mapsto.commands.sample_inputs import index_bounds, sample
from mapsto.ir.parser import parse_module
from mapsto.ir.types import DType, TensorType
from mapsto.runtime.roofline import Level, Roofline

PROGRAM = """
map product(a: f32[m, k], b: f32[k, n]) -> f32[m, n]:
    [i, j] |-> exp(sum[l](a[i, l] * b[l, j]))

module Reader(units: int = 8):
    table = Embedding(50, units)
    lstm = LSTM(units)
    head = Dense(4)

    map (ids: i32[n, t]) -> f32[n, 4]:
        let (steps, hidden, cell) = lstm(table(ids))
        head(steps[:, -1])

train Fit(net = Reader(), optimizer = SGD(lr=0.1)):
    loss(ids: i32[n, t], y: i32[n]) = cross_entropy(net(ids), y)
"""


@pytest.fixture
def bench(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace on a machine whose peak is known."""
    levels = (Level("L1", 10**5, 1e11, 1e11), Level("memory", 10**9, 1e10, 1e10))
    monkeypatch.setattr(command, "measure_roofline", lambda machine: Roofline(2, 1e12, levels))
    workspace.write("bench.mto", PROGRAM)
    return workspace


def test_work_of_a_product(bench: Workspace) -> None:
    sizes = ("--static", "m=32", "--static", "k=64", "--static", "n=16")
    found = bench.bench_figures("bench.mto:product", *sizes)
    (step,) = found["steps"]
    assert step["operations"] == 2 * 32 * 64 * 16 + 32 * 16
    assert step["bytes_read"] == 4 * (32 * 64 + 64 * 16) and step["bytes_written"] == 4 * 32 * 16
    assert step["bound"] == "L1" and step["runs"] == 1
    assert step["floor_seconds"] == pytest.approx((step["bytes_read"] + 2048) / 1e11)
    assert 0 < step["seconds"] <= 2 * found["seconds"]
    assert found["arena_bytes"] == found["live_bytes"] == 0


def test_steps_of_loops_add_up(bench: Workspace) -> None:
    found = bench.bench_figures("bench.mto:Fit", "--static", "n=3", "--static", "t=5")
    inner = [step for step in found["steps"] if ".body." in step["name"]]
    assert inner and all(step["runs"] % 5 == 0 or "ahead" in step["name"] for step in inner)
    assert sum(step["name"].endswith(".scan") for step in found["steps"]) == 1
    assert found["operations"] == sum(step["operations"] for step in found["steps"])
    assert found["arena_bytes"] >= found["live_bytes"] > 0
    assert found["parameter_bytes"] > 4 * 50 * 8
    assert {"passes", "lowering", "code"} == set(found["compile_seconds"])


def test_table(bench: Workspace) -> None:
    arguments = ("--static", "n=3", "--static", "t=5", "--seconds", "0.02")
    outcome = bench.run("bench", "bench.mto:Reader", *arguments, "--roofline")
    assert outcome.code == 0
    assert "multiply-adds" in outcome.out and "GFLOP/s" in outcome.out
    assert "contract 3x32x8" in outcome.out and "a call takes" in outcome.out


def test_machine_alone(bench: Workspace) -> None:
    found = bench.bench_figures("--roofline")
    assert found["machine"]["operations_per_second"] == 1e12
    assert [level["name"] for level in found["machine"]["levels"]] == ["L1", "memory"]
    assert "steps" not in found


def test_inputs_of_files(bench: Workspace) -> None:
    a = np.ones((4, 8), np.float32)
    np.save(bench.folder / "a.npy", a)
    np.save(bench.folder / "b.npy", a.T)
    found = bench.bench_figures("bench.mto:product", "--input", "a.npy", "--input", "b=b.npy")
    assert found["operations"] == 2 * 4 * 8 * 4 + 16


def test_mistakes(bench: Workspace) -> None:
    bench.fails("bench", says="error: name what to measure")
    bench.fails("bench", "bench.mto:Reader", says="give --static n=64 --static t=64")
    bench.fails("bench", "bench.mto:Reader", "--seconds", "0", says="give a positive number")
    bench.fails("bench", "bench.mto:product,Reader", says="name one entry")


INDICES = """
func @f(%ids: i32[8, 2], %y: i64[4], %table: f32[100, 16]) -> (f32[8, 16], f32[4]) {
  %0 = slice %ids {sizes = [8, 1], starts = [0, 1], steps = [1, 1]} : i32[8, 1]
  %1 = reshape %0 : i32[8]
  %2 = gather %table, %1 {axes = [0]} : f32[8, 16]
  %3 = slice %table {sizes = [4, 10], starts = [0, 0], steps = [1, 1]} : f32[4, 10]
  %4 = iota {axis = 0} : i64[4]
  %5 = gather %3, %4, %y {axes = [0, 1]} : f32[4]
  return %2, %5
}
"""


def test_bounds_of_indices() -> None:
    assert index_bounds(parse_module(INDICES)["f"]) == {0: 100, 1: 10}


@pytest.mark.parametrize("dtype", list(DType))
def test_sampled_inputs(dtype: DType) -> None:
    array = sample(TensorType(dtype, (5, 40)), 3, seed=1)
    assert array.shape == (5, 40) and DType.of(array.dtype) in (dtype, DType.F32)
    if dtype.is_integer:
        assert set(np.unique(array)) == {0, 1, 2}
        assert not sample(TensorType(dtype, (5,)), None, seed=1).any()
    else:
        assert len(np.unique(array)) > 1
