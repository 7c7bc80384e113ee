"""What it costs that sums do not depend on the number of threads.

    python benchmarks/reduction_order.py [--threads 2] [--match 'sum*'] [--seconds 1]

Long sums are cut into parts whose number follows from sizes alone, so that results are the same on
any number of threads.  Beside that, the same programs are compiled with as many tasks as there are
threads, as libraries divide sums.  Both run in this process and take turns; medians.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# Code that is kept on disk is found by the program, which is the same either way.
os.environ["MAPSTO_CACHE_LIMIT"] = "0"

import numpy as np
from speed_report import duration
from speed_rows import MODELS, ROWS, Row

import mapsto as mt
from mapsto.ir.dims import Dim
from mapsto.ir.stages import estimate
from mapsto.lowering.cpu import scheduling
from mapsto.lowering.kernel_work import Division
from mapsto.runtime.threads import set_threads
from mapsto.runtime.timing import samples_of

ROUNDS = 10
MODEL_FILES = Path(__file__).parent / "models"
SUMS = {
    "sum of 100,000": ("sum(x)", (100_000,)),
    "sum of 1,000,000": ("sum(x)", (1_000_000,)),
    "sum of 10,000,000": ("sum(x)", (10_000_000,)),
    "columns of 100,000 x 64": ("sum(x, axis=0)", (100_000, 64)),
    "mean and variance of 1,000,000": ("mean(x) + mean((x - mean(x))^2)", (1_000_000,)),
}

Call = Callable[[], Any]


@dataclass(frozen=True)
class ByThreads(Division):
    """As many tasks as threads, where the work is enough for them."""

    threads: int = 1

    def rows_per_task(self, rows: Dim, work: int) -> int:
        """An equal share of the rows."""
        share = -(-estimate((rows,)) // self.threads)
        return max(Division.rows_per_task(self, rows, work), share)


@contextmanager
def divided(division: Division) -> Iterator[None]:
    """What is compiled inside has its work divided like this."""
    before, scheduling.DIVISION = scheduling.DIVISION, division
    try:
        yield
    finally:
        scheduling.DIVISION = before


def sums() -> Iterator[tuple[str, Callable[[], Call]]]:
    """Names, and what compiles a call."""
    for name, (body, shape) in SUMS.items():
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        yield name, partial(_sum_of, f"map f(x: f32[{', '.join(map(str, shape))}]): {body}", x)


def _sum_of(text: str, x: Any) -> Call:
    return partial(mt.loads(text).f, x)


def training_steps() -> Iterator[tuple[str, Callable[[], Call]]]:
    """Those of the speed table."""
    for row in (row for row in ROWS if row.training):
        yield row.text, partial(_step_of, row)


def _step_of(row: Row) -> Call:
    library = mt.load(MODEL_FILES / f"{row.model}.mto")
    step = library.Step(net=getattr(library, MODELS[row.model].module)(seed=0))
    return partial(step.step, **row.inputs())


def measure(compiled: Callable[[], Call], by_threads: Division, seconds: float) -> list[float]:
    """The medians with fixed parts and with a task for each thread."""
    calls = []
    for division in (scheduling.DIVISION, by_threads):
        with divided(division):
            calls.append(compiled())
            calls[-1]()
    samples: list[list[float]] = [[], []]
    for _ in range(ROUNDS):
        for found, call in zip(samples, calls, strict=True):
            found += samples_of(call, seconds / ROUNDS, least=3)
    return [float(np.median(found)) for found in samples]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--match", default="*", help="a pattern of names")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each program (1)")
    options = parser.parse_args(arguments)
    set_threads(options.threads)
    by_threads = ByThreads(threads=options.threads)
    print("| work | the same on all threads | divided by threads | cost |")
    print("| --- | --- | --- | --- |")
    for name, compiled in (*sums(), *training_steps()):
        if not fnmatch.fnmatch(name, options.match):
            continue
        fixed, free = measure(compiled, by_threads, options.seconds)
        cost = f"{100 * (fixed / free - 1):+.0f} %"
        print(f"| {name} | {duration(fixed)} | {duration(free)} | {cost} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
