"""Times of the steps of a program, taken inside of it.

A program that is written with a `StepTimer` reads the clock before and after each step and adds up,
step by step, nanoseconds and runs; what it computes is the same.  `mapsto_step_times()` gives the
address of the sums: two i64 for each step.
"""

from __future__ import annotations

from dataclasses import dataclass

from mapsto.ir.core import Operation
from mapsto.lowering.llvm.types import I32, I64, PTR, Operand, constant
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter
from mapsto.lowering.lowered import Call

__all__ = ["STEP_TIMES", "StepTimer", "TimedStep"]

STEP_TIMES = "mapsto_step_times"
"""The function that gives the address of the sums."""

_TABLE = "mapsto.step_times"
_NOW = "mapsto.now"
_MONOTONIC = 1
"""CLOCK_MONOTONIC, on Linux; it takes some 20 ns to read."""


@dataclass(frozen=True, slots=True, eq=False)
class TimedStep:
    """A step of the function `owner`; `op` is None where it prepares what a loop uses."""

    owner: str
    call: Call
    op: Operation | None


class StepTimer:
    """Writes the clock around steps, in one module."""

    def __init__(self, module: ModuleWriter) -> None:
        self.module = module
        self.steps: list[TimedStep] = []
        _write_now(module)

    def now(self, f: FunctionWriter) -> Operand:
        """The time in nanoseconds (i64)."""
        return f.call(_NOW, I64, [])

    def add(self, f: FunctionWriter, start: Operand, step: TimedStep) -> Operand:
        """Adds the time since `start` to the sums of a step; gives the time."""
        end = self.now(f)
        table = Operand(f"@{_TABLE}", PTR)
        place = f.getelementptr(I64, table, 2 * len(self.steps))
        f.store(f.add(f.load(I64, place), f.sub(end, start)), place)
        runs = f.getelementptr(I64, place, 1)
        f.store(f.add(f.load(I64, runs), constant(I64, 1)), runs)
        self.steps.append(step)
        return end

    def finish(self) -> None:
        """Writes the table, once all steps are known."""
        size = max(1, 2 * len(self.steps))
        table = self.module.add_global(
            _TABLE, f"internal global [{size} x i64] zeroinitializer, align 64"
        )
        self.module.function(STEP_TIMES, [], PTR).ret(table)


def _write_now(module: ModuleWriter) -> None:
    f = module.function(_NOW, [], I64, "internal")
    time = f.alloca(I64, 2)
    f.declare("clock_gettime", I32, [I32, PTR])
    f.call("clock_gettime", I32, [constant(I32, _MONOTONIC), time])
    seconds, rest = f.load(I64, time), f.load(I64, f.getelementptr(I64, time, 1))
    f.ret(f.add(f.mul(seconds, constant(I64, 10**9)), rest))
