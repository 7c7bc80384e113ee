"""Short loops of a thread are laid out."""

from __future__ import annotations

from mapsto.ir.types import DType
from mapsto.lowering.gpu.turns import MOST_TURNS, lay_out_turns
from mapsto.lowering.indices import Index, minimum, size, variable
from mapsto.lowering.loop_printer import loop_text
from mapsto.lowering.loops import Buffer, For, LoopFunction, Statement

X = Buffer("x", DType.F32, (10_000,))
THREAD = variable("thread")


def laid_out(stop: Index, start: Index = 0) -> list[str]:
    """The lines of a loop of 32 threads."""
    loop: Statement = For("i", start + THREAD, stop, (X.store(("i",), X["i"]),), step=32)
    body = lay_out_turns((loop,), "thread", 32)
    text = loop_text(LoopFunction("k", (X,), ("n",), body))
    return [line.strip() for line in text.splitlines()[1:-1]]


def test_whole_turns() -> None:
    index = "32*i + thread"
    assert laid_out(96) == ["for i in 0..3 unroll {", f"x[{index}] = x[{index}]", "}"]


def test_the_last_turn_is_for_some() -> None:
    assert laid_out(70)[3:5] == ["for i in 2..3 unroll {", "if (32*i + thread) < 70 {"]
    assert laid_out(7)[:2] == ["for i in 0..1 unroll {", "if (32*i + thread) < 7 {"]


def test_bounds_that_are_not_known() -> None:
    block = variable("block") * 64
    lines = laid_out(minimum(block + 64, size("n")), block)
    assert lines[0] == "for i in 0..2 unroll {"
    assert lines[1].startswith("if ") and "$n" in lines[1]
    assert laid_out(size("n"))[0] == "for i in thread..$n step 32 {"


def test_long_loops_stay() -> None:
    assert laid_out(32 * MOST_TURNS + 1)[0].endswith("step 32 {")
    assert laid_out(32 * MOST_TURNS)[0] == f"for i in 0..{MOST_TURNS} unroll {{"
