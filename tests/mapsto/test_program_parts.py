"""Programs that are written and compiled in parts."""

from __future__ import annotations

import numpy as np
import pytest

import mapsto as mt
from mapsto.compiler import optimized
from mapsto.lowering import program_parts
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.driver import lower
from mapsto.runtime import jit

SOURCE = """
map twice(w: f32[m, m], x: f32[n, m], count: f32) -> f32[n, m]:
    let h = tanh(tanh(x @ w) @ w)
    softmax(h @ w + count)
"""

W = np.linspace(-1, 1, 48 * 48, dtype=np.float32).reshape(48, 48)
X = np.linspace(-2, 2, 32 * 48, dtype=np.float32).reshape(32, 48)


def lowered(finished=None):
    types = {"w": mt.f32[48, 48], "x": mt.f32[32, 48], "count": mt.f32[()]}
    elaborated = mt.loads(SOURCE).twice.elaborate(types, {})
    module = optimized(elaborated.module, mt.Options())
    return lower(module, elaborated.entry, Machine.host(), finished=finished)


def test_each_part_is_told_when_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_parts, "_LEAST_LINES", 1)
    told: list[str] = []
    program = lowered(told.append)
    assert program.texts == tuple(told)
    assert len(told) == len(program.kernels) + 1 > 2
    for kernel, text in zip(program.kernels, told, strict=False):
        assert f"define hidden void @{kernel.name}(" in text
        assert f"declare void @{kernel.name}(" in told[-1]


def test_a_program_is_one_part_where_nobody_waits_for_it() -> None:
    assert lowered().texts == (lowered().text,)


def test_parts_compute_what_one_text_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "0")
    results = []
    for lines in (1, 10**9):
        monkeypatch.setattr(program_parts, "_LEAST_LINES", lines)
        monkeypatch.setattr(jit, "_cache", type(jit._cache)())
        results.append(mt.loads(SOURCE).twice(W, X, 1.0))
    assert np.array_equal(*results)
