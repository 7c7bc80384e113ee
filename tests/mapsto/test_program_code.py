"""Programs that were compiled before, by another process, are taken from disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_harness import Workspace

import mapsto as mt
from mapsto import compiler, ir
from mapsto.lowering.loops import constant
from mapsto.runtime import code_generation, jit

SOURCE = """
map halved(x: f32[n]) -> f32[n]:
    assert(all(x < 10), "too large")
    x / 2
"""

X = np.arange(4, dtype=np.float32)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache that is empty."""
    monkeypatch.setenv("MAPSTO_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "64")
    monkeypatch.setattr(jit, "_cache", type(jit._cache)())
    return tmp_path / "kept" / "compiled"


def nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that only loads: passes, lowering and LLVM are not there."""

    def fail(*arguments: object) -> None:
        raise AssertionError("compiles")

    monkeypatch.setattr(compiler, "optimized", fail)
    monkeypatch.setattr(code_generation, "_prepare", fail)
    monkeypatch.setattr(jit, "_cache", type(jit._cache)())


def test_second_process_compiles_nothing(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = mt.loads(SOURCE).halved(X)
    nothing_is_compiled(monkeypatch)
    halved = mt.loads(SOURCE).halved
    assert np.array_equal(halved(X), first)
    with pytest.raises(mt.AssertionFailed, match="too large"):
        halved(X + 10)
    with pytest.raises(AssertionError, match="compiles"):
        mt.loads(SOURCE.replace("/ 2", "/ 4")).halved(X)


def test_where_an_assertion_stands_is_kept(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mt.loads(SOURCE).halved(X)
    moved = mt.loads("\n\n" + SOURCE).halved
    with pytest.raises(mt.AssertionFailed) as failed:
        moved(X + 10)
    assert failed.value.location is not None and failed.value.location.line == 5
    nothing_is_compiled(monkeypatch)
    with pytest.raises(mt.AssertionFailed) as failed:
        mt.loads("\n\n" + SOURCE).halved(X + 10)
    assert failed.value.location.line == 5


def test_damaged_code_is_compiled_again(kept: Path) -> None:
    mt.loads(SOURCE).halved(X)
    for file in kept.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    jit._cache.clear()
    assert np.array_equal(mt.loads(SOURCE).halved(X), X / 2)


def test_code_of_extensions_is_not_kept(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tripled(ir.Unary):
        """3x."""

        name = "tripled_and_kept"

        def evaluate(self, *operands: np.ndarray) -> tuple[np.ndarray, ...]:
            return (3 * operands[0],)

    @mt.scalar_rule(Tripled)
    def tripled(x):  # type: ignore[no-untyped-def]
        return x * constant(3, x.type)

    source = "map f(x: f32[n]) -> f32[n]: tripled_and_kept(x)"
    assert np.array_equal(mt.loads(source).f(X), 3 * X)

    @mt.scalar_rule(Tripled)
    def tripled_otherwise(x):  # type: ignore[no-untyped-def]
        return x + x + x + x

    assert np.array_equal(mt.loads(source).f(X), 4 * X)
    before = compiler.compiled().usage()
    mt.loads(SOURCE).halved.with_passes("default,-cse")(X)
    after = compiler.compiled().usage()
    assert after.files == before.files + 2  # the objects of both parts, and no program


def test_command(kept: Path, workspace: Workspace) -> None:
    mt.loads(SOURCE).halved(X)
    files = len(list(kept.iterdir()))
    shown = workspace.run("cache")
    assert f"compiled   {files} files" in shown.out and str(kept.parent) in shown.out
    cleared = json.loads(workspace.run("cache", "--clear", "--json").out)
    assert cleared["compiled"]["files"] == files and cleared["cleared"]
    assert not list(kept.iterdir())


def test_wrong_limit_is_one_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAPSTO_CACHE_LIMIT", "-1")
    outcome = workspace.run("cache")
    expected = "error: MAPSTO_CACHE_LIMIT is a whole number of megabytes, not `-1`\n"
    assert (outcome.code, outcome.err) == (1, expected)
