"""Choices among schedules: none changes a bit, and a choice that is known decides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from contraction_harness import arrays, conv2d, function_of, product
from loop_harness import run_native

from mapsto import ir
from mapsto.lowering.contraction_loops import contraction_body
from mapsto.lowering.contraction_plan import Schedule
from mapsto.lowering.contraction_problem import ContractionProblem, analyze
from mapsto.lowering.cpu.contraction_schedule import alternatives, choose_schedule
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.schedule_choice import (
    Choice,
    Contraction,
    estimated,
    measured,
    neighbours,
)

MACHINE = Machine.named("x86-64-v3")
FEW = {"product": product(13, 37, 29), "image": conv2d()}
MANY = {
    "row": product(1, 70, 33, "nt"),
    **{layout: product(53, 61, 47, layout) for layout in ("nn", "tn", "nt", "tt")},
    "deep": product(20, 30, 9000),
    "f64": product(33, 50, 40, dtype=ir.DType.F64),
}


def both_ways(first: ContractionProblem) -> list[ContractionProblem]:
    second = analyze(first.op, first.access, swapped=True)
    return [first] if second is None else [first, second]


def plans(
    first: ContractionProblem, machine: Machine
) -> Iterator[tuple[ContractionProblem, Schedule]]:
    for found in both_ways(first):
        schedule = choose_schedule(found, machine)
        yield found, schedule
        for other in alternatives(found, machine, schedule):
            yield found, other


def all_give_the_same_bits(first: ContractionProblem, machine: Machine) -> int:
    given, results = arrays(first), []
    for found, schedule in plans(first, machine):
        mine = {name: array.copy() for name, array in given.items()}
        run_native(function_of(found, contraction_body(found, schedule)), mine, {}, machine)
        results.append(mine["y"].tobytes())
    assert set(results) == {results[0]}
    return len(results)


@pytest.mark.parametrize("name", FEW)
def test_no_alternative_changes_a_bit(name: str) -> None:
    assert all_give_the_same_bits(FEW[name], Machine.host()) > 8


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_no_alternative_of_many_changes_a_bit(name: str) -> None:
    machine = replace(Machine.host(), l2=64 * 1024) if name == "deep" else Machine.host()
    assert all_give_the_same_bits(MANY[name], machine) > 8


def contraction(m: int = 13, n: int = 37, k: int = 29) -> Contraction:
    first = product(m, n, k)
    found = Contraction.of(first.op, first.access)
    assert found is not None
    return found


def test_a_choice_gives_its_plan_again() -> None:
    found = contraction()
    for problem, schedule in found.plans(MACHINE):
        choice = Choice.of((problem, schedule), found)
        assert choice.plan(found, MACHINE) == (problem, schedule)
        for other in neighbours(found, (problem, schedule), MACHINE):
            plan = other.plan(found, MACHINE)
            assert plan is not None and Choice.of(plan, found) == other


def test_neighbours_differ_in_the_choice_of_sides_or_tiles() -> None:
    found = contraction(130, 160, 64)
    base = Choice.of(found.estimated(MACHINE), found)
    others = list(neighbours(found, found.estimated(MACHINE), MACHINE))
    assert {other.private_rows for other in others} == {True, False}
    assert {other.pack_rows for other in others} == {True, False}
    assert len({(other.rows, other.vectors) for other in others}) > 3
    assert all(other.swapped == base.swapped for other in others)


def test_what_was_measured_decides() -> None:
    found = contraction()
    other = replace(Choice.of(found.estimated(MACHINE), found), rows=3, vectors=1)
    kept = {found.key: other}
    _, schedule = measured(kept.get, MACHINE)(contraction())
    assert (schedule.tile.rows, schedule.tile.vectors) == (3, 1)
    larger = contraction(m=14)
    assert measured(kept.get, MACHINE)(larger) == estimated(MACHINE)(larger)


def test_keys_tell_apart_what_has_other_schedules() -> None:
    first = product(13, 37, 29)
    computed = replace(first.access, direct=False)
    found = [
        contraction(),
        contraction(k=30),
        Contraction.of(first.op, computed),
        Contraction.of(first.op, first.access, frozenset({"x0"})),
        Contraction.of(first.op, first.access, frozenset({"x1"})),
    ]
    found.append(Contraction.of(first.op, replace(first.access, blocks=2)))
    transposed = product(13, 37, 29, "nt")
    found.append(Contraction.of(transposed.op, transposed.access))
    keys = [each.key for each in found if each is not None]
    assert len(set(keys)) == len(keys) == 7
    assert contraction().key == contraction().key
