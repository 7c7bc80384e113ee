"""Text to tokens.

Every character is either in a token, in a comment, blank, or in a diagnostic.  An `ERROR` token
stands where a mistake was, so that later stages do not report the same line again.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from mapsto.dsl.diagnostics import Collector, Diagnostic, DiagnosticError, Fact, Help, Kind, report
from mapsto.dsl.lalr import Token
from mapsto.dsl.source import Source
from mapsto.dsl.tables import load_table

__all__ = ["ERROR", "LINE_END", "MAXIMUM_CHARACTERS", "Comment", "Tokens", "scan"]

MAXIMUM_CHARACTERS = 500_000
"""Longer sources are refused."""

ERROR = "ERROR"
LINE_END = "_NEWLINE"

_LARGEST_INTEGER = 2**63 - 1
_ELSEWHERE = {"&&": "and", "&": "and", "||": "or", "|": "or", "!": "not"}
_ADVICE = {"'": Help.DOUBLE_QUOTES, ";": Help.ONE_STATEMENT_A_LINE}


class Comment(NamedTuple):
    """A comment, with its `#`, at offsets `start` to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens of a source, with a `LINE_END` for every line break, and its comments."""

    tokens: list[Token]
    comments: list[Comment]


class _Language(NamedTuple):
    scanner: re.Pattern[str]
    integer: re.Pattern[str]
    float: re.Pattern[str]
    keywords: frozenset[str]


@cache
def _language() -> _Language:
    """The regular expressions of the grammar's terminals."""
    table = load_table()
    operators = sorted((t for t in table.literals if not t.isalpha()), key=len, reverse=True)
    groups = {
        "SPACE": r"[ \t]+",
        "COMMENT": r"#[^\r\n]*",
        LINE_END: r"\r\n|\n|\r",
        "NUMBER": r"\.?[0-9](?:[eE][+-](?=[0-9])|\.(?!\.)|\w)*",
        "NAME": table.patterns["NAME"],
        "STRING": table.patterns["STRING"],
        "OPERATOR": "|".join(map(re.escape, operators)),
    }
    return _Language(
        re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in groups.items())),
        re.compile(table.patterns["INTEGER"]),
        re.compile(table.patterns["FLOAT"]),
        frozenset(filter(str.isalpha, table.literals)),
    )


def scan(source: Source, collector: Collector, part: slice = slice(None)) -> Tokens:
    """The tokens of a source, or of a part of it; mistakes go to the collector.

    Raises:
        DiagnosticError: the rest of the source is not worth looking at; already collected.
    """
    if len(source.text) > MAXIMUM_CHARACTERS:
        span = source.span(0, 0)
        collector.add(report(Kind.SOURCE_TOO_LONG, span, limit=MAXIMUM_CHARACTERS))
        return Tokens([], [])
    scanner = _Scanner(source, collector)
    scanner.run(*part.indices(len(source.text))[:2])
    return Tokens(scanner.tokens, scanner.comments)


class _Scanner:
    def __init__(self, source: Source, collector: Collector) -> None:
        self.source = source
        self.text = source.text
        self.collector = collector
        self.tokens: list[Token] = []
        self.comments: list[Comment] = []
        self.language = _language()

    def run(self, position: int, end: int) -> None:
        match = self.language.scanner.match
        while position < end:
            found = match(self.text, position)
            if found is None:
                position = self.unexpected(position)
                continue
            position = found.end()
            if found.lastgroup != "SPACE":
                position = self.token(str(found.lastgroup), found.start(), position)

    def token(self, group: str, start: int, end: int) -> int:
        """Add the token of a match; where to go on."""
        text = self.text[start:end]
        if group == "COMMENT":
            self.comments.append(Comment(start, end))
            return end
        if group == "STRING" and text == '""' and self.text.startswith('"', end):
            return self.unterminated(start, len(self.text))
        if group == "NUMBER":
            group = self.number(text, start, end)
        elif group == "OPERATOR" or text in self.language.keywords:
            group = text
        self.tokens.append(Token(group, start, end))
        return end

    def number(self, text: str, start: int, end: int) -> str:
        """The type of a number's token."""
        span = self.source.span(start, end)
        if self.language.integer.fullmatch(text):
            digits = text.replace("_", "")
            if len(digits) < 30 and int(digits, 16 if "x" in text.lower() else 10) <= (
                _LARGEST_INTEGER
            ):
                return "INTEGER"
            self.collector.add(report(Kind.NUMBER_TOO_LARGE, span, type="i64"))
            return ERROR
        if not self.language.float.fullmatch(text):
            self.collector.add(report(Kind.BAD_NUMBER, span, text=_shorten(text)))
            return ERROR
        if float(text) == float("inf"):
            self.collector.add(report(Kind.NUMBER_TOO_LARGE, span, type="f64"))
            return ERROR
        return "FLOAT"

    def unexpected(self, position: int) -> int:
        """Report what starts no token; where to go on."""
        if self.text[position] == '"':
            return self.unterminated(position, _end_of_line(self.text, position))
        end = position + 1
        while end < len(self.text) and self.text[end] == self.text[position]:
            end += 1
        span = self.source.span(position, end)
        help, facts = _advise(self.text[position:end])
        facts["character"] = _describe(self.text[position])
        diagnostic = Diagnostic(Kind.UNEXPECTED_CHARACTER, span, facts, help=help)
        self.collector.add(diagnostic)
        self.tokens.append(Token(ERROR, position, end))
        return end

    def unterminated(self, start: int, end: int) -> int:
        quotes = '"""' if self.text.startswith('"""', start) else '"'
        span = self.source.span(start, start + len(quotes))
        self.collector.add(
            report(Kind.UNTERMINATED_STRING, span, help=Help.CLOSE_STRING, quotes=quotes)
        )
        self.tokens.append(Token(ERROR, start, end))
        if len(quotes) == 3:
            raise DiagnosticError(self.collector.diagnostics[-1])
        return end


def _end_of_line(text: str, position: int) -> int:
    ends = [end for end in (text.find("\n", position), text.find("\r", position)) if end >= 0]
    return min(ends, default=len(text))


def _shorten(text: str) -> str:
    return text if len(text) <= 30 else f"{text[:27]}..."


def _advise(text: str) -> tuple[Help | None, dict[str, Fact]]:
    """How to write what a run of unexpected characters means in other languages."""
    if text in _ELSEWHERE:
        return Help.WRITE_INSTEAD, {"replacement": _ELSEWHERE[text]}
    return _ADVICE.get(text), {}


def _describe(character: str) -> str:
    """A character for a message: itself if it can be seen, else its code point and name."""
    if character.isprintable() and not character.isspace():
        return f"`{character}`"
    name = unicodedata.name(character, "control character").lower()
    return f"U+{ord(character):04X} ({name})"
