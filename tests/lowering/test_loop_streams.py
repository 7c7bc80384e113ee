"""Stores past the caches: which results are large enough, and that they arrive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from loop_harness import check, machines, module_text

from mapsto.ir.types import DType
from mapsto.lowering.cpu.machine import Machine
from mapsto.lowering.cpu.scheduling import cpu_scheduling
from mapsto.lowering.loop_streams import stream_stores
from mapsto.lowering.loop_walk import statements
from mapsto.lowering.loops import (
    Allocate,
    Buffer,
    For,
    LoopFunction,
    LoopKind,
    Reduce,
    Space,
    Statement,
    Store,
    apply,
    compare,
    constant,
)

ROWS, COLUMNS = 6, 300
X = Buffer("x", DType.F32, (ROWS, COLUMNS), readonly=True)
Y = Buffer("y", DType.F32, (ROWS, COLUMNS))
SIZE = 4 * ROWS * COLUMNS


def sums(dtype: DType) -> tuple[Buffer, Buffer, Statement]:
    x, y = replace(X, dtype=dtype), replace(Y, dtype=dtype)
    return x, y, y.store(("i", "j"), apply("add", x["i", "j"], x["i", "j"]))


def rows(*body: Statement, columns: int = COLUMNS) -> tuple[Statement, ...]:
    vectors = For("j", 0, columns, body, LoopKind.VECTOR)
    return (For("i", 0, ROWS, (vectors,), LoopKind.PARALLEL),)


def streamed(body: tuple[Statement, ...], least: int = SIZE) -> set[str]:
    """Names of the buffers that are streamed to."""
    found = stream_stores(body, least)
    return {s.buffer.name for s in statements(found) if isinstance(s, Store) and s.streams}


DOUBLED = sums(DType.F32)[2]


def test_a_result_that_exceeds_the_caches_is_streamed_to() -> None:
    assert streamed(rows(DOUBLED)) == {"y"}
    assert streamed(rows(DOUBLED), SIZE + 1) == set()


def test_what_is_read_again_or_stored_elsewhere_too_is_not() -> None:
    again = Y.store(("i", "j"), apply("add", Y["i", "j"], X["i", "j"]))
    assert streamed(rows(again)) == set()
    first = Y.store(("i", 0), X["i", 0])
    assert streamed((*rows(DOUBLED), For("i", 0, ROWS, (first,)))) == set()


def test_registers_of_columns_are_left_alone() -> None:
    total = Buffer("total", DType.F32, (), Space.REGISTER)
    body = (
        Allocate(total),
        total.store((), constant(0, DType.F32)),
        For("k", 0, ROWS, (Reduce("add", total, (), X["k", "j"]),)),
        For("k", 0, ROWS, (Y.store(("k", "j"), apply("sub", X["k", "j"], total[()])),)),
    )
    columns = (For("j", 0, COLUMNS, body, LoopKind.VECTOR),)
    assert streamed(columns) == set()
    function = LoopFunction("centred", (X, Y), (), stream_stores(columns, SIZE))
    given = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    check(function, {"x": given, "y": np.zeros_like(given)}, on=machines()[:1])


def test_a_result_that_may_be_an_operand_is_not() -> None:
    x, y = replace(X, may_alias=True), replace(Y, may_alias=True)
    assert streamed(rows(y.store(("i", "j"), x["i", "j"]))) == set()
    assert streamed(rows(y.store(("i", "j"), X["i", "j"]))) == {"y"}


def test_short_runs_across_lines_and_guarded_stores_are_not() -> None:
    assert streamed(rows(DOUBLED, columns=32)) == set()
    across = replace(Y, shape=(COLUMNS, ROWS)).store(("j", "i"), X["i", "j"])
    assert streamed(rows(across)) == set()
    assert streamed(rows(replace(DOUBLED, guard=compare("lt", "j", "i")))) == set()


@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I8, DType.F16])
@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS - 1])
def test_results_are_the_same_wherever_buffers_begin(dtype: DType, columns: int) -> None:
    """Some of the rows begin at multiples of what is stored at once, and of the buffers."""
    x, y, store = sums(dtype)
    x, y = (replace(b, shape=(ROWS, columns)) for b in (x, y))
    store = y.store(("i", "j"), apply("add", x["i", "j"], x["i", "j"]))
    body = stream_stores(rows(store, columns=columns), 1)
    function = LoopFunction("doubled", (x, y), (), body)
    given = np.arange(ROWS * columns).reshape(ROWS, columns) % 50
    arrays = {"x": given.astype(dtype.numpy), "y": np.zeros((ROWS, columns), dtype.numpy)}
    check(function, arrays)


def test_streams_are_stores_of_their_own_kind_with_a_fence_behind() -> None:
    function = LoopFunction("doubled", (X, Y), (), stream_stores(rows(DOUBLED), SIZE))
    text = module_text(function, Machine.baseline())
    assert "!nontemporal" in text
    task = text[text.index("define internal void @doubled.task1.body") :]
    assert task.index("!nontemporal") < task.index("sfence") < task.index("ret void")
    plain = module_text(replace(function, body=rows(DOUBLED)), Machine.baseline())
    assert "!nontemporal" not in plain and "sfence" not in plain


def test_the_last_cache_decides() -> None:
    machine = replace(Machine.host(), l3=SIZE)
    kinds = [cpu_scheduling(replace(machine, l3=l3)).rows(rows(DOUBLED)) for l3 in (SIZE, SIZE + 1)]
    assert kinds[0] != kinds[1] == rows(DOUBLED)
