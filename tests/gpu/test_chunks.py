"""Threads take elements beside each other, and keep what they have of a row in registers."""

from __future__ import annotations

import re

import mapped_harness
import pytest

import mapsto as mt
from mapsto.compiler import Options, optimized
from mapsto.ir.core import Function, Module
from mapsto.lowering.gpu.program import assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.verifier import unproven_races

MAPS = mt.loads("""
map soft(x: f32[n, m]) -> f32[n, m]: softmax(x)
map curve(x: f32[n, m]) -> f32[n, m]: 0.5 * x * tanh(x)
map wider(x: f16[n, m]) -> f32[n, m]: 2 * f32(x)
map normal(x: f32[n, m]) -> f32[n, m]:
    let centred = x - mean(x, axis=1, keepdims=true)
    centred / sqrt(mean(centred^2, axis=1, keepdims=true) + 1e-5)
""")
HOPPER = GpuTarget.named("nvptx64-sm_90")


def function(name: str, *shape: int) -> Function:
    """A map of a matrix of this shape."""
    element = mt.f16 if name == "wider" else mt.f32
    elaborated = getattr(MAPS, name).elaborate({"x": element[shape]}, {})
    return optimized(elaborated.module, Options())[elaborated.entry]


SHAPES = [(3, 512), (3, 600), (3, 330), (2, 333), (2, 2050), (8, 20000)]
"""Rows of whole rounds, of a rest that fills chunks, that chunks of two fill and that none does,
those with more threads, and some that are too long for registers."""


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["soft", "normal"])
def test_rows(name: str, shape: tuple[int, int]) -> None:
    mapped = mapped_harness.check(function(name, *shape), tolerance=1e-5)
    assert not [
        race
        for each in mapped.kernels.values()
        for kernel in each
        for race in unproven_races(kernel)
    ]


@pytest.mark.parametrize("shape", [(100, 100), (99, 83)], ids=str)
@pytest.mark.parametrize("name", ["curve", "wider"])
def test_maps_of_many_elements(name: str, shape: tuple[int, int]) -> None:
    mapped_harness.check(function(name, *shape), tolerance=1e-5)


@pytest.mark.parametrize("shape", [(2, 200), (1, 300)], ids=str)
def test_threads_do_not_race(shape: tuple[int, int]) -> None:
    mapped_harness.check(function("soft", *shape), tolerance=1e-5, interpreted=True)


def accesses(name: str, *shape: int) -> list[str]:
    """The accesses to global memory in PTX."""
    chosen = function(name, *shape)
    text = assemble(lower_gpu(Module.of(chosen), chosen.name, HOPPER)).decode()
    return re.findall(r"(?:ld|st)\.global\S*", text)


def test_elements_beside_each_other_are_one_access() -> None:
    assert accesses("curve", 1024, 1024) == ["ld.global.nc.v4.b32", "st.global.v4.b32"]


def test_rows_are_kept_in_registers() -> None:
    found = accesses("soft", 1024, 1024)
    assert [each for each in found if each.startswith("st")] == ["st.global.v4.b32"] * 2
