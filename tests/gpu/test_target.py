"""What target records say of blocks on multiprocessors, and which intrinsics pass."""

import pytest

import mapsto as mt
from mapsto.ir.types import DType
from mapsto.lowering.gpu.dialect import NVPTX, SIMULATED, SPIRV, check_intrinsics
from mapsto.lowering.gpu.target import GpuTarget, MatrixShape, target_names


def test_every_target_has_its_name() -> None:
    for name in target_names():
        target = GpuTarget.named(name)
        assert target.name == name
        assert target.block_threads % target.warp == 0
        assert target.static_shared_bytes <= target.max_shared_bytes
        assert target.resident_blocks(target.block_threads, 1024) > 0


def test_unknown_target_names_all_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"no GPU target `sm_80`: there are nvptx64-sm_75, .*gpusim"
    ):
        GpuTarget.named("sm_80")


@pytest.mark.parametrize(
    ("threads", "shared", "registers", "blocks"),
    [
        (256, 0, 0, 8),  # 2048 threads
        (32, 0, 0, 32),  # the most blocks
        (128, 40 << 10, 0, 4),  # 41 KiB each of 164 KiB
        (256, 0, 128, 2),  # 32768 registers each
        (256, 0, 255, 1),
        (2048, 0, 0, 0),
        (256, 164 << 10, 0, 0),
    ],
)
def test_resident_blocks(threads: int, shared: int, registers: int, blocks: int) -> None:
    target = GpuTarget.named("nvptx64-sm_80")
    assert target.resident_blocks(threads, shared, registers) == blocks
    assert target.occupancy(threads, shared, registers) == blocks * threads / 2048


def test_intrinsics_are_checked_before_llvm_sees_them() -> None:
    text = "call float @llvm.fma.f32(float %a, float %b, float %c)"
    for dialect in (NVPTX, SPIRV, SIMULATED):
        check_intrinsics(text, dialect)
    with pytest.raises(ValueError, match=r"`llvm.exp.f32` is not known to work on nvptx64"):
        check_intrinsics("call float @llvm.exp.f32(float %a)", NVPTX)
    thread = "call i32 @llvm.nvvm.read.ptx.sreg.tid.x()"
    check_intrinsics(thread, NVPTX)
    with pytest.raises(ValueError, match="not known to work on spirv64"):
        check_intrinsics(thread, SPIRV)
    with pytest.raises(ValueError, match="not known to work on nvptx64"):
        check_intrinsics("call ptr @llvm.coro.begin(token %i, ptr %m)", NVPTX)


def test_f32_is_rounded_for_matrix_instructions_when_asked_for() -> None:
    ampere, turing = GpuTarget.named("nvptx64-sm_80"), GpuTarget.named("nvptx64-sm_75")
    assert ampere.matrix_shape(DType.F32) is None
    rounding = mt.Options(tf32=True).gpu_target(ampere)
    assert rounding.matrix_shape(DType.F32) == MatrixShape("tf32", 16, 8, 8)
    assert mt.Options(tf32=True).gpu_target(turing).matrix_shape(DType.F32) is None
    assert turing.matrix_shape(DType.F16) == MatrixShape("f16", 16, 8, 8)
    assert rounding.matrix_shape(DType.BF16) == MatrixShape("bf16", 16, 8, 16)
