"""The threads of a block in the interpreter: they meet, exchange values, and do not race."""

from __future__ import annotations

import numpy as np
import pytest

from mapsto.ir.types import DType
from mapsto.lowering.indices import variable
from mapsto.lowering.loop_interpreter import LoopError, interpret
from mapsto.lowering.loops import (
    Allocate,
    AsyncCopy,
    Barrier,
    Buffer,
    CommitCopies,
    For,
    If,
    IndexValue,
    Let,
    LoadMatrix,
    LoopFunction,
    LoopKind,
    MatrixMultiply,
    Reduce,
    Ref,
    Shuffle,
    Space,
    Statement,
    WaitCopies,
    cast,
    compare,
    constant,
)

F32, F16 = DType.F32, DType.F16
THREADS = 64
X = Buffer("x", F32, (THREADS,))
Y = Buffer("y", F32, (THREADS,))
SHARED = Buffer("shared", F32, (THREADS,), Space.SHARED)
THREAD = variable("thread")
OTHER = THREADS - 1 - THREAD


def run(*body: Statement, threads: int = THREADS) -> np.ndarray:
    """What a block makes of 0, 1, 2, ..."""
    thread = For("thread", 0, threads, body, LoopKind.THREAD)
    block = For("block", 0, 1, (Allocate(SHARED), thread), LoopKind.BLOCK)
    y = np.zeros(THREADS, np.float32)
    x = np.arange(THREADS, dtype=np.float32)
    interpret(LoopFunction("kernel", (X, Y), (), (block,)), {"x": x, "y": y}, {})
    return y


def test_what_is_written_before_a_barrier_is_read_after_it() -> None:
    y = run(SHARED.store((THREAD,), X[THREAD]), Barrier(), Y.store((THREAD,), SHARED[OTHER]))
    assert y.tolist() == list(range(THREADS))[::-1]


def test_races() -> None:
    with pytest.raises(LoopError, match="by thread 32, while thread 31 uses it"):
        run(
            SHARED.store((THREAD,), X[THREAD]),
            Barrier(),
            Y.store((THREAD,), SHARED[OTHER]),
            SHARED.store((THREAD,), X[THREAD]),
        )
    with pytest.raises(LoopError, match="`y` is written"):
        run(Y.store((0,), X[THREAD]))
    assert run(Y.store((0,), X[5]))[0] == 5, "all write the same"
    total = run(Reduce("add", Y, (0,), X[THREAD], atomic=True))
    assert total[0] == sum(range(THREADS))


def test_barriers_are_for_all() -> None:
    with pytest.raises(LoopError, match="different places"):
        run(If(compare("lt", THREAD, 7), (Barrier(),)))
    with pytest.raises(LoopError, match="while some wait"):
        run(If(compare("lt", THREAD, 32), (Barrier(),)))


def test_threads_of_a_warp_exchange_values() -> None:
    swapped = run(Let("a", Shuffle(X[THREAD], 1)), Y.store((THREAD,), Ref("a", F32)))
    assert swapped.tolist() == [n ^ 1 for n in range(THREADS)]
    first = run(Let("a", Shuffle(X[THREAD], 0, False)), Y.store((THREAD,), Ref("a", F32)))
    assert first.tolist() == [0] * 32 + [32] * 32
    with pytest.raises(LoopError, match="not there"):
        run(Let("a", Shuffle(X[THREAD], 8)), threads=8)


def test_copies_are_there_when_they_are_waited_for() -> None:
    copy = AsyncCopy(SHARED, (THREAD,), X[THREAD])
    use = Y.store((THREAD,), SHARED[THREAD])
    assert run(copy, CommitCopies(), WaitCopies(), use).tolist() == list(range(THREADS))
    for missing in ((copy, CommitCopies(), use), (copy, WaitCopies(), use)):
        with pytest.raises(LoopError, match="before it is written"):
            run(*missing)
    with pytest.raises(LoopError, match="before it is written"):
        run(copy, CommitCopies(), WaitCopies(1), use)


def _product() -> LoopFunction:
    """16 x 16 by 16 x 8 in one warp, the second operand given as its transpose."""
    left, right = Buffer("left", F16, (16, 16)), Buffer("right", F16, (8, 16))
    sums = Buffer("sums", F32, (16, 8))
    panel = Buffer("panel", F16, (16, 16), Space.SHARED)
    other = Buffer("other", F16, (16, 16), Space.SHARED)
    a, b = (Buffer(name, F16, (8,), Space.REGISTER) for name in "ab")
    c = Buffer("c", F32, (4,), Space.REGISTER)
    row, column = THREAD % 16, variable("k")
    fill = (
        panel.store((row, column), left[row, column]),
        other.store((row, column), right[row % 8, column]),
    )
    lane, e = THREAD % 8, variable("e")
    place = THREAD // 4 + e // 2 * 8, THREAD % 4 * 2 + e % 2
    body = (
        If(compare("lt", THREAD, 16), (For("k", 0, 16, fill),)),
        Barrier(),
        *(Allocate(buffer) for buffer in (a, b, c)),
        LoadMatrix(a, (0,), panel, (lane + THREAD // 8 % 2 * 8, THREAD // 16 * 8)),
        LoadMatrix(b, (0,), other, (lane, THREAD // 8 % 2 * 8)),
        For("e", 0, 4, (c.store((e,), constant(0, F32)),), LoopKind.UNROLL),
        MatrixMultiply(c, (0,), a, (0,), b, (0,), (16, 8, 16)),
        For("e", 0, 4, (sums.store(place, c[e]),), LoopKind.UNROLL),
    )
    thread = For("thread", 0, 32, body, LoopKind.THREAD)
    block = For("block", 0, 1, (Allocate(panel), Allocate(other), thread), LoopKind.BLOCK)
    return LoopFunction("kernel", (left, right, sums), (), (block,))


def test_a_warp_multiplies_matrices() -> None:
    random = np.random.default_rng(0)
    left, right = (random.integers(-4, 4, (n, 16)).astype(np.float16) for n in (16, 8))
    sums = np.zeros((16, 8), np.float32)
    interpret(_product(), {"left": left, "right": right, "sums": sums}, {})
    np.testing.assert_array_equal(sums, left.astype(np.float32) @ right.T)


def test_several_thread_loops_are_one_block() -> None:
    grid = cast(IndexValue(variable("row") * 8 + variable("thread")), F32)
    inner = For("thread", 0, 8, (Y.store((variable("row") * 8 + THREAD,), grid), Barrier()))
    threads = For("row", 0, 8, (For("thread", 0, 8, inner.body, LoopKind.THREAD),), LoopKind.THREAD)
    y = np.zeros(THREADS, np.float32)
    interpret(LoopFunction("kernel", (Y,), (), (threads,)), {"y": y}, {})
    assert y.tolist() == list(range(THREADS))
