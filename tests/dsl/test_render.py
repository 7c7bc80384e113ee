"""Drawing of messages, beyond what the snapshots in `diagnostics/` show."""

from __future__ import annotations

import pytest

from mapsto.dsl.diagnostics import Diagnostic, Help, Kind, Note, NoteKind, nearest, report
from mapsto.dsl.render import render
from mapsto.dsl.source import Source


def find(source: Source, text: str) -> Diagnostic:
    start = source.text.index(text)
    span = source.span(start, start + len(text))
    return report(Kind.UNKNOWN_STATEMENT, span, word="w")


def drawn(diagnostic: Diagnostic) -> list[str]:
    return render(diagnostic).splitlines()[3:]


def test_notes_show_their_own_lines_and_files() -> None:
    here = Source("a.mto", "x\ny z\n" + "\n" * 8 + "w\n")
    other = Source("b.mto", "first\nsecond\n")
    notes = (
        Note(NoteKind.DEFINED_HERE, here.span(4, 5), {"name": "z"}),
        Note(NoteKind.DEFINED_HERE, here.span(14, 15), {"name": "w"}),
        Note(NoteKind.CALLED_HERE, other.span(6, 12), {"name": "f"}),
        Note(NoteKind.CALLED_HERE, None, {"name": "g"}),
    )
    facts = {"word": "y", "suggestion": "x"}
    message = render(
        Diagnostic(Kind.UNKNOWN_STATEMENT, here.span(2, 3), facts, notes, Help.DID_YOU_MEAN)
    )
    assert message.splitlines() == [
        "error: unknown statement `y`",
        "  --> a.mto:2:1",
        "   |",
        " 2 | y z",
        "   | ^",
        "   |   - `z` is defined here",
        "   |",
        "11 | w",
        "   | - `w` is defined here",
        "  ::: b.mto:2:1",
        "   |",
        " 2 | second",
        "   | ------ in this call of `f`",
        "   = note: in this call of `g`",
        "   = help: did you mean `x`?",
    ]


def test_wide_characters_and_tabs_stay_above_their_underline() -> None:
    assert drawn(find(Source("a.mto", "\t漢字 = oops"), "oops")) == [
        "1 |     漢字 = oops",
        "  |            ^^^^",
    ]


def test_control_characters_are_not_sent_to_the_terminal() -> None:
    assert drawn(find(Source("a.mto", "\x1b[31m oops"), "oops")) == [
        "1 | �[31m oops",
        "  |       ^^^^",
    ]


def test_long_lines_are_cut_around_the_span() -> None:
    source = Source("a.mto", "x" * 1000 + "oops" + "y" * 1000)
    line, underline = drawn(find(source, "oops"))
    assert len(line) < 200
    start = underline.index("^")
    assert line[start : start + 4] == "oops"
    assert underline.count("^") == 4


def test_spans_of_several_lines_underline_the_first() -> None:
    assert drawn(find(Source("a.mto", "a = b\nc"), "b\nc")) == ["1 | a = b", "  |     ^"]


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("untis", "units"),
        ("Units", "units"),
        ("unit", "units"),
        ("soft_max", "softmax"),
        ("q", None),
    ],
)
def test_nearest(name: str, suggestion: str | None) -> None:
    assert nearest(name, ["units", "softmax", "b", "relu"]) == suggestion


def test_nearest_of_very_long_names() -> None:
    assert nearest("a" * 100_000, ["a" * 99_999]) is None
