"""The PTX of contractions: it has the instructions that make it fast, and the interpreter of PTX
finds the right results in it, without races."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import ptx
import pytest
from contraction_harness import (
    arrays,
    conv2d,
    function_of,
    product,
    reference,
    rounded_to_tf32,
)

from mapsto import ir
from mapsto.lowering.contraction_problem import ContractionProblem
from mapsto.lowering.gpu.assembly import assemble_text
from mapsto.lowering.gpu.contraction_blocks import contraction_body
from mapsto.lowering.gpu.contraction_schedule import choose_schedule, schedule_with
from mapsto.lowering.gpu.contraction_tiles import BlockTile
from mapsto.lowering.gpu.dialect import check_intrinsics
from mapsto.lowering.gpu.emitter import emit_kernel
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.gpu.mapping import map_kernel
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.llvm.writer import ModuleWriter

AMPERE, TURING = GpuTarget.named("nvptx64-sm_80"), GpuTarget.named("nvptx64-sm_75")
ROUNDING = AMPERE.with_tf32()
F32, F16, BF16 = ir.DType.F32, ir.DType.F16, ir.DType.BF16
THREADS = BlockTile(16, 32, 8, 4, 4)
WARPS = BlockTile(32, 32, 32, 16, 16, 3, is_matrix=True)
TOLERANCES = {F32: 1e-5, F16: 4e-3, BF16: 2e-2}


def compiled(
    found: ContractionProblem, tile: BlockTile | None = None, target: GpuTarget = AMPERE
) -> tuple[Sequence[GpuKernel], str]:
    """The launches of a contraction, and their PTX."""
    chosen = choose_schedule(found, target) if tile is None else schedule_with(found, target, tile)
    kernels = map_kernel(function_of(found, contraction_body(found, chosen)), target)
    writer = ModuleWriter(target.machine.triple, target.machine.has_fma)
    for kernel in kernels:
        emit_kernel(writer, kernel, target)
    check_intrinsics(str(writer), target.dialect)
    return kernels, assemble_text(str(writer), target).decode()


def instructions(text: str) -> set[str]:
    """The instructions of a program, without operands."""
    return set(re.findall(r"^\s+(?:@!?%p\d+\s+)?([a-z][\w.:]+)", text, re.MULTILINE))


def halves(array: np.ndarray, dtype: ir.DType) -> np.ndarray:
    """An array as it is in memory: the interpreter has no type for bf16."""
    if dtype is not BF16:
        return array
    return (array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def whole(array: np.ndarray, dtype: ir.DType) -> np.ndarray:
    """The inverse."""
    if dtype is not BF16:
        return array.astype(np.float32)
    return (array.astype(np.uint32) << 16).view(np.float32)


def agree(
    found: ContractionProblem,
    tile: BlockTile,
    target: GpuTarget = AMPERE,
) -> None:
    kernels, text = compiled(found, tile, target)
    dtype, program, memory = found.dtype, ptx.parse(text), ptx.GlobalMemory()
    given = {name: halves(array, dtype) for name, array in arrays(found).items()}
    places = {name: memory.allocate(array, name) for name, array in given.items()}
    scratch = kernels[0].scratch_bytes
    assert isinstance(scratch, int)
    extra = [memory.allocate(np.zeros(scratch, np.uint8), "scratch")] if scratch else []
    for kernel in kernels:
        launchable = ptx.prepare(program, kernel.name)
        arguments = [*places.values(), *extra]
        ptx.launch(launchable, kernel.grid_for({}), kernel.block, arguments, memory)
    result = whole(memory.read(places["y"], given["y"].dtype, given["y"].shape), dtype)
    factors = {name: whole(array, dtype) for name, array in given.items()}
    factors = rounded_to_tf32(factors) if target.rounds_to_tf32 else factors
    expected = reference(found, factors)
    loose = TOLERANCES[dtype]
    np.testing.assert_allclose(result, expected.astype(np.float32), rtol=loose, atol=loose)


@pytest.mark.parametrize("layout", ["nn", "tt"])
def test_threads(layout: str) -> None:
    agree(product(19, 37, 21, layout), THREADS)
    agree(product(32, 64, 32, layout), replace(THREADS, stages=3))


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
@pytest.mark.parametrize("layout", ["nn", "tt"])
def test_matrix_instructions(layout: str, dtype: ir.DType) -> None:
    agree(product(64, 32, 64, layout, dtype=dtype), WARPS)
    agree(product(50, 40, 70, layout, dtype=dtype), replace(WARPS, stages=2))


@pytest.mark.parametrize("layout", ["nn", "tt"])
def test_factors_rounded_to_tf32(layout: str) -> None:
    agree(product(50, 40, 70, layout), replace(WARPS, stages=2), ROUNDING)
    _, text = compiled(product(512, 512, 512, layout), target=ROUNDING)
    used = instructions(text)
    assert "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32" in used
    assert {"cvt.rna.tf32.f32", "cp.async.cg.shared.global"} <= used
    assert "ld.shared.v2.b32" in used, "two neighbours along k at once"
    assert ".local" not in text


def test_turing_has_instructions_of_half_the_depth() -> None:
    agree(product(50, 40, 70, dtype=F16), replace(WARPS, stages=2), TURING)
    _, text = compiled(product(512, 512, 512, dtype=F16), target=TURING)
    used = instructions(text)
    assert "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32" in used
    assert not any(name.startswith("cp.async") for name in used)


def test_split_reductions() -> None:
    agree(product(5, 7, 150), replace(THREADS, splits=4))


def test_convolutions() -> None:
    agree(conv2d(), THREADS)
    agree(conv2d(), WARPS, ROUNDING)


def test_wide_accesses() -> None:
    _, text = compiled(product(512, 512, 512, "tn"))
    used = instructions(text)
    assert {"ld.shared.v4.b32", "st.global.v4.b32", "cp.async.cg.shared.global"} <= used
    assert not {name for name in used if name.startswith(("ld.shared", "st.global"))} - {
        "ld.shared.v4.b32",
        "st.global.v4.b32",
    }
    assert ".local" not in text, "sums stay in registers"


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_matrices_come_from_shared_memory_in_fours(dtype: ir.DType) -> None:
    _, text = compiled(product(512, 512, 512, dtype=dtype))
    used = instructions(text)
    kind = "f16.f16" if dtype is F16 else "bf16.bf16"
    assert f"mma.sync.aligned.m16n8k16.row.col.f32.{kind}.f32" in used
    assert "ldmatrix.sync.aligned.m8n8.x4.shared.b16" in used
    assert "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16" in used, "columns lie along rows"
    assert not any(name.startswith("ld.shared") for name in used)
    assert ".local" not in text


def test_much_shared_memory_is_provided_by_the_launch() -> None:
    tile = BlockTile(128, 128, 64, 64, 64, 3, is_matrix=True)
    (kernel,), text = compiled(product(256, 256, 256, dtype=BF16), tile)
    assert kernel.dynamic_bytes == kernel.shared_bytes > AMPERE.static_shared_bytes
    assert ".extern .shared" in text
    (small,), text = compiled(product(256, 256, 256, dtype=BF16), WARPS)
    assert small.dynamic_bytes == 0 and small.shared_bytes > 0
    assert ".extern .shared" not in text
