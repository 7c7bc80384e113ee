"""`mapsto run`: arrays in, arrays out, and what can be wrong with them."""

import errno
from pathlib import Path

import numpy as np
import pytest
from cli_harness import Workspace

import mapsto.library
from mapsto.runtime.checkpoint import save_checkpoint

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def test_prints_the_result(workspace: Workspace) -> None:
    x = workspace.array("x.npy", X)
    outcome = workspace.run("run", "program.mto:scale", "--input", x)
    assert (outcome.code, outcome.out) == (0, f"{X * 2!r}\n")
    tripled = workspace.run("run", "program.mto:scale", "--input", f"x={x}", "--static", "by=3.0")
    assert tripled.out == f"{X * 3!r}\n"


def test_writes_one_array_or_several(workspace: Workspace) -> None:
    x = workspace.array("x.npy", X)
    done = workspace.run("run", "program.mto:scale", "--input", x, "--output", "y.npy")
    assert (done.code, done.out) == (0, "")
    np.testing.assert_array_equal(np.load("y.npy"), X * 2)
    assert workspace.run("run", "program.mto:split", "--input", x, "--output", "y.npz").code == 0
    with np.load("y.npz") as found:
        np.testing.assert_array_equal(found["result0"], X.sum(1))
        np.testing.assert_array_equal(found["result1"], X.max(1))
    command = ("run", "program.mto:split", "--input", x)
    assert workspace.run(*command).out.count("array(") == 2
    workspace.fails(*command, "--output", "y.npy", says="2 arrays; name a .npz file")
    workspace.fails(*command, "--output", "y.txt", says="name a .npz file")


def test_elements_are_converted_without_surprises(workspace: Workspace) -> None:
    whole = workspace.array("whole.npy", X.astype(np.uint8))
    assert workspace.run("run", "program.mto:scale", "--input", whole).out == f"{X * 2!r}\n"
    words = workspace.array("words.npy", np.array(["a", "b"]))
    workspace.fails("run", "program.mto:scale", "--input", words, says="are not numbers")
    ids = workspace.array("ids.npy", np.array([1.5]))
    workspace.write("ids.mto", "map f(i: i32[n]) -> i32[n]:\n    i + 1\n")
    workspace.fails("run", "ids.mto:f", "--input", ids, says="does not fit i32 without loss")


def test_generic_maps_take_the_type_of_the_array(workspace: Workspace) -> None:
    x = workspace.array("x.npy", X.astype(np.float64))
    command = ("run", "program.mto:repeat", "--input", x, "--static", "times=3")
    assert workspace.run(*command).out == f"{X.astype(np.float64) * 3!r}\n"


def test_weights_come_from_a_file_or_from_the_seed(workspace: Workspace) -> None:
    x = workspace.array("x.npy", X)
    net = mapsto.library.load("program.mto").Linear(seed=5)
    expected = net(X)
    net.save("w.safetensors")
    command = ("run", "program.mto:Linear", "--input", x, "--output", "y.npy")
    given = workspace.run(*command, "--weights", "w.safetensors")
    assert (given.code, given.err) == (0, "")
    np.testing.assert_array_equal(np.load("y.npy"), expected)
    drawn = workspace.run(*command, "--seed", "5")
    assert "weights from the seed 5" in drawn.err
    np.testing.assert_array_equal(np.load("y.npy"), expected)
    workspace.run(*command, "--seed", "6")
    assert not np.array_equal(np.load("y.npy"), expected)
    hidden = workspace.run(
        "run", "program.mto:Fit.net.hidden", "--input", x, "--weights", "w.safetensors"
    )
    assert hidden.out == f"{np.maximum(expected, 0)!r}\n"


def test_evaluation_of_a_training_block(workspace: Workspace) -> None:
    x = workspace.array("x.npy", X)
    y = workspace.array("y.npy", np.zeros((2, 3), np.float32))
    outcome = workspace.run("run", "program.mto:Fit.evaluate", "--input", x, "--input", y)
    assert outcome.out.startswith("loss: array(")
    assert "\nerror: array(" in outcome.out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a readable .npy file"),
        (b"hello", "not a readable .npy file"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "not a readable .npy file"),
        (b"\x93NUMPY\x09\x00v\x00{}", "not a readable .npy file"),
    ],
)
def test_files_that_are_no_arrays(workspace: Workspace, content: bytes, message: str) -> None:
    workspace.folder.joinpath("x.npy").write_bytes(content)
    workspace.fails("run", "program.mto:scale", "--input", "x.npy", says=message)


def test_pickled_and_hostile_arrays(workspace: Workspace) -> None:
    np.save("x.npy", np.array([{"a": 1}], object), allow_pickle=True)
    workspace.fails("run", "program.mto:scale", "--input", "x.npy", says="not a readable .npy file")
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999,), }"
    huge = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    workspace.folder.joinpath("x.npy").write_bytes(huge)
    workspace.fails("run", "program.mto:scale", "--input", "x.npy", says="not a readable .npy file")


def test_wrong_inputs(workspace: Workspace) -> None:
    x = workspace.array("x.npy", X)
    vector = workspace.array("vector.npy", X[0])
    target = ("run", "program.mto:scale")
    workspace.fails(*target, says="`scale` needs --input x=FILE.npy")
    workspace.fails(*target, "--input", "none.npy", says="none.npy: no such file")
    workspace.fails(*target, "--input", workspace.folder, says="Is a directory")
    message = workspace.fails(*target, "--input", vector, says="expected f32[n, d], found f32[4]")
    assert "program.mto:3:14" in message
    three = ("--input", x) * 3
    workspace.fails(*target, *three, says="`scale` takes x, by; there are 3 inputs")
    wide = workspace.array("wide.npy", np.zeros((2, 5), np.float32))
    workspace.fails("run", "program.mto:Fit.step", "--input", wide, "--input", x, says="f32[n, 4]")


def test_wrong_weights(workspace: Workspace) -> None:
    x = workspace.array("x.npy", X)
    command = ("run", "program.mto:Linear", "--input", x, "--weights")
    workspace.fails(*command, "none.safetensors", says="none.safetensors: cannot be read")
    workspace.fails(*command, "program.mto", says="not a valid safetensors file")
    save_checkpoint("w.safetensors", {"layer.w": np.zeros((4, 3), np.float32)})
    workspace.fails(*command, "w.safetensors", says="lacks the array `layer.b`")
    bias = np.zeros(3, np.float32)
    save_checkpoint("w.safetensors", {"layer.w": np.zeros((4, 4), np.float32), "layer.b": bias})
    message = "the array `layer.w` is f32[4, 4], expected f32[4, 3]"
    workspace.fails(*command, "w.safetensors", says=message)
    double = {"layer.w": np.zeros((4, 3)), "layer.b": bias}
    save_checkpoint("w.safetensors", double)
    workspace.fails(*command, "w.safetensors", says="is f64[4, 3], expected f32[4, 3]")


def test_a_full_disk_leaves_the_old_result(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = workspace.array("x.npy", X)
    old = workspace.array("y.npy", [1])
    before = old.read_bytes()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    command = ("run", "program.mto:scale", "--input", x, "--output")
    workspace.fails(*command, "y.npy", says="y.npy: cannot be written: No space left on device")
    assert old.read_bytes() == before
    assert not list(workspace.folder.glob(".*"))
    monkeypatch.undo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_devices_are_written_not_replaced(workspace: Workspace) -> None:
    x = workspace.array("x.npy", X)
    link = workspace.folder / "full.npy"
    link.symlink_to("/dev/full")
    command = ("run", "program.mto:scale", "--input", x, "--output", "full.npy")
    workspace.fails(*command, says="No space left on device")
    assert Path("/dev/full").is_char_device()


def test_arrays_without_elements(workspace: Workspace) -> None:
    empty = workspace.array("x.npy", np.zeros((0, 4), np.float32))
    assert workspace.run("run", "program.mto:scale", "--input", empty).out.startswith("array([],")
    assert workspace.run("run", "program.mto:split", "--input", empty).out.count("array([],") == 2
    layer = workspace.run("run", "program.mto:Linear", "--input", empty)
    assert layer.out == "array([], shape=(0, 3), dtype=float32)\n"
