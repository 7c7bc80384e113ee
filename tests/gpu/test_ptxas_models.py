"""All kernels of the ladder's models, of every op and of products assemble for real GPUs, call
nothing that is not there, and spill no registers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from ladder import MODELS, climb
from ptx_device import PtxDevice
from test_device_ops import elementwise, whole
from test_ptx_functions import product

from mapsto.ir.core import Module
from mapsto.ir.types import DType
from mapsto.lowering.gpu.program import GpuProgram, assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.runtime.devices.device import Command, DeviceKernel
from mapsto.runtime.devices.registry import OPENERS
from mapsto.runtime.ptxas import Resources, assemble_ptx, disassemble

pytestmark = pytest.mark.ptxas
Array = np.ndarray


class NoDevice(PtxDevice):
    """Takes programs and runs none of them; results are zeros."""

    def __init__(self, architecture: int) -> None:
        super().__init__(architecture)
        self.name = f"none:{architecture}"
        self.texts: list[str] = []

    def load(self, program: GpuProgram) -> SimpleNamespace:
        if program.launches:
            self.texts.append(assemble(program).decode())
        kernels: Mapping[str, DeviceKernel] = {
            kernel.name: DeviceKernel(kernel.name, None, kernel.block)
            for kernel in program.launches
        }
        return SimpleNamespace(kernels=kernels)

    def run(self, commands: Sequence[Command]) -> None:
        """Does nothing."""

    def read(self, address: int, array: Array) -> None:
        array[...] = 0


ON_EACH = pytest.mark.parametrize("architecture", [75, 80, 90, 100])


def kernels(text: str, architecture: int) -> Iterator[tuple[str, Resources]]:
    assert ".extern .func" not in text
    yield from assemble_ptx(text, f"sm_{architecture}").resources.items()


def spilling(found: Mapping[str, Resources]) -> dict[str, Resources]:
    """The kernels that have too few registers."""
    return {name: r for name, r in found.items() if r.spill_stores or r.spill_loads}


@ON_EACH
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, architecture: int, monkeypatch: pytest.MonkeyPatch) -> None:
    device = NoDevice(architecture)
    monkeypatch.setitem(OPENERS, "none", lambda number: device)
    climb(name, f"none:{architecture}", 1)
    climb.cache_clear()
    found = dict(pair for text in device.texts for pair in kernels(text, architecture))
    assert len(found) > 3
    assert not spilling(found)


OPS = {
    "elementwise, f32": elementwise(DType.F32),
    "elementwise, f16": elementwise(DType.F16),
    "whole, f32": whole(DType.F32),
    "whole, i64": whole(DType.I64),
}


@ON_EACH
@pytest.mark.parametrize("name", OPS)
def test_ops(name: str, architecture: int) -> None:
    function, target = OPS[name], GpuTarget.named(f"nvptx64-sm_{architecture}")
    text = assemble(lower_gpu(Module.of(function), function.name, target)).decode()
    found = dict(kernels(text, architecture))
    assert found and not spilling(found)


SHAPES = [(64, 64, 64), (1024, 1024, 1024), (4096, 4096, 4096), (61, 67, 71), (64, 64, 16384)]


@ON_EACH
@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.BF16], ids=str)
def test_products(dtype: DType, architecture: int) -> None:
    """They fit a multiprocessor, and use what the architecture has for them."""
    target = GpuTarget.named(f"nvptx64-sm_{architecture}")
    for size in SHAPES:
        function = product(*size, dtype)
        program = lower_gpu(Module.of(function), function.name, target)
        assembled = assemble_ptx(assemble(program).decode(), f"sm_{architecture}")
        code = disassemble(assembled.code)
        kernel = program.launches[0]
        resources = assembled.resources[kernel.name]
        assert resources.spill_loads == 0, size
        shared = resources.shared_bytes + kernel.dynamic_bytes
        assert target.resident_blocks(kernel.threads, shared, resources.registers) > 0
        mix = code[kernel.name].mix()
        if architecture >= 80 and min(size) >= 64:
            assert mix["LDGSTS"], size
        if target.matrix_shape(dtype) is not None:
            assert mix["HMMA"] and not mix["FFMA"] > mix["HMMA"], size
