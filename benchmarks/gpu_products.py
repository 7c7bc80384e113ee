"""Contractions on a GPU: how fast they are with the tiles that the compiler thinks best.

    python benchmarks/gpu_products.py [--device cuda:0] [--tiles 4] [--cases 'f32*']

For each case it prints tiles in the order of their estimated time, what they take, and the
operations a second that this is.  Results are compared with NumPy's at some places first.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from mapsto import ir
from mapsto.ir.core import Array, Function, Module
from mapsto.ir.ops.contraction import Contract
from mapsto.ir.types import DType, TensorType
from mapsto.lowering.contraction_problem import ContractionProblem, OperandAccess, analyze
from mapsto.lowering.contractions import LoweredContraction
from mapsto.lowering.gpu.contraction_blocks import contraction_body
from mapsto.lowering.gpu.contraction_schedule import ranked_tiles, schedule_with
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.program import GpuProgram, lower_gpu
from mapsto.lowering.gpu.scheduling import gpu_scheduling
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.devices.device import Device, Launch
from mapsto.runtime.devices.registry import find_device

REPEATS = 20
SAMPLES = 7
PLACES = 64
"""Elements of the result that are compared."""
TOLERANCES = {DType.F32: 1e-4, DType.F16: 1e-2, DType.BF16: 3e-2}


@dataclass(frozen=True)
class Case:
    """A contraction: shapes and maps of its operands, its domain and the rank of its result."""

    name: str
    dtype: DType
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    maps: tuple[ir.AffineMap, ir.AffineMap]
    extents: tuple[int, ...]
    rank: int

    def function(self) -> Function:
        """The contraction as a function of the tensor IR."""
        types = [TensorType(self.dtype, shape) for shape in self.shapes]
        builder = ir.Builder(ir.Block(types, ["x", "y"]))
        attributes = {"rank": self.rank, "extents": self.extents, "maps": self.maps}
        op = builder.append(Contract(builder.block.arguments, attributes))
        return ir.finish_function("f", builder, [op.result])

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * math.prod(self.extents)


def product(dtype: DType, m: int, n: int, k: int, layout: str = "nn", batch: int = 1) -> Case:
    """A product of matrices, the first (second) given as its transpose for a `t` in the layout."""
    outer = [batch] if batch > 1 else []
    row, column, step = (dim + len(outer) for dim in range(3))
    first = ((k, m), [step, row]) if layout[0] == "t" else ((m, k), [row, step])
    second = ((n, k), [column, step]) if layout[1] == "t" else ((k, n), [step, column])
    lead = list(range(len(outer)))
    maps = tuple(ir.projection([*lead, *dims], step + 1) for _, dims in (first, second))
    shapes = (*outer, *first[0]), (*outer, *second[0])
    name = f"{dtype} {batch}x{m}x{n}x{k} {layout}"
    return Case(name, dtype, shapes, (maps[0], maps[1]), (*outer, m, n, k), step)


def convolution(dtype: DType, n: int, c: int, side: int, o: int, k: int) -> Case:
    """A convolution of images [n, c, side, side] with padding."""

    def window(outer: int, inner: int) -> ir.AffineExpr:
        return (ir.axis(outer, 7) + ir.axis(inner, 7)).shifted(-(k // 2))

    image = ir.AffineMap(7, (ir.axis(0, 7), ir.axis(4, 7), window(2, 5), window(3, 6)))
    shapes = (n, c, side, side), (o, c, k, k)
    extents = (n, o, side, side, c, k, k)
    name = f"{dtype} conv {n}x{c}x{side} to {o}, {k}x{k}"
    return Case(name, dtype, shapes, (image, ir.projection([1, 4, 5, 6], 7)), extents, 4)


CASES = (
    *(product(d, 4096, 4096, 4096) for d in (DType.F32, DType.BF16, DType.F16)),
    *(product(d, 4096, 4096, 4096, "nt") for d in (DType.F32, DType.BF16)),
    *(product(d, 4096, 4096, 4096, "tn") for d in (DType.F32, DType.BF16)),
    *(product(d, 1024, 1024, 1024) for d in (DType.F32, DType.BF16)),
    *(product(d, 8192, 768, 3072) for d in (DType.F32, DType.BF16)),
    *(product(d, 512, 512, 64, "nt", batch=96) for d in (DType.F32, DType.BF16)),
    *(product(d, 1, 4096, 4096) for d in (DType.F32, DType.BF16)),
    *(product(d, 64, 64, 65536, "tn") for d in (DType.F32, DType.BF16)),
    *(convolution(d, 32, 64, 56, 64, 3) for d in (DType.F32, DType.BF16)),
)


# ---- compiling


def problem_of(op: Contract, access: OperandAccess) -> ContractionProblem:
    """The contraction of a case with its dimensions sorted."""
    problem = analyze(op, access)
    assert problem is not None, "a product"
    return problem


def tiles_of(case: Case, target: GpuTarget) -> tuple[BlockTile, ...]:
    """All tiles for a case, those with the least estimated time first."""
    found: list[tuple[BlockTile, ...]] = []

    def look(op: Contract, access: OperandAccess, same: frozenset[str]) -> LoweredContraction:
        found.append(ranked_tiles(problem_of(op, access), target))
        return lowered(problem_of(op, access), target, found[0][0])

    scheduling = replace(gpu_scheduling(target), contraction=look)
    lower_gpu(Module.of(case.function()), "f", target, scheduling)
    return found[0]


def compiled(case: Case, target: GpuTarget, tile: BlockTile) -> GpuProgram:
    """The case with a tile."""

    def tiled(op: Contract, access: OperandAccess, same: frozenset[str]) -> LoweredContraction:
        return lowered(problem_of(op, access), target, tile)

    scheduling = replace(gpu_scheduling(target), contraction=tiled)
    return lower_gpu(Module.of(case.function()), "f", target, scheduling)


def lowered(problem: ContractionProblem, target: GpuTarget, tile: BlockTile) -> LoweredContraction:
    """The launches of a contraction with a tile."""
    return LoweredContraction(contraction_body(problem, schedule_with(problem, target, tile)), ())


# ---- running


def halves(array: Array, dtype: DType) -> Array:
    """An array of f32 as it is in the device's memory."""
    if dtype is DType.BF16:
        return np.ascontiguousarray(array).view(np.uint32).__rshift__(16).astype(np.uint16)
    return array.astype(dtype.numpy)


def whole(array: Array, dtype: DType) -> Array:
    """The inverse, as f32."""
    if dtype is DType.BF16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


class Memory:
    """The operands and the result of a case on a device."""

    def __init__(self, device: Device, case: Case) -> None:
        self.device, self.case = device, case
        random = np.random.default_rng(0)
        given = [random.normal(size=shape).astype(np.float32) for shape in case.shapes]
        stored = [halves(array, case.dtype) for array in given]
        self.operands = [whole(array, case.dtype) for array in stored]
        self.result = np.zeros(case.extents[: case.rank], stored[0].dtype)
        self.addresses = [device.allocate(array.nbytes) for array in (*stored, self.result)]
        for address, array in zip(self.addresses, stored, strict=False):
            device.write(address, array)

    def check(self) -> None:
        """Raises AssertionError where the result is not what it should be."""
        self.device.read(self.addresses[-1], self.result)
        found = whole(self.result, self.case.dtype)
        for place, expected, size in self._some_elements():
            error = abs(found[place] - expected)
            assert error <= TOLERANCES[self.case.dtype] * size, (place, found[place], expected)

    def _some_elements(self) -> Iterator[tuple[tuple[int, ...], float, float]]:
        """Places of the result, the elements there, and how large the terms are together."""
        case, random = self.case, np.random.default_rng(1)
        points = np.indices(case.extents[case.rank :]).reshape(len(case.extents) - case.rank, -1)
        for _ in range(PLACES):
            place = tuple(int(random.integers(extent)) for extent in case.extents[: case.rank])
            terms = np.ones(points.shape[1])
            for operand, map_ in zip(self.operands, case.maps, strict=True):
                terms = terms * _read(operand, map_, place, points)
            yield place, float(terms.sum()), float(np.sqrt((terms**2).sum())) + 1e-3


def _read(operand: Array, map_: ir.AffineMap, place: Sequence[int], points: Array) -> Array:
    """The factors of an operand for the terms at a place, zero outside."""
    inside = np.ones(points.shape[1], bool)
    indices = []
    for expr, size in zip(map_.results, operand.shape, strict=True):
        index = np.full(points.shape[1], int(expr.constant))
        for coefficient, value in zip(expr.coefficients, [*place, *points], strict=True):
            index = index + int(coefficient) * np.asarray(value)
        inside &= (index >= 0) & (index < size)
        indices.append(np.clip(index, 0, size - 1))
    return np.where(inside, operand[tuple(indices)].astype(np.float64), 0.0)


def seconds(device: Device, program: GpuProgram, memory: Memory) -> float:
    """What a call takes, after the result was found right."""
    loaded = device.load(program)
    scratch = max(int(kernel.scratch_bytes) for kernel in program.launches)
    extra = [device.allocate(scratch)] if scratch else []
    commands = [
        Launch(
            loaded.kernels[kernel.name],
            kernel.grid_for({}),
            (*memory.addresses, *(extra if kernel.scratch_bytes else [])),
        )
        for kernel in program.launches
    ]
    device.run(commands)
    memory.check()
    replay = device.record(commands * REPEATS)
    replay()
    device.synchronize()
    samples = []
    for _ in range(SAMPLES):
        start = time.perf_counter()
        replay()
        device.synchronize()
        samples.append((time.perf_counter() - start) / REPEATS)
    for address in extra:
        device.free(address)
    return median(samples)


def measure(device: Device, case: Case, count: int) -> None:
    """Prints a line for each of the best tiles."""
    memory = Memory(device, case)
    print(case.name)
    for tile in tiles_of(case, device.target)[:count]:
        taken = seconds(device, compiled(case, device.target, tile), memory)
        rate = case.operations / taken / 1e12
        print(f"  {taken * 1e6:10.1f} us {rate:8.2f} Tflop/s  {describe(tile)}", flush=True)
    for address in memory.addresses:
        device.free(address)


def describe(tile: BlockTile) -> str:
    """A tile in a few words."""
    parts = f"{tile.part_rows}x{tile.part_columns} a {'warp' if tile.is_matrix else 'thread'}"
    size = f"{tile.rows}x{tile.columns}x{tile.depth}"
    return f"{size}, {parts}, {tile.stages} stages, {tile.splits} parts"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--tiles", type=int, default=1, help="how many tiles of each case")
    parser.add_argument("--cases", default="*", help="which cases, as a pattern")
    options = parser.parse_args()
    device = find_device(options.device)
    assert device is not None, "the CPU has benchmarks of its own"
    print(device.description)
    for case in CASES:
        if fnmatch.fnmatch(case.name, options.cases):
            measure(device, case, options.tiles)


if __name__ == "__main__":
    main()
