"""Each rule of mapped kernels, broken once; and which races are proven not to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mapsto.ir.types import DType
from mapsto.lowering.gpu.kernel import GpuKernel
from mapsto.lowering.gpu.mapping import map_kernel, shared_bytes
from mapsto.lowering.gpu.target import GpuTarget
from mapsto.lowering.gpu.verifier import unproven_races, verify_kernel
from mapsto.lowering.indices import Index, variable
from mapsto.lowering.loop_verifier import InvalidLoop
from mapsto.lowering.loops import (
    Allocate,
    Barrier,
    Buffer,
    Expression,
    For,
    If,
    Let,
    LoopFunction,
    LoopKind,
    Reduce,
    Ref,
    Shuffle,
    Space,
    Statement,
    apply,
    compare,
    constant,
)

F32 = DType.F32
X, Y = Buffer("x", F32, (10, 300)), Buffer("y", F32, (10, 300))
SHARED = Buffer("shared", F32, (64,), Space.SHARED)
TOTAL = Buffer("total", F32, (), Space.REGISTER)
TARGET = GpuTarget.named("nvptx64-sm_80")
THREAD = variable("thread")
VECTOR = LoopKind.VECTOR


def kernel(*body: Statement, threads: int = 64, shared: Buffer = SHARED) -> GpuKernel:
    """A kernel of 10 blocks, of which each thread does this."""
    inner = For("thread", 0, threads, body, LoopKind.THREAD)
    grid = For("block", 0, 10, (Allocate(shared), inner), LoopKind.BLOCK)
    loops = LoopFunction("k", (X, Y), (), (grid,))
    return GpuKernel("k", loops, (10, 1, 1), (threads, 1, 1), shared_bytes([shared]))


def share(index: Index) -> Statement:
    return SHARED.store((index,), X["block", THREAD])


def use(index: Index) -> Statement:
    return Y.store(("block", THREAD), SHARED[index])


def halving(distance: int) -> Statement:
    """The lower half of the threads adds what the upper half has."""
    add = Reduce("add", SHARED, (THREAD,), SHARED[THREAD + distance])
    return If(compare("lt", THREAD, 32), (add,))


def in_register(value: Expression) -> tuple[Statement, ...]:
    """A branch on a value that went through a register."""
    branch = If(apply("gt", TOTAL[()], constant(0, F32)), (Barrier(),))
    return Allocate(TOTAL), TOTAL.store((), value), branch


DIVERGENT: dict[str, tuple[Statement, ...]] = {
    "branch": (If(compare("lt", THREAD, 3), (Barrier(),)),),
    "else": (If(compare("lt", THREAD, 3), (), (Barrier(),)),),
    "loop": (For("i", THREAD, 64, (Barrier(),)),),
    "let": (
        Let("own", X["block", THREAD]),
        If(apply("gt", Ref("own", F32), constant(0, F32)), (Barrier(),)),
    ),
    "register": in_register(X["block", THREAD]),
    "written by some": (
        Allocate(TOTAL),
        TOTAL.store((), constant(0, F32)),
        If(compare("eq", THREAD, 0), (TOTAL.store((), constant(1, F32)),)),
        If(apply("gt", TOTAL[()], constant(0, F32)), (Barrier(),)),
    ),
    "later in a loop": (
        Allocate(TOTAL),
        TOTAL.store((), constant(0, F32)),
        For(
            "i",
            0,
            3,
            (
                If(apply("gt", TOTAL[()], constant(0, F32)), (Barrier(),)),
                TOTAL.store((), X["block", THREAD]),
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", DIVERGENT)
def test_barriers_where_only_some_threads_may_come(name: str) -> None:
    with pytest.raises(InvalidLoop, match="a barrier where only some threads may come"):
        verify_kernel(kernel(*DIVERGENT[name]), TARGET)


def test_what_all_threads_have_alike_may_decide() -> None:
    same = in_register(X["block", 0])
    verify_kernel(kernel(share(THREAD), *same, If(compare("lt", "block", 3), (Barrier(),))), TARGET)


def test_shuffles_where_only_some_threads_may_come() -> None:
    shuffle = Let("other", Shuffle(X["block", THREAD], 1))
    with pytest.raises(InvalidLoop, match="a let where only some threads may come"):
        verify_kernel(kernel(If(compare("lt", THREAD, 3), (shuffle,))), TARGET)


def test_limits_of_the_target() -> None:
    with pytest.raises(InvalidLoop, match="blocks of 2048 threads; nvptx64-sm_80 allows 1024"):
        verify_kernel(kernel(share(0), threads=2048), TARGET)
    large = replace(SHARED, shape=(50000,))
    with pytest.raises(InvalidLoop, match=r"takes 200000 bytes of shared memory; .* has 166912"):
        verify_kernel(kernel(shared=large), TARGET)


def test_nests_of_loops() -> None:
    plain = kernel(share(THREAD))
    (grid,) = plain.loops.body
    assert isinstance(grid, For)
    for body in ((grid, grid), (replace(grid, kind=LoopKind.SERIAL),)):
        loops = replace(plain.loops, body=body)
        with pytest.raises(InvalidLoop, match="is not a nest of block loops and thread loops"):
            verify_kernel(replace(plain, loops=loops), TARGET)


def test_local_memory_has_no_place() -> None:
    local = Buffer("local", F32, (4,), Space.LOCAL)
    with pytest.raises(InvalidLoop, match="`local` has no place in the memory of a GPU"):
        verify_kernel(kernel(Allocate(local)), TARGET)


@pytest.mark.parametrize(
    ("body", "races"),
    [
        ((share(THREAD), use(THREAD)), 0),
        ((share(THREAD), use(0)), 1),
        ((share(THREAD), Barrier(), use(0)), 0),
        ((share(THREAD), Barrier(), use(63 - THREAD), share(THREAD)), 1),
        ((share(0),), 1),
        ((If(compare("eq", THREAD, 0), (share(0), use(0))),), 0),
        ((For("i", 0, 3, (use(0), Barrier(), share(THREAD))),), 1),
        ((For("i", 0, 3, (use(0), Barrier(), share(THREAD), Barrier())),), 0),
        ((halving(32),), 0),
        ((halving(31),), 1),
    ],
)
def test_races(body: tuple[Statement, ...], races: int) -> None:
    assert len(unproven_races(kernel(*body))) == races


@pytest.mark.parametrize("name", ["nvptx64-sm_80", "spirv64", "gpusim"])
def test_barriers_of_the_mapping_prove_that_nothing_races(name: str) -> None:
    """A row is summed, then divided by its sum: through registers, shared memory and shuffles."""
    row = Buffer("row", F32, (300,), Space.LOCAL)
    add = Reduce("add", TOTAL, (), X["i", "j"])
    first = For("j", 0, 300, (row.store(("j",), X["i", "j"]), add), VECTOR)
    second = For("j", 0, 300, (Y.store(("i", "j"), row[299 - variable("j")] / TOTAL[()]),), VECTOR)
    body = (Allocate(row), Allocate(TOTAL), TOTAL.store((), constant(0, F32)), first, second)
    function = LoopFunction("k", (X, Y), (), (For("i", 0, 10, body, LoopKind.PARALLEL),))
    target = GpuTarget.named(name)
    (mapped,) = map_kernel(function, target)
    verify_kernel(mapped, target)
    assert not unproven_races(mapped)
    without = LoopFunction("k", (X, Y), (), tuple(map(without_barriers, mapped.loops.body)))
    assert unproven_races(replace(mapped, loops=without))


def without_barriers(statement: Statement) -> Statement:
    if not isinstance(statement, For):
        return statement
    kept = (s for s in statement.body if not isinstance(s, Barrier))
    return replace(statement, body=tuple(map(without_barriers, kept)))
