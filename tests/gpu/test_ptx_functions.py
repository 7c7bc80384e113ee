"""The PTX of compiled functions agrees with the reference evaluator, and no check finds a fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import numpy as np
import ptx
import pytest
from harness import build
from ptx_functions import check
from random_programs import ProgramWriter

from mapsto.ir.affine import projection
from mapsto.ir.core import Function
from mapsto.ir.ops.contraction import contract
from mapsto.ir.types import DType

SLOW = pytest.mark.slow
TARGETS = ("nvptx64-sm_75", "nvptx64-sm_80", "nvptx64-sm_90", "nvptx64-sm_100")


def product(m: int, n: int, k: int, dtype: DType, layout: str = "nn") -> Function:
    """The product of matrices, each as it is (n) or transposed (t)."""
    left = ((m, k), projection([0, 2], 3)), ((k, m), projection([2, 0], 3))
    right = ((k, n), projection([2, 1], 3)), ((n, k), projection([1, 2], 3))
    (a, a_map), (b, b_map) = left[layout[0] == "t"], right[layout[1] == "t"]
    return build(
        "product",
        [(dtype, a), (dtype, b)],
        lambda builder, x, y: contract(builder, [x, y], [a_map, b_map], [m, n, k], 2),
    )


def integers(function: Function) -> list[np.ndarray]:
    """Small integers, with which all sums are exact, in each type."""
    rng = np.random.default_rng(0)
    types = [argument.type for argument in function.block.arguments]
    return [rng.integers(-3, 4, type_.shape).astype(type_.dtype.numpy) for type_ in types]


QUICK = [(64, 64, 64), (17, 31, 29), (1, 97, 53), (97, 1, 53)]
SIZES = [
    *((5, 3, 2), (16, 16, 16), (128, 96, 80), (33, 65, 127), (61, 67, 71), (256, 128, 64)),
    *((7, 11, 13), (101, 103, 107), (2, 2, 509), (1, 1, 1), (128, 128, 32), (40, 24, 8)),
    *((31, 32, 33), (19, 256, 23), (193, 5, 3), (64, 48, 200)),
]
"""Twenty together."""


@pytest.mark.parametrize(
    "size", [*QUICK, *(pytest.param(size, marks=SLOW) for size in SIZES)], ids=str
)
@pytest.mark.parametrize("dtype", [DType.F32, DType.F16], ids=str)
def test_products_of_matrices(size: tuple[int, int, int], dtype: DType) -> None:
    function = product(*size, dtype)
    check(function, integers(function))


@SLOW
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.BF16, DType.F64], ids=str)
def test_layouts_on_all_targets(dtype: DType, layout: str, target: str) -> None:
    for size in [(64, 48, 40), (37, 29, 31)]:
        function = product(*size, dtype, layout)
        check(function, integers(function), target=target)


def test_tensor_cores_and_copies_are_used() -> None:
    function = product(64, 64, 64, DType.F16)
    text = check(function, integers(function)).text
    assert "mma.sync" in text and "cp.async" in text and "ldmatrix" in text


def programs(count: int, dtype: DType) -> list[tuple[int, DType]]:
    """Seeds of random programs without control flow."""
    seeds = (
        seed
        for seed in range(10_000)
        if not any(op.regions for op in ProgramWriter(Random(seed), dtype).write().block.operations)
    )
    return [(next(seeds), dtype) for _ in range(count)]


QUICK_PROGRAMS = [*programs(4, DType.F64), *programs(4, DType.F32)]
MORE_PROGRAMS = [
    *(case for dtype in (DType.F64, DType.F32) for case in programs(60, dtype)[4:]),
    *programs(40, DType.F16),
]


@pytest.mark.parametrize(
    ("seed", "dtype"),
    [*QUICK_PROGRAMS, *(pytest.param(*case, marks=SLOW) for case in MORE_PROGRAMS)],
)
def test_random_programs(seed: int, dtype: DType) -> None:
    function = ProgramWriter(Random(seed), dtype).write()
    tolerance = 1e-9 if dtype is DType.F64 else None
    check(function, sizes={"n": Random(seed).choice([1, 2, 7, 33])}, tolerance=tolerance)


Change = Callable[[str], str]


def without(pattern: str) -> Callable[[int], Change]:
    """Drops an occurrence of a regular expression."""

    def nth(which: int) -> Change:
        def change(text: str) -> str:
            match = list(re.finditer(pattern, text))[which]
            return text[: match.start()] + text[match.end() :]

        return change

    return nth


def replaced(pattern: str, new: str) -> Change:
    """Replaces the first occurrence."""

    def change(text: str) -> str:
        changed = re.sub(pattern, new, text, count=1)
        assert changed != text
        return changed

    return change


BARRIER, WAIT = r"bar\.sync\s+0;", r"cp\.async\.wait_group\s+\d+;"
WRONG = (ptx.Fault, AssertionError)


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16], ids=str)
@pytest.mark.parametrize("pattern", [BARRIER, WAIT], ids=["barrier", "wait"])
def test_what_threads_wait_for_is_needed(dtype: DType, pattern: str) -> None:
    """A product without any one of its barriers or waits is found to be wrong."""
    function = product(64, 64, 64, dtype)
    given = integers(function)
    count = len(re.findall(pattern, check(function, given).text))
    assert count
    for which in range(count):
        with pytest.raises(WRONG):
            check(function, given, change=without(pattern)(which))


DEFECTS: dict[str, tuple[Change, type[Exception] | tuple[type[Exception], ...]]] = {
    "a multiply-add of other registers": (
        replaced(r"(fma\.rn\.f32\s+%r\d+, )(%r\d+), (%r\d+)", r"\1\2, \2"),
        AssertionError,
    ),
    "a store one element further": (
        replaced(r"(st\.global\S*\s+\[%rd\d+)\]", r"\1+4]"),
        (*WRONG,),
    ),
    "a load from global memory beyond its end": (
        replaced(r"(cp\.async\S*\s+\[%r\w+\S*\], \[%rd\d+)\S*\]", r"\1+16384]"),
        ptx.OutOfBounds,
    ),
    "a copy to where no other goes": (
        replaced(r"(cp\.async\S*\s+\[%r\w+)\S*\]", r"\1+65536]"),
        ptx.OutOfBounds,
    ),
    "a load of shared memory that is not aligned": (
        replaced(r"(ld\.shared\.v\d\S*\s+\{[^}]*\}, \[%r\w+)\S*\]", r"\1+4]"),
        ptx.Misaligned,
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defects(name: str) -> None:
    change, error = DEFECTS[name]
    function = product(128, 128, 64, DType.F32)
    with pytest.raises(error):
        check(function, integers(function), change=change)
