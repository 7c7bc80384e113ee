"""The speed table as text: Markdown tables, a plot, and lines while it is measured."""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS
from speed_rows import Row

from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.timing import Timing

__all__ = ["Cell", "Result", "about_machine", "duration", "page_with", "tables", "write_report"]

BEGIN, END = "<!-- speed table -->", "<!-- end of the speed table -->"


@dataclass(frozen=True)
class Cell:
    """One peer on one row: seconds of a call and of the first, bytes.

    `second` is the first call of another process that finds the code on disk, `plan` what the
    memory planner did; both of mapsto only.
    """

    version: str
    first: float | None = None
    timing: Timing | None = None
    memory: int | None = None
    failure: str = ""
    second: float | None = None
    plan: Mapping[str, int] = field(default_factory=dict)

    def with_timing(self, timing: Timing) -> Cell:
        """With the time of a call."""
        return replace(self, timing=timing)

    def with_memory(self, memory: int) -> Cell:
        """With the memory of the process."""
        return replace(self, memory=memory)

    def again(self, second: float, memory: int, plan: Mapping[str, int]) -> Cell:
        """With the figures of a process that compiles nothing."""
        return replace(self, second=second, memory=memory, plan=plan)


@dataclass(frozen=True)
class Result:
    """A row of the table."""

    row: Row
    cells: Mapping[str, Cell]

    @property
    def best(self) -> tuple[str, float] | None:
        """The quickest peer, and its seconds."""
        timed = [(cell.timing.median, name) for name, cell in self._others() if cell.timing]
        return min(timed)[::-1] if timed else None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the best peer."""
        own, best = self.cells.get("mapsto"), self.best
        if own is None or own.timing is None or best is None:
            return None
        return best[1] / own.timing.median

    def _others(self) -> Iterator[tuple[str, Cell]]:
        return ((name, cell) for name, cell in self.cells.items() if name != "mapsto")

    def line(self) -> str:
        """For people who wait."""
        found = (f"{name} {_timing(cell)}" for name, cell in self.cells.items())
        ratio = "" if self.ratio is None else f"  {self.ratio:.2f}x"
        return f"{self.row.key:18} {'  '.join(found)}{ratio}"

    def record(self) -> dict[str, Any]:
        """All figures."""
        return {"row": self.row.key, **{name: asdict(cell) for name, cell in self.cells.items()}}


def write_report(results: Sequence[Result], options: argparse.Namespace) -> None:
    """Writes the figures, the page and the plot that the options ask for."""
    if options.json:
        record = [result.record() for result in results]
        options.json.write_text(json.dumps(record, indent=1), encoding="utf-8")
    if options.output:
        text = tables(results, options.note)
        page = options.output.read_text(encoding="utf-8") if options.output.exists() else ""
        options.output.write_text(page_with(page, text), encoding="utf-8")
    if options.plot:
        draw([result for result in results if result.row.kind in ("infer", "train")], options.plot)


def page_with(page: str, text: str) -> str:
    """The page with the tables in their place, or at its end."""
    inside = f"{BEGIN}\n\n{text}\n{END}"
    if BEGIN not in page:
        return f"{page.rstrip()}\n\n{inside}\n".lstrip()
    before, _, rest = page.partition(BEGIN)
    return before + inside + rest.partition(END)[2]


# ---- Markdown


def tables(results: Sequence[Result], note: str = "") -> str:
    """Everything that was found."""
    models = [result for result in results if result.row.kind in ("infer", "train")]
    gradients = [result for result in results if result.row.kind in ("value", "gradient")]
    operations = [result for result in results if result.row.kind == "op"]
    parts = [about(results, note)]
    if models:
        parts += ["### Time of a call", _times(models), _verdict(models)]
    if gradients:
        parts += ["### Time of a loss and its gradient, over that of the loss", _costs(gradients)]
    if operations:
        parts += ["### Single operations", _times(operations)]
    if models:
        parts += ["### First call, in seconds", _table(models, _first, _again)]
        parts += ["### Memory of the process during calls, in MB", _table(models, _memory)]
        parts += ["### Memory between kernels, in MB", _plans(models)]
    return "\n\n".join(parts) + "\n"


def about(results: Sequence[Result], note: str) -> str:
    """The machine, the versions and what else is to be known."""
    versions = {n: c.version for r in results for n, c in r.cells.items() if c.version}
    named = [f"{PEERS[name][0]} {version}" for name, version in versions.items()]
    return " ".join(filter(None, [about_machine(named), note]))


def about_machine(versions: Sequence[str]) -> str:
    """The machine, and these versions with those of Python and NumPy."""
    machine = Machine.host()
    where = f"{processor()} ({machine.cpu}), {machine.vector_bits}-bit vectors"
    python = f"Python {platform.python_version()}, NumPy {np.__version__}"
    return f"Machine: {where}. Versions: {', '.join(versions)}, {python}."


def processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _times(results: Sequence[Result]) -> str:
    def ratio(result: Result) -> str:
        return "" if result.ratio is None else f"{result.ratio:.2f}"

    return _table(results, _timing, ("times the best", ratio))


Column = tuple[str, Callable[[Result], str]]


def _table(results: Sequence[Result], text: Callable[[Cell], str], *more: Column) -> str:
    """A column for each peer, and those at the end."""
    peers = [name for name in PEERS if any(name in result.cells for result in results)]
    head = ["work", *(PEERS[name][0] for name in peers), *(title for title, _ in more)]
    lines = [head, ["---"] * len(head)]
    for result in results:
        cells = [result.cells.get(name) for name in peers]
        shown = [text(cell) if cell else "" for cell in cells]
        lines.append([result.row.text, *shown, *(column(result) for _, column in more)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _timing(cell: Cell) -> str:
    if cell.timing is None:
        return "fails" if cell.failure else ""
    return f"{duration(cell.timing.median)} ±{100 * cell.timing.spread:.0f} %"


def duration(seconds: float) -> str:
    """Seconds with three digits and a unit."""
    unit, size = next(
        ((u, s) for u, s in (("ms", 1e-3), ("µs", 1e-6)) if seconds >= s), ("ns", 1e-9)
    )
    value = seconds / size
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{digits}f} {unit}"


def _first(cell: Cell) -> str:
    return "" if cell.first is None else f"{cell.first:.2f}"


def _found_on_disk(result: Result) -> str:
    cell = result.cells.get("mapsto")
    return "" if cell is None or cell.second is None else f"{cell.second:.2f}"


_again: Column = ("mapsto, compiled before by another process", _found_on_disk)


def _memory(cell: Cell) -> str:
    return "" if cell.memory is None else f"{cell.memory / 1e6:.0f}"


def _costs(results: Sequence[Result]) -> str:
    """How many times as long a loss takes with its gradient, for each model and peer."""
    by_key = {(r.row.model, r.row.kind): r for r in results}
    peers = [name for name in PEERS if any(name in result.cells for result in results)]
    lines = [["work", *(PEERS[name][0] for name in peers)], ["---"] * (len(peers) + 1)]
    for (model, kind), result in by_key.items():
        value = by_key.get((model, "value"))
        if kind == "gradient" and value is not None:
            pairs = ((result.cells.get(name), value.cells.get(name)) for name in peers)
            lines.append([result.row.text, *(_quotient(*pair) for pair in pairs)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _quotient(cell: Cell | None, other: Cell | None) -> str:
    if cell is None or other is None or cell.timing is None or other.timing is None:
        return ""
    return f"{cell.timing.median / other.timing.median:.2f}"


def _plans(results: Sequence[Result]) -> str:
    lines = ["| work | used | most needed at once |", "|---|---|---|"]
    for result in results:
        plan = result.cells["mapsto"].plan if "mapsto" in result.cells else {}
        if plan:
            used, live = plan["arena"] / 1e6, plan["live"] / 1e6
            lines.append(f"| {result.row.text} | {used:.2f} | {live:.2f} |")
    return "\n".join(lines)


def _verdict(results: Sequence[Result]) -> str:
    """The geometric mean, and the rows that are behind."""
    ratios = {r.row.text: r.ratio for r in results if r.ratio is not None}
    if not ratios:
        return ""
    mean = math.exp(sum(map(math.log, ratios.values())) / len(ratios))
    behind = [f"{text} ({ratio:.2f})" for text, ratio in ratios.items() if ratio < 1]
    rest = f" Behind the best peer: {'; '.join(behind)}." if behind else ""
    return f"Geometric mean of the last column: {mean:.2f}.{rest}"


# ---- the plot


def draw(results: Sequence[Result], path: Path) -> None:
    """How many times longer each peer takes than mapsto."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.32 * len(results)))
    places = range(len(results), 0, -1)
    for name in PEERS:
        points = [
            (cell.timing.median / own.timing.median, place)
            for place, result in zip(places, results, strict=True)
            if (cell := result.cells.get(name)) and cell.timing and name != "mapsto"
            if (own := result.cells.get("mapsto")) and own.timing
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), label=PEERS[name][0], s=28)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(list(places), [result.row.text for result in results], fontsize=8)
    axes.set_xlabel("time of a call, as a multiple of mapsto's")
    axes.grid(axis="x", which="both", alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
