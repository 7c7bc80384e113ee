"""The parse table: conflict-free, complete, and safe to cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapsto.dsl import tables
from mapsto.dsl.builder import Builder
from mapsto.dsl.diagnostics import Collector
from mapsto.dsl.source import Source


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory; the table is loaded anew in the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tables, "load_table", tables.load_table.__wrapped__)
    return tmp_path / "mapsto" / "grammar"


def test_every_action_has_a_method() -> None:
    actions = Builder(Source("", ""), Collector()).actions
    named = {rule.action for rule in tables.load_table().reductions if rule.action}
    assert named == set(actions)


def test_a_conflict_is_an_error() -> None:
    from lark.exceptions import GrammarError

    with pytest.raises(GrammarError):
        tables.build_table('definition: a | b\na: "x"\nb: "x"\n')


def test_cached_table_is_the_same(cache: Path) -> None:
    built = tables.load_table()
    (file,) = cache.iterdir()
    before = file.stat().st_ino
    assert tables.load_table() == built
    assert file.stat().st_ino == before


@pytest.mark.parametrize("damage", [b"", b"{}", b"0\n{}", b"\xff" * 100])
def test_damaged_cache_is_replaced(cache: Path, damage: bytes) -> None:
    built = tables.load_table()
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert tables.load_table().reductions == built.reductions
    assert len(file.read_bytes()) > len(damage)
    assert tables.load_table() == tables.load_table()


def test_unwritable_cache_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mapsto").write_text("a file where the directory should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = tables.load_table.__wrapped__()
    assert table.reductions == tables.load_table().reductions
