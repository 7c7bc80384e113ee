"""Source text to syntax tree.

Parsing takes linear time, and a mistake costs one line: what the line put on the stack is dropped,
a `Broken` node takes its place and that of the lines below it, and parsing goes on behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mapsto.dsl.builder import Builder
from mapsto.dsl.diagnostics import Collector, Diagnostic, DiagnosticError, Help, Kind, report
from mapsto.dsl.explain import explain
from mapsto.dsl.lalr import MAXIMUM_DEPTH, Automaton, Token, TooDeep, UnexpectedToken
from mapsto.dsl.layout import BROKEN, Line, lay_out
from mapsto.dsl.lexer import scan
from mapsto.dsl.source import Source
from mapsto.dsl.syntax import Broken, Definition, Docstring, Program
from mapsto.dsl.tables import END, load_table

__all__ = ["parse"]

_CONTINUATIONS = ("_GRADIENT", "elif", "else")


def parse(source: Source, part: slice = slice(None)) -> tuple[Program, list[Diagnostic]]:
    """The tree of a source text, or of a part of it that has whole definitions, and the mistakes in
    it, in the order of the text.

    Any text gives an answer.  Where there are diagnostics the tree has `Broken` nodes, or is empty
    if the text is not worth looking at.
    """
    collector = Collector()
    definitions: list[Definition | Docstring] = []
    try:
        tokens = scan(source, collector, part).tokens
        lines = lay_out(source, tokens, collector)
        for group in _groups(lines):
            definitions.append(_Definition(source, group, collector).parse())
    except DiagnosticError:
        pass  # the collector has it
    diagnostics = collector.diagnostics
    program = _program(source, definitions, diagnostics)
    return program, sorted(diagnostics, key=lambda diagnostic: diagnostic.span.start)


def _program(
    source: Source,
    definitions: Sequence[Definition | Docstring],
    diagnostics: list[Diagnostic],
) -> Program:
    docstring = None
    if definitions and isinstance(definitions[0], Docstring):
        docstring = definitions[0]
    for definition in definitions[1:]:
        if isinstance(definition, Docstring):
            diagnostics.append(report(Kind.MISPLACED_DOCSTRING, definition.span))
    rest = tuple(item for item in definitions if not isinstance(item, Docstring))
    return Program(source.span(0, len(source.text)), docstring, rest)


def _groups(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """The lines of each definition."""
    start = 0
    for number, line in enumerate(lines):
        begins = line.depth == 0 and line.tokens[0].type not in _CONTINUATIONS
        if begins and number > start:
            yield lines[start:number]
            start = number
    if lines:
        yield lines[start:]


class _Definition:
    """The parse of one definition."""

    def __init__(self, source: Source, lines: Sequence[Line], collector: Collector) -> None:
        self.source = source
        self.lines = lines
        self.collector = collector
        builder = Builder(source, collector)
        self.automaton = Automaton(load_table(), builder.actions)
        self.depth = 0

    def parse(self) -> Definition | Docstring:
        skipped_depth: int | None = None
        for number, line in enumerate(self.lines):
            if skipped_depth is not None and line.depth > skipped_depth:
                continue
            skipped_depth = None
            if self.take(line, self.lines[number - 1].end if number else line.start):
                continue
            skipped_depth = line.depth
            if not self.replace(line):
                return self.broken()
        return self.finish()

    def take(self, line: Line, previous_end: int) -> bool:
        """Parse a line; whether it had no mistake."""
        try:
            self.feed_depth(line.depth, previous_end)
            for token in line.tokens:
                self.automaton.feed(token)
            self.automaton.feed(Token("_NEWLINE", line.end, line.end))
        except (UnexpectedToken, TooDeep) as error:
            self.report(error, line)
            return False
        return True

    def feed_depth(self, depth: int, offset: int) -> None:
        """Open or close blocks, at the end of the line before."""
        while self.depth != depth:
            deeper = depth > self.depth
            self.automaton.feed(Token("_INDENT" if deeper else "_DEDENT", offset, offset))
            self.depth += 1 if deeper else -1

    def report(self, error: UnexpectedToken | TooDeep, line: Line) -> None:
        if line.damaged:
            return
        line.damaged = True
        if isinstance(error, UnexpectedToken):
            self.collector.add(explain(self.source, error, line))
            return
        span = self.source.span(error.token.start, error.token.end)
        help = Help.SPLIT_EXPRESSION
        self.collector.add(report(Kind.NESTED_TOO_DEEPLY, span, help=help, limit=MAXIMUM_DEPTH))

    def replace(self, line: Line) -> bool:
        """Put a `Broken` node for a line on the stack; whether one can stand there."""
        self.automaton.drop_from(line.start)
        if self.depth != line.depth or not self.automaton.accepts(BROKEN):
            return False
        self.automaton.feed(Token(BROKEN, line.start, line.end))
        self.automaton.feed(Token("_NEWLINE", line.end, line.end))
        return True

    def finish(self) -> Definition | Docstring:
        last = self.lines[-1]
        try:
            self.feed_depth(0, last.end)
            self.automaton.feed(Token(END, last.end, last.end))
        except (UnexpectedToken, TooDeep) as error:
            self.report(error, last)
            return self.broken()
        definition: Definition | Docstring = self.automaton.result
        return definition

    def broken(self) -> Broken:
        return Broken(self.source.span(self.lines[0].start, self.lines[-1].end))
