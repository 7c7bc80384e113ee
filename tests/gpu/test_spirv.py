"""SPIR-V is the same, whatever the process made before."""

from __future__ import annotations

import pytest
from harness import build
from test_device_ops import elementwise, whole

from mapsto import ir
from mapsto.ir.core import Module
from mapsto.ir.types import DType
from mapsto.lowering.gpu.program import assemble, lower_gpu
from mapsto.lowering.gpu.spirv import spirv_module
from mapsto.lowering.gpu.target import GpuTarget

TARGET = GpuTarget.named("spirv64")


def test_modules_do_not_depend_on_those_before() -> None:
    functions = [elementwise(DType.U8), elementwise(DType.I64), whole(DType.U8)]
    programs = [lower_gpu(Module.of(each), "f", TARGET) for each in functions]
    first = [assemble(program) for program in programs]
    assert [assemble(program) for program in reversed(programs)] == first[::-1]


def test_what_llvm_says_of_a_defect_is_told() -> None:
    with pytest.raises(RuntimeError, match="LLVM made no SPIR-V: LLVM IR parsing error"):
        spirv_module("nonsense", TARGET.triple)


def test_exchanged_bits_of_an_index() -> None:
    """LLVM would reverse the bits of an integer that has two."""
    types = [(DType.F32, (4, 2, 2))]
    function = build("f", types, lambda b, x: b.emit(ir.Transpose, x, permutation=(0, 2, 1)))
    assert assemble(lower_gpu(Module.of(function), "f", TARGET))
