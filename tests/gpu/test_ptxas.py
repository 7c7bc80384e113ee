"""What NVIDIA's assembler says of kernels (marker `ptxas`: it has to be installed)."""

from __future__ import annotations

import pytest
from ptx_kernels import RUNS, ptx_of

from mapsto.runtime import ptxas
from mapsto.runtime.errors import ArtifactError
from mapsto.runtime.ptxas import assemble_ptx, disassemble

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")

LISTING = """
.text.k:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   LDG.E R2, [R2.64] ;
.L_x_1:
        /*0020*/              @!P0 FFMA R5, R5, R6.reuse, R7 ;
        /*0030*/               @P1 BRA `(.L_x_1) ;
        /*0040*/               @P2 BRA `(.L_x_0) ;
        /*0050*/                   EXIT ;
.L_x_2:
        /*0060*/                   BRA `(.L_x_2);
"""


def test_loops_of_a_listing() -> None:
    code = ptxas._code(LISTING)
    assert code.opcodes == ("MOV", "LDG.E", "FFMA", "BRA", "BRA", "EXIT", "BRA")
    assert code.loops == ((2, 3),)
    assert code.loop_mixes() == [{"FFMA": 1, "BRA": 1}]
    assert code.mix()["LDG"] == 1


def test_a_missing_assembler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptxas, "_packaged", lambda name: iter(()))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ptxas.AssemblerNotFound, match="pip install nvidia-cuda-nvcc"):
        assemble_ptx("", "sm_80")


# Turing has no asynchronous copies.
HAND_WRITTEN = [
    (name, architecture)
    for name in RUNS
    for architecture in ARCHITECTURES
    if (name, architecture) != ("tensor_matmul", "sm_75")
]


@pytest.mark.ptxas
@pytest.mark.parametrize(("name", "architecture"), HAND_WRITTEN)
def test_hand_written_kernels(name: str, architecture: str) -> None:
    found = assemble_ptx(ptx_of(name, architecture), architecture)
    (resources,) = found.resources.values()
    assert resources.registers <= 64
    assert resources.spill_stores == resources.spill_loads == resources.stack_bytes == 0
    (code,) = disassemble(found.code).values()
    mix = code.mix()
    assert not mix["LDL"] and not mix["STL"]
    if name == "tensor_matmul":
        assert mix["HMMA"] and mix["LDGSTS"] and mix["LDSM"]
        assert resources.shared_bytes >= 4608


@pytest.mark.ptxas
def test_what_the_assembler_refuses() -> None:
    with pytest.raises(ArtifactError, match=r"requires \.target sm_80"):
        assemble_ptx(ptx_of("tensor_matmul").replace("sm_80", "sm_75"), "sm_75")
