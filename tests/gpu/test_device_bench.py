"""`mapsto bench` for GPUs: launches with their times on a device, and what they ask of a GPU."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from cli_harness import Workspace
from fake_cuda import FakeCuda

import mapsto as mt
from mapsto import device_benchmark
from mapsto.compiler import Options
from mapsto.device_benchmark import DeviceReport, measure
from mapsto.ir.core import Array
from mapsto.lowering.gpu.program import GpuProgram
from mapsto.runtime.ptxas import Assembled, AssemblerNotFound, Resources

PROGRAM = """
map running(w: f32[d, d], h: f32[n, d], xs: f32[t, n, d]) -> (f32[n, d], f32[t, n]):
    map step(h: f32[n, d], x: f32[n, d]) -> (f32[n, d], f32[n]):
        let next = tanh(x + h @ w)
        (next, sum(next * next, axis=1))

    scan(step, h, xs)

map halves(x: f32[n]) -> f32[n]:
    map is_large(x: f32[n]) -> bool: max(x) > 1
    map half(x: f32[n]) -> f32[n]: x / 2
    while(is_large, half, x)
"""
SIZES = ("--static", "d=4", "--static", "n=3", "--static", "t=5")


@pytest.fixture
def bench(workspace: Workspace) -> Workspace:
    workspace.write("bench.mto", PROGRAM)
    return workspace


def with_assembler(monkeypatch: pytest.MonkeyPatch, registers: int | None) -> None:
    """An assembler that says so of every kernel; None: there is none."""

    def assemble_ptx(ptx: str, architecture: str) -> Assembled:
        if registers is None:
            raise AssemblerNotFound("there is no ptxas")
        names = [line.split()[-1].rstrip("(") for line in ptx.splitlines() if ".entry" in line]
        return Assembled(b"", {name: Resources(registers, 0, 0, 4, 8) for name in names})

    monkeypatch.setattr(device_benchmark, "assemble_ptx", assemble_ptx)


def test_launches_on_a_device_are_timed(bench: Workspace) -> None:
    found = bench.bench_figures("bench.mto:running", *SIZES, "--device", "gpusim")
    assert found["device"].startswith("gpusim") and found["seconds"] > 0
    kernels = [step for step in found["steps"] if step["grid"]]
    assert sum(step["runs"] for step in kernels) == found["launches"]
    assert {step["runs"] for step in kernels} == {5}, "each kernel runs at each of five steps"
    assert all(step["seconds"] > 0 for step in found["steps"])
    # At each step 3 x 4 sums of 4 products, what is added to them, and tanh of it.
    assert sum(step["operations"] for step in kernels) >= 5 * 2 * 3 * 4 * 4
    assert kernels[0]["registers"] is None and kernels[0]["occupancy"] is None


def test_what_the_host_decides_is_measured_too(bench: Workspace) -> None:
    np.save(bench.folder / "x.npy", np.array([7, 1], np.float32))
    device = ("--device", "gpusim")
    found = bench.bench_figures("bench.mto:halves", "--input", "x.npy", *device)
    # 7, 3.5, 1.75 are too large; the condition is asked for once more.
    assert {step["runs"] for step in found["steps"] if step["grid"]} == {3, 4}


@pytest.mark.parametrize("registers", [32, None])
def test_what_a_gpu_is_asked_for(
    bench: Workspace, monkeypatch: pytest.MonkeyPatch, registers: int | None
) -> None:
    with_assembler(monkeypatch, registers)
    arguments = ("bench.mto:running", *SIZES, "--target", "nvptx64-sm_80")
    found = bench.bench_figures(*arguments)
    assert found["seconds"] is None and found["target"] == "nvptx64-sm_80"
    assert {step["seconds"] for step in found["steps"]} == {None}
    step = next(step for step in found["steps"] if step["grid"])
    assert step["registers"] == registers
    if registers is not None:
        assert step["spilled_bytes"] == 12
        # 32 blocks of a warp are a multiprocessor's 2048 threads by half.
        assert step["occupancy"] == 32 * np.prod(step["block"]) / 2048
    text = bench.run("bench", *arguments).out
    assert "nothing was run" in text
    assert ("nvidia-cuda-nvcc" in text) is (registers is None)
    assert ("occupancy" in text.splitlines()[0]) is (registers is not None)


def test_table(bench: Workspace) -> None:
    outcome = bench.run(
        "bench", "bench.mto:running", *SIZES, "--device", "gpusim", "--seconds", "0.02"
    )
    assert outcome.code == 0, outcome.err
    head, *_ = outcome.out.splitlines()
    assert head.split() == [
        "kernel",
        "what",
        "runs",
        "time",
        "share",
        "GFLOP/s",
        "GB/s",
        "grid",
        "block",
        "shared",
    ]
    assert "launches, one by one," in outcome.out


def measured_twice(fake: FakeCuda) -> DeviceReport:
    library = mt.loads("map twice(x: f32[n]) -> f32[n]: 2 * x")
    elaborated = library.twice.elaborate({"x": mt.f32[4]}, {})
    nothing: Mapping[str, Array] = {}
    inputs = [np.ones(4, np.float32)]
    return measure(fake.device(), elaborated, Options(), nothing, lambda function: inputs, 0.01)


def test_events_take_the_times_of_cuda(
    fake_cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(program: GpuProgram) -> None:
        return None

    monkeypatch.setattr(device_benchmark, "_resources", nothing)
    report = measured_twice(fake_cuda)
    (launch,) = report.launches
    assert launch.seconds == pytest.approx(0.0015) and launch.runs == 1
    assert fake_cuda.launched, "the kernel was run"


def test_mistakes(bench: Workspace) -> None:
    running, gpu = ("bench.mto:running", *SIZES), ("--target", "nvptx64-sm_80")
    bench.fails("bench", *running, *gpu, "--device", "gpusim", says="give --device")
    bench.fails("bench", *running, "--target", "nvptx64", says="no GPU target")
    bench.fails("bench", *running, *gpu, "--roofline", says="measures the CPU")
    bench.fails("bench", "--roofline", *gpu, says="measures the CPU")
    bench.fails("bench", "bench.mto:halves", "--static", "n=2", *gpu, says="need the host")
    bench.fails("bench", *running, "--device", "gpu", says="no device `gpu`")
