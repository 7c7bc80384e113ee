"""Positions in texts, and reading of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapsto.dsl.diagnostics import DiagnosticError, Kind
from mapsto.dsl.files import read_source
from mapsto.dsl.render import render
from mapsto.dsl.source import Position, Source


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_positions(ending: str) -> None:
    source = Source("a.mto", f"\ufeffab{ending}é{ending}")
    assert source.position(0) == Position(1, 1)
    assert source.position(2) == Position(1, 3)
    assert source.position(source.text.index("é")) == Position(2, 1)
    assert source.position(len(source.text)) == Position(3, 1)
    assert [source.line(number) for number in (1, 2, 3)] == ["ab", "é", ""]


def test_spans() -> None:
    source = Source("a.mto", "x = 1\ny = 2")
    first, last = source.span(0, 1), source.span(6, 7)
    assert str(last) == "a.mto:2:1"
    assert first.to(last).text == "x = 1\ny"
    assert first == source.span(0, 1)
    assert first != Source("a.mto", source.text).span(0, 1)


def test_read_source(tmp_path: Path) -> None:
    path = tmp_path / "a.mto"
    path.write_bytes(b"\xef\xbb\xbfx = 1\r\n")
    assert read_source(path).text == "x = 1\r\n"
    assert read_source(path, "shown").name == "shown"


def refused(path: Path) -> str:
    with pytest.raises(DiagnosticError) as caught:
        read_source(path, "a.mto")
    assert caught.value.diagnostic.kind is Kind.UNREADABLE_FILE
    return render(caught.value.diagnostic)


def test_unreadable_files(tmp_path: Path) -> None:
    assert refused(tmp_path / "missing") == "error: cannot read `a.mto`: No such file or directory"
    assert refused(tmp_path) == "error: cannot read `a.mto`: Is a directory"
    assert refused(tmp_path / "\0").startswith("error: cannot read `a.mto`: ")
    path = tmp_path / "latin.mto"
    path.write_bytes("x = 1\n# \xe9t\xe9\n".encode("latin-1"))
    assert refused(path).splitlines() == [
        "error: cannot read `a.mto`: byte 0xe9 is not UTF-8",
        " --> a.mto:2:3",
        "  |",
        "2 | #",
        "  |   ^",
    ]
