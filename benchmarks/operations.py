"""Small programs beside PyTorch: index notation, what memory bounds, layers and their gradients.

    pip install -e '.[bench]'
    python benchmarks/operations.py [--match 'convolution*'] [--output benchmarks/operations.md]

Both run in this process on two threads and take turns, with a pause between in which waiting
threads go to sleep; a figure is the median of all samples.  Results and gradients are compared
before they are timed.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from operation_cases import MEMORY_BOUND, PROGRAMS, WRITTEN, AdamStep, Case, MemoryCase
from speed_report import about_machine, duration

import mapsto as mt
from mapsto.runtime.roofline import Level, measure_roofline
from mapsto.runtime.threads import set_threads
from mapsto.runtime.timing import samples_of

SETTLE_SECONDS = 0.02
ROUNDS = 5
TOLERANCE = 1e-4
"""Of the greatest element: sums are in another order."""

Call = Callable[[], Any]


class Bench:
    """Times calls in turns."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def medians(self, **calls: Call) -> dict[str, float]:
        """The median seconds of each."""
        samples: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(ROUNDS):
            for name, call in calls.items():
                time.sleep(SETTLE_SECONDS)
                samples[name] += samples_of(call, self.seconds / ROUNDS, least=3)
        return {name: float(np.median(found)) for name, found in samples.items()}


def compare(name: str, found: Any, expected: Any) -> None:
    """Raises SystemExit unless arrays are those of PyTorch."""
    for array, tensor in zip(found, expected, strict=True):
        wanted = tensor.detach().numpy()
        if array.shape != wanted.shape:
            raise SystemExit(f"{name}: a result of shape {array.shape}, expected {wanted.shape}")
        error = float(np.abs(array - wanted).max() / max(np.abs(wanted).max(), 1e-30))
        if not error <= TOLERANCE:
            raise SystemExit(f"{name}: results differ by {error:.1e} of the greatest")


# ---- the tables


Line = Mapping[str, str]


def written(cases: Sequence[Case], bench: Bench) -> Iterator[Line]:
    """Index notation beside the library and PyTorch."""
    for case in cases:
        found = bench.medians(**values(case))
        library = found.get("library")
        yield {
            "work": case.name,
            "n": str(case.size),
            "mapsto": duration(found["mapsto"]),
            "library": duration(library) if library else "",
            "PyTorch": duration(found["PyTorch"]),
            "times the library": f"{library / found['mapsto']:.2f}" if library else "",
            "times PyTorch": f"{found['PyTorch'] / found['mapsto']:.2f}",
        }


def programs(cases: Sequence[Case], bench: Bench) -> Iterator[Line]:
    """Values, and values with gradients, beside PyTorch."""
    for case in cases:
        value = bench.medians(**values(case))
        gradient = bench.medians(**gradients(case))
        yield {
            "work": case.name,
            "value": duration(value["mapsto"]),
            "PyTorch": duration(value["PyTorch"]),
            "times": f"{value['PyTorch'] / value['mapsto']:.2f}",
            "with gradient": duration(gradient["mapsto"]),
            "PyTorch ": duration(gradient["PyTorch"]),
            "times ": f"{gradient['PyTorch'] / gradient['mapsto']:.2f}",
        }


def values(case: Case) -> dict[str, Call]:
    """The calls that give the results, which agree."""
    tensors = [torch.from_numpy(array) for array in case.arrays]
    maps = mt.loads(case.source())
    peer = torch.inference_mode()(lambda: case.torch(*tensors))
    calls: dict[str, Call] = {"mapsto": lambda: maps.written(*case.arrays), "PyTorch": peer}
    if case.library:
        calls["library"] = lambda: maps.library(*case.arrays)
    expected = peer()
    compare(case.name, [calls["mapsto"]()], [expected])
    return calls


def gradients(case: Case) -> dict[str, Call]:
    """The calls that give the result's product with a cotangent and its gradient by all arguments,
    which agree."""
    tensors = [torch.from_numpy(array).requires_grad_() for array in case.arrays]
    result = case.torch(*tensors)
    cotangent = torch.rand_like(result.detach())
    loss = mt.loads(case.source_of_loss(result.shape)).loss
    program = mt.value_and_grad(loss, argnums=tuple(range(len(tensors))))
    arguments = (*case.arrays, cotangent.numpy())

    def peer() -> Any:
        return torch.autograd.grad(case.torch(*tensors), tensors, cotangent)

    found = program(*arguments)[1]
    compare(f"gradient of {case.name}", found, peer())
    return {"mapsto": lambda: program(*arguments), "PyTorch": peer}


SHAPES: Mapping[str, tuple[int, int]] = {
    "L2": (256, 384),
    "L3": (1024, 1024),
    "memory": (4096, 4096),
}
"""Matrices that fit, with as large a result, into each level for both threads."""


def memory_bound(cases: Sequence[MemoryCase | AdamStep], bench: Bench) -> Iterator[Line]:
    """Bytes a second beside PyTorch and beside what the machine reads and writes."""
    levels = {level.name: level for level in measure_roofline().levels}
    for case in cases:
        for name, shape in SHAPES.items():
            if isinstance(case, AdamStep):
                yield _adam_line(case, levels[name], math.prod(shape) // 4, bench)
            else:
                yield _memory_line(case, levels[name], shape, bench)


def _memory_line(case: MemoryCase, level: Level, shape: tuple[int, int], bench: Bench) -> Line:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    n, m = shape
    program = mt.loads(f"map f(x: f32[{n}, {m}]): {case.body.format(m=m)}").f
    out = np.empty([{"n": n, "m": m}[size] for size in case.result.split(", ")], np.float32)
    tensor, result = torch.from_numpy(x), torch.empty(out.shape)
    calls = {
        "mapsto": lambda: program(x, out=out),
        "PyTorch": torch.inference_mode()(lambda: case.torch(tensor, result)),
    }
    for call in calls.values():
        call()
    compare(case.name, [out], [result])
    written = out.nbytes if case.passes == 2 else 0
    return _line_of_memory(case.name, level, x.nbytes, written, bench.medians(**calls))


def _adam_line(case: AdamStep, level: Level, n: int, bench: Bench) -> Line:
    g = np.random.default_rng(0).normal(size=n).astype(np.float32)
    step = mt.loads(case.source(n)).Step(seed=0)
    peer = case.peer(torch.from_numpy(g))
    step.step(g=g)
    compare(case.name, [step.net.params["w"]], [peer()])
    found = bench.medians(mapsto=lambda: step.step(g=g), PyTorch=peer)
    return _line_of_memory(case.name, level, 4 * g.nbytes, 3 * g.nbytes, found)


def _line_of_memory(
    name: str, level: Level, read: int, written: int, found: Mapping[str, float]
) -> Line:
    least = read / level.read + written / level.written
    speeds = {peer: (read + written) / seconds / 1e9 for peer, seconds in found.items()}
    return {
        "work": name,
        "in": level.name,
        "mapsto, GB/s": f"{speeds['mapsto']:.1f}",
        "PyTorch, GB/s": f"{speeds['PyTorch']:.1f}",
        "of the machine's": f"{100 * least / found['mapsto']:.0f} %",
        "times PyTorch": f"{found['PyTorch'] / found['mapsto']:.2f}",
    }


# ---- the page


def markdown(lines: Sequence[Line]) -> str:
    """A table."""
    head = list(lines[0])
    rows = [head, ["---"] * len(head), *(list(line.values()) for line in lines)]
    return "\n".join(f"| {' | '.join(cell.strip() for cell in row)} |" for row in rows)


def means(lines: Sequence[Line]) -> str:
    """The geometric means of the columns of ratios, over the lines that have one."""
    found = []
    for column in (name for name in lines[0] if name.startswith("times")):
        ratios = [float(line[column]) for line in lines if line[column]]
        found.append(f"{math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f} {column.strip()}")
    return f"Geometric means: {', '.join(found)}."


ABOUT = """\
Made by `python benchmarks/operations.py`, which says how it is measured: on two threads, each
program beside PyTorch's function in turns, medians. Times belong to a machine, and to what else it
does; ratios of one run are what counts. A gradient is by all arguments, from a given cotangent of
the result. `of the machine's` compares with the least time for as many bytes read and written at
that level of memory, as `mapsto bench --roofline` measures it; more than all is possible where what
is written has just been read."""


def page(tables: Mapping[str, Sequence[Line]]) -> str:
    """What was measured."""
    versions = [f"mapsto {mt.__version__}", f"PyTorch {torch.__version__}"]
    parts = ["# Operations", ABOUT, about_machine(versions)]
    for title, lines in tables.items():
        parts += [f"## {title}", markdown(lines), means(lines)] if lines else []
    return "\n\n".join(parts) + "\n"


# ---- the command


def _chosen(cases: Sequence[Any], pattern: str) -> Sequence[Any]:
    return [case for case in cases if fnmatch.fnmatch(case.name, pattern)]


def _shown(lines: Iterator[Line]) -> Sequence[Line]:
    """The lines, printed as they come."""
    found = []
    for line in lines:
        print("  ".join(f"{key.strip()} {value}" for key, value in line.items()), flush=True)
        found.append(line)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and writes what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--match", default="*", help="a pattern of names, such as 'convolution*'")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each call (0.5)")
    parser.add_argument("--threads", type=int, default=2, help="and processors (2)")
    parser.add_argument("--output", type=Path, help="write a Markdown page")
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    torch.set_num_threads(options.threads)
    set_threads(options.threads)
    bench = Bench(options.seconds)
    tables = {
        title: _shown(measure(_chosen(cases, options.match), bench))
        for title, measure, cases in (
            ("Written in index notation", written, WRITTEN),
            ("What memory bounds", memory_bound, MEMORY_BOUND),
            ("Programs and their gradients", programs, PROGRAMS),
        )
    }
    if options.output:
        options.output.write_text(page(tables), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
