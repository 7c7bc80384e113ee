"""Where the time of a compiled program goes: each kernel's share, work and distance from the peak.

The program is compiled twice: as it is, for the time of a call, and with the clock around its steps
(`lowering/step_timing.py`).  The work is counted from the IR, the peak is measured.
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from mapsto.compiler import Options, bound_slots, optimized, signature_of, without_collection
from mapsto.dsl.elaborated import Elaborated
from mapsto.ir.core import Array, Function, Operation, Trait
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.ops.control import Kernel, Return
from mapsto.ir.ops.partition import Partition
from mapsto.ir.ops.shaping import Constant
from mapsto.ir.printer import type_text
from mapsto.lowering.driver import Compiled
from mapsto.lowering.lowered import ApartCall, KernelCall
from mapsto.lowering.step_timing import STEP_TIMES, TimedStep
from mapsto.lowering.work import Work, work_of
from mapsto.runtime.function import NativeFunction
from mapsto.runtime.jit import CompiledModule, compile_module
from mapsto.runtime.timing import Timing, samples_of

__all__ = ["Report", "StepReport", "benchmark", "describe_kernel"]

ROUNDS = 5
"""How often the program as it is and the one with the clock take turns."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """A step of a program, per call of the program: how often it runs, its seconds without the
    steps inside it, its work."""

    name: str
    what: str
    runs: int
    seconds: float
    work: Work


@dataclass(frozen=True)
class Report:
    """What a benchmark found.

    `arena_bytes` are those of the tensors between steps, `live_bytes` the most of them that are
    needed at one time, and `scratch_bytes` what steps need inside.
    """

    entry: str
    call: Timing
    steps: tuple[StepReport, ...]
    arena_bytes: int
    live_bytes: int
    scratch_bytes: int
    bound_bytes: int
    compile_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def work(self) -> Work:
        """The work of all steps."""
        return sum((step.work for step in self.steps), start=Work())


def benchmark(
    elaborated: Elaborated,
    options: Options,
    arrays: Mapping[str, Array],
    choose_inputs: Callable[[Function], Sequence[Array]],
    seconds: float = 1.0,
) -> Report:
    """Measures a program of known sizes for about `seconds`; training steps train.

    The inputs are chosen for the function that is compiled.
    """
    clock = _Clock()
    with without_collection(), clock.phase("passes"):
        module = optimized(elaborated.module, options)
    with without_collection(), clock.phase("lowering"):
        program = options.lower(module, elaborated.entry)
    with clock.phase("code"):
        code = compile_module(program.text, options.machine)
    timed = options.lower(module, elaborated.entry, timed=True)
    timed_code = compile_module(timed.text, options.machine)
    inputs = choose_inputs(module[elaborated.entry])
    run = _function(elaborated, program, code, arrays)
    timed_run = _function(elaborated, timed, timed_code, arrays)
    table = _StepTable(timed_code, timed.steps)
    samples: list[float] = []
    times: list[Array] = []
    for _ in range(ROUNDS):
        samples += samples_of(lambda: run(*inputs), seconds / ROUNDS / 2)
        times += table.of_runs(lambda: timed_run(*inputs), seconds / ROUNDS / 2)
    plan = program.functions[elaborated.entry].plan
    arena = plan.arena_bytes
    assert isinstance(arena, int)
    return Report(
        elaborated.entry,
        Timing.of(samples),
        tuple(_reports(timed.steps, np.median(times, axis=0))),
        arena,
        plan.live_bytes,
        _total_bytes(code, elaborated.entry) - arena,
        sum(arrays[slot.path].nbytes for slot in bound_slots(elaborated)),
        clock.seconds,
    )


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Takes the time of a phase."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start


def _function(
    elaborated: Elaborated, program: Compiled, code: CompiledModule, arrays: Mapping[str, Array]
) -> NativeFunction:
    bound = [arrays[slot.path] for slot in bound_slots(elaborated)]
    signature = signature_of(elaborated)
    return NativeFunction(code, elaborated.entry, signature, bound, program.assertions)


def _total_bytes(code: CompiledModule, entry: str) -> int:
    """The scratch memory of a call, for sizes that are all known."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
    return int(prototype(code.address(f"{entry}.arena_bytes"))(None))


# ---- steps


class _StepTable:
    """The sums that a program with the clock in it writes."""

    def __init__(self, code: CompiledModule, steps: Sequence[TimedStep]) -> None:
        address = ctypes.CFUNCTYPE(ctypes.c_void_p)(code.address(STEP_TIMES))()
        pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_int64))
        self.sums = np.ctypeslib.as_array(pointer, (len(steps), 2))
        owners = [step.owner for step in steps]
        self.inside = [
            [i for i, owner in enumerate(owners) if owner in _bodies(step)] for step in steps
        ]

    def of_runs(self, run: Callable[[], object], seconds: float) -> Iterator[Array]:
        """For each run, of which there are for about so long: for each step the nanoseconds without
        those of the steps inside it, and how often it ran."""
        run()
        start = time.perf_counter()
        while True:
            self.sums[...] = 0
            run()
            found = self.sums.copy()
            found[:, 0] -= [self.sums[inner, 0].sum() for inner in self.inside]
            yield found
            if time.perf_counter() - start > seconds:
                return


def _bodies(step: TimedStep) -> set[str]:
    """The names of the functions of a step's regions."""
    if not isinstance(step.call, ApartCall):
        return set()
    return {body.entry.name for body in step.call.bodies}


def _reports(steps: Sequence[TimedStep], times: Array) -> Iterator[StepReport]:
    """The steps; those that run the same code are one."""
    reports: dict[tuple[str, str], StepReport] = {}
    for step, (nanoseconds, runs) in zip(steps, times, strict=True):
        report = _report(step, int(runs), float(nanoseconds) * 1e-9)
        key = report.name, report.what
        reports[key] = _together(reports[key], report) if key in reports else report
    yield from reports.values()


def _together(one: StepReport, other: StepReport) -> StepReport:
    seconds, runs = one.seconds + other.seconds, one.runs + other.runs
    return StepReport(one.name, one.what, runs, seconds, one.work + other.work)


def _report(step: TimedStep, runs: int, seconds: float) -> StepReport:
    call, op = step.call, step.op
    if isinstance(call, ApartCall):
        is_parts = isinstance(call.op, Partition)
        what, work = _parts(call) if is_parts else ("around its steps", Work())
        name = f"{step.owner}.{call.op.name}"
        return StepReport(name, what, runs, seconds, work * runs)
    if not isinstance(op, Kernel):
        return StepReport(call.loops.name, "packs ahead of a loop", runs, seconds, Work())
    work = work_of(call, op, {}) * runs
    return StepReport(call.loops.name, describe_kernel(op), runs, seconds, work)


def _parts(call: ApartCall) -> tuple[str, Work]:
    """What is done part by part, and how much work it is: its own steps are not timed."""
    assert isinstance(call.op, Partition)
    (body,) = call.bodies
    pairs = [
        (op, work_of(step, op, {}))
        for step, op in zip(body.calls, body.steps, strict=True)
        if isinstance(op, Kernel) and isinstance(step, KernelCall)
    ]
    largest, _ = max(pairs, key=lambda pair: pair[1].operations)
    total = sum((work for _, work in pairs), start=Work())
    return f"{call.op.steps} parts: {describe_kernel(largest)}, ..", total * call.op.steps


def describe_kernel(kernel: Kernel) -> str:
    """What a kernel computes, in a few words: its largest contraction, or its ops."""
    ops = [op for op in kernel.regions[0].block.operations if not isinstance(op, Return | Constant)]
    heavy = [op for op in ops if isinstance(op, Contract) and len(op.operands) == 2 and op.reduced]
    if heavy:
        extents = "x".join(map(str, heavy[0].extents))
        others = len(ops) - 1
        return f"contract {extents}" + (f" and {others} ops" if others else "")
    names = [_name(op) for op in ops if not op.has(Trait.INDEXING)]
    names = names or [op.name for op in ops] or ["fill"]
    common = [name for name, _ in Counter(names).most_common(3)]
    more = ", .." if len(set(names)) > 3 else ""
    return f"{', '.join(common)}{more} -> {_types(kernel)}"


def _name(op: Operation) -> str:
    return str(op.attributes["kind"]) if isinstance(op, Contract) and op.reduced else op.name


def _types(kernel: Operation) -> str:
    types: Iterable[str] = dict.fromkeys(type_text(value.type) for value in kernel.results)
    first, *others = types
    return first + (", .." if others else "")
