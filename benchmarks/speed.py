"""The speed table: mapsto beside PyTorch, JAX, ONNX Runtime and OpenVINO, in one run.

    pip install -e '.[bench]'
    python benchmarks/speed.py [--rows 'train-*'] [--peers mapsto,jax] [--quick] [--output PAGE.md]

Each peer runs in a process of its own, on the same processors with as many threads, from the same
weights.  Of each row the results are compared with PyTorch's before anything is timed; a peer whose
results differ is not timed.  First calls are made one after another; then the peers take turns, and
a figure is the median of all samples.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from peers import PEERS, installed
from speed_process import Failed, PeerProcess, write_reference
from speed_report import Cell, Result, tables, write_report
from speed_rows import EVERY, Row

from mapsto.runtime.timing import Timing

ROUNDS = 9
TOLERANCE = 1e-3
"""Of the greatest element: sums are in another order, and steps add up."""


def measure(row: Row, peers: Sequence[str], options: argparse.Namespace, folder: Path) -> Result:
    """A line of the table."""
    folder.mkdir()
    write_reference(row, folder, with_onnx=not {"onnxruntime", "openvino"}.isdisjoint(peers))
    cells: dict[str, Cell] = {}
    with ExitStack() as stack:
        running: dict[str, PeerProcess] = {}
        for name in filter(row.suits, peers):
            process = stack.enter_context(PeerProcess(name, row, folder, options.threads))
            try:
                cells[name] = Cell(process.version, first=process.ask("first")["seconds"])
                check(name, folder)
                running[name] = process
            except Failed as failure:
                cells[name] = Cell(process.version, failure=str(failure))
                print(f"{row.key}: {name}: {failure}", file=sys.stderr)
        for name, samples in take_turns(running, options).items():
            cells[name] = cells[name].with_timing(Timing.of(samples))
        for name, process in running.items():
            cells[name] = cells[name].with_memory(process.ask("memory")["bytes"])
    if "mapsto" in running:
        cells["mapsto"] = cells["mapsto"].again(*compiled_before(row, folder, options.threads))
    return Result(row, cells)


def check(name: str, folder: Path) -> None:
    """Raises Failed unless the results of a peer are those of PyTorch."""
    found, expected = np.load(folder / f"{name}.npy"), np.load(folder / "expected.npy")
    if found.shape != expected.shape:
        raise Failed(f"results of shape {found.shape}, expected {expected.shape}")
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if not error <= TOLERANCE:
        raise Failed(f"results differ by {error:.1e} of the greatest")


def take_turns(
    processes: Mapping[str, PeerProcess], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Samples of each, round after round."""
    samples: dict[str, list[float]] = {name: [] for name in processes}
    for _ in range(options.rounds):
        for name, process in processes.items():
            samples[name] += process.ask("time", options.seconds / options.rounds)["samples"]
    return samples


def compiled_before(row: Row, folder: Path, threads: int) -> tuple[float, int, Mapping[str, int]]:
    """Of mapsto in another process, which finds the code on disk: the seconds of the first call,
    the memory, and what the planner did."""
    with PeerProcess("mapsto", row, folder, threads) as process:
        first = process.ask("first")["seconds"]
        return first, process.ask("memory")["bytes"], process.ask("details")


# ---- the command


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", default="", help="patterns of names, such as infer-mlp-*,train-*")
    parser.add_argument("--peers", default=",".join(PEERS), help=f"some of {', '.join(PEERS)}")
    parser.add_argument("--threads", type=int, default=2, help="and processors (2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each peer of a row (2)")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="a look: 0.2 s in two rounds")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument("--note", default="", help="a remark for the page about this run")
    parser.add_argument("--json", type=Path, help="write all figures")
    parser.add_argument("--output", type=Path, help="write the tables into a Markdown page")
    parser.add_argument("--plot", type=Path, help="draw the table, such as speed.svg")
    options = parser.parse_args(arguments)
    if options.quick:
        options.seconds, options.rounds = 0.2, 2
    return options


def _chosen_rows(patterns: str) -> list[Row]:
    wanted = [p.strip() for p in patterns.split(",") if p.strip()] or ["*"]
    found = [row for row in EVERY if any(fnmatch.fnmatch(row.key, p) for p in wanted)]
    if not found:
        raise SystemExit(f"no row is named {patterns}; see --list")
    return found


def _chosen_peers(names: str) -> list[str]:
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in PEERS]
    if unknown:
        raise SystemExit(f"no peer is named {unknown[0]}; there are {', '.join(PEERS)}")
    missing = [name for name in wanted if not installed(name)]
    if missing:
        print(f"not installed: {', '.join(missing)}", file=sys.stderr)
    return [name for name in wanted if name not in missing]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the rows and writes what is asked for."""
    options = _options(arguments)
    rows = _chosen_rows(options.rows)
    if options.list:
        print("\n".join(f"{row.key:18} {row.text}" for row in rows))
        return 0
    peers = _chosen_peers(options.peers)
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[: options.threads])
    results = []
    with tempfile.TemporaryDirectory(prefix="mapsto-speed-") as folder:
        for row in rows:
            results.append(measure(row, peers, options, Path(folder, row.key)))
            print(results[-1].line(), flush=True)
            # After each row: a long run that is stopped is not lost.
            write_report(results, options)
    print("\n" + tables(results, options.note))
    return 0


if __name__ == "__main__":
    sys.exit(main())
