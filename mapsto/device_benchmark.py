"""What a program does on a GPU, launch by launch: times on a device, resources from the assembler.

The commands of a call are those of `runtime/devices/walk.py`; a device runs them one by one with a
clock between them (`runtime/devices/timed.py`), and all at once for the time of a call.  Registers,
spills and what follows from them are known where NVIDIA's assembler is installed; they need no
device.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mapsto.benchmark import describe_kernel
from mapsto.compiler import Options, bound_slots, optimized, signature_of
from mapsto.dsl.elaborated import Elaborated
from mapsto.ir.core import Array, Function
from mapsto.ir.dims import dim_value
from mapsto.ir.ops.control import Kernel
from mapsto.lowering.gpu.program import GpuKernel, GpuProgram, assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.lowered import KernelCall, LoweredFunction
from mapsto.lowering.work import Work, work_of
from mapsto.runtime.devices.array import DeviceArray
from mapsto.runtime.devices.device import Command, Copy, Device, Extent, Fill, Launch
from mapsto.runtime.devices.executable import Executable
from mapsto.runtime.devices.function import DeviceFunction
from mapsto.runtime.devices.manifest import commands_of
from mapsto.runtime.devices.memory import Pool
from mapsto.runtime.devices.timed import TimedDevice
from mapsto.runtime.devices.walk import Walk
from mapsto.runtime.ptxas import AssemblerNotFound, Resources, assemble_ptx
from mapsto.runtime.timing import Timing, samples_of

__all__ = ["DeviceReport", "LaunchReport", "inspect", "measure"]

NO_WORK = Work()

_LEAST_ROUNDS = 3
"""So many calls at least are run with the clock between their launches."""


@dataclass(frozen=True, slots=True)
class LaunchReport:
    """A kernel with a grid of blocks, per call of the program; or all copies, or all that is set to
    zero, which have neither.

    `seconds` are those of all its `runs`, None where nothing was run.  Of a kernel that is several
    launches, one after another, the first has the `work` of all.
    """

    name: str
    what: str
    runs: int
    seconds: float | None = None
    grid: Extent | None = None
    kernel: GpuKernel | None = None
    work: Work = NO_WORK
    resources: Resources | None = None

    def occupancy(self, target: GpuTarget) -> float | None:
        """The part of the threads that a multiprocessor can have that is resident at once; None
        where the registers are not known."""
        if self.kernel is None or self.resources is None:
            return None
        shared = self.resources.shared_bytes + self.kernel.dynamic_bytes
        return target.occupancy(self.kernel.threads, shared, self.resources.registers)


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What was found; `call` is None where nothing was run.

    `where` names the device, or the kind of GPU.  `arena_bytes` are those of the tensors between
    launches and of what launches need beside them, `bound_bytes` those of parameters and states;
    `has_resources`: whether the assembler is there to say what kernels take.
    """

    entry: str
    where: str
    target: GpuTarget
    launches: tuple[LaunchReport, ...]
    call: Timing | None
    arena_bytes: int
    bound_bytes: int
    compile_seconds: float
    has_resources: bool

    @property
    def runs(self) -> int:
        """How many kernels a call launches."""
        return sum(launch.runs for launch in self.launches if launch.kernel)


def inspect(elaborated: Elaborated, options: Options, target: GpuTarget) -> DeviceReport:
    """The launches of a program of known sizes for a kind of GPU; nothing is run.

    Raises ArtifactError where the host has to decide something on the way.
    """
    start = time.perf_counter()
    module, target = optimized(elaborated.module, options), options.gpu_target(target)
    program = lower_gpu(module, elaborated.entry, target)
    compile_seconds = time.perf_counter() - start
    commands, arena_bytes = commands_of(program, elaborated.entry, signature_of(elaborated))
    table = _Table(program, elaborated.entry)
    launches = tuple(table.reports(Counter(map(_key, commands)), {}))
    types = [slot.type for slot in bound_slots(elaborated)]
    bound_bytes = sum(dim_value(type_.elements, {}) * type_.dtype.bytes for type_ in types)
    sizes = arena_bytes, bound_bytes
    known = table.resources is not None
    where = target.name
    return DeviceReport(
        elaborated.entry, where, target, launches, None, *sizes, compile_seconds, known
    )


def measure(
    device: Device,
    elaborated: Elaborated,
    options: Options,
    arrays: Mapping[str, Array],
    choose_inputs: Callable[[Function], Sequence[Array]],
    seconds: float = 1.0,
) -> DeviceReport:
    """Measures a program of known sizes on a device for about `seconds`; training steps train.

    The inputs are chosen for the function that is compiled; they are on the device before the
    clock starts.
    """
    start, entry = time.perf_counter(), elaborated.entry
    module = optimized(elaborated.module, options)
    program = lower_gpu(module, entry, options.gpu_target(device.target))
    timed = TimedDevice(device)
    pool = Pool(timed)
    executable = Executable(program, pool)
    compile_seconds = time.perf_counter() - start
    bound = [DeviceArray.of(pool, arrays[slot.path]) for slot in bound_slots(elaborated)]
    function = DeviceFunction(executable, entry, signature_of(elaborated), bound)
    inputs = [DeviceArray.of(pool, array) for array in choose_inputs(module[entry])]

    def call() -> None:
        function(*inputs)
        timed.synchronize()

    samples = list(samples_of(call, seconds / 2))
    rounds = list(_rounds(timed, call, seconds / 2))
    table = _Table(program, entry)
    runs = Counter(_key(command) for command, _ in rounds[-1])
    launches = tuple(table.reports(runs, _medians(rounds)))
    arena_bytes = Walk(executable, {}).arena_bytes(program.functions[entry])
    sizes = arena_bytes, sum(array.nbytes for array in bound)
    known = table.resources is not None
    where, call_time = f"{device.name}, {device.description}", Timing.of(samples)
    return DeviceReport(
        entry, where, device.target, launches, call_time, *sizes, compile_seconds, known
    )


Taken = list[tuple[Command, float]]
_Key = tuple[str, Extent | None]
"""What makes two commands one line: the kernel's name and the grid; of others their kind."""


def _rounds(timed: TimedDevice, call: Callable[[], None], seconds: float) -> Iterator[Taken]:
    """The commands of calls, one after another, with their times."""
    timed.is_timing = True
    start, number = time.perf_counter(), 0
    while number < _LEAST_ROUNDS or time.perf_counter() - start < seconds:
        timed.taken = []
        call()
        yield timed.taken
        number += 1
    timed.is_timing = False


def _medians(rounds: Sequence[Taken]) -> dict[_Key, float]:
    """For each line the median over the rounds of the sum of its seconds."""
    found: defaultdict[_Key, list[float]] = defaultdict(list)
    for taken in rounds:
        sums: defaultdict[_Key, float] = defaultdict(float)
        for command, seconds in taken:
            sums[_key(command)] += seconds
        for key, total in sums.items():
            found[key].append(total)
    return {key: float(np.median(totals)) for key, totals in found.items()}


def _key(command: Command) -> _Key:
    match command:
        case Launch(kernel, grid):
            return kernel.name, grid
        case Copy():
            return "copy", None
        case Fill():
            return "zero", None


class _Table:
    """What is known of the kernels of a program without running them."""

    def __init__(self, program: GpuProgram, entry: str) -> None:
        self.kernels = {kernel.name: kernel for kernel in program.launches}
        self.resources = _resources(program)
        self.whats: dict[str, tuple[str, Work]] = {}
        for call, op in _kernel_calls(program.functions[entry]):
            first, *others = program.kernels[call.loops.name]
            what = describe_kernel(op)
            self.whats[first.name] = what, work_of(call, op, {})
            for number, kernel in enumerate(others, 2):
                self.whats[kernel.name] = f"{what} ({number} of {len(others) + 1})", NO_WORK

    def reports(
        self, runs: Mapping[_Key, int], seconds: Mapping[_Key, float]
    ) -> Iterator[LaunchReport]:
        """A line for each kernel and grid, in the order of their first runs."""
        for key, count in runs.items():
            name, grid = key
            kernel = self.kernels.get(name) if grid else None
            what, work = self.whats.get(name, ("", NO_WORK))
            resources = (self.resources or {}).get(name)
            taken = seconds.get(key)
            yield LaunchReport(name, what, count, taken, grid, kernel, work * count, resources)


def _kernel_calls(lowered: LoweredFunction) -> Iterator[tuple[KernelCall, Kernel]]:
    """The kernels of a function and of its regions."""
    for call, op in zip(lowered.calls, lowered.steps, strict=True):
        if isinstance(call, KernelCall) and isinstance(op, Kernel):
            yield call, op
    for body in lowered.bodies:
        yield from _kernel_calls(body)


def _resources(program: GpuProgram) -> Mapping[str, Resources] | None:
    """What the assembler says, where the target has one that is installed."""
    if not program.target.cpu or not program.launches:
        return None
    try:
        return assemble_ptx(assemble(program).decode(), program.target.cpu).resources
    except AssemblerNotFound:
        return None
