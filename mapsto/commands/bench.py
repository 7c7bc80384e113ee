"""`mapsto bench`: where the time of a program goes, and what the machine can do at most."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from mapsto.benchmark import Report, StepReport, benchmark
from mapsto.commands.compilation import compile_options, gpu_target
from mapsto.commands.device_bench import launch_records, print_launches
from mapsto.commands.entries import Entry, open_target
from mapsto.commands.figures import bytes_text, console_of, table, time_text
from mapsto.commands.running import read_inputs, type_of
from mapsto.commands.sample_inputs import index_bounds, sample
from mapsto.commands.settings import parse_settings
from mapsto.commands.weights import fill, read_weights
from mapsto.compiler import Options, bound_slots
from mapsto.device_benchmark import inspect, measure
from mapsto.dsl.elaborated import Elaborated
from mapsto.errors import MapstoError
from mapsto.ir.core import Array, Function
from mapsto.lowering.cpu.machine import Machine
from mapsto.runtime.devices.registry import CPU, find_device
from mapsto.runtime.roofline import Roofline, measure_roofline

__all__ = ["bench"]


def bench(options: argparse.Namespace) -> int:
    """Measures an entry, or the machine alone."""
    if options.target is None and not options.roofline:
        raise MapstoError("name what to measure, as in digits.mto:MLP, or give --roofline")
    if options.seconds <= 0:
        raise MapstoError(f"--seconds {options.seconds}: give a positive number")
    compilation = compile_options(options)
    if options.gpu is not None or compilation.device != CPU:
        return _bench_gpu(options, compilation)
    found: dict[str, Any] = {}
    report = None if options.target is None else _measured(options, compilation)
    peak = measure_roofline(compilation.machine)
    if options.roofline or report is None:
        found["machine"] = _machine_record(peak, compilation.machine)
    if report is not None:
        found |= _record(report, peak)
    if options.json:
        print(json.dumps(found))
        return 0
    console = console_of(sys.stdout)
    if "machine" in found:
        _print_machine(console, peak, compilation.machine)
    if report is not None:
        _print_report(console, report, peak)
    return 0


def _measured(options: argparse.Namespace, compilation: Options) -> Report:
    measured = Measured.of(options, compilation)
    return benchmark(
        measured.elaborated, compilation, measured.arrays, measured.inputs, options.seconds
    )


def _bench_gpu(options: argparse.Namespace, compilation: Options) -> int:
    """Measures an entry on a device, or tells what it asks of a kind of GPU."""
    if options.roofline:
        raise MapstoError("--roofline measures the CPU; leave it out for a GPU")
    if options.gpu is not None and compilation.device != CPU:
        raise MapstoError("give --device, to measure there, or --target, to measure nothing")
    device = find_device(compilation.device)
    here = compilation.on(CPU)
    measured = Measured.of(options, here)
    if device is None:
        report = inspect(measured.elaborated, here, gpu_target(options.gpu))
    else:
        report = measure(
            device, measured.elaborated, here, measured.arrays, measured.inputs, options.seconds
        )
    if options.json:
        print(json.dumps(launch_records(report)))
    else:
        print_launches(console_of(sys.stdout), report)
    return 0


@dataclass(frozen=True, slots=True)
class Measured:
    """An entry of known sizes, the arrays of its parameters, what was given for its arguments."""

    elaborated: Elaborated
    arrays: Mapping[str, Array]
    given: Mapping[str, Array]
    seed: int

    @staticmethod
    def of(options: argparse.Namespace, compilation: Options) -> Measured:
        """What the command line names."""
        settings = parse_settings(options.static)
        opened = open_target(options.target, compilation, settings, options.seed)
        if len(opened.entries) != 1:
            raise MapstoError(f"{options.target}: name one entry to measure")
        entry = opened.entries[0]
        weights = read_weights(options.weights)
        given = read_inputs(entry, options.input)
        types = {name: type_of(array) for name, array in given.items()}
        elaborated = entry.elaborate(settings, weights, types)
        _check_sizes(entry, elaborated)
        arrays = fill(entry, elaborated, weights, options.weights, options.seed)
        return Measured(elaborated, arrays, given, options.seed)

    def inputs(self, function: Function) -> Sequence[Array]:
        """Those of the files, and random ones for the rest."""
        bounds, first = index_bounds(function), len(bound_slots(self.elaborated))
        return [
            self.given[spec.name]
            if spec.name in self.given
            else sample(spec.type, bounds.get(first + i), self.seed)
            for i, spec in enumerate(self.elaborated.inputs)
        ]


def _check_sizes(entry: Entry, elaborated: Elaborated) -> None:
    open_sizes = sorted({name for spec in elaborated.inputs for name in spec.type.symbols})
    if open_sizes:
        flags = " ".join(f"--static {name}=64" for name in open_sizes)
        raise MapstoError(f"`{entry.name}` is measured for known sizes: give {flags}")


# ---- the report as data


def _record(report: Report, peak: Roofline) -> dict[str, Any]:
    call, floor = report.call, sum(_floor(step, peak) for step in report.steps)
    return {
        "entry": report.entry,
        "threads": peak.threads,
        "seconds": call.median,
        "seconds_quartiles": [call.low, call.high],
        "floor_seconds": floor,
        "operations": report.work.operations,
        "bytes": report.work.read + report.work.written,
        "compile_seconds": dict(report.compile_seconds),
        "arena_bytes": report.arena_bytes,
        "live_bytes": report.live_bytes,
        "scratch_bytes": report.scratch_bytes,
        "parameter_bytes": report.bound_bytes,
        "steps": [_step_record(step, peak) for step in report.steps],
    }


def _step_record(step: StepReport, peak: Roofline) -> dict[str, Any]:
    work = step.work
    return {
        "name": step.name,
        "what": step.what,
        "runs": step.runs,
        "seconds": step.seconds,
        "operations": work.operations,
        "bytes_read": work.read,
        "bytes_written": work.written,
        "floor_seconds": _floor(step, peak),
        "bound": _bound(step, peak),
    }


def _machine_record(peak: Roofline, machine: Machine) -> dict[str, Any]:
    return {
        "cpu": machine.cpu,
        "vector_bits": machine.vector_bits,
        "threads": peak.threads,
        "operations_per_second": peak.operations,
        "levels": [asdict(level) for level in peak.levels],
    }


def _floor(step: StepReport, peak: Roofline) -> float:
    """The least seconds that the machine needs for a step: that of its runs, each on its own."""
    work, runs = step.work, max(1, step.runs)
    each = work.operations / runs, work.float_bytes, work.read / runs, work.written / runs
    return runs * peak.seconds(*each)


def _bound(step: StepReport, peak: Roofline) -> str:
    """What the least time is that of: multiply-adds, or a level of memory."""
    work, runs = step.work, max(1, step.runs)
    if not work.operations and not work.read + work.written:
        return ""
    bytes_only = runs * peak.seconds(0, 4, work.read / runs, work.written / runs)
    level = peak.level_of((work.read + work.written) / runs)
    return level.name if bytes_only >= _floor(step, peak) else "arithmetic"


# ---- the report for people


def _print_machine(console: Console, peak: Roofline, machine: Machine) -> None:
    threads = f"{peak.threads} thread{'' if peak.threads == 1 else 's'}"
    console.print(f"{machine.cpu}, {machine.vector_bits}-bit vectors, {threads}", highlight=False)
    rows = table("", "fits", "reading", "writing")
    rows.add_row("multiply-adds", "", f"{peak.operations / 1e9:.1f} GFLOP/s", "")
    for level in peak.levels:
        speeds = (f"{speed / 1e9:.1f} GB/s" for speed in (level.read, level.written))
        rows.add_row(level.name, bytes_text(level.bytes), *speeds)
    console.print(rows)


def _print_report(console: Console, report: Report, peak: Roofline) -> None:
    rows = table("kernel", "what", "runs", "time", "share", "GFLOP/s", "GB/s", "of peak", "bound")
    rows.columns[1].justify = rows.columns[8].justify = "left"
    total = sum(step.seconds for step in report.steps)
    for step in sorted(report.steps, key=lambda step: -step.seconds):
        rows.add_row(step.name.removeprefix(f"{report.entry}."), *_cells(step, total, peak))
    console.print(rows)
    for line in _summary(report, peak):
        console.print(line, highlight=False)


def _cells(step: StepReport, total: float, peak: Roofline) -> Iterator[str]:
    work, seconds = step.work, max(step.seconds, 1e-12)
    bytes_ = work.read + work.written
    yield step.what
    yield str(step.runs)
    yield time_text(step.seconds)
    yield f"{100 * step.seconds / total:.1f} %" if total else ""
    yield f"{work.operations / seconds / 1e9:.1f}" if work.operations else ""
    yield f"{bytes_ / seconds / 1e9:.1f}" if bytes_ else ""
    yield f"{100 * _floor(step, peak) / seconds:.0f} %" if bytes_ else ""
    yield _bound(step, peak)


def _summary(report: Report, peak: Roofline) -> Iterator[str]:
    call, work = report.call, report.work
    inside = sum(step.seconds for step in report.steps)
    floor = sum(_floor(step, peak) for step in report.steps)
    yield (
        f"a call takes {time_text(call.median)} (+- {100 * call.spread:.0f} %),"
        f" {time_text(inside)} in the kernels, which could be done in {time_text(floor)}"
        f" ({100 * floor / call.median:.0f} %)"
    )
    yield (
        f"{work.operations / 1e6:.4g} million operations,"
        f" {work.operations / call.median / 1e9:.1f} GFLOP/s; the kernels read and write"
        f" {bytes_text(work.read + work.written)}"
    )
    over = report.arena_bytes / report.live_bytes - 1 if report.live_bytes else 0
    yield (
        f"memory: {bytes_text(report.arena_bytes)} between kernels"
        f" ({100 * over:.0f} % above the most that is needed at once),"
        f" {bytes_text(report.scratch_bytes)} inside kernels,"
        f" {bytes_text(report.bound_bytes)} of parameters and states"
    )
    phases = ", ".join(f"{name} {s:.2f} s" for name, s in report.compile_seconds.items())
    yield f"compiled in {sum(report.compile_seconds.values()):.2f} s: {phases}"
