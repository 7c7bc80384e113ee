"""Elementwise kernels that read across memory go through squares in shared memory, so that all
accesses of global memory are those of neighbours."""

from __future__ import annotations

import re
from dataclasses import replace

import mapped_harness
import numpy as np
import pytest

import mapsto as mt
from mapsto import ir
from mapsto.compiler import Options, optimized
from mapsto.ir.core import Function, Module
from mapsto.lowering.gpu.program import assemble, lower_gpu
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.verifier import unproven_races
from mapsto.lowering.loop_interpreter import LoopError
from mapsto.lowering.loop_printer import loop_text
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import Allocate, Barrier, For, LoopFunction, Space, Statement
from mapsto.runtime.ptxas import assemble_ptx

MAPS = """
map turned(x: T[n, m]) -> T[m, n]: transpose(x)
map heads(x: T[n, m]) -> T[a, m/16, 16, n/a]:
    let parts = reshape(x, [a, n/a, m/16, 16])
    [i, h, c, t] |-> 2 * parts[i, t, h, c]
map mixed(x: T[n, m], y: T[m, n], scale: T[n]) -> T[m, n]:
    [i, j] |-> tanh(x[j, i]) * scale[j] + y[i, j]
map both(x: T[n, m], y: T[n, m]) -> T[m, n]: transpose(x) - 2 * transpose(y)
map thin(x: T[n, m]) -> T[m, n]: transpose(x)
"""
TURNED = "turned"


def function(name: str, n: int, m: int, dtype: str = "f32") -> Function:
    """A map for a matrix of this shape."""
    text = re.sub(r"\bT\b", dtype, MAPS).replace("a, m/16, 16, n/a", f"2, {m // 16}, 16, {n // 2}")
    text = text.replace("[a, n/a, m/16, 16]", f"[2, {n // 2}, {m // 16}, 16]")
    element = getattr(mt, dtype)
    shapes = {"x": (n, m), "y": (n, m) if name == "both" else (m, n), "scale": (n,)}
    entry = getattr(mt.loads(text), name)
    types = {p.name: element[shapes[p.name]] for p in entry.parameters}
    elaborated = entry.elaborate(types, {})
    return optimized(elaborated.module, Options())[elaborated.entry]


def squares(mapped: mapped_harness.Mapped) -> int:
    """How many squares of shared memory there are."""
    loops = [k.loops for kernels in mapped.kernels.values() for k in kernels]
    found = (s for each in loops for s in statements(each.body) if isinstance(s, Allocate))
    return sum(s.buffer.space is Space.SHARED for s in found)


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "count"),
    [
        (TURNED, (70, 45), "f32", 1),
        pytest.param(TURNED, (64, 96), "f16", 1, marks=pytest.mark.slow),
        pytest.param(TURNED, (40, 33), "f64", 1, marks=pytest.mark.slow),
        ("heads", (80, 64), "f32", 1),
        ("mixed", (41, 50), "f32", 1),
        ("both", (33, 64), "f32", 2),
        pytest.param("both", (33, 64), "f64", 1, marks=pytest.mark.slow),
        ("thin", (7, 300), "f32", 0),
    ],
)
def test_values(name: str, shape: tuple[int, int], dtype: str, count: int) -> None:
    mapped = mapped_harness.check(function(name, *shape, dtype))
    assert squares(mapped) == count
    kernels = [kernel for each in mapped.kernels.values() for kernel in each]
    assert not [race for kernel in kernels for race in unproven_races(kernel)]


def test_sizes_that_are_not_known() -> None:
    builder = ir.Builder(ir.Block([ir.TensorType(ir.DType.F32, (ir.symbol("n"), ir.symbol("m")))]))
    (x,) = builder.block.arguments
    unknown = ir.finish_function("f", builder, [builder.emit(ir.Transpose, x, permutation=(1, 0))])
    mapped = mapped_harness.check(unknown, sizes={"n": 37, "m": 50}, interpreted=True)
    assert squares(mapped) == 1


def test_accesses_are_those_of_neighbours() -> None:
    """A warp reads, and writes, elements beside each other, and all banks of shared memory."""
    mapped = mapped_harness.Mapped(function(TURNED, 64, 96), "nvptx64-sm_80")
    ((kernel,),) = mapped.kernels.values()
    text = loop_text(kernel.loops)
    assert re.search(r"= x0\[.* \+ \(thread % 32\)\]", text)
    assert re.search(r"y0\[.* \+ \(thread % 32\)\] =", text)
    assert "f32[32, 33]" in text


def test_the_barrier_is_needed() -> None:
    mapped = mapped_harness.Mapped(function(TURNED, 40, 40), "nvptx64-sm_80")
    without = {
        loops: tuple(replace(k, loops=_without_barriers(k.loops)) for k in kernels)
        for loops, kernels in mapped.kernels.items()
    }
    mapped.kernels = without
    with pytest.raises(LoopError, match=r"by thread|before it is written"):
        mapped([np.ones((40, 40), np.float32)])


def _without_barriers(loops: LoopFunction) -> LoopFunction:
    def inner(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        kept = (s for s in body if not isinstance(s, Barrier))
        return tuple(replace(s, body=inner(s.body)) if isinstance(s, For) else s for s in kept)

    return replace(loops, body=inner(loops.body))


@pytest.mark.ptxas
@pytest.mark.parametrize("name", [TURNED, "heads", "mixed", "both"])
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100"])
def test_it_assembles(name: str, architecture: str) -> None:
    given, target = function(name, 1024, 1008), GpuTarget.named(f"nvptx64-{architecture}")
    text = assemble(lower_gpu(Module.of(given), given.name, target)).decode()
    (resources,) = assemble_ptx(text, architecture).resources.values()
    assert resources.stack_bytes == 0 and resources.registers <= 40
