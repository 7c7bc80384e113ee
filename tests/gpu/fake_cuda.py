"""A CUDA driver without a GPU: `fake_cuda.c`, with kernels run by the loop interpreter."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mapsto.ir.core import Array
from mapsto.ir.dims import dim_value
from mapsto.lowering.gpu.program import GpuKernel, GpuProgram
from mapsto.lowering.loop_interpreter import interpret
from mapsto.lowering.loops import Buffer
from mapsto.runtime.devices.cuda import CudaDevice
from mapsto.runtime.devices.cuda_driver import Driver

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

Extents = ctypes.POINTER(ctypes.c_uint)
LaunchCallback = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, Extents, Extents, ctypes.c_uint, ctypes.POINTER(ctypes.c_uint64)
)
CountCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p)


@dataclass
class FakeCuda:
    """The stand-in, and what was launched on it."""

    library: ctypes.CDLL
    kernels: dict[str, GpuKernel] = field(default_factory=dict)
    launched: list[str] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def assemble(self, program: GpuProgram) -> bytes:
        """In place of PTX: the names of the kernels."""
        self.kernels |= {kernel.name: kernel for kernel in program.launches}
        return b"\n".join(kernel.name.encode() for kernel in program.launches)

    def device(self) -> CudaDevice:
        """A device of its own."""
        return CudaDevice(Driver(self.library), 0)

    def count(self, name: bytes) -> int:
        """How many parameters a kernel has."""
        kernel = self.kernels[name.decode()]
        has_scratch = kernel.scratch_bytes != 0
        return len(kernel.parameters) + len(kernel.loops.sizes) + has_scratch

    def launch(self, name: bytes, grid: Any, block: Any, shared: int, words: Any) -> None:
        """Runs a kernel."""
        try:
            self._launch(name.decode(), tuple(grid[:3]), tuple(block[:3]), words)
        except Exception as error:  # an exception cannot pass through C
            self.errors.append(error)

    def _launch(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], words: Any) -> None:
        kernel, pointers = self.kernels[name], len(self.kernels[name].parameters)
        names = kernel.loops.sizes
        sizes = {name: words[pointers + i] for i, name in enumerate(names)}
        assert kernel.grid_for(sizes) == grid and kernel.block == block
        scratch = [words[pointers + len(names)] + dim_value(o, sizes) for o in kernel.scratch]
        addresses = [*words[:pointers], *scratch]
        pairs = zip(kernel.loops.buffers, addresses, strict=True)
        interpret(kernel.loops, {b.name: _array(b, a, sizes) for b, a in pairs}, sizes)
        self.launched.append(name)


def _array(buffer: Buffer, address: int, sizes: dict[str, int]) -> Array:
    """A buffer that lies at an address."""
    shape = tuple(dim_value(dim, sizes) for dim in buffer.shape)
    count = int(np.prod(shape, dtype=np.int64)) * buffer.dtype.bytes
    memory = np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(address))
    return memory.view(buffer.dtype.numpy).reshape(shape)


def build_library(folder: Path) -> Path:
    """Compiles the stand-in."""
    output = folder / "libfakecuda.so"
    source = Path(__file__).with_name("fake_cuda.c")
    command = [str(COMPILER), "-shared", "-fPIC", "-O1", "-o", str(output), str(source)]
    subprocess.run(command, check=True)
    return output


def open_fake(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """The stand-in as the code that loads programs sees it."""
    fake = FakeCuda(ctypes.CDLL(str(path)))
    launch, count = LaunchCallback(fake.launch), CountCallback(fake.count)
    fake.library.fake_set_callbacks(launch, count)
    monkeypatch.setattr("mapsto.runtime.devices.cuda.image_of", fake.assemble)
    yield fake
    assert not fake.errors, fake.errors
