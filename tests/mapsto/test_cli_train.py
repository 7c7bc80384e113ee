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


def test_early_stopping_and_the_best(workspace: Workspace) -> None:
    workspace.data()
    options = ("--epochs", "9", "--patience", "2", "--monitor", "train loss", "--mode", "max")
    outcome = workspace.run(*TRAIN, *options, "--keep-best", "best", "--restore-best")
    lines = outcome.out.splitlines()
    assert lines[3:5] == [
        "stopped: `train loss` has not become better for 2 evaluations",
        "best epoch 1",
    ]
    as_json = workspace.run(*TRAIN, *options, "--json").out.splitlines()
    last = json.loads(as_json[-1])
    assert (last["epochs"], last["best_epoch"]) == (3, 1)
    assert last["stopped"].startswith("`train loss`")
    assert set(load_checkpoint("best")[0]) >= {"layer.w", "layer.b"}
    workspace.fails(*TRAIN, "--restore-best", says="name a file: keep_best")
    workspace.fails(*TRAIN, "--patience", "1", "--monitor", "acc", says="no figure `acc`")


def test_rhythm(workspace: Workspace) -> None:
    workspace.data()
    outcome = workspace.run(*TRAIN, "--json", "--max-steps", "2", "--evaluate-every", "1")
    first, second, epoch, last = map(json.loads, outcome.out.splitlines())
    assert (first["step"], set(first["test"])) == (1, {"loss", "error"})
    assert second == {"step": 2, "test": epoch["test"]}
    assert (epoch["step"], last["stopped"]) == (2, "it has made 2 steps")
    assert epoch["seconds"] > 0 and epoch["examples_per_second"] > 0
    for options in (("--accumulate", "2"), ("--precision", "bf16"), ("--drop-last",)):
        assert workspace.run(*TRAIN, *options, "--no-shuffle").code == 0
    workspace.fails(*TRAIN, "--drop-last", "--batch", "99", says="is larger than the data")
    assert workspace.run(*TRAIN, "--precision", "f8").code == 2


def test_arrays_of_several_files(workspace: Workspace) -> None:
    workspace.data()
    folder = workspace.folder / "parts"
    folder.mkdir()
    with np.load("data.npz") as found:
        for name in found.files:
            np.save(folder / f"{name}.npy", found[name])
    together = workspace.run(*TRAIN).out
    options = ("train", "program.mto", "--batch", "8")
    assert workspace.run(*options, "--data", "parts").out == together
    named = [f"--data={name}=parts/{name}.npy" for name in ("x_train", "y_train")]
    tested = [f"--test={name}=parts/{name}_test.npy" for name in ("x", "y")]
    assert workspace.run(*options, *named, *tested).out == together
    wrong = ("--data", "x=parts/x_train.npy", "--data")
    workspace.fails(*options, *wrong, "x=parts/y_train.npy", says="`x` is given twice")
    workspace.fails(*options, *wrong, "parts", says="of several files each is given as name=x.npy")
    workspace.fails(*options, *wrong, "y=none.npy", says="none.npy: no such file")
    np.save(folder / "y_test.npy", np.zeros((3, 3)))
    workspace.fails(*options, "--data", "parts", says="parts: the arrays have different numbers")


def test_configuration_of_the_modules_of_a_block(workspace: Workspace) -> None:
    workspace.data()
    text = workspace.folder.joinpath("program.mto").read_text()
    workspace.write("program.mto", text.replace("f32[n, 3]) = m", "f32[n, m]) = m"))
    workspace.fails(*TRAIN, "--static", "net.unit=3", says="`Linear` has no argument `unit`")
    workspace.fails(*TRAIN, "--static", "nett.units=3", says="`Fit` has nothing of this name")
    resting = workspace.run(*TRAIN, "--static", "optimizer.lr=0.0", "--epochs", "2")
    first, second = (line.partition("loss")[2] for line in resting.out.splitlines()[:2])
    assert first == second


LOSSES = """
train Pair(first = Dense(3), second = Dense(3), optimizer = SGD(lr=0.1)):
    loss one[first](x: f32[n, 4], y: f32[n, 3]) = mse(first(x), y)
    loss two[second](x: f32[n, 4]) = mse(second(x), stop_gradient(first(x)))
"""


def test_several_losses(workspace: Workspace) -> None:
    workspace.data()
    workspace.write("pair.mto", LOSSES)
    options = ("train", "pair.mto", "--data", "data.npz", "--batch", "8", "--save", "w.st")
    outcome = workspace.run(*options, "--json")
    epoch, last = map(json.loads, outcome.out.splitlines())
    assert set(epoch["train"]) == {"one", "two"}
    assert set(last["result"]["test"]) == {"loss", "one", "two"}
    assert {"first.w", "second.b"} <= set(load_checkpoint("w.st")[0])
    for entry in ("step", "step_two", "evaluate"):
        output = workspace.folder / f"{entry}.o"
        built = workspace.run("build", f"pair.mto:Pair.{entry}", "-o", output, "--weights", "w.st")
        assert (built.code, output.exists()) == (0, True), built.err
    workspace.fails("build", "pair.mto:Pair.step_tow", "-o", "o.o", says="did you mean `step_two`?")
    assert workspace.run("ir", "pair.mto:Pair.step_one", "--static", "n=8").code == 0
    assert workspace.run("ir", "pair.mto:Pair.first", "--static", "d=4").code == 0
