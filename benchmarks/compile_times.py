"""How long examples take to check and to compile: the table in benchmarks/compile_times.md.

    python benchmarks/compile_times.py [--rounds 3]

Each example runs in a process of its own, with everything imported, a warm cache of parse tables
and library trees, and nothing compiled.  `check` is from the text to the typed program, `step` from
there to the end of the first training step: elaboration, differentiation, passes, code generation,
one step.  Figures are medians in seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_suffix(".md")

Arrays = Mapping[str, tuple[str, tuple[int, ...]]]
"""The dtype and the shape of each array of a batch."""

_IMAGES: Arrays = {"x": ("f4", (64, 28, 28)), "y": ("i4", (64,))}
_DIGITS: Arrays = {"x": ("f4", (64, 64)), "y": ("i4", (64,))}
STEPS: Mapping[str, tuple[str, Arrays]] = {
    "digits": ("Digits", _DIGITS),
    "own_parts": ("Digits", _DIGITS),
    "convolution": ("Digits", _DIGITS),
    "custom_layer": ("Digits", _DIGITS),
    "mnist_cnn": ("Mnist", _IMAGES),
    "mnist_rows_lstm": ("Mnist", _IMAGES),
    "kjv_gpt": ("Text", {"x": ("i4", (12, 64)), "y": ("i4", (12, 64))}),
    "variational_autoencoder": ("Digits", {"x": ("f4", (64, 28, 28))}),
    "physics": ("Burgers", {"x": ("f4", (256,)), "t": ("f4", (256,))}),
    "packages_recommender": (
        "Recommender",
        {"user": ("i4", (2048,)), "item": ("i4", (2048,)), "others": ("i4", (2048, 8))},
    ),
    "detection": (
        "Detection",
        {"x": ("f4", (32, 64, 64)), "label": ("i4", (32, 8, 8)), "box": ("f4", (32, 8, 8, 4))},
    ),
}
"""The training step of each example, and its batch."""


def measure(example: str) -> dict[str, float]:
    """Seconds to check and to the end of the first step, in this process."""
    import mapsto as mt
    from mapsto.dsl.checking import check_file

    # Imports what a first step needs: that is no part of the compilation.
    mt.loads("map one(x: f32[n]) -> f32[n]: x + 1").one(np.zeros(1, np.float32))
    train, arrays = STEPS[example]
    path = ROOT / "examples" / f"{example}.mto"
    start = time.perf_counter()
    if mistakes := check_file(path):
        raise SystemExit(f"{example}: {len(mistakes)} mistakes")
    checked = time.perf_counter()
    run = getattr(mt.load(path), train)(seed=0)
    run.step(**{name: np.zeros(shape, dtype) for name, (dtype, shape) in arrays.items()})
    return {"check": checked - start, "step": time.perf_counter() - checked}


def median_of(example: str, rounds: int) -> dict[str, float]:
    """The medians over processes of their own."""
    command = [sys.executable, __file__, "--measure", example]
    environment = {**os.environ, "MAPSTO_CACHE_LIMIT": "0"}
    outputs = [
        subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        for _ in range(rounds)
    ]
    found = [json.loads(output) for output in outputs]
    return {name: statistics.median(figures[name] for figures in found) for name in found[0]}


def page(table: Mapping[str, Mapping[str, float]]) -> str:
    """The page with the table."""
    lines = [
        "# Compile times",
        "",
        "Made by `python benchmarks/compile_times.py`, which says what is measured; seconds on two",
        "cores.",
        "",
        "| example | check | first training step |",
        "|---|---|---|",
        *(f"| {name} | {row['check']:.2f} | {row['step']:.2f} |" for name, row in table.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures every example and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    table = {}
    for example in STEPS:
        table[example] = median_of(example, options.rounds)
        print(f"{example:26} " + "  ".join(f"{k} {v:.2f} s" for k, v in table[example].items()))
    PAGE.write_text(page(table), encoding="utf-8")


if __name__ == "__main__":
    main()
