"""Each defect that is put into a kernel is found, and is called what it is."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import ptx
import pytest
from ptx_kernels import FOLDER, RUNS, assemble, normal, ptx_of, run

Change = Callable[[str], str]


def replaced(pattern: str, new: str, which: int = 0) -> Change:
    """Replaces one occurrence of a regular expression; there must be that many."""

    def change(text: str) -> str:
        match = list(re.finditer(pattern, text))[which]
        return text[: match.start()] + match.expand(new) + text[match.end() :]

    return change


def without(pattern: str, which: int = 0) -> Change:
    """Drops one occurrence."""
    return replaced(pattern, "", which)


_BARRIER = r"bar\.sync\s+0;"
_WAIT = r"cp\.async\.wait_group\s+\d;"

IN_PTX: dict[str, tuple[str, Change, type[ptx.PtxError]]] = {
    "a barrier removed from the reduction": ("block_sum", without(_BARRIER), ptx.DataRace),
    "the barrier before the products removed": ("tiled_matmul", without(_BARRIER), ptx.DataRace),
    "the barrier after the products removed": ("tiled_matmul", without(_BARRIER, -1), ptx.DataRace),
    "the barrier before ldmatrix removed": ("tensor_matmul", without(_BARRIER), ptx.DataRace),
    "the barrier after ldmatrix removed": ("tensor_matmul", without(_BARRIER, -1), ptx.DataRace),
    "a wait in the loop dropped": ("tensor_matmul", without(_WAIT), ptx.CopyInFlight),
    "the last wait dropped": ("tensor_matmul", without(_WAIT, -1), ptx.CopyInFlight),
    "a wait for too few groups": (
        "tensor_matmul",
        replaced(r"wait_group\s+1", "wait_group 2"),
        ptx.CopyInFlight,
    ),
    "a commit dropped": (
        "tensor_matmul",
        without(r"cp\.async\.commit_group;", 1),
        ptx.CopyInFlight,
    ),
    "a tail that is not guarded": ("saxpy", without(r"@%p\d+ bra[^;]*;"), ptx.OutOfBounds),
    "a vector load off by one element": (
        "scale4",
        replaced(r"(ld\.global\S* [^;]*\[%rd\d+)\]", r"\1+4]"),
        ptx.Misaligned,
    ),
    "a store that is missing": (
        "block_sum",
        without(r"st\.shared\S*\s[^;]*;"),
        ptx.Uninitialized,
    ),
    "a shuffle that half of the warp takes": (
        "warp_sum",
        replaced(r"(\n\tshfl)", r"\n\tsetp.lt.u32 %p99, %r1, 16;\n\t@%p99 shfl"),
        ptx.Fault,
    ),
    "a mask that names threads of others": (
        "warp_sum",
        replaced(r"31, -1;", "31, 65535;"),
        ptx.Divergence,
    ),
    "an address in the wrong space": (
        "block_sum",
        replaced(r"ld\.shared", "ld.global"),
        ptx.OutOfBounds,
    ),
}


def _declared(text: str) -> str:
    """The registers that mutants use."""
    return text.replace("{\n\t.reg", "{\n\t.reg .pred %p99;\n\t.reg", 1)


@pytest.mark.parametrize("name", IN_PTX)
def test_mutants_of_ptx(name: str) -> None:
    kernel, change, error = IN_PTX[name]
    text = ptx_of(kernel)
    mutant = change(text)
    assert mutant != text
    with pytest.raises(error):
        RUNS[kernel](_declared(mutant))


IN_LLVM: dict[str, tuple[str, Change, type[Exception]]] = {
    "a stride of 40 bytes for ldmatrix": (
        "tensor_matmul",
        replaced(r"%astart = mul i32 %arow, 24", "%astart = mul i32 %arow, 20"),
        ptx.Misaligned,
    ),
    "a stride of another row": (
        "tensor_matmul",
        replaced(r"%bstart = mul i32 %l15, 24", "%bstart = mul i32 %l15, 16"),
        ptx.Uninitialized,
    ),
    "columns of the wrong warp": (
        "tensor_matmul",
        replaced(r"%bcol = shl i32 %wcol, 3", "%bcol = shl i32 %wrow, 3"),
        Exception,
    ),
    "blocks that overlap": (
        "saxpy",
        replaced(r"%first = mul i32 %b, %d", "%first = mul i32 %b, 128"),
        ptx.DataRace,
    ),
    "a barrier that half of the threads reach": (
        "block_sum",
        lambda text: replaced(r"combine:\n", "combine:\n  call void @B(i32 0)\n")(text).replace(
            "@B(", "@llvm.nvvm.barrier.cta.sync.aligned.all("
        ),
        ptx.Divergence,
    ),
    "a tile that is too long": (
        "tiled_matmul",
        replaced(r"%more = icmp slt i32 %kk1, 16", "%more = icmp slt i32 %kk1, 17"),
        ptx.OutOfBounds,
    ),
    "a product less": (
        "tiled_matmul",
        replaced(r"%more = icmp slt i32 %kk1, 16", "%more = icmp slt i32 %kk1, 15"),
        AssertionError,
    ),
}


@pytest.mark.parametrize("name", IN_LLVM)
def test_mutants_of_llvm(name: str) -> None:
    kernel, change, error = IN_LLVM[name]
    source = (FOLDER / f"{kernel}.ll").read_text()
    mutant = change(source)
    assert mutant != source
    with pytest.raises(error):
        RUNS[kernel](assemble(mutant))


def test_a_grid_that_is_too_large() -> None:
    x, out = normal(3072), np.zeros(3, np.float32)
    with pytest.raises(ptx.OutOfBounds, match=r"byte 12 of `argument 1` .* block \(3, 0, 0\)"):
        run(ptx_of("block_sum"), (4,), (256,), [x, out, 3072], [out])


def test_a_block_of_another_size_than_declared() -> None:
    x, out = normal(3072), np.zeros(3, np.float32)
    with pytest.raises(ptx.InvalidProgram, match="not made for 128 threads"):
        run(ptx_of("block_sum"), (3,), (128,), [x, out, 3072], [out])


def test_a_race_names_both_threads() -> None:
    text = without(_BARRIER)(ptx_of("tiled_matmul"))
    with pytest.raises(ptx.DataRace) as caught:
        RUNS["tiled_matmul"](text)
    message = str(caught.value)
    assert "matmul, line" in message and "ld.shared" in message
    first, second = re.findall(r"thread \(\d+, \d+, \d+\) of block (\(\d+, \d+, \d+\))", message)
    assert first == second
    assert len(set(re.findall(r"thread \(\d+, \d+, \d+\)", message))) == 2
