"""Source texts and spans of them: where a construct or a mistake stands."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Self

__all__ = ["Position", "Source", "Span"]

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a source; line and column count from 1, columns in characters."""

    line: int
    column: int


class Source:
    """A text and the name of the file that it came from.

    Offsets count characters of `text`, which has no byte order mark.  Two sources are equal only
    if they are the same object.
    """

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text.removeprefix("\ufeff")

    def __deepcopy__(self, memo: object) -> Self:
        """What is copied with all that it refers to comes from the same text."""
        return self

    def __repr__(self) -> str:
        return f"Source({self.name!r}, {len(self.text)} characters)"

    @cached_property
    def line_starts(self) -> list[int]:
        """Offset of the first character of each line."""
        return [0, *(match.end() for match in _LINE_END.finditer(self.text))]

    def position(self, offset: int) -> Position:
        """The line and column of an offset."""
        line = bisect_right(self.line_starts, offset)
        return Position(line, offset - self.line_starts[line - 1] + 1)

    def line(self, number: int) -> str:
        """The text of a line, counted from 1, without its end."""
        start = self.line_starts[number - 1]
        match = _LINE_END.search(self.text, start)
        return self.text[start : match.start() if match else len(self.text)]

    def span(self, start: int, end: int) -> Span:
        """The span from offset `start` up to, not including, offset `end`."""
        return Span(self, start, end)


@dataclass(frozen=True, slots=True)
class Span:
    """The characters from offset `start` up to, not including, `end` of a source."""

    source: Source
    start: int
    end: int

    def __repr__(self) -> str:
        return f"Span({self})"

    def __str__(self) -> str:
        """As in messages: `file:line:column`."""
        begin = self.begin
        return f"{self.file}:{begin.line}:{begin.column}"

    @property
    def file(self) -> str:
        """Name of the source file."""
        return self.source.name

    @property
    def text(self) -> str:
        """The characters that the span covers."""
        return self.source.text[self.start : self.end]

    @property
    def begin(self) -> Position:
        """Position of the first character."""
        return self.source.position(self.start)

    @property
    def finish(self) -> Position:
        """Position just after the last character."""
        return self.source.position(self.end)

    def to(self, last: Span) -> Span:
        """The span from the start of this one to the end of `last`, of the same source."""
        return Span(self.source, self.start, last.end)
