"""`mapsto train`: figures, files, resuming, and what can be wrong with the data."""

import importlib.util
import json

import numpy as np
import pytest
from cli_harness import PROGRAM, Workspace

from mapsto.runtime.checkpoint import load_checkpoint

TRAIN = ("train", "program.mto", "--data", "data.npz", "--batch", "8")


def test_lines_and_figures(workspace: Workspace) -> None:
    workspace.data()
    outcome = workspace.run(*TRAIN, "--epochs", "3", "--save", "w.safetensors")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [["epoch", f"{i}/3"] for i in (1, 2, 3)]
    assert [line.rpartition(" ")[0] for line in lines[3:]] == [
        "train loss",
        "test loss",
        "test error",
        "wrote",
    ]
    arrays, _ = load_checkpoint("w.safetensors")
    assert {name: a.shape for name, a in arrays.items()} == {"layer.w": (4, 3), "layer.b": (3,)}


def test_json_lines(workspace: Workspace) -> None:
    workspace.data()
    outcome = workspace.run(*TRAIN, "--epochs", "2", "--json")
    first, second, last = map(json.loads, outcome.out.splitlines())
    assert (first["epoch"], second["epoch"]) == (1, 2)
    assert last["epochs"] == 2
    assert last["result"] == {"loss": second["loss"], "test": second["test"]}
    assert set(last["result"]["test"]) == {"loss", "error"}


def test_test_data_of_a_file_of_its_own(workspace: Workspace) -> None:
    workspace.data()
    with np.load("data.npz") as found:
        np.savez("train.npz", x=found["x_train"], y=found["y_train"])
        np.savez("test.npz", x=found["x_test"], y=found["y_test"])
    together = workspace.run(*TRAIN).out
    apart = workspace.run(
        "train", "program.mto:Fit", "--data", "train.npz", "--test", "test.npz", "--batch", "8"
    )
    assert apart.out == together
    untested = workspace.run("train", "program.mto:Fit", "--data", "train.npz")
    assert "test" not in untested.out


def test_equal_seeds_give_equal_bits(workspace: Workspace) -> None:
    workspace.data()
    written = []
    for seed, threads in ((1, 1), (1, 2), (2, 1)):
        options = ("--seed", seed, "--threads", threads, "--save", "w.safetensors")
        assert workspace.run(*TRAIN, *options).code == 0
        written.append(workspace.folder.joinpath("w.safetensors").read_bytes())
    assert written[0] == written[1] != written[2]


def test_resuming_gives_the_same_bits(workspace: Workspace) -> None:
    workspace.data()
    workspace.run(*TRAIN, "--epochs", "4", "--save", "whole.safetensors")
    workspace.run(*TRAIN, "--epochs", "2", "--checkpoint", "c.ckpt")
    resumed = workspace.run(
        *TRAIN, "--epochs", "4", "--resume", "c.ckpt", "--save", "parts.safetensors"
    )
    assert resumed.code == 0
    assert resumed.out.splitlines()[0].startswith("epoch 3/4")
    folder = workspace.folder
    whole, parts = folder / "whole.safetensors", folder / "parts.safetensors"
    assert whole.read_bytes() == parts.read_bytes()


def test_wrong_checkpoints(workspace: Workspace) -> None:
    workspace.data()
    workspace.fails(*TRAIN, "--resume", "none.ckpt", says="--resume none.ckpt: no such file")
    workspace.fails(*TRAIN, "--resume", "program.mto", says="not a valid safetensors file")
    workspace.fails(*TRAIN, "--resume", "a", "--checkpoint", "b", says="name different files")
    assert workspace.run(*TRAIN, "--resume", "c", "--checkpoint", "c").code == 0
    workspace.fails(*TRAIN, "--resume", "c", "--seed", "3", says="was made with seed 0, not 3")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": np.zeros(5)}, "has no array `x` or `x_train`; it holds `z`"),
        ({"x": np.zeros((5, 4)), "z": np.zeros(5)}, "has no array `y` or `y_train`"),
        ({"x": np.zeros((5, 4)), "y": np.zeros((6, 3))}, "different numbers of examples"),
        ({"x": np.zeros((5, 9)), "y": np.zeros((5, 3))}, "`x`: expected f32[n, 4]"),
        ({"x": np.zeros((5, 4)), "y": np.array(["a"] * 5)}, "`y`: expected f32[n, 3]"),
        ({"x": np.zeros((0, 4)), "y": np.zeros((0, 3))}, "holds no examples"),
    ],
)
def test_wrong_data(workspace: Workspace, arrays: dict[str, object], message: str) -> None:
    np.savez("data.npz", **arrays)
    assert workspace.fails(*TRAIN, says=message).startswith("error: data.npz: ")


def test_files_that_are_no_data(workspace: Workspace) -> None:
    workspace.fails(*TRAIN, says="data.npz: no such file")
    workspace.array("x.npy", [1.0]).rename("data.npz")
    workspace.fails(*TRAIN, says="data.npz: not a readable .npz file")
    workspace.fails("train", "program.mto", "--data", ".", says=".: the folder has no .npy files")


def test_wrong_blocks_and_options(workspace: Workspace) -> None:
    workspace.data()
    data = ("--data", "data.npz")
    workspace.fails("train", "program.mto:Fti", *data, says="did you mean `Fit`?")
    workspace.fails("train", "program.mto:Linear", *data, says="is not a `train` block")
    workspace.write("none.mto", "map f(x: f32[n]) -> f32[n]:\n    x\n")
    workspace.fails("train", "none.mto", *data, says="name a `train` block; the file has none")
    second = PROGRAM[PROGRAM.index("train Fit") :].replace("Fit", "Other")
    workspace.write("two.mto", f"{PROGRAM}\n{second}")
    workspace.fails("train", "two.mto", *data, says="the file has 2: Fit, Other")
    workspace.fails(*TRAIN, "--epochs", "0", says="epochs is 0")
    workspace.fails(*TRAIN, "--batch", "-1", says="batch is -1")
    workspace.fails(*TRAIN, "--save", "none/w", says="none/w: there is no folder none")
    workspace.fails(*TRAIN, "--save", ".", says="is a folder")
    workspace.fails(*TRAIN, "--static", "rate=1", says="`Fit` has nothing of this name")
    assert workspace.run(*TRAIN, "--epochs", "few").code == 2


def test_a_loss_that_is_no_number(workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype(np.float32) * 1e18
    np.savez("data.npz", x=x, y=np.zeros((64, 3), np.float32))
    outcome = workspace.run(*TRAIN, "--epochs", "50", "--checkpoint", "c.ckpt", "--save", "w.st")
    assert outcome.code == 1
    assert "error: the loss is" in outcome.err
    assert not workspace.folder.joinpath("w.st").exists()


def test_plots(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.data()
    if importlib.util.find_spec("matplotlib") is not None:
        assert workspace.run(*TRAIN, "--plot", "loss.png").code == 0
        assert workspace.folder.joinpath("loss.png").read_bytes().startswith(b"\x89PNG")
        workspace.fails(
            *TRAIN, "--plot", "loss.mp3", says="loss.mp3: no pictures of this type; there are"
        )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    workspace.fails(*TRAIN, "--plot", "loss.png", says="pip install 'mapsto[plot]'")
