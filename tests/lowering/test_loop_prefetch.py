"""Hints ahead of loops: of which lines, and of which buffers."""

from __future__ import annotations

from mapsto.ir.types import DType
from mapsto.lowering.indices import value_of
from mapsto.lowering.loop_prefetch import prefetches
from mapsto.lowering.loop_printer import loop_text
from mapsto.lowering.loops import (
    Buffer,
    For,
    LoopFunction,
    LoopKind,
    Space,
    Statement,
    apply,
)

X = Buffer("x", DType.F32, (64, 64))
Y = Buffer("y", DType.F32, (64, 64))
BIAS = Buffer("bias", DType.F32, (64,))
SUMS = Buffer("sums", DType.F32, (64, 64), Space.LOCAL)
ROWS = Buffer("rows", DType.I32, (64, 64))


def rows(*body: Statement, columns: int = 32) -> For:
    vectors = For("j", 0, columns, body, LoopKind.VECTOR)
    return For("i", 0, 4, (vectors,))


def text(*body: Statement, near: int = 256) -> list[str]:
    """The lines of the hints for the statements."""
    function = LoopFunction("hints", (), (), prefetches(body, 32, near))
    return [line.strip() for line in loop_text(function).splitlines()[1:-1]]


def test_each_line_of_a_vector_loop_has_a_hint_for_reading_and_for_writing() -> None:
    total = apply("add", SUMS["i", "j"], apply("add", X["i", "j"], BIAS["j"]))
    assert text(rows(Y.store(("i", "j"), total))) == [
        "for i in 0..4 {",
        "prefetch x[i, 31]",
        "prefetch x[i, 15]",
        "prefetch y[i, 31] to write",
        "prefetch y[i, 15] to write",
        "}",
    ]


def test_small_tensors_have_no_hints() -> None:
    assert text(rows(Y.store(("i", "j"), BIAS["j"])), near=64 * 64 * 4) == []


def test_vectors_across_lines_have_no_hints() -> None:
    assert text(rows(Y.store(("j", "i"), BIAS["j"]))) == []


def test_what_is_looked_up_has_no_hint() -> None:
    found = X[value_of(ROWS["i", "j"]), "j"]
    assert text(rows(Y.store(("i", "j"), found), columns=16))[1:-1] == [
        "prefetch rows[i, 15]",
        "prefetch y[i, 15] to write",
    ]


def test_rows_that_are_laid_out_have_a_hint_for_each_column() -> None:
    store = Y.store(("j", "i"), apply("add", X["j", "i"], BIAS["j"]))
    laid_out = For("i", 0, 6, (store,), LoopKind.UNROLL)
    assert text(For("j", 0, 16, (laid_out,), LoopKind.VECTOR)) == [
        "for j in 0..16 {",
        "prefetch x[j, 5]",
        "prefetch y[j, 5] to write",
        "}",
    ]
