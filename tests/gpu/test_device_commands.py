"""`--device` of the commands."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
from cli_harness import Workspace


def test_training_on_a_device(workspace: Workspace) -> None:
    workspace.data()
    train = ("train", "program.mto", "--data", "data.npz", "--batch", "8", "--epochs", "2")
    here = workspace.run(*train)
    there = workspace.run(*train, "--device", "gpusim", "--save", "w.safetensors")
    assert (there.code, there.err) == (0, "")
    assert there.out.splitlines()[:2] == here.out.splitlines()[:2]
    x = workspace.array("x.npy", np.ones((2, 4), np.float32))
    run = ("run", "program.mto:Linear", "--weights", "w.safetensors", "--input", x)
    assert workspace.run(*run, "--output", "here.npy").code == 0
    assert workspace.run(*run, "--output", "there.npy", "--device", "gpusim").code == 0
    np.testing.assert_allclose(np.load("there.npy"), np.load("here.npy"), rtol=1e-5)


def test_results_on_a_device_are_printed(workspace: Workspace) -> None:
    x = workspace.array("x.npy", np.ones((1, 2), np.float32))
    run = ("run", "program.mto:scale", "--input", x)
    assert workspace.run(*run, "--device", "gpusim").out == workspace.run(*run).out


@pytest.mark.parametrize("device", ["tpu", "cuda:77", "opencl:77"])
def test_a_device_that_is_not_there(workspace: Workspace, device: str) -> None:
    x = workspace.array("x.npy", np.ones((1, 2), np.float32))
    outcome = workspace.run("run", "program.mto:scale", "--input", x, "--device", device)
    assert outcome.code == 1
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--stage", "ptx"), ".target sm_80"),
        (("--stage", "ptx", "--target", "nvptx64-sm_90"), ".target sm_90"),
        (("--stage", "loops", "--target", "nvptx64-sm_80"), "block"),
        (("--stage", "llvm", "--target", "nvptx64-sm_80"), "ptx_kernel"),
        (("--stage", "spirv"), "OpEntryPoint"),
    ],
)
def test_stages(workspace: Workspace, arguments: tuple[str, ...], expected: str) -> None:
    sizes = ("--static", "n=8", "--static", "d=4")
    outcome = workspace.run("ir", "program.mto:scale", *sizes, *arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert expected in outcome.out


def test_an_unknown_target(workspace: Workspace) -> None:
    outcome = workspace.run("ir", "program.mto:scale", "--stage", "ptx", "--target", "sm_80")
    assert outcome.code == 1
    assert "no GPU target `sm_80`: there are nvptx64-sm_75" in outcome.err


def test_the_example_trains_on_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example = Path(__file__).parents[2] / "examples" / "gpu" / "digits.py"
    monkeypatch.setattr("sys.argv", ["digits.py", "--device", "gpusim", "--epochs", "1"])
    runpy.run_path(str(example), run_name="__main__")
    epoch, speed = capsys.readouterr().out.splitlines()
    assert float(epoch.split()[-1]) > 0.5
    assert speed.endswith("ms a step on gpusim, compiling and evaluation included")
