"""Kernels for programs of one's own: `mapsto build --target nvptx64-sm_80`, and C that uses it."""

from __future__ import annotations

import ctypes
import json
import subprocess
from pathlib import Path

import pytest
from cli_harness import Workspace
from fake_cuda import COMPILER, FakeCuda
from safetensors.numpy import load_file

import mapsto as mt
from mapsto.cli import main as mapsto
from mapsto.compiler import Options, optimized
from mapsto.lowering.gpu.program import GpuProgram, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "gpu"
TARGET = "nvptx64-sm_80"
SIZES = {"n": 4, "d": 3, "m": 2}
STATIC = [f"--static={name}={size}" for name, size in SIZES.items()]


def test_the_files_say_what_to_launch(workspace: Workspace) -> None:
    tmp_path, output = workspace.folder, workspace.folder / "scale.ptx"
    source = f"{EXAMPLE / 'scale.mto'}:layer"
    done = workspace.run("build", source, "--target", TARGET, *STATIC, "-o", output)
    assert (done.code, done.err) == (0, "")
    facts = json.loads((tmp_path / "scale.json").read_text())
    assert facts["target"] == TARGET and facts["code"] == "scale.ptx"
    plan = facts["functions"]["layer"]
    assert [(a["name"], a["bytes"]) for a in plan["arguments"]] == [("x", 48), ("w", 24)]
    assert [r["shape"] for r in plan["results"]] == [[4, 2], [4]]
    text = output.read_text()
    for step in plan["steps"]:
        assert f".entry {step['kernel']}(" in text
        assert len(step["grid"]) == 3 and facts["kernels"][step["kernel"]]["block"]
    buffers = {p["buffer"] for step in plan["steps"] for p in step["arguments"]}
    assert {"x", "w", "result0", "result1"} <= buffers


def test_parameters_of_a_training_step_are_beside_it(workspace: Workspace) -> None:
    source = workspace.write(
        "net.mto",
        """
module Net():
    layer = Dense(3)

    map (x: f32[n, d]) -> f32[n, 3]: layer(x)

train Fit(net = Net(), optimizer = SGD(lr=0.1, momentum=0.9)):
    loss(x: f32[n, d], y: f32[n, 3]) = mse(net(x), y)
""",
    )
    tmp_path, output = workspace.folder, workspace.folder / "net.ptx"
    static = ["--static=n=4", "--static=d=2"]
    done = workspace.run(
        "build", f"{source}:Fit,Fit.net", "--target", TARGET, *static, "-o", output
    )
    assert done.code == 0, done.err
    functions = json.loads((tmp_path / "net.json").read_text())["functions"]
    step = functions["step"]
    updated = {a["name"] for a in step["arguments"] if a["updated"]}
    assert {"layer.w", "layer.b"} <= updated
    arrays = load_file(tmp_path / "net.safetensors")
    assert arrays["layer.w"].shape == (2, 3)
    named = {a["name"] for a in step["arguments"] if a["kind"] == "parameter"}
    assert named <= set(arrays)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "nvptx64-sm_1", "-o", "a.ptx"], "no GPU target `nvptx64-sm_1`: there are"),
        (["--target", TARGET, "-o", "a.so"], "should end in .ptx"),
        (["--target", TARGET, "-o", "a.ptx"], "code for a GPU has fixed sizes: give --static d=N"),
    ],
)
def test_mistakes(workspace: Workspace, arguments: list[str], message: str) -> None:
    done = workspace.run("build", f"{EXAMPLE / 'scale.mto'}:layer", *arguments)
    assert done.code == 1
    assert message in done.err and done.err.startswith("error: ")


def test_what_the_host_decides_is_no_list_of_launches(workspace: Workspace) -> None:
    workspace.write(
        "count.mto",
        """
map halved(x: f32[1]) -> f32[1]:
    map large(y: f32[1]) -> bool: y[0] > 1

    map half(y: f32[1]) -> f32[1]: y / 2

    while(large, half, x)
""",
    )
    done = workspace.run("build", "count.mto:halved", "--target", TARGET, "-o", "a.ptx")
    assert done.code == 1
    assert "need the host on the way" in done.err


def test_a_program_in_c_launches_them(
    tmp_path: Path, fake_library: Path, fake_cuda: FakeCuda, capfd: pytest.CaptureFixture[str]
) -> None:
    source = f"{EXAMPLE / 'scale.mto'}:layer"
    output = tmp_path / "scale.ptx"
    assert mapsto(["build", source, "--target", TARGET, *STATIC, "-o", str(output)]) == 0
    fake_cuda.assemble(_program())
    main = _compiled(tmp_path, fake_library).main
    main.argtypes = [ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
    arguments = (ctypes.c_char_p * 3)(b"launch", str(output).encode(), None)
    capfd.readouterr()
    assert main(2, arguments) == 0
    ctypes.CDLL(None).fflush(None)
    rows = [3.0 * i for i in range(4)]
    expected = [f"{y:g} {y:g}, {2 * y * y:g}" for y in rows]
    assert capfd.readouterr().out.splitlines() == expected


def _program() -> GpuProgram:
    elaborated = mt.load(EXAMPLE / "scale.mto").layer.elaborate(
        {"x": mt.f32[4, 3], "w": mt.f32[3, 2]}, {}
    )
    module = optimized(elaborated.module, Options())
    return lower_gpu(module, elaborated.entry, GpuTarget.named(TARGET))


def _compiled(folder: Path, library: Path) -> ctypes.CDLL:
    """The example as a library in this process, on the stand-in for the driver."""
    output = folder / "launch.so"
    flags = ["-Wall", "-Werror", "-shared", "-fPIC", f"-I{folder}"]
    flags.append(f"-I{Path(__file__).with_name('include')}")
    command = [str(COMPILER), *flags, "-o", str(output), str(EXAMPLE / "launch.c"), str(library)]
    subprocess.run(command, check=True)
    return ctypes.CDLL(str(output))
