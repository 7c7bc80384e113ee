"""Lines and blocks: where statements end and which lines lie inside which.

A logical line is what one statement or header takes: brackets and a leading `->` join physical
lines.  Its depth is the number of blocks around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mapsto.dsl.diagnostics import (
    Collector,
    Diagnostic,
    DiagnosticError,
    Help,
    Kind,
    Note,
    NoteKind,
    report,
)
from mapsto.dsl.lalr import Token
from mapsto.dsl.lexer import ERROR, LINE_END
from mapsto.dsl.source import Source

__all__ = ["BROKEN", "MAXIMUM_BLOCKS", "MAXIMUM_BRACKETS", "Line", "lay_out"]

MAXIMUM_BRACKETS = 64
MAXIMUM_BLOCKS = 24
BROKEN = "_BROKEN"

_CLOSING = {"(": ")", "[": "]"}
_OPENING = {")": "(", "]": "["}
_HEADERS = {"map", "module", "train", "if", "elif", "else", "for", "_GRADIENT", "_LOSS", "_METRIC"}
_STARTERS = {"map", "module", "train", "import", "from", "for"}
_TAB = 8


@dataclass(slots=True)
class Line:
    """A logical line; `damaged` if a mistake in it has been reported."""

    tokens: list[Token] = field(default_factory=list)
    depth: int = 0
    damaged: bool = False

    @property
    def start(self) -> int:
        """Offset of the first token."""
        return self.tokens[0].start

    @property
    def end(self) -> int:
        """Offset after the last token."""
        return self.tokens[-1].end

    @property
    def opens_block(self) -> bool:
        """Whether deeper lines must follow."""
        return self.tokens[-1].type == ":"


def lay_out(source: Source, tokens: Iterable[Token], collector: Collector) -> list[Line]:
    """The logical lines of a source with their depths; mistakes go to the collector.

    Raises:
        DiagnosticError: the rest of the source is not worth looking at; already collected.
    """
    joiner = _Joiner(source, collector)
    for token in tokens:
        joiner.feed(token)
    joiner.finish()
    for line in joiner.lines:
        _mark_soft_keywords(source, line.tokens)
    return _Nester(source, collector).nest(joiner.lines)


class _Joiner:
    """Joins physical lines to logical ones."""

    def __init__(self, source: Source, collector: Collector) -> None:
        self.source = source
        self.collector = collector
        self.lines: list[Line] = []
        self.line = Line()
        self.brackets: list[Token] = []
        self.fresh = True

    def feed(self, token: Token) -> None:
        if token.type == LINE_END:
            self.fresh = True
            if not self.brackets:
                self.end_line()
            return
        if self.fresh:
            self.begin_line(token)
        self.fresh = False
        if token.type in ("(", "["):
            self.open(token)
        elif token.type in (")", "]"):
            self.close(token)
        else:
            self.line.damaged |= token.type == ERROR
        self.line.tokens.append(token)

    def finish(self) -> None:
        self.report_unclosed()
        self.end_line()

    def end_line(self) -> None:
        if self.line.tokens:
            self.lines.append(self.line)
            self.line = Line()

    def begin_line(self, token: Token) -> None:
        if self.brackets and self.must_start_line(token):
            self.report_unclosed()
            self.end_line()
        if token.type == "->" and not self.line.tokens and self.lines:
            self.line = self.lines.pop()

    def must_start_line(self, token: Token) -> bool:
        """Whether a token inside brackets shows that a closing bracket was forgotten."""
        if token.type == "let":
            return True
        here, outside = self.source.position(token.start), self.source.position(self.line.start)
        return token.type in _STARTERS and here.column <= outside.column

    def report_unclosed(self) -> None:
        if not self.brackets:
            return
        token = self.brackets[-1]
        span = self.source.span(token.start, token.end)
        facts = {"bracket": token.type, "closing": _CLOSING[token.type]}
        self.collector.add(Diagnostic(Kind.UNCLOSED_BRACKET, span, facts))
        self.brackets.clear()
        self.line.damaged = True

    def open(self, token: Token) -> None:
        if len(self.brackets) == MAXIMUM_BRACKETS:
            span = self.source.span(token.start, token.end)
            help = Help.SPLIT_EXPRESSION
            diagnostic = report(Kind.NESTED_TOO_DEEPLY, span, help=help, limit=MAXIMUM_BRACKETS)
            self.collector.add(diagnostic)
            raise DiagnosticError(diagnostic)
        self.brackets.append(token)

    def close(self, token: Token) -> None:
        span = self.source.span(token.start, token.end)
        if not self.brackets:
            self.line.damaged = True
            self.collector.add(report(Kind.UNMATCHED_BRACKET, span, bracket=token.type))
            return
        opening = self.brackets.pop()
        expected = _CLOSING[opening.type]
        if token.type == expected:
            return
        self.line.damaged = True
        if any(bracket.type == _OPENING[token.type] for bracket in self.brackets):
            while self.brackets.pop().type != _OPENING[token.type]:
                continue
        note = Note(
            NoteKind.OPENED_HERE,
            self.source.span(opening.start, opening.end),
            {"bracket": opening.type},
        )
        facts = {"bracket": token.type, "closing": expected}
        self.collector.add(Diagnostic(Kind.MISMATCHED_BRACKET, span, facts, (note,)))


def _mark_soft_keywords(source: Source, tokens: list[Token]) -> None:
    """Make keywords of the names that are ones only at the start of certain lines."""
    first, second = tokens[0], tokens[1] if len(tokens) > 1 else None
    if first.type != "NAME" or second is None:
        return
    word = source.text[first.start : first.end]
    if word in ("param", "state", "metric") and second.type == "NAME":
        tokens[0] = first._replace(type=f"_{word.upper()}")
    elif word == "loss" and second.type == "NAME":
        tokens[0] = first._replace(type="_LOSS")
    elif word == "gradient" and source.text[second.start : second.end] == "unchecked":
        _mark_unchecked(tokens)
    elif word in ("loss", "gradient") and second.type == "(":
        after = _after_group(tokens)
        follow = (":",) if word == "gradient" else (":", "=", "->")
        if after is not None and after.type in follow:
            tokens[0] = first._replace(type=f"_{word.upper()}")


def _mark_unchecked(tokens: list[Token]) -> None:
    """Make keywords of the first two names in `gradient unchecked (dy):`."""
    rest = tokens[1:]
    after = _after_group(rest) if len(rest) > 1 and rest[1].type == "(" else None
    if after is not None and after.type == ":":
        tokens[0] = tokens[0]._replace(type="_GRADIENT")
        tokens[1] = tokens[1]._replace(type="_UNCHECKED")


def _after_group(tokens: Sequence[Token]) -> Token | None:
    """The token after the bracket that closes the one at index 1."""
    depth = 0
    for index, token in enumerate(tokens):
        depth += (token.type in _CLOSING) - (token.type in _CLOSING.values())
        if index and depth == 0:
            return tokens[index + 1] if index + 1 < len(tokens) else None
    return None


@dataclass(slots=True)
class _Level:
    column: int
    depth: int


class _Nester:
    """Gives each line its depth from its indentation."""

    def __init__(self, source: Source, collector: Collector) -> None:
        self.source = source
        self.collector = collector
        self.levels = [_Level(0, 0)]
        self.nested: list[Line] = []
        self.tab_reported = False

    def nest(self, lines: Iterable[Line]) -> list[Line]:
        for line in lines:
            self.place(line)
            self.nested.append(line)
        self.check_block()
        return self.nested

    def place(self, line: Line) -> None:
        column = self.column(line)
        if column > self.levels[-1].column:
            self.indent(line, column)
        else:
            self.check_block()
            self.dedent(line, column)
        line.depth = self.levels[-1].depth

    def indent(self, line: Line, column: int) -> None:
        previous = self.nested[-1] if self.nested else None
        depth = self.levels[-1].depth
        if previous and (previous.opens_block or previous.damaged):
            depth += 1
        elif previous and previous.tokens[0].type in _HEADERS:
            self.insert_colon(previous)
            depth += 1
        else:
            span = self.source.span(line.start, line.tokens[0].end)
            self.collector.add(report(Kind.UNEXPECTED_INDENT, span, help=Help.ALIGN))
        if depth > MAXIMUM_BLOCKS:
            span = self.source.span(line.start, line.tokens[0].end)
            diagnostic = report(Kind.NESTED_TOO_DEEPLY, span, limit=MAXIMUM_BLOCKS)
            self.collector.add(diagnostic)
            raise DiagnosticError(diagnostic)
        self.levels.append(_Level(column, depth))

    def insert_colon(self, line: Line) -> None:
        end = line.end
        span = self.source.span(end, end)
        self.collector.add(report(Kind.MISSING_COLON, span, help=Help.ADD_COLON))
        line.tokens.append(Token(":", end, end))

    def dedent(self, line: Line, column: int) -> None:
        depth = self.levels[-1].depth
        while self.levels[-1].column > column:
            depth = self.levels.pop().depth
        if self.levels[-1].column < column:
            span = self.source.span(line.start, line.tokens[0].end)
            self.collector.add(report(Kind.INCONSISTENT_DEDENT, span, help=Help.ALIGN))
            self.levels.append(_Level(column, depth))

    def check_block(self) -> None:
        """A line that opens a block needs a deeper one after it; put a broken one there if not."""
        if not self.nested or not self.nested[-1].opens_block:
            return
        line = self.nested[-1]
        if not line.damaged:
            span = self.source.span(line.tokens[-1].start, line.end)
            self.collector.add(report(Kind.MISSING_BLOCK, span, help=Help.ADD_BLOCK))
        self.nested.append(Line([Token(BROKEN, line.end, line.end)], line.depth + 1, damaged=True))

    def column(self, line: Line) -> int:
        """Width of a line's indentation."""
        start = line.start - self.source.position(line.start).column + 1
        indentation = self.source.text[start : line.start]
        if "\t" in indentation and not self.tab_reported:
            self.tab_reported = True
            tab = start + indentation.index("\t")
            span = self.source.span(tab, tab + 1)
            self.collector.add(report(Kind.TAB_INDENTATION, span, help=Help.USE_SPACES))
        return len(indentation.expandtabs(_TAB))
