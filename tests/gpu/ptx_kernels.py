"""Kernels written by hand in LLVM text (`kernels/`), as PTX, and how to launch them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import ptx

TRIPLE = "nvptx64-nvidia-cuda"
FOLDER = Path(__file__).parent / "kernels"
Array = np.ndarray


@cache
def ptx_of(name: str, cpu: str = "sm_80", optimize: bool = True) -> str:
    """The PTX that LLVM makes of a file of `kernels/`."""
    return assemble((FOLDER / f"{name}.ll").read_text(), cpu, optimize)


def assemble(text: str, cpu: str = "sm_80", optimize: bool = True) -> str:
    """LLVM text to PTX; not optimized, functions are inlined all the same."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(TRIPLE).create_target_machine(cpu=cpu, opt=3)
    module = llvm.parse_assembly(text)
    module.triple, module.data_layout = TRIPLE, str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3 if optimize else 0)
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return str(machine.emit_assembly(module))


def run(
    text: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    arguments: Sequence[object],
    results: Sequence[Array],
    name: str | None = None,
) -> list[Array]:
    """Runs the (only) kernel of a text.  Arrays among the arguments are copied to global memory;
    those of `results`, which are compared by identity, are read back, all others are numbers."""
    program = ptx.parse(text)
    name = name or next(iter(program.kernels))
    memory = ptx.GlobalMemory()
    addresses = {}
    for i, x in enumerate(arguments):
        if isinstance(x, np.ndarray):
            addresses[id(x)] = memory.allocate(x, f"argument {i}")
    passed = [addresses.get(id(x), x) for x in arguments]
    kernel = ptx.prepare(program, name)
    ptx.launch(kernel, _triple(grid), _triple(block), passed, memory)
    return [memory.read(addresses[id(x)], x.dtype, x.shape) for x in results]


def _triple(sizes: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (*sizes, 1, 1)[:3]
    return x, y, z


def normal(*shape: int, seed: int = 0, dtype: str = "f4") -> Array:
    """Random numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run_saxpy(text: str, n: int = 1000, blocks: int = 4) -> None:
    x, y = normal(n), normal(n, seed=1)
    (result,) = run(text, (blocks,), (256,), [x, y, np.float32(3), n], [y])
    assert np.array_equal(result, (np.float64(3) * x + y).astype(np.float32))


def run_scale4(text: str) -> None:
    x, y = normal(256), np.zeros(256, np.float32)
    (result,) = run(text, (1,), (64,), [x, y], [y])
    assert np.array_equal(result, 2 * x)


def run_block_sum(text: str, n: int = 3000) -> None:
    x, out = normal(n), np.zeros(3, np.float32)
    (result,) = run(text, (3,), (256,), [x, out, n], [out])
    padded = np.concatenate([x, np.zeros(3 * 1024 - n, np.float32)])
    assert np.allclose(result, padded.reshape(3, -1).sum(1), atol=1e-4)


def run_warp_sum(text: str) -> None:
    x, out = normal(96), np.zeros(96, np.float32)
    (result,) = run(text, (1,), (96,), [x, out], [out])
    assert np.allclose(result.reshape(3, 32), x.reshape(3, 32).sum(1)[:, None], atol=1e-5)


def run_matmul(text: str) -> None:
    a, b, c = normal(32, 48), normal(48, 64, seed=1), np.zeros((32, 64), np.float32)
    (result,) = run(text, (4, 2), (16, 16), [a, b, c, 64, 48], [c])
    assert np.allclose(result, a @ b, atol=1e-4)


def run_tensor_matmul(text: str) -> None:
    a, b = normal(64, 80, dtype="f2"), normal(80, 48, seed=1, dtype="f2")
    c = np.zeros((64, 48), np.float32)
    (result,) = run(text, (3, 2), (128,), [a, b, c, 48, 80], [c])
    assert np.allclose(result, a.astype("f4") @ b.astype("f4"), atol=1e-3)


RUNS: dict[str, Callable[[str], None]] = {
    "saxpy": run_saxpy,
    "scale4": run_scale4,
    "block_sum": run_block_sum,
    "warp_sum": run_warp_sum,
    "tiled_matmul": run_matmul,
    "tensor_matmul": run_tensor_matmul,
}
"""Runs a kernel of `kernels/` from its PTX and compares with NumPy."""
