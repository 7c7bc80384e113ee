"""What the code generator knows about a GPU, as records.

`GpuTarget.named("nvptx64-sm_80")`, `"spirv64"` and `"gpusim"` (threads of a GPU on the CPU) are all
there are; everything that depends on the device is a field here or a row of its `Dialect`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.gpu.dialect import NVPTX, SIMULATED, SPIRV, Dialect

__all__ = ["GpuTarget", "MatrixShape", "target_names"]

_KIB = 1024
_REGISTER_UNIT = 256
"""Registers are given to warps in this many at a time."""


@dataclass(frozen=True, slots=True)
class MatrixShape:
    """A product that a warp does in one instruction, of `m x k` by `k x n`, with sums in f32;
    `operand` is f16, bf16 or tf32."""

    operand: str
    m: int
    n: int
    k: int


@dataclass(frozen=True, slots=True)
class GpuTarget:
    """A kind of GPU.

    `triple`, `cpu` and `features` are LLVM's names.  `warp`: threads that run in step.  Of a block:
    `max_threads`, `static_shared_bytes` that it may declare, `max_shared_bytes` that it may have
    when launched with some.  Of a multiprocessor: how many threads, blocks, 32-bit registers and
    bytes of shared memory it has; `reserved_shared_bytes` of each block are the system's.
    `block_threads` is how many threads a block of ours has where nothing speaks for another number,
    `task_work` how many scalar operations it should have at least, and `processors` how many
    multiprocessors work is divided for.
    """

    name: str
    triple: str
    dialect: Dialect
    cpu: str = ""
    features: str = ""
    warp: int = 32
    max_threads: int = 1024
    static_shared_bytes: int = 48 * _KIB
    max_shared_bytes: int = 48 * _KIB
    reserved_shared_bytes: int = 0
    processor_threads: int = 2048
    processor_blocks: int = 32
    processor_registers: int = 65536
    processor_shared_bytes: int = 64 * _KIB
    max_registers: int = 255
    block_threads: int = 128
    task_work: int = 512
    processors: int = 108
    has_async_copy: bool = False
    matrix_shapes: tuple[MatrixShape, ...] = ()
    rounds_to_tf32: bool = False
    """Whether factors in f32 may be rounded to 11 significant bits, for matrix instructions."""

    @staticmethod
    def named(name: str) -> GpuTarget:
        """The target of that name.  Raises ValueError, naming all there are, for another one."""
        found = _TARGETS.get(name)
        if found is None:
            raise ValueError(f"no GPU target `{name}`: there are {', '.join(_TARGETS)}")
        return found

    def with_tf32(self, is_allowed: bool = True) -> GpuTarget:
        """The target with or without leave to round factors in f32 to tf32."""
        return replace(self, rounds_to_tf32=is_allowed)

    def matrix_shape(self, dtype: DType) -> MatrixShape | None:
        """The largest product of matrices of a type in one instruction; None: there is none."""
        operand = dtype.value
        if dtype is DType.F32 and self.rounds_to_tf32:
            operand = "tf32"
        found = [shape for shape in self.matrix_shapes if shape.operand == operand]
        return max(found, key=lambda shape: shape.k, default=None)

    @property
    def has_shuffle(self) -> bool:
        """Whether threads of a warp can read each other's registers."""
        return self.is_simulated or self.dialect.shuffle_across is not None

    @property
    def is_simulated(self) -> bool:
        """Whether the CPU does what the threads do."""
        return self.dialect is SIMULATED

    @property
    def machine(self) -> Machine:
        """The machine for which the emitter of scalar code writes."""
        if self.is_simulated:
            return Machine.host()
        return Machine(
            triple=self.triple,
            cpu=self.cpu,
            features=self.features,
            vector_bits=128,
            vector_registers=self.max_registers,
            has_fma=True,
            l1=0,
            l2=0,
            l3=0,
            cores=1,
        )

    def resident_blocks(self, threads: int, shared_bytes: int, registers: int = 0) -> int:
        """How many blocks a multiprocessor runs at once, `registers` being those of a thread (0:
        not counted); 0 where it can run none."""
        if threads > self.max_threads or shared_bytes > self.max_shared_bytes:
            return 0
        warps = -(-threads // self.warp)
        limits = [self.processor_blocks, self.processor_threads // (warps * self.warp)]
        memory = shared_bytes + self.reserved_shared_bytes
        if memory:
            limits.append(self.processor_shared_bytes // memory)
        if registers:
            unit = -(-registers * self.warp // _REGISTER_UNIT) * _REGISTER_UNIT
            limits.append(self.processor_registers // (unit * warps))
        return min(limits)

    def occupancy(self, threads: int, shared_bytes: int, registers: int = 0) -> float:
        """The part of a multiprocessor's threads that can be resident at once."""
        blocks = self.resident_blocks(threads, shared_bytes, registers)
        warps = -(-threads // self.warp)
        return blocks * warps * self.warp / self.processor_threads


def target_names() -> tuple[str, ...]:
    """The names of all targets."""
    return tuple(_TARGETS)


_TURING_SHAPES = (MatrixShape("f16", 16, 8, 8),)
_AMPERE_SHAPES = (
    MatrixShape("f16", 16, 8, 16),
    MatrixShape("bf16", 16, 8, 16),
    MatrixShape("tf32", 16, 8, 8),
)


def _nvptx(cpu: str, features: str, shared_kib: int, threads: int, blocks: int) -> GpuTarget:
    """A GPU with this much shared memory, so many threads and blocks on a multiprocessor."""
    return GpuTarget(
        name=f"nvptx64-{cpu}",
        triple="nvptx64-nvidia-cuda",
        dialect=NVPTX,
        cpu=cpu,
        features=features,
        max_shared_bytes=(shared_kib - 1) * _KIB,
        reserved_shared_bytes=_KIB,
        processor_threads=threads,
        processor_blocks=blocks,
        processor_shared_bytes=shared_kib * _KIB,
        has_async_copy=True,
        matrix_shapes=_AMPERE_SHAPES,
    )


_NVPTX = (
    replace(
        _nvptx("sm_75", "+ptx70", 64, 1024, 16),
        max_shared_bytes=64 * _KIB,
        reserved_shared_bytes=0,
        processors=40,
        has_async_copy=False,
        matrix_shapes=_TURING_SHAPES,
    ),
    _nvptx("sm_80", "+ptx70", 164, 2048, 32),
    replace(_nvptx("sm_86", "+ptx71", 100, 1536, 16), processors=84),
    replace(_nvptx("sm_89", "+ptx78", 100, 1536, 24), processors=128),
    replace(_nvptx("sm_90", "+ptx78", 228, 2048, 32), processors=132),
    replace(_nvptx("sm_100", "+ptx86", 228, 2048, 32), processors=148),
    replace(_nvptx("sm_120", "+ptx87", 100, 1536, 24), processors=170),
)

_SPIRV = GpuTarget(
    name="spirv64",
    triple="spirv64v1.2-unknown-unknown",
    dialect=SPIRV,
    max_threads=256,
    static_shared_bytes=32 * _KIB,
    max_shared_bytes=32 * _KIB,
    processors=32,
)

_SIMULATED = GpuTarget(
    name="gpusim",
    triple="",
    dialect=SIMULATED,
    max_shared_bytes=227 * _KIB,
    static_shared_bytes=227 * _KIB,
    processor_shared_bytes=228 * _KIB,
    max_registers=80,
    block_threads=64,
    task_work=256,
    processors=4,
    has_async_copy=False,
)

_TARGETS: Mapping[str, GpuTarget] = {t.name: t for t in (*_NVPTX, _SPIRV, _SIMULATED)}
