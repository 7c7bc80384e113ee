"""Small programs for the tests of the command line, and a way to run it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.cli import main

PROGRAM = '''"""A program with one of everything."""

map scale(x: f32[n, d], by: f32 = 2.0) -> f32[n, d]:
    """x times a number."""
    x * by

map split(x: f32[n, d]) -> (f32[n], f32[n]):
    (sum(x, axis=-1), max(x, axis=-1))

map repeat[T](x: T[...s], times: int) -> T[...s]:
    x * times

module Linear(units: int = 3):
    """A dense layer."""
    layer = Dense(units)

    map (x: f32[n, d]) -> f32[n, units]:
        layer(x)

    map hidden(x: f32[n, d]) -> f32[n, units]:
        """The layer with a relu."""
        relu(layer(x))

train Fit(net = Linear(), optimizer = SGD(lr=0.1)):
    loss(x: f32[n, 4], y: f32[n, 3]) = mse(net(x), y)
    metric error(x: f32[n, 4], y: f32[n, 3]) = mae(net(x), y)
'''

WRONG = """map first(x: f32[n, d]) -> f32[n]:
    x

map second(x: f32[n]) -> f32[n]:
    relo(x)
"""


@dataclass
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


class Workspace:
    """A folder with a program, where commands run."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.capture = capture
        self.write("program.mto", PROGRAM)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def array(self, name: str, array: object) -> Path:
        path = self.folder / name
        np.save(path, np.asarray(array))
        return path

    def data(self, name: str = "data.npz", examples: int = 40) -> Path:
        """Examples of a linear function, for `Fit`."""
        rng = np.random.default_rng(0)
        x = rng.normal(size=(examples, 4)).astype(np.float32)
        y = x @ rng.normal(size=(4, 3)).astype(np.float32)
        half = examples // 2
        arrays = {"x_train": x[:half], "y_train": y[:half], "x_test": x[half:], "y_test": y[half:]}
        np.savez(self.folder / name, **arrays)
        return self.folder / name

    def run(self, *arguments: object) -> Outcome:
        """Runs the command; usage errors end it as they end the process."""
        self.capture.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = self.capture.readouterr()
        return Outcome(code, captured.out, captured.err)

    def bench_figures(self, *arguments: object) -> dict[str, Any]:
        """What a short `bench` with these arguments measures."""
        outcome = self.run("bench", *arguments, "--json", "--seconds", "0.02")
        assert outcome.code == 0, outcome.err
        found: dict[str, Any] = json.loads(outcome.out)
        return found

    def fails(self, *arguments: object, says: str) -> str:
        """Runs a command that fails with a message; gives what it wrote."""
        outcome = self.run(*arguments)
        assert outcome.code == 1, outcome
        assert says in outcome.err, outcome.err
        assert "Traceback" not in outcome.err
        return outcome.err
