"""Drawing of diagnostics: the source line with the span underlined, notes with theirs.

error: unexpected end of line
 --> digits.mto:3:14
  |
3 |     let a = (b
  |             ^ expected `)`
  = help: ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mapsto.dsl import wording
from mapsto.dsl.diagnostics import Diagnostic, Note
from mapsto.dsl.source import Span

if TYPE_CHECKING:
    from rich.text import Text

__all__ = ["render", "render_all", "render_rich"]

_WIDEST = 160
"""Source lines are cut to this many characters around the span."""

_TAB = 4

Pieces = list[tuple[str, str]]
"""Text and the style that it has on a terminal."""

_ERROR, _NOTE, _FRAME, _PLAIN = "bold red", "bold cyan", "blue", ""


def render(diagnostic: Diagnostic) -> str:
    """The whole message as plain text, without a final line end."""
    return "\n".join("".join(text for text, _ in line).rstrip() for line in _lines(diagnostic))


def render_all(diagnostics: Iterable[Diagnostic]) -> str:
    """Several messages, a blank line between two."""
    return "\n\n".join(map(render, diagnostics))


def render_rich(diagnostic: Diagnostic) -> Text:
    """The whole message in colour, for a `rich` console."""
    from rich.text import Text

    lines = [Text.assemble(*line) for line in _lines(diagnostic)]
    return Text("\n").join(lines)


def _lines(diagnostic: Diagnostic) -> list[Pieces]:
    spans = [diagnostic.span, *(note.span for note in diagnostic.notes if note.span is not None)]
    width = max(len(str(span.begin.line)) for span in spans)
    lines: list[Pieces] = [[("error", _ERROR), (f": {wording.describe(diagnostic)}", "bold")]]
    if not diagnostic.span.source.text:
        return lines
    lines += _place(diagnostic.span, "-->", width)
    lines.append(_source_line(diagnostic.span, width))
    lines.append(_underline(diagnostic.span, "^", wording.label(diagnostic), width))
    previous = diagnostic.span
    for note in diagnostic.notes:
        lines += _note(note, previous, width)
        previous = note.span or previous
    help_text = wording.help_text(diagnostic)
    if help_text:
        lines.append(_remark("help", help_text, width))
    return lines


def _note(note: Note, previous: Span, width: int) -> Iterator[Pieces]:
    """A note under what was drawn last, which is repeated only as far as it differs."""
    text, span = wording.note_text(note), note.span
    if span is None:
        yield _remark("note", text, width)
        return
    same_file = span.source is previous.source
    if not same_file:
        yield from _place(span, ":::", width)
    elif span.begin.line != previous.begin.line:
        yield [_margin(width)]
    if not same_file or span.begin.line != previous.begin.line:
        yield _source_line(span, width)
    yield _underline(span, "-", text, width)


def _remark(word: str, text: str, width: int) -> Pieces:
    return [(" " * width + " = ", _FRAME), (word, "bold"), (f": {text}", _PLAIN)]


def _margin(width: int) -> tuple[str, str]:
    return " " * width + " |", _FRAME


def _place(span: Span, arrow: str, width: int) -> list[Pieces]:
    return [[(" " * width + f"{arrow} ", _FRAME), (str(span), _PLAIN)], [_margin(width)]]


def _source_line(span: Span, width: int) -> Pieces:
    return [(f"{span.begin.line:>{width}} | ", _FRAME), (_cut(span).text, _PLAIN)]


def _underline(span: Span, mark: str, text: str, width: int) -> Pieces:
    line = _cut(span)
    underline = mark * line.length + (f" {text}" if text else "")
    return [
        _margin(width),
        (" " * (line.offset + 1), _PLAIN),
        (underline, _ERROR if mark == "^" else _NOTE),
    ]


@dataclass(frozen=True, slots=True)
class _Cut:
    """The shown part of a source line and the place of the underline in it, in characters."""

    text: str
    offset: int
    length: int


def _cut(span: Span) -> _Cut:
    """The first line of a span, cut around it if it is very long."""
    begin = span.begin
    line = span.source.line(begin.line)
    first = begin.column - 1
    last = min(first + max(span.end - span.start, 1), max(len(line), first + 1))
    left = max(0, first - _WIDEST // 2) if len(line) > _WIDEST else 0
    right = left + _WIDEST
    before, inside = line[left:first], line[first : min(last, right)]
    shown = _visible(before) + _visible(inside) + _visible(line[min(last, right) : right])
    length = max(1, _cells(_visible(inside)))
    return _Cut(shown.rstrip(), _cells(_visible(before)), length)


def _visible(text: str) -> str:
    """A text without what would move the cursor: control characters are replaced."""
    expanded = text.replace("\t", " " * _TAB)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in expanded)


def _cells(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
