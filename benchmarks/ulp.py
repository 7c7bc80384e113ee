"""Measures the vector math functions: errors in units in the last place, and speed.

    python benchmarks/ulp.py [--stride N] [--function NAME ...] [--output FILE]

f32 functions of one argument are measured on all 2**32 inputs (every N-th with `--stride N`), pow
on random pairs, f64 functions on random samples; at each vector width of this machine and on
x86-64-v2.  Writes the table to `docs/vector-math.md`, unless only some functions are asked for.
"""

import argparse
import functools
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "vector_math"))
from kernels import (
    Array,
    Kernel,
    available_machines,
    error_kernel,
    floats,
    function_kernel,
    multiply_add_kernel,
)
from references import reference_extended, reference_f64

from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.llvm.types import DOUBLE, FLOAT, LLVMType
from mapsto.lowering.llvm.vector_math import FUNCTIONS

_CHUNK = 1 << 16
_PAIRS = 1 << 24
_SAMPLES_F64 = 1 << 20
_SAMPLES_ERF_F64 = 1 << 14
_THREADS = 2
_TABLE = Path(__file__).parent.parent / "docs" / "vector-math.md"


class Worst(NamedTuple):
    """The largest error found, in ulp, and where."""

    error: float
    where: tuple[float, ...]


class Row(NamedTuple):
    """What was measured of one function, type and machine."""

    function: str
    dtype: str
    machine: str
    inputs: str
    worst: Worst
    nanoseconds: float
    multiply_adds: float


# ---- accuracy


def all_floats(stride: int) -> Iterator[Array]:
    """Chunks of every stride-th f32, as a row of one argument."""
    span = _CHUNK * stride
    for start in range(0, 1 << 32, span):
        numbers = np.arange(start, min(start + span, 1 << 32), stride, dtype=np.uint64)
        padded = np.resize(numbers, -(-numbers.size // 64) * 64)
        yield padded.astype(np.uint32).view(np.float32)[None]


def random_pairs(count: int, kind: LLVMType) -> Iterator[Array]:
    """Chunks of bases above 0 and exponents whose powers cover the whole range."""
    generator = np.random.default_rng(0)
    limit = 88.0 if kind == FLOAT else 709.0
    for _ in range(0, count, _CHUNK):
        x = np.exp(generator.uniform(-limit, limit, _CHUNK) * generator.uniform(0, 1, _CHUNK) ** 4)
        x = x.astype(floats(kind)).astype(np.float64)
        y = generator.uniform(-limit, limit, _CHUNK) / np.where(x == 1, 1, np.log(x))
        yield np.stack([x, y]).astype(floats(kind))


def random_arguments(name: str, count: int) -> Iterator[Array]:
    """Chunks of f64 arguments: near 0, around 1 and over the range where the function varies."""
    generator = np.random.default_rng(0)
    positive = name in ("log", "rsqrt", "log1p")
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        x = generator.uniform(-4, 4, size)
        x[::4] *= 10.0 ** generator.uniform(-12, 2, x[::4].size)
        x[1::4] = generator.uniform(-1, 1, x[1::4].size)
        yield (np.abs(x) if positive else x)[None]


def accuracy_f32(name: str, machines: dict[str, Machine], stride: int) -> dict[str, Worst]:
    """The worst error on each machine; the reference is computed once for all of them."""
    kernels = [function_kernel(name, FLOAT, machine) for machine in machines.values()]
    measure = error_kernel(next(iter(machines.values())))
    exact = reference_f64(name)
    chunks = all_floats(stride) if FUNCTIONS[name].arity == 1 else random_pairs(_PAIRS, FLOAT)
    worst = dict.fromkeys(machines, Worst(0.0, ()))

    def check(arguments: Array) -> list[Worst]:
        with np.errstate(all="ignore"):
            values = exact(*arguments.astype(np.float64))
            return _errors(arguments, values, kernels, measure)

    with ThreadPoolExecutor(_THREADS) as pool:
        for found in _bounded_map(pool, check, chunks):
            worst = {key: max(worst[key], new) for key, new in zip(machines, found, strict=True)}
    return worst


def _bounded_map(
    pool: ThreadPoolExecutor, function: Callable[[Array], list[Worst]], chunks: Iterator[Array]
) -> Iterator[list[Worst]]:
    """Like `pool.map`, with only a few chunks in memory."""
    running = []
    for chunk in chunks:
        running.append(pool.submit(function, chunk))
        if len(running) > 4 * _THREADS:
            yield running.pop(0).result()
    for future in running:
        yield future.result()


def _errors(arguments: Array, exact: Array, kernels: list[Kernel], measure: Kernel) -> list[Worst]:
    """The worst of a chunk for each kernel; equal results are measured once."""
    found: list[Worst] = []
    previous = None
    result = np.empty(exact.size, np.float32)
    errors = np.empty(exact.size)
    for kernel in kernels:
        kernel(arguments, result)
        if previous is None or not np.array_equal(previous.view(np.int32), result.view(np.int32)):
            measure(np.stack([result.astype(np.float64), exact]), errors)
            index = int(errors.argmax())
            found.append(Worst(float(errors[index]), tuple(arguments[:, index].tolist())))
            previous = result.copy()
        else:
            found.append(found[-1])
    return found


def accuracy_f64(name: str, machines: dict[str, Machine]) -> dict[str, Worst]:
    """The worst error on each machine over random samples."""
    count = _SAMPLES_ERF_F64 if name == "erf" else _SAMPLES_F64
    pairs = FUNCTIONS[name].arity == 2
    chunks = random_pairs(count, DOUBLE) if pairs else random_arguments(name, count)
    exact = reference_extended(name)
    worst = dict.fromkeys(machines, Worst(0.0, ()))
    kernels = {key: function_kernel(name, DOUBLE, machine) for key, machine in machines.items()}
    for arguments in chunks:
        values = exact(*arguments)
        for key, kernel in kernels.items():
            worst[key] = max(worst[key], _error_f64(arguments, values, kernel))
    return worst


def _error_f64(arguments: Array, exact: Array, kernel: Kernel) -> Worst:
    result = np.empty(exact.size)
    kernel(arguments, result)
    unit = np.ldexp(np.longdouble(1), np.maximum(np.frexp(exact)[1] - 1, -1022) - 52)
    errors = np.abs(result - exact) / unit
    index = int(errors.argmax())
    return Worst(float(errors[index]), tuple(arguments[:, index].tolist()))


# ---- speed


def nanoseconds(kernel: Kernel, inputs: Array) -> float:
    """Time for one element in the first-level cache, without the cost of the call."""
    result = np.empty(inputs.shape[-1], inputs.dtype)
    short, long = inputs.shape[-1] // 8, inputs.shape[-1]
    times = [_best_time(kernel.bound(inputs, result, count)) for count in (short, long)]
    return (times[1] - times[0]) / (long - short) * 1e9


def _best_time(call: Callable[[], None], rounds: int = 400, repeats: int = 20) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        best = min(best, time.perf_counter() - start)
    return best / repeats


@functools.cache
def multiply_add_nanoseconds(kind: LLVMType, machine: Machine) -> float:
    """Time for one multiply-add of one element at the machine's peak."""
    inputs = np.ones((1, 2048), floats(kind))
    few, many = (
        nanoseconds(multiply_add_kernel(kind, machine, rounds), inputs) for rounds in (10, 20)
    )
    return (many - few) / 80


def speed(name: str, kind: LLVMType, machine: Machine) -> float:
    """Nanoseconds an element."""
    arity = FUNCTIONS[name].arity
    inputs = np.random.default_rng(0).uniform(0.1, 3, (arity, 2048 // arity)).astype(floats(kind))
    return nanoseconds(function_kernel(name, kind, machine), inputs)


# ---- the table


def measure(name: str, stride: int) -> list[Row]:
    """All rows of one function."""
    machines = available_machines()
    pairs = FUNCTIONS[name].arity == 2
    all_inputs = f"{_PAIRS:,} pairs" if pairs else "all" if stride == 1 else f"1 in {stride}"
    samples = _SAMPLES_ERF_F64 if name == "erf" else _SAMPLES_F64
    rows = []
    for kind, dtype, inputs, worst in (
        (FLOAT, "f32", all_inputs, accuracy_f32(name, machines, stride)),
        (DOUBLE, "f64", f"{samples:,}", accuracy_f64(name, machines)),
    ):
        for key, machine in machines.items():
            duration = speed(name, kind, machine)
            slots = duration / multiply_add_nanoseconds(kind, machine)
            rows.append(Row(name, dtype, key, inputs, worst[key], duration, slots))
    return rows


def _line(row: Row) -> str:
    where = ", ".join(f"{value:.9g}" for value in row.worst.where)
    return (
        f"| {row.function} | {row.dtype} | {row.machine} | {row.inputs} | {row.worst.error:.3f} "
        f"| {where} | {row.nanoseconds:.3f} | {row.multiply_adds:.1f} |"
    )


_HEAD = """# Vector math: accuracy and speed

Written by `python benchmarks/ulp.py`, on {cpu}; do not edit.

The error is the distance to the exact value in units in the last place (ulp) of the exact value's
binade; a correctly rounded result has at most 0.5. f32 functions of one argument are measured on
all 2^32 inputs, against NumPy in f64 (erf: against our own in f64, itself measured against mpmath
below); f64 functions on random samples against 80-bit arithmetic (erf: mpmath). Special values
(infinities, NaN, zeros, subnormals, overflow) are part of "all" and count as an infinite error if
wrong.

`x86-64-v2` has 128-bit vectors and no fused multiply-add. Time is nanoseconds an element in the
first-level cache, on one thread; "multiply-adds" is the same in multiply-adds of an element at the
machine's measured peak, which other instructions of other units may overlap.

What to rely on, on every target with IEEE arithmetic, in ulp ("fused" and "not": with and without a
fused multiply-add instruction):

{bounds}

| function | type | vectors | inputs | max ulp | at | ns | multiply-adds |
|---|---|---|---|---|---|---|---|
"""


_BOUNDS = """| function | f32 fused | f32 not | f64 fused | f64 not |
|---|---|---|---|---|
| exp, log, log1p, sin, cos | 1 | 1 | 1 | 1.1 |
| rsqrt | 0.51 | 0.51 | 0.51 | 1.5 |
| pow | 0.51 | 0.51 | 1.3 | 1.3 |
| tanh | 1 | 1.15 | 1 | 1.1 |
| erf | 1 | 1 | 1 | 1.1 |
| expm1 | 1.2 | 1.25 | 1.2 | 1.25 |
| sigmoid | 2.5 | 2.5 | 2.5 | 2.5 |"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--stride", type=int, default=1, help="measure every N-th f32")
    parser.add_argument("--function", action="append", choices=sorted(FUNCTIONS))
    parser.add_argument("--output", type=Path, default=_TABLE)
    options = parser.parse_args()
    lines = []
    for name in options.function or FUNCTIONS:
        for row in measure(name, options.stride):
            lines.append(_line(row))
            print(lines[-1], flush=True)
    if options.function is None:
        head = _HEAD.format(cpu=Machine.host().cpu, bounds=_BOUNDS)
        options.output.parent.mkdir(exist_ok=True)
        options.output.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
