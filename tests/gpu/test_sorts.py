"""Sorts on GPUs: an element's place is counted, by a thread for each element."""

from __future__ import annotations

import numpy as np
import pytest
from harness import build
from mapped_harness import check

from mapsto import ir
from mapsto.ir.types import DType
from mapsto.lowering.gpu.program import lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.verifier import unproven_races


def argsort(rows: int, extent: int, **facts: object) -> ir.Function:
    body = [(DType.F32, (rows, extent))]
    return build("f", body, lambda b, x: b.emit(ir.ArgSort, x, axis=1, **facts))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("count", [3, 130])
def test_rows_with_ties_and_nan(descending: bool, count: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-20, 20, (2, 130)).astype(np.float32)
    x[0, [3, 77]], x[1, 5] = np.nan, -np.inf
    check(argsort(2, 130, descending=descending, count=count), [x])


def test_no_thread_reads_keys_that_are_not_there_yet() -> None:
    check(argsort(1, 40, descending=False, count=40), interpreted=True)


def test_threads_share_a_row_and_wait_for_its_keys() -> None:
    function = argsort(4, 130, descending=False, count=130)
    program = lower_gpu(ir.Module.of(function), "f", GpuTarget.named("nvptx64-sm_80"))
    (kernel,) = program.launches
    assert (kernel.grid, kernel.threads) == ((4, 1, 1), 128)
    assert len(unproven_races(kernel)) == 1, "places are computed: that they differ is not seen"
