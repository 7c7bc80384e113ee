"""Random programs agree with the reference evaluator when they run natively."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import hypothesis.strategies as st
import numpy as np
import pytest
from harness import check, machines, random_arguments
from hypothesis import assume, given, settings
from random_programs import ProgramWriter

from mapsto import ir
from mapsto.ir import fusion, stages
from mapsto.ir.core import Function, Module
from mapsto.ir.parser import parse_module
from mapsto.lowering.cpu import scheduling
from mapsto.lowering.kernel_work import Division

RANDOM = st.randoms(note_method_calls=False)


TOLERANCE = 1e-9
PERTURBATION = 1e-14
"""Of arguments, relative: more than the rounding of a few operations."""


def run(random: Random) -> None:
    function = ProgramWriter(random).write()
    machine = random.choice(machines())
    arguments = random_arguments(function, sizes={"n": random.choice([1, 2, 7, 20])})
    try:
        check(function, arguments, on=[machine], tolerance=TOLERANCE)
    except AssertionError:
        assume(is_steady(function, arguments))
        raise


def is_steady(function: Function, arguments: Sequence[np.ndarray]) -> bool:
    """Whether rounding errors stay below the tolerance: loops may double them at each step, so that
    results depend on the order of a sum."""
    random, module = np.random.default_rng(0), Module.of(function)
    moved = [_moved(array, random) for array in arguments]
    results = (ir.evaluate(module, function.name, each) for each in (arguments, moved))
    return all(
        np.allclose(one, other, TOLERANCE, TOLERANCE * np.max(np.abs(one), initial=1), True)
        for one, other in zip(*results, strict=True)
    )


def _moved(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    if array.dtype.kind != "f":
        return array
    return (array * (1 + PERTURBATION * random.normal(size=array.shape))).astype(array.dtype)


PRODUCT = """{extents = [20, 20, 20], rank = 2,
  maps = [(d0, d1, d2) -> (d0, d2), (d0, d1, d2) -> (d2, d1)]} : f64[20, 20]"""
LOOP = """
func @f(%x: f64[20, 20]) -> (f64[20, 20]) {
  %last = scan %x, %x {carried = 1, constants = 1, extent = STEPS}
      (%same: f64[20, 20], %h: f64[20, 20]) {
    %0 = contract %h, %same PRODUCT
    %1 = contract %same, %0 PRODUCT
    %2 = tanh %1 : f64[20, 20]
    return %2
  } : f64[20, 20]
  return %last
}
"""


@pytest.mark.parametrize(("steps", "expected"), [(1, True), (20, False)])
def test_loops_that_double_errors_are_not_compared(steps: int, expected: bool) -> None:
    text = LOOP.replace("STEPS", str(steps)).replace("PRODUCT", PRODUCT)
    function = parse_module(text)["f"]
    assert is_steady(function, random_arguments(function)) == expected


@settings(max_examples=60, deadline=None)
@given(RANDOM)
def test_random_programs(random: Random) -> None:
    run(random)


@pytest.fixture()
def small_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small programs are divided into tasks, and small products packed, as large ones are."""
    monkeypatch.setattr(scheduling, "DIVISION", Division(task_work=96, column_block=4))
    monkeypatch.setattr(stages, "HEAVY_PRODUCTS", 64)
    monkeypatch.setattr(fusion, "SMALL_WORK", 64)
    monkeypatch.setattr(fusion, "LEAST_COLUMNS", 4)


@pytest.mark.usefixtures("small_thresholds")
def test_random_programs_in_many_tasks() -> None:
    @settings(max_examples=60, deadline=None)
    @given(RANDOM)
    def many(random: Random) -> None:
        run(random)

    many()


@pytest.mark.slow
@pytest.mark.usefixtures("small_thresholds")
def test_many_random_programs() -> None:
    @settings(max_examples=2000, deadline=None)
    @given(RANDOM)
    def many(random: Random) -> None:
        run(random)

    many()
