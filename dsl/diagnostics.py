"""Diagnostics as data: what is wrong, where, and the facts that a message needs.

Nothing here is a sentence.  `mapsto.dsl.wording` turns a kind and its facts into words and
`mapsto.dsl.render` draws them under the source line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from mapsto.dsl.source import Span

__all__ = [
    "MAXIMUM_ERRORS",
    "Collector",
    "Diagnostic",
    "DiagnosticError",
    "Fact",
    "Help",
    "Kind",
    "Note",
    "NoteKind",
    "nearest",
    "report",
]

MAXIMUM_ERRORS = 20
"""After so many errors in a file the rest is not looked at."""

_LONGEST_MISSPELLING = 40

Fact = object
"""A fact of a message: shown by `str`, or as a list of alternatives if it is a tuple."""


class Kind(Enum):
    """What is wrong.  `mapsto.dsl.wording.MESSAGES` has one sentence for each."""

    # The text
    SOURCE_TOO_LONG = auto()
    UNREADABLE_FILE = auto()
    UNEXPECTED_CHARACTER = auto()
    UNTERMINATED_STRING = auto()
    BAD_ESCAPE = auto()
    BAD_NUMBER = auto()
    NUMBER_TOO_LARGE = auto()
    TAB_INDENTATION = auto()
    UNEXPECTED_INDENT = auto()
    INCONSISTENT_DEDENT = auto()
    MISSING_BLOCK = auto()
    UNCLOSED_BRACKET = auto()
    UNMATCHED_BRACKET = auto()
    MISMATCHED_BRACKET = auto()
    NESTED_TOO_DEEPLY = auto()
    TOO_MANY_ERRORS = auto()

    # The grammar
    UNEXPECTED_TOKEN = auto()
    UNKNOWN_STATEMENT = auto()
    MISPLACED_STATEMENT = auto()
    MISSING_COLON = auto()
    KEYWORD_AS_NAME = auto()
    CHAINED_COMPARISON = auto()
    ASSIGNMENT_WITHOUT_LET = auto()
    FOREIGN_SPELLING = auto()
    BAD_BINDER = auto()
    MISPLACED_SPREAD = auto()
    BAD_UPDATE_TARGET = auto()
    POSITIONAL_AFTER_NAMED = auto()
    UNTYPED_PARAMETER = auto()
    MISPLACED_DOCSTRING = auto()
    UNNAMED_IMPORT = auto()


class NoteKind(Enum):
    """A second place that explains a diagnostic; `wording.NOTES` has the words."""

    OPENED_HERE = auto()
    DIMENSION_FROM = auto()
    VALUE_HAS_TYPE = auto()
    DEFINED_HERE = auto()
    CALLED_HERE = auto()


class Help(Enum):
    """A way to repair a mistake; `wording.HELPS` has the words."""

    DID_YOU_MEAN = auto()
    USE_SPACES = auto()
    CLOSE_STRING = auto()
    DOUBLE_QUOTES = auto()
    DOUBLE_BACKSLASH = auto()
    ADD_ALIAS = auto()
    ALIGN = auto()
    ADD_BLOCK = auto()
    ADD_COLON = auto()
    OTHER_NAME = auto()
    SPLIT_EXPRESSION = auto()
    SPLIT_COMPARISON = auto()
    WRITE_LET = auto()
    DROP_RETURN = auto()
    ONE_STATEMENT_A_LINE = auto()
    BELONGS = auto()
    WRITE_INSTEAD = auto()
    WRITE_BINDERS = auto()
    UPDATE_STATE = auto()
    POSITIONAL_FIRST = auto()
    ADD_TYPE = auto()


@dataclass(frozen=True, slots=True)
class Note:
    """A place that explains a diagnostic, such as where a dimension got its value."""

    kind: NoteKind
    span: Span | None
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """A mistake in a program: its kind, the smallest span that has it, and the facts about it."""

    kind: Kind
    span: Span
    facts: Mapping[str, Fact] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    help: Help | None = None


class DiagnosticError(Exception):
    """Carries a diagnostic to whoever collects them."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        super().__init__(diagnostic.kind.name)
        self.diagnostic = diagnostic


class Collector:
    """Gathers diagnostics, up to a number that a reader can use."""

    def __init__(self, limit: int = MAXIMUM_ERRORS) -> None:
        self.diagnostics: list[Diagnostic] = []
        self._limit = limit

    def add(self, diagnostic: Diagnostic) -> None:
        """Take a diagnostic.

        Raises:
            DiagnosticError: there are too many; the last one says so.
        """
        self.diagnostics.append(diagnostic)
        if len(self.diagnostics) == self._limit:
            last = report(Kind.TOO_MANY_ERRORS, diagnostic.span, limit=self._limit)
            self.diagnostics.append(last)
            raise DiagnosticError(last)


def report(
    kind: Kind,
    span: Span,
    *,
    notes: Iterable[Note] = (),
    help: Help | None = None,
    **facts: Fact,
) -> Diagnostic:
    """A diagnostic with its facts given by name: `report(Kind.BAD_NUMBER, span, text="1x")`."""
    return Diagnostic(kind, span, facts, tuple(notes), help)


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` is most likely a misspelling of, or None if none is close.

    Close is at most a third of the letters inserted, deleted, replaced or swapped with their
    neighbour; of very short names only the case may differ.
    """
    if len(name) > _LONGEST_MISSPELLING:
        return None
    limit = len(name) // 3
    near = [other for other in candidates if other != name and abs(len(other) - len(name)) <= limit]
    ranked = sorted((_distance(name.casefold(), other.casefold()), other) for other in near)
    return ranked[0][1] if ranked and ranked[0][0] <= limit else None


def _distance(first: str, second: str) -> int:
    """Optimal string alignment distance (Damerau 1964, restricted edits)."""
    rows = [list(range(len(second) + 1))]
    for i, letter in enumerate(first, 1):
        row = [i]
        for j, other in enumerate(second, 1):
            cost = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and other == first[i - 2]:
                cost = min(cost, rows[-2][j - 2] + 1)
            row.append(cost)
        rows.append(row)
    return rows[-1][-1]
