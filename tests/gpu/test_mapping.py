"""Mapped kernels agree with the reference evaluator, in an interpreter that finds races."""

from __future__ import annotations

import math
from random import Random

import mapped_harness
import pytest
from random_programs import ProgramWriter

from mapsto.ir.core import Function
from mapsto.ir.dims import dim_value
from mapsto.ir.ops.contraction import Contract


def work(function: Function) -> int:
    """Steps of contractions, for sizes of 7: the interpreter is slow."""
    contractions = [op for op in function.block.operations if isinstance(op, Contract)]
    sizes = {"n": 7}
    return sum(math.prod(dim_value(e, sizes) for e in op.extents) for op in contractions)


def straight_programs(count: int) -> list[int]:
    """Seeds of random programs without control flow and with little work."""
    found = []
    for seed in range(1000):
        function = ProgramWriter(Random(seed)).write()
        if not any(op.regions for op in function.block.operations) and work(function) < 1500:
            found.append(seed)
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("seed", straight_programs(4))
def test_random_programs(seed: int) -> None:
    random = Random(seed)
    function = ProgramWriter(random).write()
    sizes = {"n": random.choice([1, 2, 7])}
    mapped_harness.check(function, sizes=sizes, tolerance=1e-9)
