"""Tuning: the descent finds the least, what was found is kept and decides, and no bit changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_harness import Workspace

import mapsto as mt
from mapsto.ir.disk_cache import key_of
from mapsto.lowering.cpu import contraction_schedule
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.schedule_choice import Choice, Contraction
from mapsto.runtime import tuning
from mapsto.runtime.schedules import KeptSchedules
from mapsto.runtime.tuning import Tuned, search

PROGRAM = """
map rotated(x: f32[n, d], w: f32[d, d]) -> f32[n, d]:
    map step(h: f32[n, d], k: i32) -> (f32[n, d], f32[n]):
        let next = tanh(h @ w)
        (next, sum(next, axis=-1))
    let (last, sums) = scan(step, x, [k < 3] |-> k)
    last

map looked_up(table: f32[v, d], ids: i32[n], w: f32[d, m]) -> f32[n, m]:
    table[ids] @ w + 1
"""
X = np.random.default_rng(0).normal(size=(13, 37)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(37, 37)).astype(np.float32)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an empty cache; few schedules are measured, in no time."""
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "64")
    for name, value in (("SECONDS", 0.0), ("RUNS", 1), ("DUELS", 1)):
        monkeypatch.setattr(tuning, name, value)
    monkeypatch.setattr(contraction_schedule, "TILES_TO_TRY", 2)
    return tmp_path / "kept"


def tuned_options(found: list[Tuned]) -> mt.Options:
    return mt.Options(tune=True, report_tuned=found.append)


def test_the_descent_ends_where_no_neighbour_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    contraction = contraction_of(monkeypatch)
    machine = Machine.named("x86-64-v3")
    best = replace(Choice.of(contraction.estimated(machine), contraction), pack_rows=False)
    best = replace(best, private_rows=not best.private_rows)
    tried: list[Choice] = []

    def seconds(choice: Choice) -> float:
        tried.append(choice)
        return 1.0 + sum(
            getattr(choice, name) != getattr(best, name)
            for name in ("swapped", "private_rows", "pack_rows", "rows", "vectors")
        )

    found, count = search(contraction, machine, seconds)
    assert (found.private_rows, found.pack_rows) == (best.private_rows, best.pack_rows)
    assert (found.rows, found.vectors, found.swapped) == (best.rows, best.vectors, best.swapped)
    assert len(set(tried)) == len(tried) == count < 60


def contraction_of(monkeypatch: pytest.MonkeyPatch) -> Contraction:
    """What a product of two matrices asks a schedule for."""
    found: list[Contraction] = []

    def choose(self: KeptSchedules) -> object:
        def note(contraction: Contraction) -> object:
            found.append(contraction)
            return contraction.estimated(self.machine)

        return note

    with monkeypatch.context() as patch:
        patch.setattr(KeptSchedules, "choose", choose)
        library = mt.loads("map f(a: f32[m, k], b: f32[k, n]) -> f32[m, n]: a @ b")
        library.f(np.ones((130, 64), np.float32), np.ones((64, 160), np.float32))
    return found[0]


def test_tuned_programs_give_the_same_bits(kept: Path) -> None:
    ids = np.array([3, 1, 12, 0, 3], np.int32)
    plain, found = mt.loads(PROGRAM), list[Tuned]()
    tuned = mt.loads(PROGRAM, options=tuned_options(found))
    assert tuned.rotated(X, W).tobytes() == plain.rotated(X, W).tobytes()
    assert tuned.looked_up(X, ids, W).tobytes() == plain.looked_up(X, ids, W).tobytes()
    assert [each.extents for each in found] == [(13, 37, 37), (5, 37, 37)]
    assert all(each.tried > 4 and 0 < each.after <= each.before for each in found)
    assert str(found[0]).startswith("tuned 13x37x37: ")


def test_frozen_weights_are_packed_ahead_of_the_measured_calls(kept: Path) -> None:
    found: list[Tuned] = []
    source = (
        "module Net():\n    layer = Dense(40)\n\n    map (x: f32[n, 37]) -> f32[n, 40]: layer(x)"
    )
    net = mt.loads(source, options=tuned_options(found)).Net()
    expected = net(X)
    assert net.freeze()(X).tobytes() == expected.tobytes()
    assert [each.extents for each in found] == [(13, 40, 37), (13, 40, 37)]


def test_what_was_measured_is_measured_once(kept: Path) -> None:
    found: list[Tuned] = []
    mt.loads(PROGRAM, options=tuned_options(found)).rotated(X, W)
    again: list[Tuned] = []
    mt.loads(PROGRAM, options=tuned_options(again)).rotated(X, W)
    assert len(found) == 1 and not again
    assert len(list((kept / "schedules").iterdir())) == 1


def test_what_was_measured_decides_for_all_programs(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "map f(a: f32[m, k], b: f32[k, n]) -> f32[m, n]: a @ b"
    a, b = np.ones((130, 64), np.float32), np.ones((64, 160), np.float32)
    machine, contraction = Machine.host(), contraction_of(monkeypatch)
    usual = KeptSchedules(machine)
    before = usual.fingerprint
    assert usual.choose() is None
    odd = replace(Choice.of(contraction.estimated(machine), contraction), rows=3, vectors=1)
    usual.keep(contraction.key, odd)
    assert KeptSchedules(machine).fingerprint != before
    choose = KeptSchedules(machine).choose()
    assert choose is not None and choose(contraction)[1].tile.rows == 3
    narrow = KeptSchedules(replace(machine, l2=machine.l2 * 2)).choose()
    assert narrow is not None and narrow(contraction)[1].tile.rows != 3
    assert np.array_equal(mt.loads(source).f(a, b), a @ b)


def test_what_another_version_kept_is_as_good_as_nothing(kept: Path) -> None:
    schedules = KeptSchedules(Machine.host())
    schedules._cache.save(schedules._name("some"), b'{"unheard_of": 1}')
    assert schedules.find("some") is None


def test_without_a_cache_tuning_holds_for_the_program(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "0")
    schedules = KeptSchedules(Machine.host())
    choice = Choice(False, 3, 1, True, 2, True, True)
    schedules.keep("some", choice)
    assert schedules.find("some") == choice and schedules.choose() is not None
    assert KeptSchedules(Machine.host()).find("some") is None
    assert schedules.fingerprint == key_of()


def test_the_command(kept: Path, workspace: Workspace) -> None:
    workspace.write("tuned.mto", PROGRAM)
    sizes = ("--static", "n=5", "--static", "d=37", "--static", "v=9", "--static", "m=8")
    command = ("bench", "tuned.mto:looked_up", *sizes, "--seconds", "0.01", "--tune")
    assert workspace.run(*command).err.startswith("tuned 5x8x37: ")
    assert workspace.run(*command).err == ""
    assert "schedules  1 file" in workspace.run("cache").out


def test_what_cannot_be_measured_here_is_refused(kept: Path, workspace: Workspace) -> None:
    workspace.write("tuned.mto", PROGRAM)
    sizes = ("--static", "n=5", "--static", "d=37", "--static", "v=9", "--static", "m=8")
    command = ("bench", "tuned.mto:looked_up", *sizes, "--tune", "--device", "gpusim")
    workspace.fails(*command, says="--tune measures schedules for the CPU")
