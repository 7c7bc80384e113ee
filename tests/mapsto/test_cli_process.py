"""The command as a process: `python -m mapsto`, pipes, devices, interrupts, start-up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_harness import PROGRAM, WRONG

COMMAND = [sys.executable, "-m", "mapsto"]


def run(folder: Path, *arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [*COMMAND, *arguments], cwd=folder, text=True, stderr=subprocess.PIPE, **options
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.joinpath("program.mto").write_text(PROGRAM)
    tmp_path.joinpath("wrong.mto").write_text(WRONG)
    return tmp_path


def test_usage_and_version(folder: Path) -> None:
    version = run(folder, "--version", stdout=subprocess.PIPE)
    assert version.stdout.startswith("mapsto ")
    wrong = run(folder, "no-such-command", stdout=subprocess.PIPE)
    assert wrong.returncode == 2
    assert "invalid choice" in wrong.stderr


def test_a_reader_that_stops_early(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = run(folder, "ir", "program.mto:Fit", "--stage", "llvm", stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_full_disk_behind_the_output(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        done = run(folder, "ir", "program.mto:Fit", stdout=full)
    assert (done.returncode, done.stderr) == (1, "error: no space left on device\n")


def test_interrupting_a_training_keeps_its_checkpoint(folder: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 4)).astype(np.float32)
    np.savez(folder / "d.npz", x=x, y=x[:, :3])
    command = [
        "train",
        "program.mto",
        "--data",
        "d.npz",
        "--epochs",
        "1000000",
        "--checkpoint",
        "c",
    ]
    process = subprocess.Popen(
        [*COMMAND, *command],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("epoch")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("error: interrupted at epoch")
    assert "saved in c" in errors
    assert folder.joinpath("c").exists()


def test_check_does_not_load_the_compiler(folder: Path) -> None:
    code = (
        "import sys\nfrom mapsto.cli import main\nmain(['check', 'program.mto'])\n"
        "heavy = {'llvmlite', 'safetensors', 'rich', 'matplotlib', 'mapsto.runtime.jit'}\n"
        "sys.exit(' '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_public_name_is_there() -> None:
    import mapsto

    assert all(getattr(mapsto, name) is not None for name in mapsto.__all__)
    assert set(mapsto.__all__) == set(dir(mapsto))
    homes = {name for names in mapsto._HOMES.values() for name in names}
    assert homes | {"ir", "__version__"} == set(mapsto.__all__)
    with pytest.raises(AttributeError, match="no attribute 'bogus'"):
        mapsto.bogus  # noqa: B018
