"""The canonical layout of a source text, for `mapsto fmt`.

The layout is made from tokens, so that comments and the spelling of literals survive; the tree
stays the same.  Blocks are indented by four spaces.  There is a blank line around every definition
with a block, elsewhere at most the one that was there.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mapsto.dsl.diagnostics import Collector, Diagnostic
from mapsto.dsl.layout import Line, lay_out
from mapsto.dsl.lexer import scan
from mapsto.dsl.line_layout import STEP, Comment, lay_out_line
from mapsto.dsl.parser import parse
from mapsto.dsl.source import Source
from mapsto.dsl.strings import clean_docstring
from mapsto.dsl.syntax import Docstring, walk

__all__ = ["SyntaxErrors", "format_source"]

_DEFINITIONS = ("map", "module", "train")
_CLAUSES = ("elif", "else", "_GRADIENT")


class SyntaxErrors(Exception):
    """A text cannot be laid out because it has these syntax errors."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__(f"{len(diagnostics)} syntax errors")
        self.diagnostics = diagnostics


def format_source(text: str, name: str = "<text>") -> str:
    """The text in canonical layout; the same text if it has that already.

    Raises:
        SyntaxErrors: the text is not a program.
    """
    source = Source(name, text)
    program, diagnostics = parse(source)
    if diagnostics:
        raise SyntaxErrors(diagnostics)
    docstrings = {node.span.start for node in walk(program) if isinstance(node, Docstring)}
    rows = _Layout(source, docstrings).rows()
    _separate_definitions(rows)
    lines = [line for row in rows for line in ([""] * row.blank + row.lines)]
    return "".join(f"{line}\n" for line in lines)


@dataclass(slots=True)
class _Row:
    """Output lines of a statement or of a comment; `blank` if a blank line stands above."""

    lines: list[str]
    depth: int
    blank: bool
    line: Line | None = None
    opens_block: bool = False


class _Layout:
    """The rows of a source, in order."""

    def __init__(self, source: Source, docstrings: set[int]) -> None:
        self.source = source
        self.docstrings = docstrings
        collector = Collector()
        tokens = scan(source, collector)
        self.lines = lay_out(source, tokens.tokens, collector)
        self.comments = [self.comment(start, end) for start, end in tokens.comments]
        self.columns = [0]

    def comment(self, start: int, end: int) -> Comment:
        text = self.source.text[start:end].rstrip()
        if len(text) > 1 and text[1] not in " !#":
            text = f"# {text[1:]}"
        first = start - self.source.position(start).column + 1
        return Comment(text, start, not self.source.text[first:start].strip())

    def rows(self) -> list[_Row]:
        rows: list[_Row] = []
        starts = [comment.start for comment in self.comments]
        done = 0
        for number, line in enumerate(self.lines):
            inside, after = bisect_left(starts, line.start), bisect_left(starts, line.end)
            rows += self.comment_rows(self.comments[done:inside], number)
            trailing = after < len(starts) and self.is_behind(self.comments[after], line)
            rows += self.line_rows(line, self.comments[inside:after])
            if trailing:
                rows[-1].lines[-1] += f"  {self.comments[after].text}"
            done = after + trailing
        rows += self.comment_rows(self.comments[done:], len(self.lines))
        if rows:
            rows[0].blank = False
        return rows

    def is_behind(self, comment: Comment, line: Line) -> bool:
        return not self.source.text[line.end : comment.start].strip(" \t")

    def line_rows(self, line: Line, comments: Sequence[Comment]) -> Iterator[_Row]:
        column = self.source.position(line.start).column - 1
        self.columns[line.depth :] = [column]
        indent = line.depth * STEP
        lines, above = lay_out_line(line.tokens, self.texts(line), comments, indent)
        blank = self.blank_above(line.start)
        for text in above:
            yield _Row([" " * indent + text], line.depth, blank)
            blank = False
        yield _Row(lines, line.depth, blank, line, line.opens_block)

    def texts(self, line: Line) -> list[str]:
        text = self.source.text
        texts = [text[token.start : token.end] for token in line.tokens]
        if line.start in self.docstrings:
            return [_docstring(texts[0], line.depth * STEP)]
        return [_with_line_feeds(text) for text in texts]

    def comment_rows(self, comments: Sequence[Comment], number: int) -> Iterator[_Row]:
        """Rows of the comments above a line."""
        for comment in comments:
            depth = self.comment_depth(comment, number)
            text = " " * (depth * STEP) + comment.text
            yield _Row([text], depth, self.blank_above(comment.start))

    def comment_depth(self, comment: Comment, number: int) -> int:
        """Depth of a comment above a line: at the end of a block its own indentation decides."""
        following = self.lines[number].depth if number < len(self.lines) else 0
        if number == 0 or self.lines[number - 1].opens_block:
            return following
        column = self.source.position(comment.start).column - 1
        deeper = [d for d, known in enumerate(self.columns) if d > following and known <= column]
        return max(deeper, default=following)

    def blank_above(self, offset: int) -> bool:
        """Whether the line above that of an offset is blank."""
        number = self.source.position(offset).line
        return number > 1 and not self.source.line(number - 1).strip()


def _separate_definitions(rows: Sequence[_Row]) -> None:
    """Settle the blank lines above statements, and above the comments that belong to them."""
    siblings: list[_Row | None] = []
    for number, row in enumerate(rows):
        if row.line is None:
            continue
        previous = siblings[row.depth] if row.depth < len(siblings) else None
        siblings[row.depth :] = [*[None] * (row.depth - len(siblings)), row]
        first = _first_comment(rows, number)
        if row.line.tokens[0].type in _CLAUSES:
            first.blank = False
        elif previous is not None and (_is_block(previous) or _is_block(row)):
            first.blank = True
    for above, row in pairwise(rows):
        row.blank = row.blank and not above.opens_block


def _first_comment(rows: Sequence[_Row], number: int) -> _Row:
    """The first of the comments right above a row, or the row itself."""
    while number and not rows[number].blank and _is_comment(rows[number - 1], rows[number].depth):
        number -= 1
    return rows[number]


def _is_comment(row: _Row, depth: int) -> bool:
    return row.line is None and row.depth == depth


def _is_block(row: _Row) -> bool:
    """Whether a row starts a definition that has a block."""
    return row.opens_block and row.line is not None and row.line.tokens[0].type in _DEFINITIONS


def _docstring(text: str, indent: int) -> str:
    """A docstring with its lines indented; with escapes it is left as it is."""
    if not text.startswith('"""') or "\\" in text:
        return _with_line_feeds(text)
    cleaned = clean_docstring(_with_line_feeds(text[3:-3]))
    if "\n" not in cleaned:
        return f'"""{cleaned}"""'
    margin = "\n" + " " * indent
    inner = re.sub(r"\n(?=[^\n])", margin, cleaned)
    start = "" if clean_docstring(inner) == cleaned else margin
    return f'"""{start}{inner}{margin}"""'


def _with_line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
