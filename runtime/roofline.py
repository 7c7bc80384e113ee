"""What this machine can do, measured: multiply-adds a second, and bytes a second at each level of
its memory (Williams, Waterman and Patterson, "Roofline: an insightful visual performance model",
2009).

The loops are LLVM text that only multiplies and adds in registers, only loads, or only stores, run
by the threads of the pool.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm.types import FLOAT, I8, I64, PTR, VOID, LLVMType, Operand, constant, zero
from mapsto.lowering.llvm.writer import FunctionWriter, ModuleWriter
from mapsto.runtime.arrays import aligned_empty
from mapsto.runtime.jit import compile_module
from mapsto.runtime.threads import threads

__all__ = ["Level", "Roofline", "measure_roofline"]

CHAINS = 12
"""Multiply-adds under way at one time: the latency of four steps times two units, and some more;
they, a factor and a term fit into 16 registers."""

STEPS = 4096
LINES = 8
"""Vectors loaded or stored in one step of a loop."""

_ROUNDS = 40
_ROUND_SECONDS = 0.002
_LARGEST = 256 << 20


@dataclass(frozen=True, slots=True)
class Level:
    """A level of memory: `bytes` that fit for all threads together, and bytes a second."""

    name: str
    bytes: int
    read: float
    written: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """The machine with so many threads: f32 operations a second (a multiply-add is two), and the
    levels of memory from the nearest on."""

    threads: int
    operations: float
    levels: tuple[Level, ...]

    def level_of(self, bytes_: float) -> Level:
        """The nearest level that so many bytes fit into."""
        return next((level for level in self.levels if bytes_ <= level.bytes), self.levels[-1])

    def seconds(self, operations: float, float_bytes: int, read: float, written: float) -> float:
        """The least time for some work: that of its operations or of its bytes, the longer one."""
        level = self.level_of(read + written)
        compute = operations * max(1, float_bytes / 4) / self.operations
        return max(compute, read / level.read + written / level.written)


def measure_roofline(machine: Machine | None = None) -> Roofline:
    """Measures the machine with the threads that compiled code uses; about a second."""
    machine = machine or Machine.host()
    bench = _Bench(machine)
    return Roofline(threads(), bench.operations(), tuple(bench.levels()))


class _Bench:
    """Runs the loops."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.threads = threads()
        self.code = compile_module(_text(machine), machine)

    def operations(self) -> float:
        """Floating-point operations a second."""
        lanes = self.machine.lanes(32)
        room = aligned_empty(DType.F32, (self.threads, CHAINS + 2, lanes))
        room[...] = 0.5
        seconds = self._best("multiply_add", room.ctypes.data, room.nbytes // self.threads)
        return 2 * CHAINS * STEPS * lanes * self.threads / seconds

    def levels(self) -> Iterator[Level]:
        """The levels, from the nearest on."""
        for name, bytes_ in _sizes(self.machine, self.threads):
            step = self.threads * LINES * self.machine.vector_bits // 8
            used = min(max(step, bytes_ * 3 // 4), _LARGEST) // step * step
            room = aligned_empty(DType.I64, (used // 8,))
            room[...] = 1
            read, written = (
                used / self._best(task, room.ctypes.data, used // self.threads)
                for task in ("read", "write")
            )
            yield Level(name, bytes_, read, written)

    def _best(self, task: str, address: int, bytes_: int) -> float:
        """Seconds of one run, of the best of several rounds."""
        types = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64
        run = ctypes.CFUNCTYPE(None, *types)(self.code.address(task))

        def seconds(repeats: int) -> float:
            start = time.perf_counter()
            run(address, bytes_, repeats, self.threads)
            return (time.perf_counter() - start) / repeats

        return best_of(seconds)


def best_of(seconds: Callable[[int], float]) -> float:
    """The least seconds of a run; the argument repeats one and gives the mean."""
    once = max(seconds(1), 1e-9)
    repeats = max(1, int(_ROUND_SECONDS / once))
    return min(seconds(repeats) for _ in range(_ROUNDS))


def _sizes(machine: Machine, count: int) -> Iterator[tuple[str, int]]:
    """Each level's name, and the bytes that fit for all threads."""
    yield "L1", machine.l1 * count
    yield "L2", machine.l2 * count
    yield "L3", machine.l3
    yield "memory", max(4 * machine.l3, _LARGEST)


# ---- the loops


def _text(machine: Machine) -> str:
    module = ModuleWriter.for_machine(machine)
    lanes = machine.lanes(32)
    floats = FLOAT.vector(lanes)
    _write_task(module, "multiply_add", lambda f, start, _: _multiply_add(f, floats, start))
    vector = I64.vector(machine.lanes(64))
    _write_task(module, "read", lambda f, start, size: _read(f, vector, start, size))
    _write_task(module, "write", lambda f, start, size: _write(f, vector, start, size))
    return str(module)


Body = Callable[[FunctionWriter, Operand, Operand], Sequence[Operand]]
"""Writes a loop over so many bytes from an address on; gives values that must be computed."""


def _write_task(module: ModuleWriter, name: str, body: Body) -> None:
    """The function `name(memory, bytes, repeats, tasks)`: each task does the loop on its part of
    the memory, again and again, and stores the values at its beginning."""
    parameters = [(PTR, "closure"), (I64, "number"), (I64, "worker")]
    f = module.function(f"{name}.task", parameters, VOID, "internal")
    closure, number, _ = f.parameters
    memory = f.load(PTR, closure)
    size, repeats = (f.load(I64, f.getelementptr(I64, closure, i)) for i in (1, 2))
    start = f.getelementptr(I8, memory, f.mul(number, size))

    def run(_: Operand) -> None:
        for i, value in enumerate(body(f, start, size)):
            f.store(value, f.getelementptr(value.type, start, i))

    f.loop(constant(I64, 0), repeats, 1, run)
    f.ret()
    _write_caller(module, name)


def _write_caller(module: ModuleWriter, name: str) -> None:
    parameters = [(PTR, "memory"), (I64, "bytes"), (I64, "repeats"), (I64, "tasks")]
    f = module.function(name, parameters, VOID)
    closure = f.alloca(I64, 3)
    for i, value in enumerate(f.parameters[:3]):
        f.store(value, f.getelementptr(I64, closure, i))
    f.declare("mapsto_parallel_for", VOID, [PTR, PTR, I64])
    task = Operand(f"@{name}.task", PTR)
    f.call("mapsto_parallel_for", VOID, [task, closure, f.parameters[3]])
    f.ret()


def _multiply_add(f: FunctionWriter, vector: LLVMType, start: Operand) -> Sequence[Operand]:
    """Independent chains of multiply-adds."""
    first = [f.load(vector, f.getelementptr(vector, start, i)) for i in range(CHAINS)]
    factor, term = (f.load(vector, f.getelementptr(vector, start, CHAINS + i)) for i in range(2))

    def step(_: Operand, chains: Sequence[Operand]) -> Sequence[Operand]:
        return [f.fma(chain, factor, term) for chain in chains]

    return _loop(f, constant(I64, STEPS), first, step)


def _read(f: FunctionWriter, vector: LLVMType, start: Operand, size: Operand) -> Sequence[Operand]:
    """Loads of everything."""
    stride = LINES * vector.lanes * vector.bits // 8

    def step(number: Operand, seen: Sequence[Operand]) -> Sequence[Operand]:
        place = f.getelementptr(I8, start, f.mul(number, constant(I64, stride)))
        loaded = [f.load(vector, f.getelementptr(vector, place, i)) for i in range(LINES)]
        return [f.xor(a, b) for a, b in zip(seen, loaded, strict=True)]

    return _loop(f, f.udiv(size, constant(I64, stride)), [zero(vector)] * LINES, step)


def _write(f: FunctionWriter, vector: LLVMType, start: Operand, size: Operand) -> Sequence[Operand]:
    """Stores everywhere."""
    stride = LINES * vector.lanes * vector.bits // 8
    value = f.load(vector, start)

    def step(number: Operand, _: Sequence[Operand]) -> Sequence[Operand]:
        place = f.getelementptr(I8, start, f.mul(number, constant(I64, stride)))
        for i in range(LINES):
            f.store(value, f.getelementptr(vector, place, i))
        return []

    return _loop(f, f.udiv(size, constant(I64, stride)), [], step)


Step = Callable[[Operand, Sequence[Operand]], Sequence[Operand]]
"""Takes the number of a step and values, and gives the values after it."""


def _loop(
    f: FunctionWriter, count: Operand, first: Sequence[Operand], step: Step
) -> Sequence[Operand]:
    """Does the step `count` times, which is positive, with the values in registers."""
    before, header, after = f.current, f.block("loop"), f.block("after")
    f.branch(header)
    f.begin(header)
    number = f.phi(I64, (constant(I64, 0), before))
    phis = [f.phi(value.type, (value, before)) for value in first]
    values = step(number.value, [phi.value for phi in phis])
    following = f.add(number.value, constant(I64, 1))
    for phi, value in zip([number, *phis], [following, *values], strict=True):
        phi.add(value, f.current)
    f.branch_if(f.icmp("slt", following, count), header, after)
    f.begin(after)
    return values
