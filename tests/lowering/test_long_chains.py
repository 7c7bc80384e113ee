"""Vectors of two registers in loops whose values are long chains of instructions."""

import numpy as np
import pytest
from loop_harness import check, machines, module_text, random_array, run_native

from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.indices import Index, size
from mapsto.lowering.loops import Allocate, Buffer, For, LoopFunction, LoopKind, Reduce, Space
from mapsto.lowering.loops import apply as operation

WIDE = [machine for machine in machines() if not machine.has_avx512]


def gate(extent: Index, op: str = "sigmoid") -> LoopFunction:
    """y = op(x) * x."""
    shape = (extent,) if isinstance(extent, int) else (64,)
    x, y = Buffer("x", DType.F32, shape), Buffer("y", DType.F32, shape)
    value = operation("mul", operation(op, x["i"]), x["i"])
    loop = For("i", 0, extent, (y.store(("i",), value),), LoopKind.VECTOR)
    return LoopFunction("gate", (x, y), () if isinstance(extent, int) else ("n",), (loop,))


def is_wide(function: LoopFunction, machine: Machine) -> bool:
    """Whether the loops of a function load vectors of two registers."""
    lanes = machine.vector_bits // 32
    return f"load <{2 * lanes} x float>" in module_text(function, machine)


@pytest.mark.parametrize("machine", WIDE, ids=str)
@pytest.mark.parametrize(
    ("vectors", "op", "expected"),
    [
        (4, "sigmoid", True),
        (6, "tanh", True),
        (3, "sigmoid", False),
        (2, "tanh", True),
        (1, "tanh", False),
    ],
)
def test_whole_pairs_of_vectors_are_one(
    vectors: int, op: str, expected: bool, machine: Machine
) -> None:
    extent = vectors * machine.vector_bits // 32
    assert is_wide(gate(extent, op), machine) == expected


@pytest.mark.parametrize("machine", WIDE, ids=str)
def test_reductions_keep_their_order(machine: Machine) -> None:
    extent = 64
    x, y = Buffer("x", DType.F32, (extent,)), Buffer("y", DType.F32, (1,))
    total = Buffer("total", DType.F32, (), Space.REGISTER)
    loop = For(
        "i", 0, extent, (Reduce("max", total, (), operation("exp", x["i"])),), LoopKind.VECTOR
    )
    body = (Allocate(total), total.store((), x[0]), loop, y.store((0,), total[()]))
    assert not is_wide(LoopFunction("largest", (x, y), (), body), machine)


@pytest.mark.parametrize("extent", [0, 1, 8, 16, 24, 32, 48, 64])
@pytest.mark.parametrize("op", ["sigmoid", "tanh", "log", "sin"])
def test_they_compute_the_same(extent: int, op: str) -> None:
    x = np.abs(random_array(np.random.default_rng(extent), DType.F32, (extent,)))
    check(gate(extent, op), {"x": x, "y": np.zeros_like(x)})


@pytest.mark.parametrize("machine", machines(), ids=str)
def test_bits_are_those_of_a_loop_of_unknown_extent(machine: Machine) -> None:
    x = random_array(np.random.default_rng(0), DType.F32, (64,)) * 20
    found = {"x": x, "y": np.zeros_like(x)}, {"x": x, "y": np.zeros_like(x)}
    run_native(gate(64), found[0], {}, machine)
    run_native(gate(size("n")), found[1], {"n": 64}, machine)
    assert found[0]["y"].tobytes() == found[1]["y"].tobytes()
