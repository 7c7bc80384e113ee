"""Measures schedules of contractions on this machine, and keeps the quickest.

The search starts from what the cost model takes for the quickest, either way round, and goes on to
the quickest schedule that differs from it in one choice, as long as there is a quicker one (a
descent by coordinates).  Each kernel is measured alone, with its epilogue, on random numbers.
All schedules give the same bits, so nothing but the time depends on what was measured.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np

from mapsto.ir.builder import Builder, finish_function
from mapsto.ir.core import Array, Attribute, Block, Function, Module
from mapsto.ir.ops.control import Kernel
from mapsto.ir.stages import find_stages
from mapsto.ir.substitution import copy_operation
from mapsto.ir.types import DType, TensorType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.schedule_choice import Choice, Choose, Contraction, Plan, neighbours
from mapsto.lowering.cpu.scheduling import cpu_scheduling
from mapsto.lowering.driver import KernelTable, lower, lower_function
from mapsto.lowering.kernels import heavy_contraction
from mapsto.runtime.arrays import aligned_empty
from mapsto.runtime.jit import compile_module
from mapsto.runtime.schedules import KeptSchedules

__all__ = ["Tuned", "search", "tune"]

SECONDS = 0.02
"""How long a schedule is measured for, at least `RUNS` runs."""
RUNS = 3
HOPELESS = 1.5
"""A schedule whose first runs take so many times as long as the quickest is measured no more."""
LEAST_GAIN = 1.03
"""By how much quicker a schedule has to be than another to be preferred."""
DUELS = 9
"""How often the quickest schedule and the estimated one take turns in the end."""
_NAME = "tuned"


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was found for a contraction: its extents, how many schedules were measured, and the
    seconds of a run by the estimated schedule and by the one that is kept."""

    extents: tuple[int, ...]
    tried: int
    before: float
    after: float

    def __str__(self) -> str:
        domain = "x".join(map(str, self.extents))
        gain = self.before / self.after
        return (
            f"tuned {domain}: {self.before * 1e3:.4g} ms -> {self.after * 1e3:.4g} ms"
            f" ({gain:.2f}x, {self.tried} schedules)"
        )


def tune(function: Function, machine: Machine, kept: KeptSchedules) -> Iterator[Tuned]:
    """Measures the contractions of a function, those in its regions too, for which no schedule is
    kept, and keeps the quickest.  Those of sizes that are known only at run time are left out.
    """
    table = KernelTable(cpu_scheduling(machine))
    lower_function(function, table)
    for kernel, invariant in table.uses:
        alone = _alone(kernel, invariant)
        contraction = None if alone is None else _contraction(alone, machine)
        if alone is None or contraction is None or kept.find(contraction.key) is not None:
            continue
        choice, found = _tune_one(alone, contraction, machine)
        kept.keep(contraction.key, choice)
        yield found


def search(
    contraction: Contraction, machine: Machine, seconds: Callable[[Choice], float]
) -> tuple[Choice, int]:
    """The choice that takes the fewest seconds, of those that the descent meets; and how many it
    met."""
    known: dict[Choice, float] = {}

    def measure(choice: Choice) -> float:
        if choice not in known:
            known[choice] = seconds(choice)
        return known[choice]

    best = min((Choice.of(plan, contraction) for plan in contraction.plans(machine)), key=measure)
    while True:
        plan = best.plan(contraction, machine)
        assert plan is not None, "it was made from a plan"
        other = min(neighbours(contraction, plan, machine), key=measure)
        if measure(other) * LEAST_GAIN > measure(best):
            return best, len(known)
        best = other


def _alone(kernel: Kernel, invariant: frozenset[str]) -> Function | None:
    """A function that is one kernel; None where that has no contraction, or unknown sizes."""
    types = [value.type for value in (*kernel.operands, *kernel.results)]
    if any(type_.symbols for type_ in types):
        return None
    if heavy_contraction(find_stages(kernel.regions[0].block)) is None:
        return None
    builder = Builder(Block([operand.type for operand in kernel.operands]))
    values = dict(zip(kernel.operands, builder.block.arguments, strict=True))
    copy = builder.append(copy_operation(kernel, values, {}))
    constants = tuple(i for i in range(len(kernel.operands)) if f"x{i}" in invariant)
    attributes: dict[str, Attribute] = {"constants": constants} if constants else {}
    return finish_function(_NAME, builder, copy.results, attributes)


def _contraction(function: Function, machine: Machine) -> Contraction | None:
    """The contraction of a function that is one kernel; None where it has no such schedule."""
    found: list[Contraction] = []

    def choose(contraction: Contraction) -> Plan:
        found.append(contraction)
        return contraction.estimated(machine)

    lower_function(function, KernelTable(cpu_scheduling(machine, choose)))
    return found[-1] if found else None


def _tune_one(
    function: Function, contraction: Contraction, machine: Machine
) -> tuple[Choice, Tuned]:
    arrays = _Arrays(function)
    quickest = np.inf

    def seconds(choice: Choice) -> float:
        nonlocal quickest
        trial = _Trial(function, machine, _fixed(choice, machine), arrays)
        found = trial.seconds(quickest * HOPELESS)
        quickest = min(quickest, found)
        return found

    estimated = Choice.of(contraction.estimated(machine), contraction)
    best, tried = search(contraction, machine, seconds)
    first, second = (
        _Trial(function, machine, _fixed(choice, machine), arrays) for choice in (estimated, best)
    )
    pairs = [(first.seconds(), second.seconds()) for _ in range(DUELS)]
    before, after = (median(times) for times in zip(*pairs, strict=True))
    if before < after * LEAST_GAIN:
        best, after = estimated, before
    extents = tuple(size for size in contraction.first.op.extents if isinstance(size, int))
    return best, Tuned(extents, tried, before, after)


def _fixed(choice: Choice, machine: Machine) -> Choose:
    def choose(contraction: Contraction) -> Plan:
        plan = choice.plan(contraction, machine)
        assert plan is not None, "it was made from a plan"
        return plan

    return choose


class _Arrays:
    """Random numbers for the arguments of a function, zeros where it wants whole numbers, and
    memory for its results."""

    def __init__(self, function: Function) -> None:
        random = np.random.default_rng(0)
        self.arguments = [_filled(value.type, random) for value in function.arguments]
        self.results = [aligned_empty(v.type.dtype, _shape(v.type)) for v in function.results]


def _filled(type_: TensorType, random: np.random.Generator) -> Array:
    array = aligned_empty(type_.dtype, _shape(type_))
    array[...] = random.standard_normal(array.shape) if type_.dtype.is_float else 0
    return array


def _shape(type_: TensorType) -> tuple[int, ...]:
    shape = tuple(size for size in type_.shape if isinstance(size, int))
    assert len(shape) == len(type_.shape), "sizes are known"
    return shape


class _Trial:
    """A function compiled by a schedule, on arrays."""

    def __init__(
        self, function: Function, machine: Machine, choose: Choose, arrays: _Arrays
    ) -> None:
        program = lower(Module.of(function), _NAME, machine, choose=choose)
        self._code = compile_module(program.text, machine)
        self._prepared = aligned_empty(DType.U8, [program.prepared_bytes(_NAME)])
        held = [*arrays.arguments, *arrays.results, self._prepared]
        addresses = [array.ctypes.data for array in held]
        self._buffers = (ctypes.c_void_p * len(addresses))(*addresses)
        self._dims = (ctypes.c_int64 * 1)()
        size = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
        bytes_ = size(self._code.address(f"{_NAME}.arena_bytes"))(self._dims)
        self._arena = aligned_empty(DType.U8, [bytes_])
        if program.prepared_bytes(_NAME):
            self._entry(f"{_NAME}.prepare", None)(self._buffers, self._dims, None)
        self._run = self._entry(_NAME, ctypes.c_int32)

    def seconds(self, limit: float = np.inf) -> float:
        """The least seconds of a run; few runs where these take longer than the limit."""
        arena, times = self._arena.ctypes.data, [np.inf]
        start = time.perf_counter()
        while len(times) <= RUNS or time.perf_counter() - start < SECONDS:
            before = time.perf_counter()
            self._run(self._buffers, self._dims, arena)
            times.append(time.perf_counter() - before)
            if len(times) > 2 and min(times) > limit:
                break
        return min(times)

    def _entry(self, name: str, result: type | None) -> Callable[..., object]:
        prototype = ctypes.CFUNCTYPE(result, *[ctypes.c_void_p] * 3)
        return prototype(self._code.address(name))
