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


def straight_programs(count: int, most: int) -> list[int]:
    """Seeds of random programs without control flow and with little work."""
    found = []
    for seed in range(1000):
        function = ProgramWriter(Random(seed)).write()
        if not any(op.regions for op in function.block.operations) and work(function) < most:
            found.append(seed)
        if len(found) == count:
            break
    return found


def run(seed: int, interpreted: bool) -> None:
    random = Random(seed)
    function = ProgramWriter(random).write()
    sizes = {"n": random.choice([1, 2, 7])}
    mapped_harness.check(function, sizes=sizes, tolerance=1e-9, interpreted=interpreted)


@pytest.mark.parametrize("seed", straight_programs(4, 1500))
def test_random_programs_without_races(seed: int) -> None:
    run(seed, interpreted=True)


@pytest.mark.parametrize("seed", straight_programs(10, 10**6))
def test_random_programs_on_the_simulated_device(seed: int) -> None:
    run(seed, interpreted=False)
