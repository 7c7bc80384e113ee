"""The speed table: mapsto beside PyTorch and NumPy's BLAS, in one run.

    pip install -e '.[bench]'
    python benchmarks/table.py [--seconds 1] [--output docs/performance.md]

All candidates of a row take turns; figures are medians.  The results of each row are compared with
the peer's before it is timed.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Timing, interleaved
from peers import TorchMLP
from threadpoolctl import threadpool_limits

import mapsto as mt

MODELS = Path(__file__).parent / "models" / "mlp.mto"
THREADS = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    work: str
    mapsto: Timing
    peer: Timing
    peer_name: str

    @property
    def ratio(self) -> float:
        """How many times faster than the peer."""
        return self.peer.median / self.mapsto.median


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Lets mapsto, NumPy's BLAS and PyTorch use so many threads."""
    mt.set_threads(count)
    torch.set_num_threads(count)
    with threadpool_limits(count):
        yield


def compare(
    work: str, ours: Callable[[], Any], peer: Callable[[], Any], name: str, seconds: float
) -> Row:
    """Times the two in turn and prints the row."""
    timings = interleaved({"mapsto": ours, name: peer}, seconds)
    row = Row(work, timings["mapsto"], timings[name], name)
    print(f"{work:40} {row.mapsto!s:>22}  {name} {row.peer!s:>22}  {row.ratio:.2f}x", flush=True)
    return row


def model_rows(seconds: float) -> Iterator[Row]:
    """Inference and training of the two perceptrons, two threads."""
    library = mt.load(MODELS)
    random = np.random.default_rng(0)
    cases = (("digits 64-128-10", "Small", "Digits", (64, 128, 10)),)
    cases += (("mlp 784-512-512-10", "MLP", "Large", (784, 512, 512, 10)),)
    for label, module, train, sizes in cases:
        for batch in (1, 128):
            x = random.normal(size=(batch, sizes[0])).astype(np.float32)
            net = getattr(library, module)(seed=0)
            y = net(x)
            peer = TorchMLP(sizes, net.params)
            np.testing.assert_allclose(y, peer.forward(x)().numpy(), rtol=1e-4, atol=1e-5)
            ours, theirs = partial(net, x), peer.forward(x)
            yield compare(f"infer {label}, batch {batch}", ours, theirs, "PyTorch", seconds)
        yield training_row(label, library, module, train, sizes, seconds)


def training_row(
    label: str, library: Any, module: str, train: str, sizes: tuple[int, ...], seconds: float
) -> Row:
    """A step with Adam at batch 128, both from the same weights."""
    random = np.random.default_rng(1)
    x = random.normal(size=(128, sizes[0])).astype(np.float32)
    y = random.integers(0, sizes[-1], 128).astype(np.int32)
    net = getattr(library, module)(seed=0)
    net(x)
    peer = TorchMLP(sizes, net.params).step(x, y)
    run = getattr(library, train)(net=net)
    for _ in range(5):
        np.testing.assert_allclose(run.step(x=x, y=y), peer(), rtol=1e-3)
    work = f"train step + Adam {label}, batch 128"
    return compare(work, lambda: run.step(x=x, y=y), peer, "PyTorch", seconds)


def product_rows(seconds: float) -> Iterator[Row]:
    """The matrix product in index notation against NumPy's BLAS."""
    library = mt.load(MODELS)
    random = np.random.default_rng(2)
    for count in (1, 2):
        with threads(count):
            for n in (256, 512, 1024, 2048):
                a, b = (random.normal(size=(n, n)).astype(np.float32) for _ in range(2))
                out = np.empty_like(a)
                np.testing.assert_allclose(library.product(a, b), a @ b, rtol=1e-3, atol=1e-2)
                plural = "s" if count > 1 else ""
                yield compare(
                    f"matrix product n = {n}, {count} thread{plural}",
                    partial(library.product, a, b),
                    partial(np.matmul, a, b, out=out),
                    "NumPy",
                    seconds,
                )


def call_row(seconds: float) -> Row:
    """What a call from Python costs: the sum of two arrays of four elements."""
    library = mt.load(MODELS)
    a, b = np.ones(4, np.float32), np.ones(4, np.float32)
    add = library.add
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    return compare(
        "call: sum of two arrays of 4", lambda: add(a, b), lambda: x + y, "PyTorch", seconds
    )


def compile_seconds() -> list[tuple[str, float]]:
    """Seconds of the first call of each training step, from the loaded source to the first loss."""
    found = []
    for label, train, inputs in (("digits", "Digits", 64), ("mlp", "Large", 784)):
        run = getattr(mt.load(MODELS), train)()
        x, y = np.zeros((128, inputs), np.float32), np.zeros(128, np.int32)
        start = time.perf_counter()
        run.step(x=x, y=y)
        found.append((label, time.perf_counter() - start))
        print(f"first call of the training step, {label}: {found[-1][1]:.2f} s", flush=True)
    return found


def markdown(rows: list[Row], compiles: list[tuple[str, float]]) -> str:
    """The page with the table, the machine and the versions."""
    lines = [
        "# Performance",
        "",
        "Made by `python benchmarks/table.py`; medians of interleaved rounds, two threads unless a",
        "row says otherwise.  Absolute times belong to the machine; the ratios are what counts.",
        "",
        f"Machine: {machine_text()}.  {versions_text()}.",
        "",
        "| work | mapsto | peer | ratio |",
        "|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.work} | {row.mapsto} | {row.peer_name} {row.peer} | {row.ratio:.2f} |"
        )
    lines += ["", "First call of a training step (parsing, compiling, one step):", ""]
    lines += [f"- {label}: {seconds:.2f} s" for label, seconds in compiles]
    return "\n".join(lines) + "\n"


def machine_text() -> str:
    """The processor and the vectors that are used."""
    machine = mt.Machine.host()
    return f"{machine.cpu}, {machine.cores} cores, {machine.vector_bits}-bit vectors"


def versions_text() -> str:
    """What was compared."""
    return (
        f"mapsto {mt.__version__}, PyTorch {torch.__version__}, NumPy {np.__version__},"
        f" Python {platform.python_version()}"
    )


def main() -> None:
    """Measures every row and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each candidate")
    parser.add_argument("--output", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    compiles = compile_seconds()
    with threads(THREADS):
        rows = [*model_rows(options.seconds), call_row(options.seconds)]
    rows += product_rows(options.seconds)
    if options.output is not None:
        options.output.write_text(markdown(rows, compiles), encoding="utf-8")


if __name__ == "__main__":
    main()
