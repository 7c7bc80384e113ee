"""The examples that are Python programs, shortened: they run, and they learn."""

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mapsto.cli import main as mapsto

EXAMPLES = Path(__file__).parents[2] / "examples"
PROMPT = "And God said, Let there be light"
"""Half a context long, so that the code that writes the first half writes the second as well."""

PROGRAMS = {
    "linear_regression": ["--steps", "300"],
    "physics": ["--steps", "600"],
    "packages_recommender": ["git", "gti", "--epochs", "2"],
    "detection": ["--steps", "12", "--scenes", "60", "--held-out", "20"],
    "kjv_gpt": ["--steps", "40", "--length", "64", "--prompt", PROMPT],
    "variational_autoencoder": ["--epochs", "2", "--images", "640"],
    "custom_loop": ["--epochs", "10"],
    "fine_tune": ["--epochs", "20", "--first", "2"],
}


def run(name: str, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys) -> str:
    """What the program prints, the progress of a training behind the rest."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr()
    return printed.out + printed.err


def numbers(pattern: str, text: str) -> list[float]:
    return [float(number) for number in re.findall(pattern + r" (-?[0-9.]+(?:e-?[0-9]+)?)", text)]


def test_linear_regression(monkeypatch, capsys) -> None:
    text = run("linear_regression", PROGRAMS["linear_regression"], monkeypatch, capsys)
    assert numbers("differ by", text)[0] < 1e-6
    losses = numbers("loss", text)
    assert losses == sorted(losses, reverse=True)
    assert numbers("test accuracy", text)[0] > 0.9
    assert numbers("exact solution", text)[0] > 0.9


def test_physics(monkeypatch, capsys, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "burgers.png"
    options = [*PROGRAMS["physics"], "--plot", str(picture)]
    text = run("physics", options, monkeypatch, capsys)
    losses = numbers("loss", text)
    assert losses[-1] < losses[0] / 3
    assert numbers("largest error", text)[0] < 0.8
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_packages_recommender(monkeypatch, capsys) -> None:
    options = PROGRAMS["packages_recommender"]
    text = run("packages_recommender", options, monkeypatch, capsys)
    rates = numbers("hit rate", text)
    assert rates[1] > max(rates[0], 0.38), "the most popular dependencies reach 0.35"
    assert "git depends on " in text
    assert "gti: no such package" in text


def test_detection(monkeypatch, capsys) -> None:
    text = run("detection", PROGRAMS["detection"], monkeypatch, capsys)
    losses = numbers("loss", text)
    assert losses[-1] < losses[0]
    assert 0 <= numbers("mean average precision", text)[0] <= 1


def test_a_transformer_that_writes(monkeypatch, capsys) -> None:
    text = run("kjv_gpt", PROGRAMS["kjv_gpt"], monkeypatch, capsys)
    assert numbers("held out", text)[0] < 3.2, "all characters alike are 4.3"
    written = text.split("\n", 1)[1]
    assert written.startswith(PROMPT)
    assert len(written.rstrip("\n")) <= len(PROMPT) + 64


def test_variational_autoencoder(monkeypatch, capsys, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    options = [*PROGRAMS["variational_autoencoder"], "--plot", str(tmp_path / "plane.png")]
    text = run("variational_autoencoder", options, monkeypatch, capsys)
    losses = numbers("test loss", text)
    assert losses[1] < losses[0] < 545, "an untrained one has 784 * log(2)"
    assert (tmp_path / "plane.png").stat().st_size > 1000


def test_custom_loop(monkeypatch, capsys) -> None:
    text = run("custom_loop", PROGRAMS["custom_loop"], monkeypatch, capsys)
    assert len(numbers("generator", text)) == 10
    assert numbers(r"forgeries \(", text.replace("(", "( "))[0] > 0.7


def test_fine_tune(monkeypatch, capsys, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    options = [*PROGRAMS["fine_tune"], "--plot", str(tmp_path / "confusion.png")]
    text = run("fine_tune", options, monkeypatch, capsys)
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    before, everything, last, adapters = numbers("accuracy", text)[1:]
    assert min(everything, last, adapters) > before + 0.05
    changed = [int(number) for number in re.findall("([0-9]+) parameters", text)]
    assert changed == [0, 85002, 2570, 4392]


@pytest.fixture(scope="module")
def detection() -> ModuleType:
    module = ModuleType("detection")
    module.__file__ = str(EXAMPLES / "detection.py")
    sys.modules["detection"] = module
    source = (EXAMPLES / "detection.py").read_text("utf-8")
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module


def test_scenes_know_where_their_digits_are(detection) -> None:
    data = np.load(EXAMPLES / "data" / "mnist.npz")
    scenes = detection.compose(data["x_test"], data["y_test"], 30, seed=4)
    for pixels, boxes in zip(scenes.pixels, scenes.boxes, strict=True):
        inside = np.zeros_like(pixels, bool)
        for left, top, right, bottom in boxes.astype(int):
            inside[top:bottom, left:right] = True
            assert pixels[top:bottom, left:right].max() > 100
        assert not pixels[~inside].any()
    targets = scenes.targets()
    assert (targets["label"] < 10).sum() <= sum(map(len, scenes.digits))


def test_average_precision(detection) -> None:
    boxes = np.float32([[0, 0, 10, 10], [20, 20, 40, 40]])
    scenes = detection.Scenes(np.zeros((1, 64, 64), np.uint8), [np.int32([3, 3])], [boxes])
    right, wrong = (boxes[0], 3, 0.9), (boxes[0] + 30, 3, 0.8)
    assert detection.average_precision(3, [[right, (boxes[1], 3, 0.7)]], scenes) == 1
    assert detection.average_precision(3, [[right]], scenes) == 0.5
    assert detection.average_precision(3, [[right, right]], scenes) == 0.5, "claimed once"
    found = [[right, wrong, (boxes[1], 3, 0.7)]]
    assert detection.average_precision(3, found, scenes) == pytest.approx((1 + 2 / 3) / 2)


@pytest.mark.parametrize("name", PROGRAMS)
def test_its_program_is_right_and_laid_out(name: str) -> None:
    path = str(EXAMPLES / f"{name}.mto")
    assert mapsto(["check", path]) == 0
    assert mapsto(["fmt", "--check", path]) == 0
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    assert f"python examples/{name}.py" in text
    assert "rints" in text and "It takes" in text
