"""The report of `mapsto bench` for a GPU, as data and as a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from mapsto.commands.figures import bytes_text, table, time_text
from mapsto.device_benchmark import DeviceReport, LaunchReport
from mapsto.lowering.gpu.target import GpuTarget

__all__ = ["launch_records", "print_launches"]


def launch_records(report: DeviceReport) -> dict[str, Any]:
    """The report as JSON has it; what is not known is null."""
    call = report.call
    return {
        "entry": report.entry,
        "device": report.where,
        "target": report.target.name,
        "seconds": call.median if call else None,
        "seconds_quartiles": [call.low, call.high] if call else None,
        "launches": report.runs,
        "compile_seconds": report.compile_seconds,
        "arena_bytes": report.arena_bytes,
        "parameter_bytes": report.bound_bytes,
        "steps": [_record(launch, report.target) for launch in report.launches],
    }


def _record(launch: LaunchReport, target: GpuTarget) -> dict[str, Any]:
    kernel, resources, work = launch.kernel, launch.resources, launch.work
    return {
        "name": launch.name,
        "what": launch.what,
        "runs": launch.runs,
        "seconds": launch.seconds,
        "grid": launch.grid,
        "block": kernel.block if kernel else None,
        "shared_bytes": kernel.shared_bytes if kernel else None,
        "operations": work.operations,
        "bytes_read": work.read,
        "bytes_written": work.written,
        "registers": resources.registers if resources else None,
        "spilled_bytes": _spilled(launch) if resources else None,
        "occupancy": launch.occupancy(target),
    }


def print_launches(console: Console, report: DeviceReport) -> None:
    """A line for each kernel, those that take the longest first, and what all of it comes to."""
    measured, known = report.call is not None, report.has_resources
    columns = ["kernel", "what", "runs"]
    columns += ["time", "share", "GFLOP/s", "GB/s"] if measured else []
    columns += ["grid", "block", "shared"]
    columns += ["registers", "spilled", "occupancy"] if known else []
    rows = table(*columns)
    rows.columns[1].justify = "left"
    total = sum(launch.seconds or 0 for launch in report.launches)
    own = re.sub(r"\W", "_", report.entry) + "_"
    for launch in sorted(report.launches, key=lambda launch: -(launch.seconds or 0)):
        cells = [launch.name.removeprefix(own), launch.what, str(launch.runs)]
        cells += _speed(launch, total) if measured else []
        cells += _shape(launch)
        cells += _resources(launch, report.target) if known else []
        rows.add_row(*cells)
    console.print(rows)
    for line in _summary(report, total):
        console.print(line, highlight=False)


def _speed(launch: LaunchReport, total: float) -> list[str]:
    work, seconds = launch.work, max(launch.seconds or 0, 1e-12)
    bytes_ = work.read + work.written
    return [
        time_text(launch.seconds or 0),
        f"{100 * seconds / total:.1f} %" if total else "",
        f"{work.operations / seconds / 1e9:.1f}" if work.operations else "",
        f"{bytes_ / seconds / 1e9:.1f}" if bytes_ else "",
    ]


def _shape(launch: LaunchReport) -> list[str]:
    if launch.kernel is None or launch.grid is None:
        return ["", "", ""]
    shared = launch.kernel.shared_bytes
    return [
        _extent(launch.grid),
        _extent(launch.kernel.block),
        bytes_text(shared) if shared else "",
    ]


def _extent(extent: tuple[int, int, int]) -> str:
    """`64 x 2`: without what is 1 at the end."""
    x, y, z = map(str, extent)
    return " x ".join([x, y, z] if z != "1" else [x, y] if y != "1" else [x])


def _resources(launch: LaunchReport, target: GpuTarget) -> list[str]:
    occupancy = launch.occupancy(target)
    if launch.resources is None or occupancy is None:
        return ["", "", ""]
    spilled = _spilled(launch)
    return [
        str(launch.resources.registers),
        bytes_text(spilled) if spilled else "",
        f"{occupancy:.0%}",
    ]


def _spilled(launch: LaunchReport) -> int:
    resources = launch.resources
    return resources.spill_stores + resources.spill_loads if resources else 0


def _summary(report: DeviceReport, total: float) -> Iterator[str]:
    yield report.where
    launches = f"{report.runs} launch{'' if report.runs == 1 else 'es'}"
    if report.call is None:
        yield f"a call is {launches}; nothing was run"
    else:
        call = report.call
        yield (
            f"a call takes {time_text(call.median)} (+- {100 * call.spread:.0f} %); its {launches},"
            f" one by one, {time_text(total)}"
        )
    yield (
        f"memory: {bytes_text(report.arena_bytes)} between launches,"
        f" {bytes_text(report.bound_bytes)} of parameters and states"
    )
    if report.target.name.startswith("nvptx") and not report.has_resources:
        yield "registers and occupancy are known with `pip install nvidia-cuda-nvcc`"
    yield f"compiled in {report.compile_seconds:.2f} s"
